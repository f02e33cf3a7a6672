import { heapStats } from "bun:jsc";
import { describe, expect, test } from "vitest";
import {
  CLIENT_OVER_CAP,
  CLIENT_OVER_RATE,
  CLIENT_TABLE_FULL,
  clientMemory,
  ClientTable,
  WAYS,
  type ClientLimits,
} from "../../src/shared/clients.ts";
import { bucketSize, tokenIntervalNs } from "../../src/policy/token-bucket.ts";
import { dryRunBit } from "../../src/core/dry-run.ts";
import { runThreads } from "../support/threads.ts";
import type { ClientCapJob, ClientCapResult, RateJob, RateResult } from "./claiming-thread.ts";

const thread = new URL("./claiming-thread.ts", import.meta.url);
const SECOND = 1_000_000_000;

const none = { maxOpen: 0, intervalNs: 0, burst: 1, holds: false, dryRunOpen: false, dryRunRate: false };
const capOf = (maxOpen: number): ClientLimits => ({ ...none, maxOpen });
const rateOf = (perSecond: number, burst: number): ClientLimits => ({
  ...none,
  intervalNs: tokenIntervalNs(perSecond),
  burst,
});

/** A claim of the IPv4 client with this number. */
const claimAs = (table: ClientTable, client: number, limits: ClientLimits, nowNs = SECOND): number =>
  table.claim(0, 0, 0xffff, client, limits, nowNs);

describe("the cap of one client", () => {
  test("admits that many at once, and again after a release", () => {
    const table = new ClientTable(clientMemory(64));
    const entry = claimAs(table, 1, capOf(2));
    expect(entry).toBeGreaterThanOrEqual(0);
    expect(claimAs(table, 1, capOf(2))).toBe(entry);
    expect(table.open(entry)).toBe(2);
    expect(claimAs(table, 1, capOf(2))).toBe(CLIENT_OVER_CAP);
    expect(table.open(entry)).toBe(2);
    table.release(entry);
    expect(claimAs(table, 1, capOf(2))).toBe(entry);
  });

  test("refuses to release a connection that is not open, and keeps the client's entry", () => {
    const table = new ClientTable(clientMemory(64));
    const entry = claimAs(table, 1, capOf(1));
    table.release(entry);
    expect(() => table.release(entry)).toThrow("released twice");
    expect(table.open(entry)).toBe(0);
    expect(claimAs(table, 1, capOf(1))).toBe(entry);
    expect(claimAs(table, 1, capOf(1))).toBe(CLIENT_OVER_CAP);
  });

  test("counts each client separately, by every word of the address", () => {
    const table = new ClientTable(clientMemory(1024));
    const clients = [
      [0, 0, 0xffff, 1],
      [0, 0, 0xffff, 2],
      [0, 0, 0, 1],
      [0, 1, 0xffff, 1],
      [1, 0, 0xffff, 1],
      [0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff],
    ] as const;
    for (const [w0, w1, w2, w3] of clients) {
      expect(table.claim(w0, w1, w2, w3, capOf(1), SECOND)).toBeGreaterThanOrEqual(0);
    }
    for (const [w0, w1, w2, w3] of clients) {
      expect(table.claim(w0, w1, w2, w3, capOf(1), SECOND)).toBe(CLIENT_OVER_CAP);
    }
  });

  test("treats a word with its top bit set as the same client, signed or not", () => {
    const table = new ClientTable(clientMemory(64));
    expect(table.claim(0, 0, 0xffff, 0xc0a80001, capOf(1), SECOND)).toBeGreaterThanOrEqual(0);
    expect(table.claim(0, 0, 0xffff, 0xc0a80001 | 0, capOf(1), SECOND)).toBe(CLIENT_OVER_CAP);
  });

  test("is exact over several threads, in a table so small that clients evict each other", async () => {
    const memory = clientMemory(WAYS);
    const inside = new Int32Array(new SharedArrayBuffer(4 * 60));
    const job = { kind: "client cap", memory, inside, limits: capOf(3), held: 6, times: 150_000 } as const;
    const jobs: ClientCapJob[] = [1, 2, 3, 4].map((seed) => ({ ...job, seed }));
    const results = await runThreads<ClientCapResult>(thread, jobs);
    expect(results.map(({ broken }) => broken)).toEqual([0, 0, 0, 0]);
    // All three have happened, or the test has not reached its case.
    for (const { admitted } of results) expect(admitted).toBeGreaterThan(0);
    const answered = (answer: number): number => results.reduce((sum, { answers }) => sum + (answers[answer] ?? 0), 0);
    expect(answered(CLIENT_TABLE_FULL)).toBeGreaterThan(0);
    expect(answered(CLIENT_OVER_CAP)).toBeGreaterThan(0);
    const table = new ClientTable(memory);
    expect(Array.from({ length: WAYS }, (_, entry) => table.open(entry))).toEqual(Array(WAYS).fill(0));
  });
});

