// The arithmetic of a rate limit. It has neither state nor clock: the state of a bucket is one number, which its owner keeps
// (shared/clients.ts).

/** No token: `takeToken` returns this instead of a time. */
export const NO_TOKEN = -1n;

/** The interval of tokens at `perSecond` (above 0), in whole nanoseconds, at least 1. */
export function tokenIntervalNs(perSecond: number): bigint {
  return BigInt(Math.max(1, Math.round(1e9 / perSecond)));
}

/**
 * Takes a token from a bucket that holds `burst` (a whole number from 1), starts full and gets one more each `intervalNs`. The bucket is
 * the time at which it will be full again (0n if it was never used), as in the generic cell rate algorithm (ITU-T I.371, virtual
 * scheduling): one number, so that a compare-and-exchange makes it exact over all threads. Returns the new time, or NO_TOKEN, in which case
 * the bucket is unchanged.
 */
export function takeToken(fullAtNs: bigint, nowNs: bigint, intervalNs: bigint, burst: number): bigint {
  const next = (fullAtNs > nowNs ? fullAtNs : nowNs) + intervalNs;
  return next - nowNs <= intervalNs * BigInt(burst) ? next : NO_TOKEN;
}

/** The number of tokens in the bucket of `takeToken`. */
export function tokensLeft(fullAtNs: bigint, nowNs: bigint, intervalNs: bigint, burst: number): number {
  const missingNs = fullAtNs > nowNs ? fullAtNs - nowNs : 0n;
  return Number((intervalNs * BigInt(burst) - missingNs) / intervalNs);
}
