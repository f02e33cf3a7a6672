import { describe, expect, test } from "vitest";
import { interval95, pairedRatios, quantile, rotated, spreadOf } from "../../bench/statistics.ts";

describe("spreadOf", () => {
  test("takes the middle of an odd number of values, whatever their order", () => {
    expect(spreadOf([9, 1, 5])).toEqual({ median: 5, min: 1, max: 9 });
  });

  test("takes the mean of the two in the middle of an even number", () => {
    expect(spreadOf([4, 1, 2, 100])).toEqual({ median: 3, min: 1, max: 100 });
  });

  test("compares as numbers and not as text", () => {
    expect(spreadOf([10, 9, 100])?.median).toBe(10);
  });

  test("has no result without values", () => {
    expect(spreadOf([])).toBeUndefined();
  });
});

describe("pairedRatios", () => {
  test("divides within each round", () => {
    expect(pairedRatios([10, 30], [5, 10])).toEqual([2, 3]);
  });

  test("leaves out the rounds in which either failed", () => {
    expect(pairedRatios([10, undefined, 30, 40], [5, 5, undefined, 20])).toEqual([2, 2]);
  });

  test("leaves out divisions by zero", () => {
    expect(pairedRatios([1], [0])).toEqual([]);
  });
});

describe("interval95", () => {
  test("is Student's interval around the geometric mean", () => {
    // ln 1 and ln e: mean 0.5, standard error 0.5, t of one degree of freedom 12.706.
    const { mean, low, high } = interval95([1, Math.E])!;
    expect(Math.log(mean)).toBeCloseTo(0.5, 10);
    expect(Math.log(low)).toBeCloseTo(0.5 - 6.353, 10);
    expect(Math.log(high)).toBeCloseTo(0.5 + 6.353, 10);
  });

  test("is a point if all ratios are equal, and null for a single ratio", () => {
    expect(interval95([2, 2, 2])).toEqual({ mean: 2, low: 2, high: 2 });
    expect(interval95([2])).toBeUndefined();
  });
});

describe("quantile", () => {
  const hundred = Float64Array.from({ length: 100 }, (_, i) => i + 1);

  test("is the value of the nearest rank", () => {
    expect(quantile(hundred, 0.5)).toBe(50);
    expect(quantile(hundred, 0.99)).toBe(99);
    expect(quantile(hundred, 0.999)).toBe(100);
  });

  test("stays within the values at both ends", () => {
    expect(quantile(hundred, 0)).toBe(1);
    expect(quantile(hundred, 1)).toBe(100);
  });
});

describe("rotated", () => {
  test("starts with another element in each round and keeps the order", () => {
    const orders = [0, 1, 2, 3].map((round) => rotated(["a", "b", "c"], round).join(""));
    expect(orders).toEqual(["abc", "bca", "cab", "abc"]);
  });
});
