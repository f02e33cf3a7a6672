import { describe, expect, test } from "vitest";
import { balancerOf, context, FakeBackend } from "../support/picks.ts";

/** The ids of `count` picks as one word. */
function turns(weights: Record<string, number>, count: number, startAt = 0): string {
  const names = Object.keys(weights);
  const all = names.map((name, id) => new FakeBackend(id, weights[name]!));
  const balancer = balancerOf("round_robin", all, { startAt });
  return Array.from({ length: count }, () => names[balancer.pick(context())!.id]).join("");
}

describe("round_robin", () => {
  test("goes through equal backends in the order of the list", () => {
    expect(turns({ A: 2, B: 2, C: 2 }, 7)).toBe("ABCABCA");
  });

  test("interleaves the turns of unequal backends", () => {
    expect(turns({ A: 3, B: 1, C: 1 }, 10)).toBe("ABACAABACA");
    expect(turns({ A: 5, B: 1, C: 1 }, 7)).toBe("ABAAACA");
  });

  test("starts the given number of turns later", () => {
    expect(turns({ A: 1, B: 1, C: 1 }, 3, 4)).toBe("BCA");
    expect(turns({ A: 3, B: 1, C: 1 }, 5, 1)).toBe("BACAA");
  });

  test("reads one backend per pick while all have the same weight", () => {
    const all = Array.from({ length: 1000 }, (_, id) => new FakeBackend(id, 1));
    const balancer = balancerOf("round_robin", all);
    for (let i = 0; i < 5000; i++) balancer.pick(context());
    expect(all.reduce((sum, each) => sum + each.checks, 0)).toBe(5000);
  });

  test("continues after a removed backend, and takes it in again in the middle of a round", () => {
    const all = [0, 1, 2, 3].map((id) => new FakeBackend(id, 1));
    const balancer = balancerOf("round_robin", all);
    expect([balancer.pick(context())!.id, balancer.pick(context())!.id]).toEqual([0, 1]);
    const without1 = balancerOf("round_robin", [all[0]!, all[2]!, all[3]!], { previous: balancer });
    expect([1, 2, 3].map(() => without1.pick(context())!.id)).toEqual([2, 3, 0]);
    const again = balancerOf("round_robin", all, { previous: without1 });
    expect([1, 2, 3, 4].map(() => again.pick(context())!.id)).toEqual([2, 1, 3, 0]);
  });
});
