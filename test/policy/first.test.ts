import { describe, expect, test } from "vitest";
import { backendsOf, balancerOf, context } from "../support/picks.ts";

describe("first", () => {
  test("fills the backends in the order of the list, whatever their weights are", () => {
    const all = backendsOf(1, 256, 1);
    for (const backend of all) backend.cap = 2;
    const balancer = balancerOf("first", all);
    const picks = Array.from({ length: 6 }, () => {
      const picked = balancer.pick(context())!;
      picked.open++;
      return picked.id;
    });
    expect(picks).toEqual([10, 10, 11, 11, 12, 12]);
    all[0]!.open--;
    expect(balancer.pick(context())!.id).toBe(10);
  });
});
