// When health checks make a backend up or down: a number of results of one kind in a row. Who checks, and how, is decided
// elsewhere.

/** What a check says of a backend. "unknown": this machine could not check, so nothing was learned. */
export type CheckResult = "success" | "failure" | "unknown";

/** One backend's state. `streak` counts the results in a row that speak against `up`. */
export interface RiseFall {
  /** Successes in a row to come up, failures in a row to go down; whole numbers from 1. */
  readonly rise: number;
  readonly fall: number;
  up: boolean;
  streak: number;
}

/** A backend starts up: before its first checks it takes connections, and `fall` failures are needed like at any time. */
export function startRiseFall(rise: number, fall: number): RiseFall {
  return { rise, fall, up: true, streak: 0 };
}

/** Notes a check's result. "up" or "down" if the backend has become so by it, else null. */
export function record(state: RiseFall, result: CheckResult): "up" | "down" | null {
  if (result === "unknown") return null;
  const ok = result === "success";
  if (ok === state.up) {
    state.streak = 0;
    return null;
  }
  state.streak++;
  if (state.streak < (state.up ? state.fall : state.rise)) return null;
  state.up = ok;
  state.streak = 0;
  return ok ? "up" : "down";
}
