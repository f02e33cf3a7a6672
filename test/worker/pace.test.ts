import { describe, expect, test } from "vitest";
import { SAVED_MS_MAX } from "../../src/policy/token-bucket.ts";
import { Pace } from "../../src/worker/pace.ts";

describe("Pace", () => {
  /** Bytes that go in `ticks` ticks of `tickMs` if as many are sent as may. */
  function sent(bytesPerSecond: number, tickMs: number, ticks: number): number {
    const pace = new Pace(bytesPerSecond);
    let total = 0;
    for (let i = 0; i < ticks; i++) {
      const allowed = pace.allowance(tickMs);
      pace.spend(allowed);
      total += allowed;
    }
    return total;
  }

  test("begins with nothing saved", () => {
    expect(new Pace(1_000_000).allowance(0)).toBe(0);
  });

  test.each([
    [1_000_000, 50],
    [1_000_000, 33.3],
    [12_345, 50],
    [1, 50],
    [125_000_000, 50],
  ])("allows exactly %d bytes in a second, in ticks of %d ms", (rate, tickMs) => {
    const ticks = Math.round(10_000 / tickMs);
    const expected = (rate * ticks * tickMs) / 1000;
    expect(Math.abs(sent(rate, tickMs, ticks) - expected)).toBeLessThanOrEqual(1);
  });

  test("keeps fractions of a byte, so that the slowest rate moves", () => {
    const pace = new Pace(10);
    const allowed = Array.from({ length: 6 }, () => {
      const now = pace.allowance(50);
      pace.spend(now);
      return now;
    });
    expect(allowed).toEqual([0, 1, 0, 1, 0, 1]);
  });

  test("saves up no more than a tenth of a second's worth after a pause", () => {
    const pace = new Pace(1_000_000);
    expect(pace.allowance(60_000)).toBe(SAVED_MS_MAX * 1000);
  });

  test("keeps what was not spent", () => {
    const pace = new Pace(1000);
    expect(pace.allowance(50)).toBe(50);
    pace.spend(20);
    expect(pace.allowance(0)).toBe(30);
  });
});
