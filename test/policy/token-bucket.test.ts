import { describe, expect, test } from "vitest";
import { bucketSize, NO_TOKEN, takeToken, tokenIntervalNs } from "../../src/policy/token-bucket.ts";

const SECOND = 1_000_000_000;

/** A bucket and the number of its tries that get a token. */
function bucket(rate: number, burst: number) {
  let fullAt = 0;
  const intervalNs = tokenIntervalNs(rate);
  return (nowNs: number, tries = 1) => {
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
    for (let i = 0; i < 1000; i++) taken += take(5 * SECOND + i * 4_000_000);
    expect(taken).toBeGreaterThanOrEqual(209);
    expect(taken).toBeLessThanOrEqual(210);
  });

  test("begins full", () => {
    expect(bucket(1, 7)(0, 100)).toBe(7);
    expect(bucket(1, 7)(999 * SECOND, 100)).toBe(7);
  });

  test("gives one more token with each interval, and not earlier", () => {
    const take = bucket(10, 1);
    expect(take(SECOND, 5)).toBe(1);
    expect(take(SECOND + 99_999_999, 5)).toBe(0);
    expect(take(SECOND + 100_000_000, 5)).toBe(1);
  });

  test("saves no more than the burst, however long the pause is", () => {
    const take = bucket(10, 3);
    expect(take(SECOND, 100)).toBe(3);
    expect(take(3600 * SECOND, 100)).toBe(3);
  });

  test("loses no token by a refused attempt", () => {
    const take = bucket(1, 1);
    take(SECOND);
    for (let ms = 1; ms < 1000; ms++) expect(take(SECOND + ms * 1_000_000)).toBe(0);
    expect(take(2 * SECOND)).toBe(1);
  });

  test("keeps a slow rate over hours", () => {
    const take = bucket(1000 / 3600, 1);
    let taken = 0;
    for (let second = 0; second < 3 * 3600; second++) taken += take(second * SECOND);
    // One try a second meets an interval of 3.6 s at 4 s or at 3.6 s and its multiples, never more often.
    expect(taken).toBeGreaterThan(2690);
    expect(taken).toBeLessThanOrEqual(3000);
  });
});

test("rounding refuses no token of a full bucket, and changes a rate by less than 0.5 %, after ten years without a restart of the machine", () => {
  for (let day = 1; day <= 3650; day += 7) {
    const now = day * 86_400 * SECOND + 1;
    const intervalNs = tokenIntervalNs(99_991);
    const next = takeToken(0, now, intervalNs, 1);
    expect(next).not.toBe(NO_TOKEN);
    expect(takeToken(next, now + intervalNs / 2, intervalNs, 1)).toBe(NO_TOKEN);
    expect(takeToken(next, next, intervalNs, 1)).not.toBe(NO_TOKEN);
  }
  const take = bucket(100_000, 10);
  const tenYears = 3650 * 86_400 * SECOND;
  let taken = 0;
  for (let us = 0; us < 1_000_000; us++) taken += take(tenYears + us * 1000);
  expect(Math.abs(taken - 100_010)).toBeLessThan(500);
});

test("tokenIntervalNs is never 0", () => {
  expect(tokenIntervalNs(50)).toBe(20_000_000);
  expect(tokenIntervalNs(3e9)).toBe(1);
});

test("a bucket that would take centuries to fill has fewer tokens, and any other has its burst", () => {
  expect(bucketSize(1_000_000, tokenIntervalNs(1 / 3600))).toBe(1_000_000);
  expect(bucketSize(1_000_000, tokenIntervalNs(0.1 / 3600))).toBe(128_102);
  expect(bucketSize(1_000_000, tokenIntervalNs(1e-12))).toBe(1);
});
