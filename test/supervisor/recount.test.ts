import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { Arena, claim, claimed, giveBack } from "../../src/shared/cells.ts";
import { CLAIM, Ledger, ledgerMemory, ROW, ROW_WORDS } from "../../src/shared/ledger.ts";
import { SharedQueue } from "../../src/shared/queue.ts";
import { Recount } from "../../src/supervisor/recount.ts";
import { Registry } from "../../src/supervisor/registry.ts";
import { configOf } from "../support/config.ts";
import { recordingLog } from "../support/recording-log.ts";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

/** One connection in its phase relaying, and one that waits, in the ledger of a worker whose answers the test decides. */
function stage() {
  const registry = new Registry();
  const config = configOf(`
    [listeners.web]
    bind = ":8080"
    pool = "app"
    [pools.app]
    backends = [{ address = "10.0.0.1:80", name = "one", max_connections = 2 }]
    queue = { size = 10 }
  `);
  registry.commit(registry.draft(config, 1000, () => []));
  const [listener] = registry.listeners;
  const [pool] = registry.pools;
  const [backend] = pool!.backends;
  const queue = new SharedQueue(pool!.queue!);
  const open = new Arena().int32(1);
  const ledger = new Ledger(ledgerMemory(8));
  const answers = { willing: true, asked: 0, meanwhile: () => {} };
  const cells = [open, listener!.cells.open, backend!.cells.open];
  const rowOf = (claims: number): number => {
    const at = ledger.take() * ROW_WORDS;
    ledger.words[at]! |= claims;
    ledger.words[at + ROW.listener] = listener!.id;
    ledger.words[at + ROW.pool] = pool!.id;
    ledger.words[at + ROW.backend] = claims & CLAIM.backend ? backend!.id : 0;
    return at;
  };
  rowOf(CLAIM.process | CLAIM.listener | CLAIM.backend);
  rowOf(CLAIM.process | CLAIM.listener | CLAIM.queue);
  for (const cell of [open, open, ...cells.slice(1), cells[1]!]) claim(cell, 0);
  queue.enter(0, 10);
  const { log, said } = recordingLog();
  const worker = {
    ledger,
    endConnections: () => {
      answers.asked++;
      return Promise.resolve(answers.willing ? 0 : null);
    },
  };
  const workers = () => {
    answers.meanwhile();
    return [worker];
  };
  const recount = new Recount({ registry, workers, open, log });
  const held = (): number[] => [...cells.map(claimed), queue.waiting];
  return { recount, cells, queue, ledger, rowOf, answers, said, held };
}

test("places that no row names are released, and all others stay", async () => {
  const { recount, cells, queue, said, held } = stage();
  expect(held()).toEqual([2, 2, 1, 1]);
  for (const cell of cells) claim(cell, 0);
  queue.enter(0, 10);
  queue.enter(0, 10);
  recount.begin();
  await vi.advanceTimersByTimeAsync(900);
  expect(held()).toEqual([3, 3, 2, 3]);
  await vi.advanceTimersByTimeAsync(200);
  expect(held()).toEqual([2, 2, 1, 1]);
  expect(said).toEqual([
    expect.objectContaining({ level: "warn", of: "process", places: 1 }),
    expect.objectContaining({ of: "listener", listener: "web", places: 1 }),
    expect.objectContaining({ of: "backend", backend: "one", places: 1 }),
    expect.objectContaining({ of: "queue", pool: "app", places: 2 }),
  ]);
  recount.begin();
  await vi.advanceTimersByTimeAsync(2000);
  expect(held()).toEqual([2, 2, 1, 1]);
});

test("a claim that a living worker notes later is not taken from it", async () => {
  const { recount, cells, rowOf, answers, said, held } = stage();
  const backend = cells[2]!;
  answers.willing = false;
  claim(backend, 2);
  recount.begin();
  await vi.advanceTimersByTimeAsync(3000);
  expect([answers.asked, held()[2]]).toEqual([1, 2]);
  rowOf(CLAIM.backend);
  answers.willing = true;
  await vi.advanceTimersByTimeAsync(10_000);
  expect([answers.asked, held()[2]]).toEqual([2, 2]);
  expect(said).toEqual([]);
});

test("a place that is released between two samples was never lost", async () => {
  const { recount, cells, held } = stage();
  const backend = cells[2]!;
  claim(backend, 2);
  recount.begin();
  await vi.advanceTimersByTimeAsync(300);
  giveBack(backend);
  await vi.advanceTimersByTimeAsync(300);
  claim(backend, 2);
  await vi.advanceTimersByTimeAsync(1000);
  expect(held()[2]).toBe(2);
});

test("a cell that changes in every sample is left alone", async () => {
  const { recount, cells, answers, held } = stage();
  const backend = cells[2]!;
  claim(backend, 0);
  let isMore = false;
  answers.meanwhile = () => {
    if (isMore) giveBack(backend);
    else claim(backend, 0);
    isMore = !isMore;
  };
  recount.begin();
  await vi.advanceTimersByTimeAsync(2000);
  expect(held()[2]).toBe(isMore ? 3 : 2);
});

test("another death begins the samples again", async () => {
  const { recount, cells, answers, held } = stage();
  claim(cells[2]!, 2);
  recount.begin();
  await vi.advanceTimersByTimeAsync(600);
  recount.begin();
  await vi.advanceTimersByTimeAsync(500);
  expect([answers.asked, held()[2]]).toEqual([1, 2]);
  await vi.advanceTimersByTimeAsync(1000);
  expect([answers.asked, held()[2]]).toEqual([2, 1]);
});
