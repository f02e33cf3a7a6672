import { describe, expect, test } from "vitest";
import { eligible } from "../../src/policy/balance.ts";

const backend = (id: number, weight = 1, backup = false) => ({ id, weight, backup });

describe("eligible", () => {
  const pool = [backend(1), backend(2), backend(3, 0), backend(4, 1, true), backend(5, 0, true)];
  const idsOf = (up: number[]) => eligible(pool, up).map(({ id }) => id);

  test("has the primaries that are up, in their order", () => {
    expect(idsOf([5, 4, 3, 2, 1])).toEqual([1, 2]);
    expect(idsOf([2, 4])).toEqual([2]);
  });

  test("has the backups when no primary is up", () => {
    expect(idsOf([4, 5])).toEqual([4]);
  });

  test("does not count a primary of weight 0 as one that is up", () => {
    expect(idsOf([3, 4])).toEqual([4]);
  });

  test("is empty when nobody is up", () => {
    expect(idsOf([])).toEqual([]);
    expect(idsOf([5, 99])).toEqual([]);
  });
});
