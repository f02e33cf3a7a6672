import { expect, test } from "vitest";
import { compare, matcherOf } from "../../src/core/rows.ts";

test("numbers sort by value with NaN last, texts by the numbers in them", () => {
  expect([10, Number.NaN, 2, 3].sort(compare)).toEqual([2, 3, 10, Number.NaN]);
  expect(["b10", "a", "b2"].sort(compare)).toEqual(["a", "b2", "b10"]);
});

test("a filter matches texts with every word of it, in any case", () => {
  const matches = matcherOf("  Web up ");
  expect(["web/b1 UP", "web/b1 down", "up"].map(matches)).toEqual([true, false, false]);
  expect(matcherOf("")("anything")).toBe(true);
});
