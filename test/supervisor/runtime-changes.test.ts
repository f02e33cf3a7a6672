import { describe, expect, test } from "vitest";
import type { BackendConfig, Config, PoolConfig } from "../../src/config/schema.ts";
import {
  describeOrder,
  PoolChanges,
  RuntimeChanges,
  type OperatorState,
} from "../../src/supervisor/runtime-changes.ts";
import { configOf } from "../support/config.ts";
import { forSeeds } from "../support/random.ts";

const toml = (...backends: string[]): string => `
  [listeners.web]
  bind = ":8080"
  pool = "app"
  [pools.app]
  backends = [${backends.join(", ")}]
`;
const entry = (name: string, at: number, weight = 1): string =>
  `{ address = "10.0.0.${at}:80", name = "${name}", weight = ${weight} }`;
const config = (...backends: string[]): Config => configOf(toml(...backends));
const pool = (...backends: string[]): PoolConfig => config(...backends).pools[0]!;
const backend = (name: string, at: number, weight = 1): BackendConfig => pool(entry(name, at, weight)).backends[0]!;
const NAMES = ({ backends }: PoolConfig): string => backends.map(({ name }) => name).join(" ");
const all = (name: string) => ({ name, address: null });

describe("an order", () => {
  const a = backend("a", 1);

  test("applies to the backend that it names, until it is revoked", () => {
    const changes = new PoolChanges();
    expect(changes.order(a, "10.0.0.1:80")).toEqual({ state: "ready", weight: null, endAtMs: null });
    changes.setState(all("a"), "drain", 5000);
    changes.setWeight(all("a"), 3, 1);
    expect(changes.order(a, "10.0.0.1:80")).toEqual({ state: "drain", weight: 3, endAtMs: 5000 });
    expect(changes.order(backend("b", 2), "10.0.0.2:80").state).toBe("ready");
    changes.setState(all("a"), "ready", null);
    expect(changes.order(a, "10.0.0.1:80")).toEqual({ state: "ready", weight: 3, endAtMs: null });
    changes.setWeight(all("a"), null, 1);
    expect(changes.isEmpty).toBe(true);
  });

  test("for a name applies to addresses that it resolves to later, and one for an address only to that address", () => {
    const changes = new PoolChanges();
    changes.setState(all("a"), "drain", null);
    expect(changes.order(a, "10.0.0.99:80").state).toBe("drain");
    changes.setState({ name: "a", address: "10.0.0.2:80" }, "ready", null);
    changes.setWeight({ name: "a", address: "10.0.0.2:80" }, 5, 1);
    expect(["10.0.0.1:80", "10.0.0.2:80"].map((address) => changes.order(a, address).state)).toEqual([
      "drain",
      "ready",
    ]);
    expect(changes.order(a, "10.0.0.2:80").weight).toBe(5);
    changes.setState(all("a"), "maintenance", null);
    expect(changes.order(a, "10.0.0.2:80")).toEqual({ state: "maintenance", weight: 5, endAtMs: null });
    changes.setWeight(all("a"), null, 1);
    changes.setState(all("a"), "ready", null);
    expect(changes.isEmpty).toBe(true);
  });

  test("of a weight ends when the file's weight changes, and one of a state does not", () => {
    const changes = new PoolChanges();
    changes.setWeight(all("a"), 3, 1);
    changes.setState(all("a"), "drain", null);
    expect(changes.follow(pool(entry("a", 1), entry("b", 2)))).toEqual([]);
    // In force at once, before anybody is told.
    expect(changes.order(backend("a", 1, 2), "10.0.0.1:80").weight).toBeNull();
    expect(changes.follow(pool(entry("a", 1, 2)))).toEqual(["backends.a: weight 3 by API, and the file says 2 now"]);
    expect(changes.order(a, "10.0.0.1:80")).toMatchObject({ state: "drain", weight: null });
    expect(changes.follow(pool(entry("b", 2)))).toEqual(["backends.a: the backend is gone"]);
    expect(changes.isEmpty).toBe(true);
  });

  test("is due once", () => {
    const changes = new PoolChanges();
    changes.setState(all("a"), "drain", 5000);
    changes.setState(all("b"), "drain", 7000);
    expect(changes.nextDueMs).toBe(5000);
    expect(changes.takeDue(4999)).toEqual([]);
    expect(changes.takeDue(5000)).toEqual([all("a")]);
    expect(changes.takeDue(6000)).toEqual([]);
    expect([changes.nextDueMs, changes.order(a, "").state]).toEqual([7000, "drain"]);
  });

  test("is described for the status", () => {
    expect(describeOrder({ state: "ready", weight: 3, endAtMs: null }, 1)).toEqual(["weight 3 by API, file says 1"]);
    expect(describeOrder({ state: "drain", weight: 3, endAtMs: null }, null)).toEqual([
      "drain by API",
      "weight 3 by API",
    ]);
    const [drain] = describeOrder({ state: "drain", weight: null, endAtMs: performance.now() + 60_000 }, 1);
    const at = Date.parse(/^drain by API, its connections end at (\S+)$/.exec(drain!)![1]!);
    expect(Math.abs(at - Date.now() - 60_000)).toBeLessThan(5000);
  });
});

