import { describe, expect, test } from "vitest";
import { balancerOf, context, FakeBackend } from "../support/picks.ts";
import { Random } from "../support/random.ts";

const all = Array.from({ length: 10 }, (_, id) => new FakeBackend(id));
const hashes = ((random) => Array.from({ length: 5000 }, () => random.word()))(new Random(3));

/** The backend of each client. */
function choices(candidates: readonly FakeBackend[], tried: readonly number[] | null = null): number[] {
  const balancer = balancerOf("source_hash", candidates, { all });
  return hashes.map((hash) => balancer.pick(context(tried, hash))!.id);
}

describe("source_hash", () => {
  const usual = choices(all);

  test("sends a client to the same backend each time", () => {
    expect(choices(all)).toEqual(usual);
  });

  test("moves only the clients of a backend that is down, and spreads them over all the others", () => {
    const without = choices(all.filter(({ id }) => id !== 4));
    const heirs = new Set<number>();
    without.forEach((id, i) => {
      if (usual[i] === 4) heirs.add(id);
      else expect(id).toBe(usual[i]);
    });
    expect([...heirs].toSorted((a, b) => a - b)).toEqual([0, 1, 2, 3, 5, 6, 7, 8, 9]);
  });

  test("overflows from a full backend in the client's own order", () => {
    all[4]!.cap = 0;
    const overflow = choices(all);
    all[4]!.cap = Infinity;
    expect(overflow).toEqual(choices(all.filter(({ id }) => id !== 4)));
    expect(choices(all, [4])).toEqual(overflow);
  });

  test("picks the last backend that is up", () => {
    expect(new Set(choices([all[7]!]))).toEqual(new Set([7]));
  });
});