describe("the rate of one client", () => {
  test("admits the burst at once and then one each interval", () => {
    const table = new ClientTable(clientMemory(64));
    const limits = rateOf(50, 10);
    const at = (ms: number): boolean => claimAs(table, 1, limits, SECOND + ms * 1_000_000) >= 0;
    for (let i = 0; i < 10; i++) expect(at(0)).toBe(true);
    expect([at(0), at(19), at(20), at(20), at(39), at(40)]).toEqual([false, false, true, false, false, true]);
    // A second later the bucket is full again, but not more than full.
    for (let i = 0; i < 10; i++) expect(at(1100)).toBe(true);
    expect(at(1100)).toBe(false);
  });

  test("admits no more than the burst where the bucket takes centuries to fill", () => {
    const table = new ClientTable(clientMemory(64));
    const intervalNs = tokenIntervalNs(0.1 / 3600);
    const limits: ClientLimits = { ...none, intervalNs, burst: bucketSize(1_000_000, intervalNs) };
    let admitted = 0;
    while (admitted <= 1_000_000 && claimAs(table, 1, limits) >= 0) admitted++;
    expect(admitted).toBeGreaterThan(100_000);
    expect(admitted).toBeLessThanOrEqual(1_000_000);
  });

  test("releases the place of a client that it refuses, if there is a cap as well", () => {
    const table = new ClientTable(clientMemory(64));
    const limits: ClientLimits = { ...none, maxOpen: 5, intervalNs: SECOND, burst: 1 };
    const entry = claimAs(table, 1, limits);
    for (let i = 0; i < 20; i++) expect(claimAs(table, 1, limits)).toBe(CLIENT_OVER_RATE);
    expect(table.open(entry)).toBe(1);
  });

  test("takes no token for a connection that the cap refuses", () => {
    const table = new ClientTable(clientMemory(64));
    const limits: ClientLimits = { ...none, maxOpen: 1, intervalNs: SECOND, burst: 2 };
    const entry = claimAs(table, 1, limits);
    for (let i = 0; i < 20; i++) expect(claimAs(table, 1, limits)).toBe(CLIENT_OVER_CAP);
    table.release(entry);
    expect(claimAs(table, 1, limits)).toBe(entry);
    table.release(entry);
    expect(claimAs(table, 1, limits)).toBe(CLIENT_OVER_RATE);
  });

  test("is exact over four threads: 50/s with a burst of 10 is 510 in ten seconds", async () => {
    const base = { kind: "rate", limits: rateOf(50, 10), fromNs: SECOND, clients: 1 } as const;
    const job: RateJob = { ...base, memory: clientMemory(64), stepNs: 1_000_000, steps: 10_000 };
    const admitted = await runThreads<RateResult>(thread, [job, job, job, job]);
    expect(admitted.reduce((sum, [count]) => sum + count!, 0)).toBe(510);
    // Each has some of them; otherwise the threads have not competed.
    expect(admitted.filter(([count]) => count! > 0).length).toBeGreaterThan(1);
  });

  test("is exact over four threads where every third token changes the upper word of the time", async () => {
    const limits: ClientLimits = { ...none, intervalNs: 1.5 * SECOND, burst: 100 };
    const base = { kind: "rate", limits, fromNs: SECOND, clients: 1 } as const;
    // Each step fills the bucket.
    const job: RateJob = { ...base, memory: clientMemory(64), stepNs: 150 * SECOND, steps: 2000 };
    const admitted = await runThreads<RateResult>(thread, [job, job, job, job]);
    expect(admitted.reduce((sum, [count]) => sum + count!, 0)).toBe(200_100);
    expect(admitted.filter(([count]) => count! > 0).length).toBeGreaterThan(1);
  });

  test("is exact for clients that several threads see for the first time at once", async () => {
    const clients = 20_000;
    const base = { kind: "rate", limits: rateOf(50, 10), fromNs: SECOND, clients } as const;
    const job: RateJob = { ...base, memory: clientMemory(16 * clients), stepNs: 1, steps: 0 };
    const [one, other] = await runThreads<RateResult>(thread, [job, job]);
    const wrong = one!.filter((count, client) => count + other![client]! !== 10);
    expect(wrong).toHaveLength(0);
    const shared = one!.filter((count, client) => count > 0 && other![client]! > 0).length;
    expect(shared).toBeGreaterThan(0);
  });
});