describe("a backend", () => {
  test("that is added exists until the file has it", () => {
    const changes = new PoolChanges();
    changes.add(backend("c", 3, 7));
    expect(NAMES(changes.appliedTo(pool(entry("a", 1))))).toBe("a c");
    expect(changes.isAdded("c")).toBe(true);
    expect(changes.follow(pool(entry("a", 1), entry("b", 2)))).toEqual([]);
    // By name or by address.
    for (const now of [pool(entry("a", 1), entry("c", 9)), pool(entry("a", 1), entry("d", 3))])
      expect(changes.appliedTo(now)).toEqual(now);
    expect(changes.follow(pool(entry("a", 1), entry("c", 9)))).toEqual([
      "backends.c: added by API, and the file has it now",
    ]);
    expect(changes.isAdded("c")).toBe(false);
  });

  test("of the file that is removed stays removed until its entry changes", () => {
    const changes = new PoolChanges();
    const undo = changes.remove(backend("b", 2));
    const file = pool(entry("a", 1), entry("b", 2));
    expect(NAMES(changes.appliedTo(file))).toBe("a");
    expect(changes.follow(file)).toEqual([]);
    expect(changes.removed).toEqual(["b"]);
    const changed = pool(entry("a", 1), entry("b", 2, 5));
    expect(NAMES(changes.appliedTo(changed))).toBe("a b");
    undo();
    expect(NAMES(changes.appliedTo(file))).toBe("a b");
    changes.remove(backend("b", 2));
    expect(changes.follow(changed)).toEqual(["backends.b: removed by API, and the file's entry has changed"]);
    expect(NAMES(changes.appliedTo(file))).toBe("a b");
  });

  test("that was added leaves no trace when it is removed", () => {
    const changes = new PoolChanges();
    changes.add(backend("c", 3));
    const undo = changes.remove(backend("c", 3));
    expect(changes.isEmpty).toBe(true);
    undo();
    expect(changes.isAdded("c")).toBe(true);
  });

  test("may be added with other settings if the file's is removed", () => {
    const changes = new PoolChanges();
    changes.remove(backend("a", 1));
    changes.add(backend("a", 1, 9));
    expect(changes.appliedTo(pool(entry("a", 1))).backends.map(({ weight }) => weight)).toEqual([9]);
    expect(changes.follow(pool(entry("a", 1)))).toEqual([]);
    expect(changes.appliedTo(pool(entry("a", 1, 2))).backends.map(({ weight }) => weight)).toEqual([2]);
  });
});

describe("all changes", () => {
  test("of a pool or listener that is no longer in the file are dropped", () => {
    const changes = new RuntimeChanges();
    changes.setListener("web", "drain");
    changes.ofPool("app").setState(all("a"), "drain", null);
    changes.ofPool("quiet");
    expect(changes.follow(config(entry("a", 1)))).toEqual([]);
    const other = configOf(toml(entry("a", 1)).replaceAll("app", "other").replaceAll("web", "new"));
    expect(changes.follow(other)).toEqual([
      "pools.app: the pool is not in the file any more",
      "listeners.web: the listener is not in the file any more",
    ]);
    expect(changes.isDrained("web")).toBe(false);
  });

  test("of a listener can be undone", () => {
    const changes = new RuntimeChanges();
    const undo = changes.setListener("web", "drain");
    expect(changes.isDrained("web")).toBe(true);
    undo();
    expect(changes.isDrained("web")).toBe(false);
  });

  test("survive JSON to another process, and nothing of the config changes", () => {
    forSeeds(300, (random) => {
      const file = config(...["a", "b", "c"].map((name, i) => entry(name, i + 1, random.below(3))));
      const before = JSON.stringify(file);
      const changes = new RuntimeChanges();
      for (let step = 0; step < 12; step++) {
        const of = changes.ofPool("app");
        const target = { name: random.pick(["a", "b", "c", "d"]), address: random.oneIn(3) ? "10.0.0.1:80" : null };
        const states: OperatorState[] = ["ready", "drain", "maintenance"];
        const kind = random.below(5);
        if (kind === 0) of.setState(target, random.pick(states), random.oneIn(2) ? 1000 * random.below(9) : null);
        else if (kind === 1) of.setWeight(target, random.oneIn(3) ? null : random.below(5), random.below(3));
        else if (kind === 2 && !of.isAdded("d")) of.add(backend("d", random.below(9)));
        else if (kind === 3) of.remove(random.pick(changes.appliedTo(file).pools[0]!.backends));
        else if (kind === 4) changes.setListener("web", random.oneIn(2) ? "drain" : "ready");
        if (changes.appliedTo(file).pools[0]!.backends.length === 0) break;
      }
      const other = new RuntimeChanges();
      const json = JSON.parse(JSON.stringify(changes)) as ReturnType<RuntimeChanges["toJSON"]>;
      other.restore(json);
      expect(other.appliedTo(file)).toEqual(changes.appliedTo(file));
      expect(other.isDrained("web")).toBe(changes.isDrained("web"));
      for (const one of changes.appliedTo(file).pools[0]!.backends) {
        const [was, is] = [changes, other].map((each) => each.ofPool("app").order(one, "10.0.0.1:80"));
        expect(is).toMatchObject({ state: was!.state, weight: was!.weight });
        if (was!.endAtMs === null) expect(is!.endAtMs).toBeNull();
        else expect(Math.abs(is!.endAtMs! - was!.endAtMs)).toBeLessThan(50);
      }
      expect(JSON.stringify(file)).toBe(before);
      // Taking the same file again drops no change.
      const applied = changes.appliedTo(file);
      changes.follow(file);
      expect(changes.appliedTo(file)).toEqual(applied);
    });
  });
});
