import { estimateShallowMemoryUsageOf } from "bun:jsc";
import { beforeEach, describe, expect, test } from "vitest";
import type { BackendPlan, PoolPlan, PoolState, PoolTier } from "../../src/messages.ts";
import { claim, claimed } from "../../src/shared/cells.ts";
import { BACKEND, CONNECT_TIMES, readTimes } from "../../src/shared/counters.ts";
import { FailureReports } from "../../src/worker/failure-reports.ts";
import { Backend, Pool, type Queued } from "../../src/worker/pool.ts";
import { context, FakeBackend, tableOf } from "../support/picks.ts";
import { arena, backendPlan, poolPlan, openOf, countersOf, tiersWith } from "../support/plans.ts";
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

const state = (
  version: number,
  up: number[],
  changed: BackendPlan[] | null = null,
  tiers: PoolTier[] = tiersWith(up),
): PoolState => ({
  kind: "pool",
  pool: given.id,
  version,
  tiers,
  down: ids.filter((id) => !up.includes(id)),
  backends: changed,
  memory: arena.memory,
});

/** The names of the next picks; each place is released at once. */
function picks(count: number, tried: readonly number[] | null = null): string {
  return Array.from({ length: count }, () => {
    const backend = pool.acquire(context(tried));
    backend?.giveBack();
    return backend?.name ?? "-";
  }).join("");
}

const sorted = (text: string): string => [...text].toSorted().join("");

describe("a pool", () => {
  test("claims a place with each pick, which the whole process sees", () => {
    const picked = [pool.acquire(context()), pool.acquire(context()), pool.acquire(context()), pool.acquire(context())];
    expect(backends.reduce((sum, backend) => sum + claimed(openOf(backend)), 0)).toBe(4);
    for (const backend of picked) backend?.giveBack();
    expect(backends.map((backend) => claimed(openOf(backend)))).toEqual([0, 0, 0]);
  });

  test("picks no tried backend, and none if all were tried", () => {
    expect(sorted(picks(4, [ids[0]!]))).toBe("bbcc");
    expect(picks(2, ids)).toBe("--");
    expect(backends.map((backend) => claimed(openOf(backend)))).toEqual([0, 0, 0]);
  });

  test("distinguishes whether none is up or all are full", () => {
    expect(pool.mayServe(context())).toBe(true);
    pool.update(state(2, []));
    expect(pool.mayServe(context())).toBe(false);
    expect(pool.acquire(context())).toBeNull();
  });

  test("gives a waiter a backend that has failed for it only if that has connected since, or regardless", () => {
    const failed = pool.acquire(context())!;
    const others = ids.filter((id) => id !== failed.id);
    pool.update(state(2, [failed.id]));
    const waiter = { ...context([failed.id]), tried: [failed.id], dialStartedMs: 100 } as unknown as Queued;
    failed.connectedMs = 99;
    expect([pool.acquireAgain(waiter, false), waiter.tried]).toEqual([null, [failed.id]]);
    failed.connectedMs = 101;
    expect([pool.acquireAgain(waiter, false), waiter.tried]).toEqual([failed, null]);
    waiter.tried = [...others, failed.id];
    failed.connectedMs = 99;
    expect([pool.acquireAgain(waiter, true), waiter.tried]).toEqual([failed, null]);
  });

  test("starts at another place in each worker, so that workers do not pick in step", () => {
    const first = [0, 1, 2].map((worker) => new Pool(given, null, worker).acquire(context())!.name);
    expect(sorted(first.join(""))).toBe("abc");
  });

  test("gives each worker its own row of a backend's counters", () => {
    const alone = poolPlan({ backends: [backends[0]!] });
    const [mine, theirs] = [new Pool(alone, null, 0).acquire(context())!, new Pool(alone, null, 1).acquire(context())!];
    for (let cell = 0; cell < BACKEND.size; cell++) {
      mine.count(cell);
      theirs.count(cell, 2);
    }
    const rows = Array.from(countersOf(backends[0]!));
    expect(rows).toEqual([...Array<number>(BACKEND.size).fill(1), ...Array<number>(BACKEND.size).fill(2)]);
  });

  test("has one object of 160 bytes for a backend", () => {
    const backend = pool.acquire(context())!;
    backend.attemptEnded(BACKEND.connected, 1);
    expect(estimateShallowMemoryUsageOf(backend)).toBe(160);
    backend.giveBack();
  });

  test("dials the sockaddr of each kind of address", () => {
    const addresses = ["10.0.0.1:80", "[2001:db8::1]:80", "unix:/run/app.sock", "unix:@app"];
    const various = addresses.map((address) => backendPlan({ address }));
    pool = new Pool(poolPlan({ backends: various }), null, 0);
    const lengths = addresses.map(() => pool.acquire(context())!).map(({ sockaddr }) => sockaddr.length);
    expect(lengths.toSorted((a, b) => a - b)).toEqual([2 + 4, 16, 2 + 14, 28].toSorted((a, b) => a - b));
  });

  test("has a sockaddr for its source address, without a port, or none", () => {
    expect(pool.source).toBeNull();
    pool.apply({ ...given, sourceAddress: "127.0.0.9", version: 2 }, null);
    expect([...pool.source!]).toEqual([2, 0, 0, 0, 127, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0]);
  });
});

