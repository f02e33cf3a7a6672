// Passive health: when a backend is ejected for its failures with real traffic, for how long, and how many of a pool may be. Pure: the
// caller counts failures and decides what ejection means for connections.

export interface EjectionRules {
  /** Failures within the window that eject a backend. */
  readonly failures: number;
  readonly windowMs: number;
  /** Duration of the first ejection. */
  readonly ejectForMs: number;
}

/** Failures that were reported together, by kind. */
export interface Failures {
  readonly connect: number;
  readonly earlyReset: number;
}

/** The state that is kept for one backend. Times are on a monotonic clock. */
export interface Ejection {
  /** Failures within the window, the oldest first. */
  recent: (Failures & { readonly atMs: number })[];
  /** Until when the backend is ejected; null = it is not. */
  untilMs: number | null;
  /** Why it is ejected, or was ejected the last time; null = it never was. */
  reason: keyof Failures | null;
  /** The failures that caused the last ejection. */
  causes: Failures;
  /** Ejections in a row, including the current one. */
  inARow: number;
  /** The duration of the last ejection, and when it ended. */
  lastMs: number;
  endedMs: number;
  /** Ejections so far, by reason. */
  readonly count: Record<keyof Failures, number>;
}

/** Maximum duration of an ejection by doubling. */
export const EJECT_MS_MAX = 300_000;

export function neverEjected(): Ejection {
  return {
    recent: [],
    untilMs: null,
    reason: null,
    causes: { connect: 0, earlyReset: 0 },
    inARow: 0,
    lastMs: 0,
    endedMs: -Infinity,
    count: { connect: 0, earlyReset: 0 },
  };
}

/** Notes failures of a backend that is not ejected. True = they are enough to eject it. */
export function noteFailures(
  ejection: Ejection,
  { connect, earlyReset }: Failures,
  { failures, windowMs }: EjectionRules,
  nowMs: number,
): boolean {
  const { recent } = ejection;
  recent.push({ atMs: nowMs, connect, earlyReset });
  const { length } = recent;
  let first = length;
  let count = 0;
  // Failures beyond the threshold make no difference, so no more are kept.
  while (first > 0 && count < failures && recent[first - 1]!.atMs > nowMs - windowMs) count += sumOf(recent[--first]!);
  if (first > 0) recent.splice(0, first);
  return count >= failures;
}

/**
 * Ejects the backend for the recorded failures. Each ejection in a row lasts twice as long as the one before. An ejection is in a row if it
 * begins before the backend has been back for the duration of its last ejection plus the window.
 */
export function eject(ejection: Ejection, { windowMs, ejectForMs }: EjectionRules, nowMs: number): void {
  const isInARow = nowMs < ejection.endedMs + ejection.lastMs + windowMs;
  ejection.inARow = isInARow ? ejection.inARow + 1 : 1;
  const longestMs = Math.max(EJECT_MS_MAX, ejectForMs);
  ejection.lastMs = isInARow ? Math.min(longestMs, Math.max(ejectForMs, 2 * ejection.lastMs)) : ejectForMs;
  ejection.untilMs = nowMs + ejection.lastMs;
  ejection.causes = totalOf(ejection.recent);
  ejection.reason = ejection.causes.connect >= ejection.causes.earlyReset ? "connect" : "earlyReset";
  ejection.count[ejection.reason]++;
  ejection.recent = [];
}

/** Ends the ejection, because its time is over or for another reason. */
export function endEjection(ejection: Ejection, nowMs: number): void {
  ejection.untilMs = null;
  ejection.endedMs = nowMs;
}

/** How many backends of a pool may be ejected at once: the percentage rounded down, but at least one. */
export function ejectedMax(backends: number, percent: number): number {
  return Math.max(1, Math.floor((backends * percent) / 100));
}

function totalOf(recent: readonly Failures[]): Failures {
  return recent.reduce<Failures>(
    (sum, { connect, earlyReset }) => ({ connect: sum.connect + connect, earlyReset: sum.earlyReset + earlyReset }),
    { connect: 0, earlyReset: 0 },
  );
}

function sumOf({ connect, earlyReset }: Failures): number {
  return connect + earlyReset;
}
