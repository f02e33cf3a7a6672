// The ramp of a backend that has come up: its share of the weight grows linearly, from a tenth to the full weight.

/** The fraction of the weight at the start. */
export const RAMP_FROM = 0.1;

/** Number of steps of a ramp, so that no step is larger than 5 % of the weight. */
const STEPS = 20;

/** Minimum time between steps, because each step is a message to every worker. */
const STEP_MS_MIN = 50;

/** The fraction of its weight that a backend has `elapsedMs` after it came up: RAMP_FROM to 1. */
export function rampAt(elapsedMs: number, slowStartMs: number): number {
  if (elapsedMs >= slowStartMs) return 1;
  return RAMP_FROM + ((1 - RAMP_FROM) * Math.max(0, elapsedMs)) / slowStartMs;
}

/** Time between two steps of a ramp. */
export function rampStepMs(slowStartMs: number): number {
  return Math.max(STEP_MS_MIN, slowStartMs / STEPS);
}
