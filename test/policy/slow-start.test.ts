import { expect, test } from "vitest";
import { RAMP_FROM, rampAt, rampStepMs } from "../../src/policy/slow-start.ts";

test("a ramp grows linearly from a tenth to the full weight", () => {
  expect([0, 2500, 5000, 7500, 10_000].map((ms) => Number(rampAt(ms, 10_000).toFixed(3)))).toEqual([
    0.1, 0.325, 0.55, 0.775, 1,
  ]);
  expect(rampAt(1e9, 10_000)).toBe(1);
  expect(rampAt(-1, 10_000)).toBe(RAMP_FROM);
});

test("there is no ramp with slow_start 0", () => {
  expect(rampAt(0, 0)).toBe(1);
});

test.each([1000, 10_000, 3_600_000])("no step of a ramp of %i ms is more than 5 %%", (slowStartMs) => {
  const stepMs = rampStepMs(slowStartMs);
  for (let ms = stepMs; ms <= slowStartMs; ms += stepMs)
    expect(rampAt(ms, slowStartMs) - rampAt(ms - stepMs, slowStartMs)).toBeLessThanOrEqual(0.05);
});

test("the steps of a short ramp are at least 50 ms apart", () => {
  expect(rampStepMs(100)).toBe(50);
});
