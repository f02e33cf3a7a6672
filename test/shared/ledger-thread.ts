// A thread of ledger.test.ts: a worker that gives its rows to one connection after the other, or a reader from another thread.
import { Ledger, PROXIED, ROW, ROW_FLOAT, ROW_FLOATS, ROW_WORDS } from "../../src/shared/ledger.ts";
import { serveJob } from "../support/threads.ts";

export interface LedgerJob {
  role: "worker" | "reader";
  memory: SharedArrayBuffer;
  /** One Int32 cell: 1 when the reader has seen enough, or the worker has waited long enough for that. */
  done: Int32Array;
}

export interface ReaderResult {
  /** Consistent rows that were read, and those of them with the address of a PROXY header. */
  whole: number;
  proxied: number;
  /** Rows that changed owners during the read, which was detected. */
  changed: number;
  /** Inconsistent rows that were taken for consistent. */
  torn: number;
}

const HELD = 3;
/** What the reader must see, because threads of a busy machine do not always run at the same time. */
const READS = 3_000_000;
const CHANGES = 200;
const WAIT_MS = 40_000;

serveJob<LedgerJob>((job, meet) => {
  meet();
  if (job.role === "reader") return read(job);
  serve(job);
  Atomics.store(job.done, 0, 1);
  return null;
});

// The words of an address identify the owner: the number of the connection, and twice that with a PROXY header.
function writeAddress(words: Int32Array, at: number, value: number): void {
  for (let i = 0; i < 5; i++) words[at + i] = value;
}

// Like Ledger.replaceAddress if the thread is preempted in the middle.
function replaceSlowly(words: Int32Array, at: number, value: number): void {
  Atomics.store(words, at + ROW.proxied, PROXIED.changing);
  for (let i = 0; i < 5; i++) {
    words[at + ROW.address + i] = value;
    for (let spin = 0; spin < 50; spin++) spun += words[at + ROW.address + i]!;
  }
  Atomics.store(words, at + ROW.proxied, PROXIED.yes);
}
let spun = 0;

function serve({ memory, done }: LedgerJob): void {
  const ledger = new Ledger(memory);
  const { words, floats } = ledger;
  const held: number[] = [];
  const untilMs = performance.now() + WAIT_MS;
  for (let id = 1; Atomics.load(done, 0) === 0; id++) {
    if (id % 4096 === 0 && performance.now() > untilMs) break;
    const row = ledger.take();
    const at = row * ROW_WORDS;
    words[at + ROW.listener] = id;
    writeAddress(words, at + ROW.address, id);
    floats[row * ROW_FLOATS + ROW_FLOAT.id] = id;
    if (id % 2 === 0) {
      const wide = 2 * id;
      if (id % 64 !== 0) ledger.replaceAddress(row, [wide, wide, wide, wide], wide);
      else replaceSlowly(words, at, wide);
    }
    held.push(row);
    if (held.length > HELD) ledger.release(held.shift()!);
  }
}

function read({ memory, done }: LedgerJob): ReaderResult {
  const ledger = new Ledger(memory);
  const { words } = ledger;
  const result = { whole: 0, proxied: 0, changed: 0, torn: 0 };
  while (Atomics.load(done, 0) === 0) {
    if (result.changed >= CHANGES && result.whole + result.proxied >= READS && result.proxied > 0) break;
    for (const row of ledger.rowsInUse()) {
      const stamp = ledger.stamp(row);
      if (stamp === 0) continue;
      const id = Math.abs(stamp);
      const proxied = stamp < 0;
      const at = row * ROW_WORDS;
      const listener = words[at + ROW.listener]!;
      const address = [0, 1, 2, 3, 4].map((i) => words[at + ROW.address + i]!);
      if (!ledger.isStill(row, stamp)) {
        result.changed++;
        continue;
      }
      const wanted = proxied ? 2 * id : id;
      if (listener !== id || address.some((word) => word !== wanted)) result.torn++;
      else if (proxied) result.proxied++;
      else result.whole++;
    }
  }
  Atomics.store(done, 0, 1);
  return result;
}
