// The arithmetic of limits by rate. It keeps nothing and has no clock: the state of a bucket is one number, and where it
// lies (shared memory for clients, a field for a connection's bandwidth) is its owner's business.

/** No token: the answer of `takeToken` instead of a time. */
export const NO_TOKEN = -1n;

/** After a pause, a bandwidth limit allows a burst of at most what this much time is worth. */
export const SAVED_MS_MAX = 100;
/** The same above FAST_BYTES_PER_SECOND: a burst of 100 ms would overflow the buffers of a fast network. */
export const SAVED_MS_MAX_FAST = 10;
/** 100 Mbit/s. */
export const FAST_BYTES_PER_SECOND = 12_500_000;

/** How many milliseconds' worth of bandwidth is saved at most, at `rate` bytes per second. */
export function savedMsMax(rate: number): number {
  return rate > FAST_BYTES_PER_SECOND ? SAVED_MS_MAX_FAST : SAVED_MS_MAX;
}

/** The time that one token of `perSecond` (above 0) takes to come, in whole nanoseconds, at least 1. */
export function tokenIntervalNs(perSecond: number): bigint {
  return BigInt(Math.max(1, Math.round(1e9 / perSecond)));
}

/**
 * Takes a token from a bucket that holds `burst` (a whole number from 1), begins full and gets one more each
 * `intervalNs`. The bucket is the time at which it will be full again (0n for one that never was used), as in the generic
 * cell rate algorithm (ITU-T I.371, virtual scheduling): one number, so that a compare-and-exchange makes it exact over
 * all threads. Returns the new time, or NO_TOKEN, which leaves it as it was.
 */
export function takeToken(fullAtNs: bigint, nowNs: bigint, intervalNs: bigint, burst: number): bigint {
  const next = (fullAtNs > nowNs ? fullAtNs : nowNs) + intervalNs;
  return next - nowNs <= intervalNs * BigInt(burst) ? next : NO_TOKEN;
}
