import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { Arena, claim, claimed, giveBack } from "../../src/shared/cells.ts";
import { CLIENT_OVER_CAP, clientMemory, ClientTable, WAYS, type ClientLimits } from "../../src/shared/clients.ts";
import { CLAIM, Ledger, ledgerMemory, ROW, ROW_WORDS } from "../../src/shared/ledger.ts";
import { SharedQueue } from "../../src/shared/queue.ts";
import type { EndingWorker } from "../../src/supervisor/ordered-ends.ts";
import { Recount } from "../../src/supervisor/recount.ts";
import { Registry } from "../../src/supervisor/registry.ts";
import { configOf } from "../support/config.ts";
import { interruptions } from "../support/interruptions.ts";
import { recordingLog } from "../support/recording-log.ts";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

const LIMITS: ClientLimits = {
  maxOpen: 1,
  intervalNs: 1,
  burst: 1,
  holds: false,
  dryRunOpen: false,
  dryRunRate: false,
};

/** One connection in its phase relaying, and one that waits, in the ledger of a worker whose answers the test decides. */
function stage() {
  const registry = new Registry();
  const config = configOf(`
    [listeners.web]
    bind = ":8080"
    pool = "app"
    max_connections_per_client = 5
    [pools.app]
    backends = [{ address = "10.0.0.1:80", name = "one", max_connections = 2 }]
    queue = { size = 10 }
  `);
  registry.commit(registry.draft(config, 1000, () => []));
  const [listener] = registry.listeners;
  const [pool] = registry.pools;
  const [backend] = pool!.backends;
  const queue = new SharedQueue(pool!.queue!);
  // The smallest one: it has one set.
  const clients = new ClientTable((listener!.clients = clientMemory(WAYS)));
  const claimClient = (address: number, nowMs: number, limits = LIMITS): number =>
    clients.claim(0, 0, 0xffff, address, limits, nowMs * 1e6);
  const open = new Arena().int32(1);
  const ledger = new Ledger(ledgerMemory(64));
  const answers = { answer: (): Promise<number | null> => Promise.resolve(0), meanwhile: () => {} };
  const cells = [open, listener!.cells.open, backend!.cells.open];
  const rowOf = (claims: number, { words } = ledger, row = ledger.take()): number => {
    const at = row * ROW_WORDS;
    words[at]! |= claims;
    words[at + ROW.listener] = listener!.id;
    words[at + ROW.pool] = pool!.id;
    words[at + ROW.backend] = claims & CLAIM.backend ? backend!.id : 0;
    if (claims & CLAIM.client) words[at + ROW.clientEntry] = claimClient(at, 0);
    return at;
  };
  rowOf(CLAIM.process | CLAIM.listener | CLAIM.client | CLAIM.backend);
  rowOf(CLAIM.process | CLAIM.listener | CLAIM.client | CLAIM.queue);
  for (const cell of [open, open, ...cells.slice(1), cells[1]!]) claim(cell, 0);
  queue.enter(0, 10);
  const { log, said } = recordingLog();
  const endConnections = () => answers.answer();
  const all: EndingWorker[] = [{ ledger, endConnections }];
  const workers = () => {
    answers.meanwhile();
    return all;
  };
  const recount = new Recount({ registry, workers, open, log });
  const held = (): number[] => [...cells.map(claimed), queue.waiting];
  return { recount, cells, queue, ledger, clients, claimClient, rowOf, answers, all, said, held };
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
  answers.answer = () => Promise.resolve(null);
  claim(cells[2]!, 2);
  recount.begin();
  await vi.advanceTimersByTimeAsync(3000);
  expect(held()[2]).toBe(2);
  rowOf(CLAIM.backend);
  answers.answer = () => Promise.resolve(0);
  await vi.advanceTimersByTimeAsync(10_000);
  expect(held()[2]).toBe(2);
  expect(said).toEqual([]);
});

test("claims are not taken from a worker that stalls before the note of one and later before the note of another", async () => {
  const { recount, cells, rowOf, answers, said, held } = stage();
  // As a thread that gets the CPU now and then.
  let ran = Promise.withResolvers<number>();
  answers.answer = () => ran.promise;
  claim(cells[2]!, 0);
  recount.begin();
  for (let stall = 0; stall < 3; stall++) {
    await vi.advanceTimersByTimeAsync(600);
    rowOf(CLAIM.backend);
    claim(cells[2]!, 0);
    ran.resolve(0);
    ran = Promise.withResolvers();
  }
  rowOf(CLAIM.backend);
  answers.answer = () => Promise.resolve(0);
  ran.resolve(0);
  await vi.advanceTimersByTimeAsync(10_000);
  expect(held()[2]).toBe(5);
  expect(said).toEqual([]);
});