describe("a limit that is not enforced", () => {
  const CAP = dryRunBit("max_connections_per_client");
  const RATE = dryRunBit("rate_limit");

  test("admits a connection that a cap would refuse, reports it, and gives it no place", () => {
    const table = new ClientTable(clientMemory(64));
    const limits: ClientLimits = { ...capOf(1), dryRunOpen: true };
    const entry = claimAs(table, 1, limits);
    expect([table.claimed, table.dryRun]).toEqual([true, 0]);
    expect(claimAs(table, 1, limits)).toBe(entry);
    expect([table.claimed, table.dryRun, table.open(entry)]).toEqual([false, CAP, 1]);
    table.release(entry);
    // As if the second had never come.
    expect(claimAs(table, 1, limits)).toBe(entry);
    expect([table.claimed, table.dryRun]).toEqual([true, 0]);
  });

  test("admits a connection that a rate would refuse, reports it, and takes tokens as if it were enforced", () => {
    const table = new ClientTable(clientMemory(64));
    const limits: ClientLimits = { ...rateOf(1, 2), dryRunRate: true };
    const at = (ms: number): number => {
      expect(claimAs(table, 1, limits, SECOND + ms * 1_000_000)).toBeGreaterThanOrEqual(0);
      return table.dryRun;
    };
    expect([at(0), at(0), at(0), at(999), at(1000), at(1000)]).toEqual([0, 0, RATE, RATE, 0, RATE]);
  });

  test("still enforces the other limit, which does not count what the first would have refused", () => {
    const table = new ClientTable(clientMemory(64));
    const capOnly: ClientLimits = { ...rateOf(0.001, 1), maxOpen: 2, dryRunRate: true };
    claimAs(table, 1, capOnly);
    const entry = claimAs(table, 1, capOnly);
    expect([table.claimed, table.dryRun]).toEqual([true, RATE]);
    expect(claimAs(table, 1, capOnly)).toBe(CLIENT_OVER_CAP);
    table.release(entry);
    const both: ClientLimits = { ...rateOf(0.001, 1), maxOpen: 1, dryRunRate: true, dryRunOpen: true };
    expect(claimAs(table, 2, both)).toBeGreaterThanOrEqual(0);
    claimAs(table, 2, both);
    // The cap would have refused it before the rate was checked.
    expect(table.dryRun).toBe(CAP);
    const rateOnly: ClientLimits = { ...both, dryRunRate: false };
    expect(claimAs(table, 2, rateOnly)).toBe(CLIENT_OVER_RATE);
  });
});

describe("an entry that connections share", () => {
  test("is held while one of them is open, without a cap too", () => {
    const table = new ClientTable(clientMemory(WAYS));
    const holds: ClientLimits = { ...none, holds: true };
    const entry = claimAs(table, 0, holds);
    expect(claimAs(table, 0, holds)).toBe(entry);
    for (let client = 1; client < 100; client++) {
      const other = claimAs(table, client, holds, (1000 + client) * SECOND);
      expect(other).not.toBe(entry);
      table.release(other);
    }
    expect(table.open(entry)).toBe(2);
    table.release(entry);
    table.release(entry);
    expect(() => table.release(entry)).toThrow("released twice");
  });
});

