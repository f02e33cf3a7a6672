// When health checks make a backend up or down: the first result by itself, later a number of results of one kind in a row. Who
// checks, and how, is decided elsewhere.

/** What a check says of a backend. "unknown": this machine could not check, so nothing was learned. */
export type CheckResult = "success" | "failure" | "unknown";

/** One backend's state. `streak` counts the results in a row that contradict `up`. */
export interface RiseFall {
  /** Successes in a row to come up, failures in a row to go down; whole numbers from 1. */
  readonly rise: number;
  readonly fall: number;
  up: boolean;
  streak: number;
  /** There was no result yet: the first one decides alone. */
  fresh: boolean;
}

/** `up` holds until the first result. */
export function startRiseFall(rise: number, fall: number, up: boolean): RiseFall {
  return { rise, fall, up, streak: 0, fresh: true };
}

/** Notes a check's result. "up" or "down" if the backend has become so by it, else null. */
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
