// Passive health: when a backend is ejected for its failures with real traffic, for how long, and how many of a pool may be. Pure:
// who counts failures, and what ejection means for connections, is decided elsewhere.

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

/** What is remembered of one backend. Times are on a clock that never goes back. */
export interface Ejection {
  /** Within the window, the oldest first. */
  recent: (Failures & { readonly atMs: number })[];
  /** Until when the backend is ejected; null = it is not. */
  untilMs: number | null;
  /** Why it is ejected, or was the last time; null = it never was. */
  reason: keyof Failures | null;
  /** The failures that have ejected it the last time. */
  causes: Failures;
  /** Ejections in a row, the one of now included. */
  inARow: number;
  /** How long the last one was to last, and when it ended. */
  lastMs: number;
  endedMs: number;
  /** Ejections so far, by reason. */
  readonly count: Record<keyof Failures, number>;
}

/** No ejection becomes longer by doubling. */
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
  // What lies behind enough failures does not matter, so no more is kept than that.
  while (first > 0 && count < failures && recent[first - 1]!.atMs > nowMs - windowMs) count += sumOf(recent[--first]!);
  if (first > 0) recent.splice(0, first);
  return count >= failures;
}

/**
 * Ejects the backend for the failures noted. Each ejection in a row lasts twice as long as the one before. It is in a row
 * if it begins before the backend has been back for as long as it was ejected the last time, plus the window.
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

/** The ejection is over, because its time is or for another reason. */
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
