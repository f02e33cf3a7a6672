// The effects of changes of backends: the tiers that workers get, and the log.
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import type { PoolState } from "../../src/messages.ts";
import { BackendStates } from "../../src/supervisor/backend-states.ts";
import { poolTiers } from "../../src/supervisor/pool-tiers.ts";
import { Registry, type BackendRecord } from "../../src/supervisor/registry.ts";
import { configOf } from "../support/config.ts";
import { forSeeds } from "../support/random.ts";
import { recordingLog, type Said } from "../support/recording-log.ts";

const LETTERS = "abcdefghijklmnopqrstuvwxyz";

const toml = (pool: string, backends = ["a", "b", "c", "d"]): string => `
  [listeners.web]
  bind = ":8080"
  pool = "app"
  [pools.app]
  backends = [${backends.map((name, i) => `{ address = "10.0.0.${LETTERS.indexOf(name) + 1}:80", name = "${name}", weight = ${i === 0 ? 2 : 1} }`).join(", ")}]
  ${pool}
`;

function start(pool: string, backends?: string[]) {
  const registry = new Registry();
  const { log, said } = recordingLog();
  const sent: PoolState[] = [];
  const ended: number[][] = [];
  const failures = new Map<number, number>();
  const states = new BackendStates({
    registry,
    log,
    facts: (id) => ({ failure: failures.get(id) ?? 0 }),
    send: (state) => sent.push(state),
    endConnections: (ids) => ended.push([...ids]),
  });
  const load = (next: string, names?: string[]): void => {
    registry.commit(registry.draft(configOf(toml(next, names)), 1000, () => []));
    states.followConfig();
  };
  load(pool, backends);
  const record = (name: string): BackendRecord => registry.pools[0]!.backends.find((one) => one.name === name)!;
  const names = new Map<number, string>();
  /** "a:2000 b:1000" for the first tier that the workers last got. */
  const told = (): string => {
    for (const { id, name } of registry.backendById.values()) names.set(id, name);
    const [tier] = sent.at(-1)?.tiers ?? [];
    return (tier?.entries ?? []).map(({ id, effectiveWeight }) => `${names.get(id)}:${effectiveWeight}`).join(" ");
  };
  const health = (name: string, up: boolean): void => states.healthChanged(record(name).id, up, "refused");
  return { registry, states, said, sent, told, load, record, health, failures, ended };
}

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

describe("slow_start", () => {
  test("lets a backend that comes up again reach its weight in 20 steps", () => {
    const { told, sent, health, record } = start('slow_start = "10s"', ["a", "b"]);
    health("a", false);
    expect(told()).toBe("b:1000");
    health("a", true);
    expect(told()).toBe("a:200 b:1000");
    const before = sent.length;
    vi.advanceTimersByTime(5000);
    expect(told()).toBe("a:1100 b:1000");
    vi.advanceTimersByTime(5000);
    expect(told()).toBe("a:2000 b:1000");
    expect(sent.length - before).toBe(20);
    expect(record("a").state.rampFromMs).toBeNull();
    vi.advanceTimersByTime(60_000);
    expect(sent.length - before).toBe(20);
    expect(sent.map(({ version }) => version)).toEqual(sent.map(({ version }) => version).toSorted((x, y) => x - y));
  });

  test("does not apply to the backends of the first config, nor to one that its first check finds up", () => {
    const { told, health, record } = start('slow_start = "10s"\nhealth.initial = "down"', ["a", "b"]);
    expect([record("a").state.ramp, record("a").up]).toEqual([1, false]);
    health("a", true);
    health("b", true);
    expect(told()).toBe("a:2000 b:1000");
  });

  test("applies to one that comes up after failures although it was never up", () => {
    const { told, health, record, failures } = start('slow_start = "10s"\nhealth.initial = "down"', ["a", "b"]);
    failures.set(record("b").id, 1);
    health("a", true);
    health("b", true);
    expect(told()).toBe("a:2000 b:100");
  });

  test("survives a reload, and lets a backend that joins the pool ramp", () => {
    const { told, load, health, record } = start('slow_start = "10s"', ["a", "b"]);
    health("a", false);
    health("a", true);
    vi.advanceTimersByTime(5000);
    load('slow_start = "10s"\nretries = 1', ["a", "b", "c"]);
    expect([record("a").state.ramp, record("b").state.ramp, record("c").state.ramp]).toEqual([0.55, 1, 0.1]);
    vi.advanceTimersByTime(500);
    expect(told()).toBe("a:1190 b:1000 c:145");
    vi.advanceTimersByTime(10_000);
    expect(told()).toBe("a:2000 b:1000 c:1000");
  });

  test("starts again when the backend goes down while it ramps, and ends when the option is removed", () => {
    const { told, load, health, record } = start('slow_start = "10s"', ["a", "b"]);
    health("b", false);
    health("b", true);
    vi.advanceTimersByTime(5000);
    health("b", false);
    expect(told()).toBe("a:2000");
    expect(record("b").state).toMatchObject({ ramp: 1, rampFromMs: null });
    health("b", true);
    expect(told()).toBe("a:2000 b:100");
    load("", ["a", "b"]);
    expect(told()).toBe("a:2000 b:1000");
  });

  test.each(["source_hash", "first"])("is ignored by %s", (balance) => {
    const { told, health } = start(`slow_start = "10s"\nbalance = "${balance}"`, ["a", "b"]);
    health("b", false);
    health("b", true);
    expect(told()).toBe("a:2000 b:1000");
  });

  test("applies to a backend that its agent brings back from a drain", () => {
    const { told, states, record } = start('slow_start = "10s"\nhealth.agent_port = 99', ["a", "b"]);
    states.agentReported(record("b").id, { up: true, state: "drain", percent: 100 });
    expect(told()).toBe("a:2000");
    states.agentReported(record("b").id, { up: true, state: "ready", percent: 50 });
    expect(told()).toBe("a:2000 b:50");
  });
});

