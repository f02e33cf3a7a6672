import { describe, expect, test } from "vitest";
import { END_CODES, END_NAMES, ENDED_BY } from "../../src/core/ends.ts";
import { BACKEND, CONNECT_BUCKETS_MS, LISTENER, WORKER } from "../../src/shared/counters.ts";

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
      ENDED_BY.forEach((_by, i) => cells.add(LISTENER.ends + END_CODES[end] * ENDED_BY.length + i));
    }
    expect(cells.size).toBe(END_NAMES.length * ENDED_BY.length);
    expect(Math.max(...cells)).toBeLessThan(LISTENER.size);
    for (const [name, cell] of Object.entries(LISTENER)) {
      if (name !== "ends") expect([name, cells.has(cell)]).toEqual([name, false]);
    }
  });

  test("have a cell for each bucket of connect times, and one for what is slower than all", () => {
    expect(BACKEND.connectBuckets + CONNECT_BUCKETS_MS.length).toBe(BACKEND.size - 1);
    expect(CONNECT_BUCKETS_MS.toSorted((a, b) => a - b)).toEqual([...CONNECT_BUCKETS_MS]);
  });
});
