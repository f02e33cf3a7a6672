// How a backend that has come up gets its share: the part of its weight that it has grows in a straight line, from a tenth to all.

/** The part of the weight that a backend begins with. */
export const RAMP_FROM = 0.1;

/** Steps of a ramp, so that none is more than 5 % of the weight. */
const STEPS = 20;

/** Each step is a message to every worker. */
const STEP_MS_MIN = 50;

/** The part of its weight that a backend has `elapsedMs` after it came up: RAMP_FROM to 1. */
export function rampAt(elapsedMs: number, slowStartMs: number): number {
  if (elapsedMs >= slowStartMs) return 1;
  return RAMP_FROM + ((1 - RAMP_FROM) * Math.max(0, elapsedMs)) / slowStartMs;
}

/** Time between two steps of a ramp. */
export function rampStepMs(slowStartMs: number): number {
  return Math.max(STEP_MS_MIN, slowStartMs / STEPS);
}
