// Which connections are ended from outside, in which portions, and over which time. The test simulates the workers.
import { describe, expect, test } from "vitest";
import type { OrderedEnd } from "../../src/messages.ts";
import { Ledger, ledgerMemory, PROXIED, ROW, ROW_FLOAT, ROW_FLOATS, ROW_WORDS } from "../../src/shared/ledger.ts";
import { END_BATCH, endMatching, type EndingWorker } from "../../src/supervisor/ordered-ends.ts";
import { EVERY_ROW } from "../../src/supervisor/row-match.ts";

let lastId = 0;

/** A worker with connections in its ledger, which ends them on request. */
class FakeWorker implements EndingWorker {
  readonly ledger = new Ledger(ledgerMemory(1000));
  readonly asked: { end: OrderedEnd; count: number }[] = [];
  /** It answers that it is late once, and never again. */
  hangs = false;

  open(backend: number): number {
    const row = this.ledger.take();
    this.ledger.words[row * ROW_WORDS + ROW.backend] = backend;
    this.ledger.floats[row * ROW_FLOATS + ROW_FLOAT.id] = ++lastId;
    return row;
  }

  get count(): number {
    return [...this.ledger.rowsInUse()].length;
  }

  endConnections(end: OrderedEnd, rows: Uint32Array, ids: Float64Array): Promise<number | null> {
    this.asked.push({ end, count: rows.length });
    if (this.hangs) return this.asked.length === 1 ? Promise.resolve(null) : new Promise(() => undefined);
    let count = 0;
    for (const [i, row] of rows.entries()) {
      if (Math.abs(this.ledger.stamp(row)) !== ids[i]) continue;
      this.ledger.release(row);
      count++;
    }
    return Promise.resolve(count);
  }
}

const backend = (id: number) => ({ ...EVERY_ROW, backends: new Set([id]) });

describe("ends at once", () => {
  test("end only what matches, in every worker, and return the number", async () => {
    const workers = [new FakeWorker(), new FakeWorker()];
    for (const worker of workers) for (const id of [1, 1, 2]) worker.open(id);
    expect(await endMatching(workers, backend(1), "drain")).toBe(4);
    expect(workers.map(({ count }) => count)).toEqual([1, 1]);
    expect(workers[0]!.asked).toEqual([{ end: "drain", count: 2 }]);
  });

  test("are sent in portions, so that a worker serves others in between", async () => {
    const worker = new FakeWorker();
    for (let i = 0; i < END_BATCH + 1; i++) worker.open(1);
    expect(await endMatching([worker], backend(1), "killed")).toBe(END_BATCH + 1);
    expect(worker.asked.map(({ count }) => count)).toEqual([END_BATCH, 1]);
  });

  test("are sent to a hanging worker too, and are not awaited twice", async () => {
    const [hung, other] = [new FakeWorker(), new FakeWorker()];
    hung.hangs = true;
    for (let i = 0; i < 2 * END_BATCH + 1; i++) hung.open(1);
    other.open(1);
    expect(await endMatching([hung, other], backend(1), "killed")).toBe(1);
    expect(hung.asked.map(({ count }) => count)).toEqual([END_BATCH, END_BATCH, 1]);
  });

  test("omit a row whose connection or address is being written", async () => {
    const worker = new FakeWorker();
    const fresh = worker.open(1);
    worker.ledger.floats[fresh * ROW_FLOATS + ROW_FLOAT.id] = 0;
    const believing = worker.open(1);
    worker.ledger.words[believing * ROW_WORDS + ROW.proxied] = PROXIED.changing;
    expect(await endMatching([worker], backend(1), "killed")).toBe(0);
    expect(worker.asked).toEqual([]);
  });
});

describe("ends over a window", () => {
  test("are spread evenly, in small portions, and end what matched at the start", async () => {
    const worker = new FakeWorker();
    for (let i = 0; i < 100; i++) worker.open(1);
    worker.open(2);
    const beginMs = performance.now();
    const ended = endMatching([worker], backend(1), "drain", 500);
    const late = worker.open(1);
    expect(await ended).toBe(100);
    // The last of ten portions comes after nine tenths.
    expect(performance.now() - beginMs).toBeGreaterThan(400);
    expect(worker.asked.map(({ count }) => count)).toEqual(Array<number>(10).fill(10));
    expect([...worker.ledger.rowsInUse()].includes(late)).toBe(true);
    expect(worker.count).toBe(2);
  });

  test("start at once, even for a single connection", async () => {
    const worker = new FakeWorker();
    worker.open(1);
    const ended = endMatching([worker], backend(1), "drain", 3_600_000);
    expect(worker.asked).toHaveLength(1);
    expect(await ended).toBe(1);
  });

  test("continue in other workers while one hangs", async () => {
    const [hung, other] = [new FakeWorker(), new FakeWorker()];
    hung.hangs = true;
    for (let i = 0; i < 10; i++) for (const worker of [hung, other]) worker.open(1);
    expect(await endMatching([hung, other], backend(1), "drain", 100)).toBe(10);
    expect([hung.count, other.count]).toEqual([10, 0]);
  });
});
