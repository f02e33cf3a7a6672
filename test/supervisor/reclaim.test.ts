import { describe, expect, test } from "vitest";
import type { AccessLine } from "../../src/observe/access-line.ts";
import { Arena, claim, claimed } from "../../src/shared/cells.ts";
import { BACKEND, endCell, WORKER } from "../../src/shared/counters.ts";
import { CLAIM, Ledger, ledgerMemory, ROW, ROW_WORDS } from "../../src/shared/ledger.ts";
import { SharedQueue } from "../../src/shared/queue.ts";
import { reclaim } from "../../src/supervisor/reclaim.ts";
import { Registry } from "../../src/supervisor/registry.ts";
import { configOf } from "../support/config.ts";
import { recordingLog } from "../support/recording-log.ts";

function deadWorker(index = 0) {
  const registry = new Registry();
  const config = configOf(`
    [listeners.web]
    bind = ":8080"
    pool = "app"
    [pools.app]
    backends = [{ address = "10.0.0.1:80", name = "one", max_connections = 1 }]
    queue = { size = 10 }
  `);
  registry.commit(registry.draft(config, 1000, () => []));
  registry.makeRoom(index + 1);
  const { log, said } = recordingLog();
  const lost: AccessLine[] = [];
  const options = { registry, log, open: new Arena().int32(1), onLost: (line: AccessLine) => void lost.push(line) };
  const ledger = new Ledger(ledgerMemory(8));
  const counters = new Float64Array(WORKER.size);
  return { options, said, lost, worker: { index, ledger, counters, end: "worker_lost" as const } };
}

describe("reclaim", () => {
  test("continues after a missing claim, and logs it", () => {
    const { options, said, lost, worker } = deadWorker();
    const { ledger } = worker;
    const { id } = options.registry.pools[0]!.backends[0]!;
    for (let i = 0; i < 2; i++) {
      const at = ledger.take() * ROW_WORDS;
      ledger.words[at]! |= CLAIM.process | CLAIM.backend;
      ledger.words[at + ROW.backend] = id;
    }
    const { cells } = options.registry.backendById.get(id)!;
    claim(cells.open, 0);
    claim(cells.open, 0);
    claim(options.open, 0);
    expect(reclaim(worker, options)).toBe(2);
    expect([claimed(options.open), claimed(cells.open)]).toEqual([0, 0]);
    expect(said).toEqual([
      expect.objectContaining({ level: "error", event: "claim of a lost connection is missing", worker: 0 }),
    ]);
    expect(lost.length).toBe(2);
    expect([...ledger.rowsInUse()]).toEqual([]);
  });

  test("removes its waiters from the queue, and wakes the worker that has the turn then", async () => {
    const { options, worker } = deadWorker(1);
    const { registry } = options;
    const [pool] = registry.pools;
    const [gone, other] = [new SharedQueue(pool!.queue!), new SharedQueue(pool!.queue!)];
    const at = worker.ledger.take() * ROW_WORDS;
    worker.ledger.words[at]! |= CLAIM.queue;
    worker.ledger.words[at + ROW.pool] = pool!.id;
    expect([gone.enter(1, 10), other.enter(0, 10)]).toEqual([true, true]);
    gone.setHead(1, gone.takeTicket());
    other.setHead(0, other.takeTicket());
    expect(other.oldest()).toBe(1);
    const { promise, resolve } = Promise.withResolvers<void>();
    other.awaitWake(0, resolve);
    expect(reclaim(worker, options)).toBe(1);
    await promise;
    expect([other.waiting, other.oldest()]).toEqual([1, 0]);
  });

  test("counts in the rows of the dead worker, under the given end", () => {
    const { options, lost, worker } = deadWorker(1);
    const { ledger } = worker;
    const [listener] = options.registry.listeners;
    const [backend] = options.registry.pools[0]!.backends;
    const at = ledger.take() * ROW_WORDS;
    ledger.words[at + ROW.listener] = listener!.id;
    ledger.words[at + ROW.backend] = backend!.id;
    expect(reclaim({ ...worker, end: "shutdown" }, options)).toBe(1);
    expect(lost).toEqual([expect.objectContaining({ listener: "web", backend: "one", end: "shutdown", endBy: "lb" })]);
    const { counters } = listener!.cells;
    expect(counters[counters.length / 2 + endCell("shutdown", "lb")]).toBe(1);
    expect([...backend!.cells.counters].filter((count) => count !== 0)).toEqual([1]);
    expect(backend!.cells.counters[BACKEND.size + BACKEND.ended]).toBe(1);
    expect(worker.counters[WORKER.ended]).toBe(1);
  });

  test("reclaims connections whose listener and backend are gone from the registry", () => {
    const { options, said, lost, worker } = deadWorker();
    const at = worker.ledger.take() * ROW_WORDS;
    worker.ledger.words[at]! |= CLAIM.process | CLAIM.listener | CLAIM.backend;
    worker.ledger.words[at + ROW.listener] = 777;
    worker.ledger.words[at + ROW.backend] = 778;
    claim(options.open, 0);
    expect(reclaim(worker, options)).toBe(1);
    expect(claimed(options.open)).toBe(0);
    expect(said).toEqual([]);
    expect(lost).toEqual([expect.objectContaining({ listener: "", backend: "", end: "worker_lost" })]);
  });
});