test("places that move to a worker whose rows have been read are not released", async () => {
  const { recount, cells, ledger, rowOf, all, said, held } = stage();
  const retiring = new Ledger(ledgerMemory(64));
  const rows = Array.from({ length: 40 }, () => retiring.take());
  for (const row of rows) {
    rowOf(CLAIM.backend, retiring, row);
    claim(cells[2]!, 0);
  }
  const endConnections = (): Promise<number> => Promise.resolve(0);
  all.push({
    // In each sample a connection of this worker ends, and its place goes to one that waits in the other.
    get ledger() {
      retiring.release(rows.pop()!);
      rowOf(CLAIM.backend, ledger, ledger.take());
      return retiring;
    },
    endConnections,
  });
  recount.begin();
  await vi.advanceTimersByTimeAsync(5000);
  expect(rows.length).toBeLessThan(21);
  expect(held()[2]).toBe(41);
  expect(said).toEqual([]);
});

test("places that move to a row that has been read are not released", async () => {
  const { recount, cells, ledger, rowOf, answers, said, held } = stage();
  const [low, high] = [rowOf(0), rowOf(CLAIM.backend)];
  claim(cells[2]!, 2);
  ledger.words[low + ROW.backend] = ledger.words[high + ROW.backend]!;
  const move = (from: number, to: number): void => {
    ledger.words[from]! &= ~CLAIM.backend;
    ledger.words[to]! |= CLAIM.backend;
  };
  answers.meanwhile = () => move(low, high);
  const rowsInUse = ledger.rowsInUse.bind(ledger);
  ledger.rowsInUse = function* (direction) {
    let read = 0;
    for (const row of rowsInUse(direction)) {
      if (row * ROW_WORDS === low || row * ROW_WORDS === high) read++;
      yield row;
      if (read === 1) move(high, low);
    }
  };
  recount.begin();
  await vi.advanceTimersByTimeAsync(5000);
  expect(held()[2]).toBe(2);
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
  const { recount, cells, held } = stage();
  claim(cells[2]!, 2);
  recount.begin();
  await vi.advanceTimersByTimeAsync(600);
  recount.begin();
  await vi.advanceTimersByTimeAsync(1300);
  expect(held()[2]).toBe(2);
  await vi.advanceTimersByTimeAsync(200);
  expect(held()[2]).toBe(1);
});

test("places of clients that no row names are released, and those of all others stay", async () => {
  const { recount, clients, claimClient, said } = stage();
  const [first, second] = [...clients.openByEntry().keys()];
  const lost = claimClient(1, 0);
  // A second place of the client of the first row.
  expect(claimClient(ROW_WORDS, 1, { ...LIMITS, maxOpen: 2 })).toBe(first);
  recount.begin();
  await vi.advanceTimersByTimeAsync(1100);
  expect(clients.open(lost)).toBe(0);
  expect([...clients.openByEntry()]).toEqual([
    [first, 1],
    [second, 1],
  ]);
  const one = { level: "warn", of: "client", listener: "web", places: 1 };
  expect(said).toEqual([expect.objectContaining(one), expect.objectContaining(one)]);
});

test("a place of a client that a living worker notes later is not taken from it", async () => {
  const { recount, clients, claimClient, rowOf, ledger, said } = stage();
  const late = claimClient(1, 0);
  recount.begin();
  await vi.advanceTimersByTimeAsync(300);
  const row = rowOf(0);
  ledger.words[row + ROW.clientEntry] = late;
  ledger.words[row]! |= CLAIM.client;
  await vi.advanceTimersByTimeAsync(5000);
  expect(clients.open(late)).toBe(1);
  expect(said).toEqual([]);
});

test("a worker that is terminated anywhere in a claim leaves nothing claimed, and each client still has its cap", async () => {
  for (const interrupt of interruptions()) {
    const { recount, clients, claimClient, ledger } = stage();
    for (const row of ledger.rowsInUse()) ledger.words[row * ROW_WORDS]! &= ~CLAIM.client;
    for (const entry of clients.openByEntry().keys()) clients.release(entry);
    for (let client = 1; client < WAYS - 1; client++) clients.release(claimClient(client, client));
    // The client of the first row has been idle longest, so the new client gets its entry.
    expect(() => interrupt(() => claimClient(100, 1000), terminate)).toThrow("terminated");
    recount.begin();
    await vi.advanceTimersByTimeAsync(1100);
    expect(clients.openByEntry().size).toBe(0);
    for (const client of [ROW_WORDS, 100]) {
      expect(clients.open(claimClient(client, 2000))).toBe(1);
      expect(claimClient(client, 3000)).toBe(CLIENT_OVER_CAP);
    }
  }
});

function terminate(): never {
  throw new Error("terminated");
}