describe("panic mode", () => {
  test("is logged when it begins and when it ends, and lets every backend get connections", () => {
    const { told, health, said } = start("panic_threshold = 50");
    health("a", false);
    health("b", false);
    expect(told()).toBe("c:1000 d:1000");
    health("c", false);
    expect(told()).toBe("a:2000 b:1000 c:1000 d:1000");
    health("d", false);
    health("c", true);
    health("d", true);
    expect(told()).toBe("c:1000 d:1000");
    const tier = { pool: "app", tier: "primaries", backends: 4 };
    expect(said.filter(({ event }) => event.includes("panic"))).toEqual([
      { level: "warn", event: "pool in panic, health is ignored", ...tier, backends_up: 1, panic_threshold: 50 },
      { level: "info", event: "pool no longer in panic", ...tier, backends_up: 2 },
    ]);
  });
});

describe("the log of the tier in use", () => {
  const said = (all: readonly Said[]): string[] =>
    all.flatMap(({ level, event }) => (/^(pool|backend (up|down))/.test(event) ? `${level} ${event}` : []));

  test("says when backups take over, when nothing is left, and when the primaries are back, after the cause", () => {
    const run = start("", ["a", "b"]);
    run.record("b").config = { ...run.record("b").config, backup: true };
    run.states.followConfig();
    run.health("a", false);
    run.health("b", false);
    run.health("b", true);
    run.health("a", true);
    expect(said(run.said)).toEqual([
      "warn backend down",
      "warn pool uses its backups",
      "warn backend down",
      "error pool has no usable backend",
      "info backend up",
      "warn pool uses its backups",
      "info backend up",
      "info pool uses its primaries again",
    ]);
    expect(run.said).toContainEqual({
      level: "warn",
      event: "pool uses its backups",
      pool: "app",
      tier: "backups",
      backends_up: 1,
      backends: 1,
    });
  });

  test("names a pool that has lost every backend, and one that has a backend again", () => {
    const { said: all, health } = start("", ["a"]);
    health("a", false);
    health("a", true);
    expect(said(all).filter((text) => text.includes("pool"))).toEqual([
      "error pool has no usable backend",
      "info pool has a usable backend again",
    ]);
  });

  test("says nothing before the first backend is up", () => {
    const { said: all, health } = start('health.initial = "down"', ["a"]);
    health("a", true);
    expect(said(all)).toEqual(["info backend up"]);
  });
});

