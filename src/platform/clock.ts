// A clock that never goes back and that all threads share. Bun's own clocks are not: performance.now() counts from the start of its
// thread, and performance.timeOrigin is the wall clock at that moment, which may have been set since.
import { openLibc } from "./libc.ts";

const CLOCK_MONOTONIC = 1;
const timespec = new BigInt64Array(2);

/** Nanoseconds (clock_gettime(2)). Without FFI there is one worker, and the clock is right until the wall clock is set. */
export function monotonicNs(): bigint {
  const c = openLibc();
  if (c === null) return BigInt(Math.round((performance.timeOrigin + performance.now()) * 1000)) * 1000n;
  c.clock_gettime(CLOCK_MONOTONIC, timespec);
  return timespec[0]! * 1_000_000_000n + timespec[1]!;
}

/** A thread that is interrupted between the two readings gets too small an offset, so it takes the greatest of some. */
const ORIGIN_TRIES = 5;
let originMs = -Infinity;

/** The same in milliseconds: performance.now(), which reads CLOCK_MONOTONIC too (Bun 1.4.5), plus the offset of this thread. */
export function monotonicMs(): number {
  return monotonicMsOf(performance.now());
}

/** The same for a moment of this thread's performance.now(). */
export function monotonicMsOf(performanceMs: number): number {
  if (originMs === -Infinity) findOrigin();
  return originMs + performanceMs;
}

function findOrigin(): void {
  for (let tries = 0; tries < ORIGIN_TRIES; tries++)
    originMs = Math.max(originMs, Number(monotonicNs()) / 1e6 - performance.now());
}