describe("a change of health", () => {
  test("applies at the next pick, and reports which backends went down", () => {
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
    const held = pool.acquire(context())!;
    pool.update(state(2, []));
    pool.update(state(3, ids));
    expect(held.openCount()).toBe(1);
    held.giveBack();
    expect(backends.map((backend) => claimed(openOf(backend)))).toEqual([0, 0, 0]);
  });

  test("does not send all at once to a backend that comes up, nor restart the rotation", () => {
    pool.update(state(2, [ids[0]!, ids[1]!]));
    picks(7);
    pool.update(state(3, ids));
    const next = picks(9);
    expect(sorted(next)).toBe("aaabbbccc");
    expect(next).not.toMatch(/cc/);
  });

  test("uses the second tier only while the first one is empty", () => {
    const [a, b] = [tiersWith([ids[0]!]), tiersWith([ids[1]!])];
    pool.update(state(2, ids, null, [...a, ...b]));
    expect(picks(3)).toBe("aaa");
    pool.update(state(3, [ids[1]!], null, b));
    expect(picks(3)).toBe("bbb");
    pool.update(state(4, ids, null, [...a, ...b]));
    expect(picks(3)).toBe("aaa");
  });

  test("does not overflow from a full tier into the next one, but goes there when every backend of the tier has failed", () => {
    const capped = { ...backends[0]!, maxConnections: 1 };
    const tiers = [...tiersWith([ids[0]!]), ...tiersWith([ids[1]!])];
    pool.update(state(2, ids, [capped, backends[1]!], tiers));
    expect(picks(1, [ids[0]!])).toBe("b");
    claim(openOf(capped), 1);
    expect(pool.acquire(context())).toBeNull();
    expect(picks(1, [ids[0]!])).toBe("b");
    expect(picks(1, [ids[1]!])).toBe("-");
  });

  test("resets nothing twice: reports only once that a backend went down", () => {
    expect(pool.update(state(2, [ids[0]!]))).toEqual([ids[1], ids[2]]);
    expect(pool.update(state(3, [ids[0]!]))).toEqual([]);
    expect(pool.update(state(4, []))).toEqual([ids[0]]);
  });
});

