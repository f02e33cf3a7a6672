import { beforeEach, describe, expect, test } from "vitest";
import type { BackendPlan, PoolPlan, PoolState } from "../../src/messages.ts";
import { claim, claimed } from "../../src/shared/cells.ts";
import { Pool, type Backend } from "../../src/worker/pool.ts";
import { arena, backendPlan, poolPlan, openOf, countersOf } from "../support/plans.ts";
import { runThreads } from "../support/threads.ts";

let backends: BackendPlan[];
let ids: number[];
let given: PoolPlan;
let pool: Pool;
beforeEach(() => {
  backends = ["a", "b", "c"].map((name, i) => backendPlan({ name, address: `10.0.0.${i + 1}:80` }));
  ids = backends.map(({ id }) => id);
  given = poolPlan({ backends });
  pool = new Pool(given, null, 0);
});

const state = (version: number, up: number[], changed: BackendPlan[] | null = null): PoolState => ({
  kind: "pool",
  pool: given.id,
  version,
  up,
  down: ids.filter((id) => !up.includes(id)),
  backends: changed,
  memory: arena.memory,
});

/** The names of the next picks; each place is given back at once. */
function picks(count: number, tried: readonly number[] | null = null): string {
  return Array.from({ length: count }, () => {
    const backend = pool.pick(tried);
    backend?.giveBack();
    return backend?.name ?? "-";
  }).join("");
}

const sorted = (text: string): string => [...text].toSorted().join("");

describe("a pool", () => {
  test("claims a place with each pick, for the whole process to see", () => {
    const picked = [pool.pick(null), pool.pick(null), pool.pick(null), pool.pick(null)];
    expect(backends.reduce((sum, backend) => sum + claimed(openOf(backend)), 0)).toBe(4);
    for (const backend of picked) backend?.giveBack();
    expect(backends.map((backend) => claimed(openOf(backend)))).toEqual([0, 0, 0]);
  });

  test("picks nobody who was tried, and nobody at all where all were", () => {
    expect(sorted(picks(4, [ids[0]!]))).toBe("bbcc");
    expect(picks(2, ids)).toBe("--");
    expect(backends.map((backend) => claimed(openOf(backend)))).toEqual([0, 0, 0]);
  });

  test("knows whether nobody is up or all are full", () => {
    expect(pool.hasCandidate).toBe(true);
    pool.update(state(2, []));
    expect(pool.hasCandidate).toBe(false);
    expect(pool.pick(null)).toBeNull();
  });

  test("has no candidate where all that are up have weight 0", () => {
    const weights = backends.map((backend, i) => ({ ...backend, weight: i === 0 ? 0 : 1 }));
    pool = new Pool(poolPlan({ backends: weights, up: ids }), null, 0);
    expect(pool.hasCandidate).toBe(true);
    pool.update({ ...state(2, [ids[0]!]), backends: weights });
    expect(pool.hasCandidate).toBe(false);
    expect(pool.pick(null)).toBeNull();
  });

  test("begins in another place for each worker, so that several do not march in step", () => {
    const first = [0, 1, 2].map((worker) => new Pool(given, null, worker).pick(null)!.name);
    expect(sorted(first.join(""))).toBe("abc");
  });

  test("gives each worker its own row of a backend's counters", () => {
    const alone = poolPlan({ backends: [backends[0]!] });
    const [mine, theirs] = [new Pool(alone, null, 0).pick(null)!, new Pool(alone, null, 1).pick(null)!];
    mine.counters.fill(1);
    theirs.counters.fill(2);
    expect(mine.counters.every((cell) => cell === 1)).toBe(true);
    expect(countersOf(backends[0]!)).toHaveLength(mine.counters.length + theirs.counters.length);
  });

  test("dials the sockaddr of each kind of address", () => {
    const addresses = ["10.0.0.1:80", "[2001:db8::1]:80", "unix:/run/app.sock", "unix:@app"];
    const various = addresses.map((address) => backendPlan({ address }));
    pool = new Pool(poolPlan({ backends: various }), null, 0);
    const lengths = addresses.map(() => pool.pick(null)!).map(({ sockaddr }) => sockaddr.length);
    expect(lengths.toSorted((a, b) => a - b)).toEqual([2 + 4, 16, 2 + 14, 28].toSorted((a, b) => a - b));
  });

  test("has a sockaddr for its source address, without a port, or none", () => {
    expect(pool.source).toBeNull();
    pool.apply({ ...given, sourceAddress: "127.0.0.9", version: 2 }, null);
    expect([...pool.source!]).toEqual([2, 0, 0, 0, 127, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0]);
  });
});

