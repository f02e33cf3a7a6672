import { describe, expect, test } from "vitest";
import { END_NAMES, ENDED_BY } from "../../src/core/ends.ts";
import {
  BACKEND,
  CONNECT_BUCKETS_MS,
  CONNECT_TIMES,
  countTime,
  endCell,
  LISTENER,
  readTimes,
  WORKER,
} from "../../src/shared/counters.ts";

describe("the counters' rows", () => {
  test("have a cell of its own for each single counter", () => {
    for (const layout of [LISTENER, BACKEND, WORKER]) {
      const { size, ...cells } = layout;
      const numbers = Object.values(cells);
      expect(new Set(numbers).size).toBe(numbers.length);
      expect(Math.max(...numbers)).toBeLessThan(size);
    }
  });

  test("have a cell of its own for each end and who ended it", () => {
    const cells = new Set<number>();
    for (const end of END_NAMES) {
      for (const by of ENDED_BY) cells.add(endCell(end, by));
    }
    expect(cells.size).toBe(END_NAMES.length * ENDED_BY.length);
    expect(Math.max(...cells)).toBeLessThan(LISTENER.size);
    for (const [name, cell] of Object.entries(LISTENER)) {
      if (name !== "ends") expect([name, cells.has(cell)]).toEqual([name, false]);
    }
  });

  test("have a cell for each bucket of connect times, and one for slower connects", () => {
    const others = Object.entries(BACKEND).filter(([name]) => !["connectBuckets", "size"].includes(name));
    const buckets = Array.from({ length: CONNECT_BUCKETS_MS.length + 1 }, (_, i) => BACKEND.connectBuckets + i);
    const cells = [...others.map(([, cell]) => cell), ...buckets];
    expect(new Set(cells).size).toBe(cells.length);
    expect(Math.max(...cells)).toBeLessThan(BACKEND.size);
    expect(CONNECT_BUCKETS_MS.toSorted((a, b) => a - b)).toEqual([...CONNECT_BUCKETS_MS]);
  });

  test("of different workers share no cache line, and a fast connect that ends well counts in one", () => {
    expect([BACKEND.size % 8, LISTENER.size % 8]).toEqual([0, 0]);
    const { dials, connected, bytesIn, bytesOut, ended, connectSumMs, connectBuckets } = BACKEND;
    const used = [dials, connected, bytesIn, bytesOut, ended, connectSumMs, connectBuckets, connectBuckets + 1];
    expect(Math.max(...used)).toBeLessThan(8);
  });

  test("count a time in the first bucket whose bound it does not exceed, and add it to the sum", () => {
    const row = new Float64Array(BACKEND.size);
    for (const ms of [0, 0.25, 0.3, 5000, 5001]) countTime(row, CONNECT_TIMES, ms);
    const { sum, buckets } = readTimes(CONNECT_TIMES, (cell) => row[cell]!);
    expect(sum).toBe(10_001.55);
    expect(buckets).toEqual([2, 1, ...Array<number>(CONNECT_BUCKETS_MS.length - 3).fill(0), 1, 1]);
    expect(row.reduce((all, cell) => all + cell, 0)).toBe(sum + 5);
  });
});