describe("passive health", () => {
  const PASSIVE = 'passive = { failures = 3, window = "1s", eject_for = "10s", count = ["connect", "early_reset"] }';
  const fail = ({ states, record }: ReturnType<typeof start>, name: string, connect: number, earlyReset = 0): void =>
    states.failed([{ backend: record(name).id, connect, earlyReset }]);

  test("ejects a backend for the failures of all workers together, and readmits it after eject_for", () => {
    const run = start(PASSIVE);
    fail(run, "b", 1);
    fail(run, "b", 1, 0);
    expect(run.sent).toEqual([]);
    fail(run, "b", 0, 1);
    expect(run.told()).toBe("a:2000 c:1000 d:1000");
    vi.advanceTimersByTime(9_999);
    expect(run.told()).toBe("a:2000 c:1000 d:1000");
    vi.advanceTimersByTime(1);
    expect(run.told()).toBe("a:2000 b:1000 c:1000 d:1000");
    const backend = { pool: "app", backend: "b", backends: 4 };
    expect(run.said).toEqual([
      {
        level: "warn",
        event: "backend ejected",
        ...backend,
        backends_ejected: 1,
        reason: "2 failed connects and 1 early reset within 1s",
        for: "10s",
        in_a_row: 1,
      },
      { level: "info", event: "backend returned", ...backend, backends_ejected: 0 },
    ]);
    fail(run, "b", 3);
    expect(run.said.at(-1)).toMatchObject({ reason: "3 failed connects within 1s", for: "20s", in_a_row: 2 });
  });

  test("ejects no more of a pool than max_ejected", () => {
    const run = start(PASSIVE);
    for (const name of ["a", "b", "c", "d"]) fail(run, name, 3);
    expect(run.told()).toBe("c:1000 d:1000");
    vi.advanceTimersByTime(10_000);
    fail(run, "c", 3);
    expect(run.told()).toBe("a:2000 b:1000 d:1000");
  });

  test("logs once that max_ejected prevents an ejection, and again after a time without failures", () => {
    const run = start(PASSIVE);
    for (const name of ["a", "b", "c"]) fail(run, name, 3);
    const prevented = () => run.said.filter(({ event }) => event.startsWith("backend fails but is not ejected"));
    fail(run, "c", 3);
    expect(prevented()).toMatchObject([
      { level: "warn", backend: "c", backends_ejected: 2, backends: 4, max_ejected: 50 },
    ]);
    vi.advanceTimersByTime(11_000);
    for (const name of ["a", "b", "c"]) fail(run, name, 3);
    expect(prevented()).toHaveLength(2);
  });

  test("lets a backend return through slow start", () => {
    const run = start(`${PASSIVE}\nslow_start = "10s"`, ["a", "b"]);
    fail(run, "b", 3);
    vi.advanceTimersByTime(10_000);
    expect(run.told()).toBe("a:2000 b:100");
    vi.advanceTimersByTime(10_000);
    expect(run.told()).toBe("a:2000 b:1000");
  });

  test("yields to the active check: a backend that goes down is no longer ejected", () => {
    const run = start(PASSIVE, ["a", "b"]);
    fail(run, "b", 3);
    run.health("b", false);
    expect(run.record("b").state.ejection.untilMs).toBeNull();
    fail(run, "b", 3);
    run.health("b", true);
    expect(run.told()).toBe("a:2000 b:1000");
    vi.advanceTimersByTime(60_000);
    expect(run.said.map(({ event }) => event)).toEqual(["backend ejected", "backend down", "backend up"]);
  });

  test("survives a reload, and ends if the section is removed", () => {
    const run = start(PASSIVE, ["a", "b"]);
    fail(run, "b", 3);
    run.load(`${PASSIVE}\nretries = 1`, ["a", "b"]);
    expect(run.record("b").state.ejection.untilMs).not.toBeNull();
    run.load("", ["a", "b"]);
    expect(run.told()).toBe("a:2000 b:1000");
    expect(run.said.at(-1)).toMatchObject({ event: "backend returned" });
    fail(run, "b", 3);
    expect(run.told()).toBe("a:2000 b:1000");
  });

  test("is ignored in panic mode", () => {
    const run = start(`${PASSIVE}\npanic_threshold = 60`, ["a", "b"]);
    fail(run, "b", 3);
    expect(run.told()).toBe("a:2000 b:1000");
    expect(run.said).toContainEqual(expect.objectContaining({ event: "backend ejected" }));
    expect(run.said.some(({ event }) => event === "pool in panic, health is ignored")).toBe(true);
  });
});

