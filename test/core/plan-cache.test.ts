import { expect, test } from "vitest";
import { PlanCache } from "../../src/core/plan-cache.ts";

class Made {
  readonly plan: { name: string };
  constructor(plan: { name: string }) {
    this.plan = plan;
  }
}

test("equal plans share one object, and keep it from one cache to the next as long as it is requested", () => {
  const first = new PlanCache(Made, null);
  const a = first.get({ name: "a" });
  expect(first.get({ name: "a" })).toBe(a);
  expect(first.get({ name: "b" })).not.toBe(a);
  expect(first.get({ name: "a" }, 7)).not.toBe(a);
  const second = new PlanCache(Made, first);
  expect(second.get({ name: "a" })).toBe(a);
  // Nobody requested it in the second.
  const b = first.get({ name: "b" });
  expect(new PlanCache(Made, second).get({ name: "b" })).not.toBe(b);
});