describe("a change of names", () => {
  test("adds new backends, keeps the same ones, and reports removed ones as down", () => {
    const held = Array.from({ length: 3 }, () => pool.acquire(context())!);
    const kept = held.find(({ name }) => name === "b")!;
    const fresh = backendPlan({ name: "d" });
    const down = pool.update(state(2, [ids[1]!, fresh.id], [backends[1]!, fresh]));
    expect(down.toSorted((a, b) => a - b)).toEqual([ids[0], ids[2]]);
    expect(sorted(picks(4))).toBe("bbdd");
    const again = [pool.acquire(context())!, pool.acquire(context())!].find(({ name }) => name === "b");
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
  test("takes over all facts of a backend in a plan, and keeps an unchanged backend", () => {
    const one = backendPlan({ host: "old.example" });
    const pickedWith = (changed: Partial<BackendPlan>): Backend => {
      pool = new Pool(poolPlan({ backends: [one] }), null, 0);
      const before = pool.acquire(context())!;
      pool.apply({ ...poolPlan({ backends: [{ ...one, ...changed }] }), version: 2 }, null);
      const after = pool.acquire(context())!;
      expect(after === before).toBe(Object.keys(changed).length === 0);
      return after;
    };
    pickedWith({});
    expect(pickedWith({ host: "new.example" }).host).toBe("new.example");
    expect(pickedWith({ name: "other" }).name).toBe("other");
    expect(pickedWith({ maxConnections: 100 }).maxConnections).toBe(100);
    expect(pickedWith({ address: "10.9.9.9:80" }).address).toBe("10.9.9.9:80");
  });

  test("takes over weights and caps", () => {
    pool.apply({ ...given, tiers: tiersWith(ids, [2, 1, 2]), version: 2 }, null);
    expect(sorted(picks(10))).toBe("aaaabbcccc");
  });

  test("does not restore an older state of health", () => {
    pool.update(state(7, [ids[0]!]));
    pool.apply({ ...given, version: 6 }, null);
    expect(picks(3)).toBe("aaa");
  });

  test("lets connections of a changed backend release their places", () => {
    const held = pool.acquire(context())!;
    const changed = backends.map((backend) => ({ ...backend, maxConnections: 1 }));
    pool.apply({ ...given, backends: changed, version: 2 }, null);
    // The new cap includes connections of the old plan.
    expect(sorted(Array.from({ length: 2 }, () => pool.acquire(context())!.name).join(""))).not.toContain(held.name);
    expect(pool.acquire(context())).toBeNull();
    held.giveBack();
    expect(pool.acquire(context())?.name).toBe(held.name);
  });
});

describe("an attempt to connect", () => {
  test("is counted by its outcome, a connect with its time", () => {
    const backend = pool.acquire(context())!;
    backend.attemptEnded(BACKEND.connected, 0.4);
    backend.attemptEnded(BACKEND.connected, 7000);
    backend.attemptEnded(BACKEND.refused, 0.1);
    const counters = countersOf(backends.find(({ id }) => id === backend.id)!).subarray(0, BACKEND.size);
    expect([counters[BACKEND.connected], counters[BACKEND.refused], counters[BACKEND.failed]]).toEqual([2, 1, 0]);
    expect(counters[BACKEND.connectSumMs]).toBeCloseTo(7000.4, 6);
    const buckets = readTimes(CONNECT_TIMES, (cell) => counters[cell]!).buckets;
    expect(buckets.map((count, i) => (count > 0 ? i : -1)).filter((i) => i >= 0)).toEqual([1, buckets.length - 1]);
  });

  test("is reported for passive health if it fails, in TLS too", () => {
    const reports = new FailureReports(() => undefined);
    pool = new Pool(poolPlan({ backends, passive: { connect: true, earlyReset: false } }), null, 0, reports);
    const backend = pool.acquire(context())!;
    for (const outcome of ["connected", "refused", "timedOut", "failed", "tlsFailed"] as const)
      backend.attemptEnded(BACKEND[outcome], 1);
    expect(reports.of(backend.id)).toMatchObject({ connect: 4, earlyReset: 0 });
  });

  test("is used by least_latency: slow and refusing backends are avoided", () => {
    pool = new Pool(poolPlan({ backends, balance: "least_latency" }), null, 0);
    const [a, b, c] = ["a", "b", "c"].map((name) => {
      for (;;) {
        const picked = pool.acquire(context())!;
        picked.giveBack();
        if (picked.name === name) return picked;
      }
    });
    a!.attemptEnded(BACKEND.connected, 5);
    b!.attemptEnded(BACKEND.connected, 1);
    c!.attemptEnded(BACKEND.refused, 0.1);
    const picked = picks(200);
    // Of two drawn backends the faster one is picked: never c, and b in two of three draws.
    expect(picked).not.toContain("c");
    expect(picked.replaceAll("a", "").length).toBeGreaterThan(100);
  });
});

describe("least_connections", () => {
  test("sees a released place at once, with any number of backends", () => {
    const many = Array.from({ length: 300 }, () => backendPlan());
    pool = new Pool(poolPlan({ backends: many, balance: "least_connections" }), null, 0);
    const held = Array.from({ length: 600 }, () => pool.acquire(context())!);
    expect(many.every((backend) => claimed(openOf(backend)) === 2)).toBe(true);
    for (const at of [17, 599, 250]) {
      pool.release(held[at]!);
      expect(pool.acquire(context())).toBe(held[at]);
    }
  });
});

describe("source_hash", () => {
  test("sends a client to the same backend, whatever other backends do", () => {
    const table = tableOf(ids.map((id) => new FakeBackend(id)));
    const hashing = (up: number[]) => tiersWith(up).map((tier) => ({ ...tier, table }));
    pool = new Pool(poolPlan({ backends, balance: "source_hash", tiers: hashing(ids) }), null, 0);
    const clients = Array.from({ length: 60 }, (_, i) => Math.imul(i, 0x9e3779b1) >>> 0);
    const choices = () => clients.map((hash) => pool.acquire(context(null, hash))!.name);
    const usual = choices();
    expect(new Set(usual).size).toBe(3);
    pool.update(state(2, [ids[0]!, ids[2]!], null, hashing([ids[0]!, ids[2]!])));
    choices().forEach((name, i) => expect(name === usual[i] || usual[i] === "b").toBe(true));
    pool.update(state(3, ids, null, hashing(ids)));
    expect(choices()).toEqual(usual);
  });
});

describe("the cap of a backend", () => {
  test("is never exceeded, and connections go to backends with free places", () => {
    backends[0] = { ...backends[0]!, maxConnections: 2 };
    pool = new Pool(poolPlan({ backends }), null, 0);
    const picked = Array.from({ length: 9 }, () => pool.acquire(context())!);
    expect(claimed(openOf(backends[0]))).toBe(2);
    expect(picked.filter(({ name }) => name === "a")).toHaveLength(2);
    expect(claimed(openOf(backends[1]!)) + claimed(openOf(backends[2]!))).toBe(7);
  });

  test("counts places that other workers claim between the pick and the claim", () => {
    const capped = [backendPlan({ name: "a", maxConnections: 1 }), backendPlan({ name: "b", maxConnections: 1 })];
    pool = new Pool(poolPlan({ backends: capped }), null, 0);
    // Another worker is faster each time that this one has looked and not claimed yet.
    let stolen = 0;
    const claimOf = capped.map(openOf);
    const steal = (backend: Backend): boolean => {
      if (stolen < 2) {
        stolen++;
        claim(claimOf[capped.findIndex(({ id }) => id === backend.id)]!, 1);
      }
      return Backend.prototype.claim.call(backend);
    };
    const one = pool.acquire(context())!;
    const two = pool.acquire(context())!;
    one.giveBack();
    two.giveBack();
    one.claim = () => steal(one);
    two.claim = () => steal(two);
    expect(pool.acquire(context())).toBeNull();
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