describe("a change of health", () => {
  test("is in force at the next pick, and says who went down", () => {
    expect(pool.update(state(2, [ids[0]!, ids[2]!]))).toEqual([ids[1]]);
    expect(sorted(picks(4))).toBe("aacc");
    expect(pool.update(state(3, ids))).toEqual([]);
    expect(sorted(picks(6))).toBe("aabbcc");
  });

  test("never replaces a newer one, nor itself", () => {
    pool.update(state(5, [ids[0]!]));
    for (const version of [1, 2, 4, 5]) expect(pool.update(state(version, ids))).toEqual([]);
    expect(picks(3)).toBe("aaa");
    pool.update(state(6, ids));
    expect(sorted(picks(3))).toBe("abc");
  });

  test("keeps the connections' counts: the same backend is the same cells", () => {
    const held = pool.pick(null)!;
    pool.update(state(2, []));
    pool.update(state(3, ids));
    expect(claimed(held.open)).toBe(1);
    held.giveBack();
    expect(backends.map((backend) => claimed(openOf(backend)))).toEqual([0, 0, 0]);
  });

  test("does not send all at once to the one that comes up, nor start the turn again", () => {
    pool.update(state(2, [ids[0]!, ids[1]!]));
    picks(7);
    pool.update(state(3, ids));
    const next = picks(9);
    expect(sorted(next)).toBe("aaabbbccc");
    expect(next).not.toMatch(/cc/);
  });

  test("takes a backup only while no other is up", () => {
    const [first, second] = [backends[0]!, { ...backends[1]!, backup: true }];
    pool = new Pool(poolPlan({ backends: [first, second] }), null, 0);
    expect(picks(3)).toBe("aaa");
    pool.update(state(2, [second.id]));
    expect(picks(3)).toBe("bbb");
    pool.update(state(3, [first.id, second.id]));
    expect(picks(3)).toBe("aaa");
  });
});

describe("a change of names", () => {
  test("brings new backends, keeps the same ones, and says that those left out are down", () => {
    const held = Array.from({ length: 3 }, () => pool.pick(null)!);
    const kept = held.find(({ name }) => name === "b")!;
    const fresh = backendPlan({ name: "d" });
    const down = pool.update(state(2, [ids[1]!, fresh.id], [backends[1]!, fresh]));
    expect(down.toSorted((a, b) => a - b)).toEqual([ids[0], ids[2]]);
    expect(sorted(picks(4))).toBe("bbdd");
    const again = [pool.pick(null)!, pool.pick(null)!].find(({ name }) => name === "b");
    expect(again).toBe(kept);
  });

  test("is not undone by a later change of health that names no backends", () => {
    const fresh = backendPlan({ name: "d" });
    pool.update(state(2, [fresh.id], [fresh]));
    pool.update(state(3, [fresh.id]));
    expect(picks(2)).toBe("dd");
  });
});

