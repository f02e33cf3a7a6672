import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { Arena, claim, claimed, giveBack } from "../../src/shared/cells.ts";
import { CLIENT_OVER_CAP, clientMemory, ClientTable, WAYS, type ClientLimits } from "../../src/shared/clients.ts";
import { CLAIM, Ledger, ledgerMemory, ROW, ROW_WORDS } from "../../src/shared/ledger.ts";
import { SharedQueue } from "../../src/shared/queue.ts";
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
  const ledger = new Ledger(ledgerMemory(8));
  const answers = { willing: true, asked: 0, meanwhile: () => {} };
  const cells = [open, listener!.cells.open, backend!.cells.open];
  const rowOf = (claims: number): number => {
    const at = ledger.take() * ROW_WORDS;
    ledger.words[at]! |= claims;
    ledger.words[at + ROW.listener] = listener!.id;
    ledger.words[at + ROW.pool] = pool!.id;
    ledger.words[at + ROW.backend] = claims & CLAIM.backend ? backend!.id : 0;
    if (claims & CLAIM.client) ledger.words[at + ROW.clientEntry] = claimClient(at, 0);
    return at;
  };
  rowOf(CLAIM.process | CLAIM.listener | CLAIM.client | CLAIM.backend);
  rowOf(CLAIM.process | CLAIM.listener | CLAIM.client | CLAIM.queue);
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
  return { recount, cells, queue, ledger, clients, claimClient, rowOf, answers, said, held };
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

test("a claim is not taken from a worker that is blocked before its note only after it has answered", async () => {
  const { recount, cells, answers, said, held } = stage();
  const backend = cells[2]!;
  let isOdd = false;
  // Until then the number changes during each sample.
  answers.meanwhile = () => {
    if (isOdd) giveBack(backend);
    else claim(backend, 2);
    isOdd = !isOdd;
  };
  recount.begin();
  await vi.advanceTimersByTimeAsync(490);
  answers.meanwhile = () => {};
  if (!isOdd) claim(backend, 2);
  await vi.advanceTimersByTimeAsync(2000);
  expect([answers.asked, held()[2]]).toEqual([1, 2]);
  expect(said).toEqual([]);
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
