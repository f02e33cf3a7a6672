// The arithmetic of a rate limit. It has neither state nor clock: the state of a bucket is one number, which its owner keeps
// (shared/clients.ts).

/** No token: `takeToken` returns this instead of a time. */
export const NO_TOKEN = -1;

/** The longest time in which a bucket fills: 146 years. Its time then fits 63 bits (shared/time-cells.ts). */
const FILL_NS_MAX = 2 ** 62;

/** The interval of tokens at `perSecond` (above 0), in whole nanoseconds, at least 1. */
export function tokenIntervalNs(perSecond: number): number {
  return Math.min(FILL_NS_MAX, Math.max(1, Math.round(1e9 / perSecond)));
}

/** The number of tokens of a full bucket: `burst`, or fewer where it would never fill. */
export function bucketSize(burst: number, intervalNs: number): number {
  return Math.min(burst, Math.floor(FILL_NS_MAX / intervalNs));
}

/**
 * Takes a token from a bucket that holds `burst` (a whole number from 1), starts full and gets one more each `intervalNs`. The bucket is
 * the time at which it will be full again (0 if it was never used), as in the generic cell rate algorithm (ITU-T I.371, virtual
 * scheduling): one number, so that a compare-and-exchange makes it exact over all threads. Returns the new time, or NO_TOKEN, in which case
 * the bucket is unchanged.
 */
export function takeToken(fullAtNs: number, nowNs: number, intervalNs: number, burst: number): number {
  // Times are rounded, to 2 ns after 104 days. A full bucket must not be, so it is not the sum that is compared.
  if (fullAtNs <= nowNs) return nowNs + intervalNs;
  return fullAtNs - nowNs <= intervalNs * (burst - 1) ? fullAtNs + intervalNs : NO_TOKEN;
}

/** The number of tokens in the bucket of `takeToken`. */
export function tokensLeft(fullAtNs: number, nowNs: number, intervalNs: number, burst: number): number {
  return Math.floor(burst - Math.max(0, fullAtNs - nowNs) / intervalNs);
}
