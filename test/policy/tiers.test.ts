import { describe, expect, test } from "vitest";
import { tiersOf } from "../../src/policy/tiers.ts";

const backend = (id: number, weight = 1, backup = false) => ({ id, weight, backup });

describe("tiersOf", () => {
  const pool = [backend(1), backend(2), backend(3, 0), backend(4, 1, true), backend(5, 0, true)];
  const idsOf = (up: number[]) =>
    tiersOf(pool.map((each) => ({ ...each, up: up.includes(each.id) }))).map(({ entries }) =>
      entries.map(({ id }) => id),
    );

  test("has the primaries that are up, in their order, and the backups behind them", () => {
    expect(idsOf([5, 4, 3, 2, 1])).toEqual([[1, 2], [4]]);
    expect(idsOf([2, 4])).toEqual([[2], [4]]);
    expect(idsOf([2])).toEqual([[2]]);
  });

  test("has the backups first when no primary is up", () => {
    expect(idsOf([4, 5])).toEqual([[4]]);
  });

  test("does not count a primary of weight 0 as one that is up", () => {
    expect(idsOf([3, 4])).toEqual([[4]]);
  });

  test("is empty when nobody is up", () => {
    expect(idsOf([])).toEqual([]);
    expect(idsOf([5, 99])).toEqual([]);
  });

  test("counts weights in thousandths", () => {
    expect(tiersOf([{ id: 1, up: true, weight: 3, backup: false }])).toEqual([
      { priority: 0, entries: [{ id: 1, effectiveWeight: 3000 }] },
    ]);
  });
});
