import { expect, test } from "vitest";
import { RequestBudget } from "../../src/admin/request-budget.ts";

/** Sends requests as fast as the budget allows, each with this much work; returns how many are answered within `ms`. */
function answered(budget: RequestBudget, ms: number, workMs: number): number {
  let nowMs = 0;
  let count = 0;
  for (;;) {
    nowMs += budget.waitMs(nowMs);
    if (nowMs >= ms) return count;
    budget.spend(workMs, nowMs);
    count++;
    // The core is busy with it.
    nowMs += workMs;
  }
}

test("a flood gets its share of a core, after the saved burst", () => {
  const share = 0.1;
  const perRequestMs = 0.2 + 0.3;
  const count = answered(new RequestBudget({ share, burstMs: 2000 }), 60_000, 0.3);
  const workMs = count * perRequestMs;
  expect(workMs).toBeGreaterThan(2000 + 60_000 * share * 0.95);
  expect(workMs).toBeLessThan(2000 + 60_000 * share * 1.05);
});

test("10,000 requests after a quiet time are hardly delayed", () => {
  const budget = new RequestBudget({ share: 0.1, burstMs: 2000 });
  let nowMs = 1e6;
  let waitedMs = 0;
  for (let i = 0; i < 10_000; i++) {
    const waitMs = budget.waitMs(nowMs);
    waitedMs += waitMs;
    nowMs += waitMs + 0.2;
    budget.spend(0, nowMs);
  }
  expect(waitedMs).toBeLessThan(5000);
});

test("occasional requests never wait", () => {
  const budget = new RequestBudget({ share: 0.1, burstMs: 100 });
  for (let second = 0; second < 1000; second++) {
    expect(budget.waitMs(second * 1000)).toBe(0);
    budget.spend(20, second * 1000);
  }
});

test("no request waits longer than half a second, whatever earlier requests have cost", () => {
  const budget = new RequestBudget({ share: 0.1, burstMs: 0 });
  for (let i = 0; i < 100; i++) budget.spend(10_000, 0);
  expect(budget.waitMs(0)).toBe(500);
  // And the debt is dropped soon.
  expect(budget.waitMs(6000)).toBe(0);
});