describe("a full table", () => {
  const onceAnHour: ClientLimits = { ...none, intervalNs: 3600 * SECOND, burst: 1 };

  test("evicts only the client that has been idle longest", () => {
    const table = new ClientTable(clientMemory(WAYS));
    for (let client = 0; client < WAYS; client++) {
      expect(claimAs(table, client, onceAnHour, (client + 1) * SECOND)).toBeGreaterThanOrEqual(0);
    }
    // Client 0 comes again, so client 1 is the oldest now, although it is refused.
    expect(claimAs(table, 0, onceAnHour, 100 * SECOND)).toBe(CLIENT_OVER_RATE);
    expect(claimAs(table, 99, onceAnHour, 101 * SECOND)).toBeGreaterThanOrEqual(0);
    for (let client = 0; client < WAYS; client++) {
      if (client === 1) continue;
      expect(claimAs(table, client, onceAnHour, 102 * SECOND)).toBe(CLIENT_OVER_RATE);
    }
    expect(claimAs(table, 1, onceAnHour, 103 * SECOND)).toBeGreaterThanOrEqual(0);
  });

  test("evicts no client with an open connection, however old", () => {
    const table = new ClientTable(clientMemory(WAYS));
    const entry = claimAs(table, 0, capOf(1), SECOND);
    for (let client = 1; client < 1000; client++) {
      const other = claimAs(table, client, capOf(1), (1000 + client) * SECOND);
      expect(other).toBeGreaterThanOrEqual(0);
      table.release(other);
    }
    expect(claimAs(table, 0, capOf(1), 5000 * SECOND)).toBe(CLIENT_OVER_CAP);
    expect(table.open(entry)).toBe(1);
  });

  test("refuses when all places belong to clients with open connections, and admits the next when one is free", () => {
    const table = new ClientTable(clientMemory(WAYS));
    const entries = Array.from({ length: WAYS }, (_, client) => claimAs(table, client, capOf(2)));
    expect(new Set(entries).size).toBe(WAYS);
    expect(claimAs(table, 99, capOf(2))).toBe(CLIENT_TABLE_FULL);
    // Existing connections continue.
    expect(claimAs(table, 5, capOf(2))).toBe(entries[5]);
    table.release(entries[3]!);
    expect(claimAs(table, 99, capOf(2))).toBe(entries[3]);
    expect(claimAs(table, 98, capOf(2))).toBe(CLIENT_TABLE_FULL);
  });

  test("survives a flood of a million addresses: it does not grow and keeps all entries in use", () => {
    const memory = clientMemory(65_536);
    const table = new ClientTable(memory);
    const limits: ClientLimits = { ...none, maxOpen: 2, intervalNs: tokenIntervalNs(1), burst: 5 };
    const held = Array.from({ length: 1000 }, (_, client) => claimAs(table, client, limits));
    expect(held.every((entry) => entry >= 0)).toBe(true);
    let now = 2 * SECOND;
    let refused = 0;
    // Only of this thread: other tests share the process.
    Bun.gc(true);
    const before = heapStats();
    for (let address = 10_000; address < 1_010_000; address++) {
      now += 10_000;
      const entry = claimAs(table, address, limits, now);
      if (entry < 0) refused++;
      else table.release(entry);
    }
    Bun.gc(true);
    const after = heapStats();
    expect(refused).toBe(0);
    expect(after.objectCount - before.objectCount).toBeLessThan(10_000);
    expect(after.heapSize + after.extraMemorySize - before.heapSize - before.extraMemorySize).toBeLessThan(4e6);
    expect(memory.byteLength).toBeLessThan(65_536 * 32);
    for (const [client, entry] of held.entries()) {
      expect(table.open(entry)).toBe(1);
      expect(claimAs(table, client, limits, now)).toBe(entry);
      expect(claimAs(table, client, limits, now)).toBe(CLIENT_OVER_CAP);
    }
  });

  test("survives a flood of clients that stay: they are refused, and the others continue", () => {
    const table = new ClientTable(clientMemory(1024));
    const entry = claimAs(table, 0, capOf(2));
    let admitted = 1;
    let full = 0;
    for (let client = 1; client <= 10_000; client++) {
      const answer = claimAs(table, client, capOf(2));
      if (answer >= 0) admitted++;
      else if (answer === CLIENT_TABLE_FULL) full++;
    }
    expect(admitted + full).toBe(10_001);
    expect(admitted).toBe(1024);
    expect(table.open(entry)).toBe(1);
    expect(claimAs(table, 0, capOf(2))).toBe(entry);
  });
});

describe("clientMemory", () => {
  test("chooses a random key for each table, so that nobody can choose addresses of the same set", () => {
    const places = [0, 1, 2, 3].map(() => {
      const table = new ClientTable(clientMemory(65_536));
      return Array.from({ length: 20 }, (_, client) => claimAs(table, client, capOf(1))).join(" ");
    });
    expect(new Set(places).size).toBe(4);
  });

  test("has room for at least the given number of clients", () => {
    for (const entries of [1, 16, 17, 1000, 65_536]) {
      const places = (clientMemory(entries).byteLength - 64) / 24;
      expect(places).toBeGreaterThanOrEqual(entries);
      expect(places).toBeLessThan(Math.max(2 * entries, 2 * WAYS));
    }
  });
});
