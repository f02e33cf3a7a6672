import { describe, expect, test } from "vitest";
import { NO_TOKEN, takeToken, tokenIntervalNs } from "../../src/policy/token-bucket.ts";

const SECOND = 1_000_000_000n;

/** A bucket and how many of its tries get a token. */
function bucket(rate: number, burst: number) {
  let fullAt = 0n;
  const intervalNs = tokenIntervalNs(rate);
  return (nowNs: bigint, tries = 1) => {
    let taken = 0;
    for (let i = 0; i < tries; i++) {
      const next = takeToken(fullAt, nowNs, intervalNs, burst);
      if (next === NO_TOKEN) continue;
      fullAt = next;
      taken++;
    }
    return taken;
  };
}

describe("takeToken", () => {
  test("admits exactly the burst and the rate: 1000 attempts over 4 s at 50/s and 10", () => {
    const take = bucket(50, 10);
    let taken = 0;
    for (let i = 0; i < 1000; i++) taken += take(5n * SECOND + BigInt(i) * 4_000_000n);
    expect(taken).toBeGreaterThanOrEqual(209);
    expect(taken).toBeLessThanOrEqual(210);
  });

  test("begins full", () => {
    expect(bucket(1, 7)(0n, 100)).toBe(7);
    expect(bucket(1, 7)(999n * SECOND, 100)).toBe(7);
  });

  test("gives one more token with each interval, and not earlier", () => {
    const take = bucket(10, 1);
    expect(take(SECOND, 5)).toBe(1);
    expect(take(SECOND + 99_999_999n, 5)).toBe(0);
    expect(take(SECOND + 100_000_000n, 5)).toBe(1);
  });

  test("saves no more than the burst, however long the pause is", () => {
    const take = bucket(10, 3);
    expect(take(SECOND, 100)).toBe(3);
    expect(take(3600n * SECOND, 100)).toBe(3);
  });

  test("loses no token by a refused attempt", () => {
    const take = bucket(1, 1);
    take(SECOND);
    for (let ms = 1; ms < 1000; ms++) expect(take(SECOND + BigInt(ms) * 1_000_000n)).toBe(0);
    expect(take(2n * SECOND)).toBe(1);
  });

  test("keeps a slow rate over hours", () => {
    const take = bucket(1000 / 3600, 1);
    let taken = 0;
    for (let second = 0; second < 3 * 3600; second++) taken += take(BigInt(second) * SECOND);
    // One try a second meets an interval of 3.6 s at 4 s or at 3.6 s and its multiples, never more often.
    expect(taken).toBeGreaterThan(2690);
    expect(taken).toBeLessThanOrEqual(3000);
  });
});

test("tokenIntervalNs is never 0", () => {
  expect(tokenIntervalNs(50)).toBe(20_000_000n);
  expect(tokenIntervalNs(3e9)).toBe(1n);
});