describe("an operator's order", () => {
  type Given = { state?: "ready" | "drain" | "maintenance"; weight?: number | null; timeoutMs?: number };
  const order = ({ states, registry, record }: ReturnType<typeof start>, name: string, given: Given): void => {
    const [pool] = registry.pools;
    const target = { name, address: null };
    states.ordered(pool!, [record(name)], {
      endsEjection: given.state === "ready",
      give: (nowMs) => {
        const endAtMs = given.timeoutMs === undefined ? null : nowMs + given.timeoutMs;
        if (given.state !== undefined) pool!.changes.setState(target, given.state, endAtMs);
        if (given.weight !== undefined) pool!.changes.setWeight(target, given.weight, record(name).config.weight);
      },
    });
  };

  test("drains a backend at once and over reloads, and brings it back through slow start", () => {
    const run = start('slow_start = "10s"', ["a", "b"]);
    order(run, "b", { state: "drain" });
    expect(run.told()).toBe("a:2000");
    run.load('slow_start = "10s"\nretries = 1', ["a", "b"]);
    run.health("a", false);
    run.health("a", true);
    expect(run.told()).toBe("a:200");
    order(run, "b", { state: "ready" });
    expect(run.told()).toBe("a:200 b:100");
  });

  test("is sent at once in a pool so large that changes of health are sent together, and only once", () => {
    const run = start("", LETTERS.split(""));
    run.health("a", false);
    expect(run.sent.length).toBe(0);
    order(run, "b", { state: "drain" });
    expect(run.sent.length).toBe(1);
    expect(run.told()).toMatch(/^c:1000 d:1000 /);
    vi.advanceTimersByTime(1000);
    expect(run.sent.length).toBe(1);
  });

  test("drains a backend in panic mode too", () => {
    const run = start("panic_threshold = 100", ["a", "b", "c"]);
    order(run, "b", { state: "maintenance" });
    run.health("a", false);
    expect(run.told()).toBe("a:2000 c:1000");
  });

  test("sets a weight until the file's weight changes", () => {
    const run = start("", ["a", "b"]);
    order(run, "b", { weight: 7 });
    expect(run.told()).toBe("a:2000 b:7000");
    order(run, "a", { weight: 0 });
    expect(run.told()).toBe("b:7000");
    order(run, "a", { weight: null });
    expect(run.told()).toBe("a:2000 b:7000");
  });

  test("of ready ends an ejection", () => {
    const run = start("passive.failures = 1", ["a", "b"]);
    run.states.failed([{ backend: run.record("b").id, connect: 1, earlyReset: 0 }]);
    expect(run.told()).toBe("a:2000");
    order(run, "b", { state: "ready" });
    expect(run.told()).toBe("a:2000 b:1000");
  });

  test("with a timeout ends the remaining connections once, unless it was revoked before", () => {
    const run = start("", ["a", "b"]);
    order(run, "a", { state: "drain", timeoutMs: 5000 });
    order(run, "b", { state: "drain", timeoutMs: 7000 });
    vi.advanceTimersByTime(4999);
    expect(run.ended).toEqual([]);
    // Also after a reload.
    run.load("retries = 1", ["a", "b"]);
    vi.advanceTimersByTime(2);
    expect(run.ended).toEqual([[run.record("a").id]]);
    order(run, "b", { state: "ready" });
    vi.advanceTimersByTime(60_000);
    expect(run.ended.length).toBe(1);
    expect(run.record("a").state.rampFromMs).toBeNull();
  });

  test("keeps the place of a backend in the source_hash table if its weight is 0", () => {
    const run = start('balance = "source_hash"', ["a", "b", "c"]);
    run.health("c", false);
    const table = run.sent.at(-1)!.tiers[0]!.table;
    order(run, "b", { weight: 0 });
    expect(run.told()).toBe("a:2000");
    expect(run.sent.at(-1)!.tiers[0]!.table).toEqual(table);
    order(run, "b", { weight: 5 });
    expect(run.sent.at(-1)!.tiers[0]!.table!.slots).not.toEqual(table!.slots);
  });
});

