import { describe, expect, test } from "vitest";
import { balancerOf, context, FakeBackend } from "../support/picks.ts";

const candidate = (id: number, weight: number, open: number) => Object.assign(new FakeBackend(id, weight), { open });

describe("least_connections", () => {
  test("picks the one with the fewest connections", () => {
    const all = [candidate(0, 1, 5), candidate(1, 1, 3), candidate(2, 1, 4)];
    const balancer = balancerOf("least_connections", all);
    for (let i = 0; i < 5; i++) expect(balancer.pick(context())!.id).toBe(1);
    expect(balancer.pick(context([1]))!.id).toBe(2);
  });

  test("counts connections by weight, without rounding", () => {
    // 7/256 against 6/219: 0.02734 and 0.02740.
    const all = [candidate(0, 219, 6), candidate(1, 256, 7)];
    const balancer = balancerOf("least_connections", all);
    for (let i = 0; i < 5; i++) expect(balancer.pick(context())!.id).toBe(1);
  });

  test("takes turns among equals by weight, and leaves the busier out", () => {
    const all = [candidate(0, 3, 3), candidate(1, 1, 1), candidate(2, 2, 9)];
    const balancer = balancerOf("least_connections", all);
    const picks = [0, 0, 0];
    for (let i = 0; i < 40; i++) picks[balancer.pick(context())!.id]!++;
    expect(picks).toEqual([30, 10, 0]);
  });
});
