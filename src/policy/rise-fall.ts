// When health checks change a backend's state: the first result alone, later a number of equal results in a row. The caller runs the
// checks.

/** The result of a check. "unknown": this machine could not check, so it says nothing about the backend. */
export type CheckResult = "success" | "failure" | "unknown";

/** The state of one backend. `streak` counts the results in a row that contradict `up`. */
export interface RiseFall {
  /** Successes in a row to go up, failures in a row to go down; whole numbers from 1. */
  readonly rise: number;
  readonly fall: number;
  up: boolean;
  streak: number;
  /** No result yet: the first one decides alone. */
  fresh: boolean;
}

/** `up` is valid until the first result. */
export function startRiseFall(rise: number, fall: number, up: boolean): RiseFall {
  return { rise, fall, up, streak: 0, fresh: true };
}

/** Records a check's result. Returns "up" or "down" if the state changes, else null. */
export function record(state: RiseFall, result: CheckResult): "up" | "down" | null {
  if (result === "unknown") return null;
  const ok = result === "success";
  const needed = state.fresh ? 1 : state.up ? state.fall : state.rise;
  state.fresh = false;
  if (ok === state.up) {
    state.streak = 0;
    return null;
  }
  state.streak++;
  if (state.streak < needed) return null;
  state.up = ok;
  state.streak = 0;
  return ok ? "up" : "down";
}

/** Whether the last results contradict the state, but are too few to change it. */
export function isChanging({ streak }: RiseFall): boolean {
  return streak > 0;
}