test("in any order of events, workers have the current tiers, limits hold, and every state ends", () => {
  forSeeds(60, (random) => {
    const options = (): string =>
      [
        random.oneIn(2) ? 'slow_start = "4s"' : "",
        random.oneIn(2) ? 'passive = { failures = 2, window = "5s", eject_for = "3s", max_ejected = 50 }' : "",
        random.oneIn(3) ? "panic_threshold = 60" : "",
      ].join("\n");
    const run = start(options());
    const names = ["a", "b", "c", "d"];
    for (let step = 0; step < 80; step++) {
      const name = random.pick(names);
      const backend = run.record(name);
      const now = run.registry.pools[0]!;
      const kind = random.below(7);
      if (kind === 0 && backend.up) run.health(name, false);
      else if (kind === 1 && !backend.up) run.health(name, true);
      else if (kind === 2) {
        const failing = now.backends.filter(() => random.oneIn(2));
        run.states.failed(failing.map(({ id }) => ({ backend: id, connect: random.between(1, 2), earlyReset: 0 })));
      } else if (kind === 3) {
        const state = random.pick(["ready", "drain", "maintenance"] as const);
        run.states.ordered(now, [backend], {
          endsEjection: state === "ready",
          give: (nowMs) => now.changes.setState({ name, address: null }, state, random.oneIn(2) ? nowMs + 2000 : null),
        });
      } else if (kind === 4) {
        run.states.ordered(now, [backend], {
          endsEjection: false,
          give: () =>
            now.changes.setWeight(
              { name, address: null },
              random.oneIn(3) ? null : random.below(4),
              backend.config.weight,
            ),
        });
      } else if (kind === 5) vi.advanceTimersByTime(random.below(3000));
      else if (random.oneIn(4)) run.load(options());
      const current = run.registry.pools[0]!;
      const ejected = current.backends.filter(({ state }) => state.ejection.untilMs !== null).length;
      expect(ejected).toBeLessThanOrEqual(2);
      for (const { state } of current.backends) {
        expect(state.ramp).toBeGreaterThanOrEqual(0.1);
        expect(state.ramp).toBeLessThanOrEqual(1);
        expect(state.rampFromMs === null).toBe(state.ramp === 1);
      }
      // After a reload the workers get this with their plans.
      if (kind < 5 && run.sent.length > 0 && run.sent.at(-1)!.version === current.version)
        expect(run.sent.at(-1)!.tiers.map(({ entries }) => entries)).toEqual(
          poolTiers(current).map(({ entries }) => entries),
        );
    }
    // At rest, with every order revoked, each backend has its full weight.
    for (const name of names) {
      const now = run.registry.pools[0]!;
      if (!run.record(name).up) run.health(name, true);
      run.states.ordered(now, [run.record(name)], {
        endsEjection: true,
        give: () => {
          now.changes.setState({ name, address: null }, "ready", null);
          now.changes.setWeight({ name, address: null }, null, run.record(name).config.weight);
        },
      });
    }
    vi.advanceTimersByTime(700_000);
    expect(run.told()).toBe("a:2000 b:1000 c:1000 d:1000");
    expect(vi.getTimerCount()).toBe(0);
  });
});

test("a change in a large pool is sent with those of the next milliseconds", () => {
  const registry = new Registry();
  const backends = Array.from({ length: 100 }, (_, i) => `"10.0.1.${i}:80"`).join(", ");
  registry.commit(
    registry.draft(
      configOf(`${toml("", ["a"]).split("[pools.app]")[0]}\n[pools.app]\nbackends = [${backends}]`),
      1000,
      () => [],
    ),
  );
  const sent: PoolState[] = [];
  const states = new BackendStates({
    registry,
    log: recordingLog().log,
    facts: () => null,
    endConnections: () => undefined,
    send: (s) => sent.push(s),
  });
  for (const { id } of registry.pools[0]!.backends.slice(0, 50)) states.healthChanged(id, false, "refused");
  expect(sent).toEqual([]);
  vi.advanceTimersByTime(5);
  expect(sent.length).toBe(1);
  expect(sent[0]!.down.length).toBe(50);
});
