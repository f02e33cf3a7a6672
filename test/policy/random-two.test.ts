import { describe, expect, test } from "vitest";
import { backendsOf, balancerOf, context, FakeBackend } from "../support/picks.ts";

describe("random_two", () => {
  test("picks the less loaded one of two, by weight", () => {
    const all = backendsOf(1, 4);
    [all[0]!.open, all[1]!.open] = [2, 7];
    const balancer = balancerOf("random_two", all);
    for (let i = 0; i < 20; i++) expect(balancer.pick(context())!.id).toBe(11);
    all[1]!.open = 9;
    for (let i = 0; i < 20; i++) expect(balancer.pick(context())!.id).toBe(10);
  });

  test("keeps the highest load of many close to the mean, unlike one random choice", () => {
    // Mitzenmacher: with n connections on n backends the maximum is log log n / log 2 + O(1), about 3; with one choice about 6.
    const all = Array.from({ length: 1000 }, (_, id) => new FakeBackend(id));
    const balancer = balancerOf("random_two", all);
    for (let i = 0; i < 1000; i++) balancer.pick(context())!.open++;
    expect(Math.max(...all.map(({ open }) => open))).toBeLessThanOrEqual(4);
  });
});
