import { describe, expect, test } from "vitest";
import { SAVED_MS_MAX, SAVED_MS_MAX_FAST } from "../../src/policy/token-bucket.ts";
import { Pace } from "../../src/worker/pace.ts";

describe("Pace", () => {
  /** Bytes that go in about `ms` if all that may is sent every `tickMs`, at each tenth tick `lateMs` later. */
  function sent(bytesPerSecond: number, tickMs: number, ms: number, lateMs = 0): number {
    const pace = new Pace(bytesPerSecond, 0);
    let total = 0;
    for (let i = 1, now = tickMs; now <= ms; i++, now += tickMs + (i % 10 === 0 ? lateMs : 0)) {
      const allowed = pace.allowance(now);
      pace.spend(allowed);
      total += allowed;
      pace.nextMs(now);
    }
    return total;
  }

  test("begins with nothing saved", () => {
    expect(new Pace(1_000_000, 5).allowance(5)).toBe(0);
  });

  test.each([
    [1_000_000, 50],
    [1_000_000, 33.3],
    [12_345, 50],
    [1, 50],
    [12_500_000, 50],
    [125_000_000, 2],
    [1_250_000_000, 2],
  ])("allows exactly %d bytes in a second, in ticks of %d ms", (rate, tickMs) => {
    const expected = (rate * tickMs * Math.floor(10_000 / tickMs)) / 1000;
    expect(Math.abs(sent(rate, tickMs, 10_000) - expected)).toBeLessThanOrEqual(Math.max(1, expected * 1e-3));
  });

  test("makes up for late wake-ups: the rate stays, and no burst is longer than 10 ms with a quarter on top", () => {
    const rate = 125_000_000;
    expect(sent(rate, 4, 10_000, 13)).toBeGreaterThan(rate * 10 * 0.99);
    // Wake-ups 25 ms apart, of which 10 ms may go at once.
    const pace = new Pace(rate, 0);
    let total = 0;
    for (let now = 25; now <= 100; now += 25) {
      expect(pace.allowance(now)).toBe((rate * SAVED_MS_MAX_FAST) / 1000);
      pace.spend(pace.allowance(now));
      pace.nextMs(now);
    }
    // From then on every 2 ms.
    for (let now = 102; now <= 200; now += 2) {
      const allowed = pace.allowance(now);
      expect(allowed).toBeLessThanOrEqual((rate * 2.5) / 1000);
      pace.spend(allowed);
      total += allowed;
      pace.nextMs(now);
    }
    expect(total).toBeCloseTo((rate * 125) / 1000, -3);
  });

  test("keeps fractions of a byte, so that the slowest rate moves", () => {
    const pace = new Pace(10, 0);
    const allowed = Array.from({ length: 6 }, (_, i) => {
      const bytes = pace.allowance((i + 1) * 50);
      pace.spend(bytes);
      return bytes;
    });
    expect(allowed).toEqual([0, 1, 0, 1, 0, 1]);
  });

  test("saves up no more than a tenth of a second's worth in a pause, and 10 ms' worth above 100 Mbit/s", () => {
    expect(new Pace(1_000_000, 0).allowance(60_000)).toBe(SAVED_MS_MAX * 1000);
    const fast = new Pace(100_000_000, 0);
    expect(fast.allowance(60_000)).toBe(SAVED_MS_MAX_FAST * 100_000);
    expect(fast.full(60_000)).toBe(true);
    fast.spend(1);
    expect(fast.full(60_000)).toBe(false);
    // Nothing of the pause is owed.
    fast.spend(SAVED_MS_MAX_FAST * 100_000 - 1);
    expect(fast.allowance(60_001)).toBe(100_000);
  });

  test("keeps what was not spent, and pays a debt before anything goes", () => {
    const pace = new Pace(1000, 0);
    expect(pace.allowance(50)).toBe(50);
    pace.spend(20);
    expect(pace.allowance(50)).toBe(30);
    pace.spend(80);
    expect(pace.allowance(60)).toBe(-40);
  });

  test("has whoever waits come back for a portion: 50 ms' worth, or 64 KiB if that is less", () => {
    expect(new Pace(1_000_000, 0).nextMs(0)).toBe(50);
    expect(new Pace(65_536_000, 0).nextMs(0)).toBe(1);
    const pace = new Pace(1_000_000, 0);
    pace.allowance(20);
    expect(pace.nextMs(20)).toBe(50);
    expect(pace.nextMs(80)).toBe(80);
  });
});