describe("a reload", () => {
  test("takes over everything that a plan says of a backend, and keeps one of which it says the same", () => {
    const one = backendPlan({ host: "old.example" });
    const pickedWith = (changed: Partial<BackendPlan>): Backend => {
      pool = new Pool(poolPlan({ backends: [one] }), null, 0);
      const before = pool.pick(null)!;
      pool.apply({ ...poolPlan({ backends: [{ ...one, ...changed }] }), version: 2 }, null);
      const after = pool.pick(null)!;
      expect(after === before).toBe(Object.keys(changed).length === 0);
      return after;
    };
    pickedWith({});
    expect(pickedWith({ host: "new.example" }).host).toBe("new.example");
    expect(pickedWith({ name: "other" }).name).toBe("other");
    expect(pickedWith({ weight: 7 }).weight).toBe(7);
    expect(pickedWith({ backup: true }).backup).toBe(true);
    expect(pickedWith({ maxConnections: 100 }).maxConnections).toBe(100);
    expect(pickedWith({ address: "10.9.9.9:80" }).address).toBe("10.9.9.9:80");
  });

  test("takes over weights and caps", () => {
    const heavier = backends.map((backend, i) => ({ ...backend, weight: i === 0 ? 2 : i }));
    pool.apply({ ...given, backends: heavier, version: 2 }, null);
    expect(sorted(picks(10))).toBe("aaaabbcccc");
  });

  test("does not bring back a health that is older than the one known", () => {
    pool.update(state(7, [ids[0]!]));
    pool.apply({ ...given, version: 6 }, null);
    expect(picks(3)).toBe("aaa");
  });

  test("lets connections of a changed backend give back their places", () => {
    const held = pool.pick(null)!;
    const changed = backends.map((backend) => ({ ...backend, maxConnections: 1 }));
    pool.apply({ ...given, backends: changed, version: 2 }, null);
    // The new cap counts what began under the old plan.
    expect(sorted(Array.from({ length: 2 }, () => pool.pick(null)!.name).join(""))).not.toContain(held.name);
    expect(pool.pick(null)).toBeNull();
    held.giveBack();
    expect(pool.pick(null)?.name).toBe(held.name);
  });
});

describe("the cap of a backend", () => {
  test("is never exceeded, and passes over to those who have places", () => {
    backends[0] = { ...backends[0]!, maxConnections: 2 };
    pool = new Pool(poolPlan({ backends }), null, 0);
    const picked = Array.from({ length: 9 }, () => pool.pick(null)!);
    expect(claimed(openOf(backends[0]))).toBe(2);
    expect(picked.filter(({ name }) => name === "a")).toHaveLength(2);
    expect(claimed(openOf(backends[1]!)) + claimed(openOf(backends[2]!))).toBe(7);
  });

  test("counts what other workers claim between the pick and the claim", () => {
    const capped = [backendPlan({ name: "a", maxConnections: 1 }), backendPlan({ name: "b", maxConnections: 1 })];
    pool = new Pool(poolPlan({ backends: capped }), null, 0);
    // Another worker is quicker each time that this one has looked and not claimed yet.
    let stolen = 0;
    const claimOf = capped.map(openOf);
    const steal = (backend: Backend): boolean => {
      if (stolen < 2) {
        stolen++;
        claim(backend.open, 1);
      }
      return claim(backend.open, 1);
    };
    const one = pool.pick(null)!;
    const two = pool.pick(null)!;
    one.giveBack();
    two.giveBack();
    one.claim = () => steal(one);
    two.claim = () => steal(two);
    expect(pool.pick(null)).toBeNull();
    expect(claimOf.map(claimed)).toEqual([1, 1]);
  });

  test("is exact over several threads", async () => {
    const backend = backendPlan({ maxConnections: 5 });
    const job = { plan: poolPlan({ backends: [backend], version: 1 }), inside: arena.int32(1), times: 200_000 };
    const module = new URL("./picking-thread.ts", import.meta.url);
    const results = await runThreads<{ picked: number; refused: number; broken: number }>(
      module,
      Array.from({ length: 4 }, (_, worker) => ({ ...job, worker: worker % 2 })),
    );
    expect(results.map(({ broken }) => broken)).toEqual([0, 0, 0, 0]);
    expect(results.reduce((sum, { refused }) => sum + refused, 0)).toBeGreaterThan(0);
    for (const { picked } of results) expect(picked).toBeGreaterThan(0);
    expect(claimed(openOf(backend))).toBe(0);
  });
});
