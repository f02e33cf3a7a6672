// When health checks make a backend up or down: so many results of one kind in a row. Who checks, and how, is not its
// business.

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
export function record(state: RiseFall, ok: boolean): "up" | "down" | null {
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
