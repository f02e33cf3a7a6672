import { describe, expect, test } from "vitest";
import { Rotation } from "../../src/policy/rotation.ts";
import { FakeBackend } from "../support/picks.ts";

const candidate = (id: number, weight: number) => new FakeBackend(id, weight);

/** The ids of `count` turns in which everybody may be picked. */
function turns(weights: number[], deficits: Map<number, number> | null, count: number): number[] {
  const rotation = new Rotation(
    weights.map((weight, id) => candidate(id, weight)),
    deficits,
    0,
  );
  const all = Int32Array.from(weights, (_, index) => index);
  return Array.from({ length: count }, () => rotation.pickAmong(all, weights.length)!.id);
}

describe("Rotation", () => {
  test("gives the next turns to those who are behind, whether weights are equal or not", () => {
    const deficits = new Map([
      [0, -0.75],
      [1, 0],
      [2, 0.75],
    ]);
    expect(turns([1, 1, 1], deficits, 3)).toEqual([2, 1, 0]);
    expect(turns([2, 2, 3], deficits, 3)).toEqual([2, 1, 2]);
  });

  test("lets a new candidate begin in the middle, however far ahead or behind all the others are", () => {
    for (const shift of [-5, 0, 5]) {
      const deficits = new Map([
        [0, shift - 0.4],
        [1, shift + 0.4],
      ]);
      expect(turns([1, 1, 1], deficits, 3), `${shift}`).toEqual([1, 2, 0]);
      expect(turns([5, 5, 6], deficits, 3), `${shift}`).toEqual([1, 2, 0]);
    }
  });

  test("begins anew where it knows no candidate", () => {
    expect(turns([1, 1, 1], new Map([[7, 3]]), 3)).toEqual([0, 1, 2]);
  });

  test("skips candidates that may not be picked without making them pay", () => {
    const rotation = new Rotation([candidate(0, 1), candidate(1, 1), candidate(2, 1)], null, 0);
    expect(rotation.pickAmong(Int32Array.of(1, 2), 2)!.id).toBe(1);
    expect(rotation.pickAmong(Int32Array.of(0, 1), 2)!.id).toBe(0);
    expect(rotation.pickAmong(Int32Array.of(0, 2), 1)!.id).toBe(0);
    expect(rotation.pickAmong(Int32Array.of(0, 2), 0)).toBeNull();
  });
});
