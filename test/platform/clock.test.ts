import { describe, expect, test } from "vitest";
import { monotonicMs, monotonicNs } from "../../src/platform/clock.ts";

describe("monotonicNs", () => {
  test("counts nanoseconds and never goes back", () => {
    const first = monotonicNs();
    const start = performance.now();
    let last = first;
    while (performance.now() < start + 20) {
      const now = monotonicNs();
      expect(now >= last).toBe(true);
      last = now;
    }
    const ms = Number(monotonicNs() - first) / 1e6;
    expect(ms).toBeGreaterThanOrEqual(20);
    expect(ms).toBeLessThan(1000);
  });
});

describe("monotonicMs", () => {
  test("is monotonicNs in milliseconds, so all threads share it", () => {
    for (let i = 0; i < 100; i++) {
      const before = Number(monotonicNs()) / 1e6;
      const now = monotonicMs();
      const after = Number(monotonicNs()) / 1e6;
      // The origin was read between two calls.
      expect(now).toBeGreaterThan(before - 1);
      expect(now).toBeLessThan(after + 1);
    }
  });
});
