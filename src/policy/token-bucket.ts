// The arithmetic of a limit by rate. It keeps nothing and has no clock: the state of a bucket is one number, which its owner keeps
// (shared/clients.ts).

/** No token: the answer of `takeToken` instead of a time. */
export const NO_TOKEN = -1n;

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

/** How many tokens the bucket of `takeToken` holds now. */
export function tokensLeft(fullAtNs: bigint, nowNs: bigint, intervalNs: bigint, burst: number): number {
  const missingNs = fullAtNs > nowNs ? fullAtNs - nowNs : 0n;
  return Number((intervalNs * BigInt(burst) - missingNs) / intervalNs);
}
