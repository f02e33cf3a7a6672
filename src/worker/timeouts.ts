// When the next timeout of a relayed connection is due, and which end it is. Pure.
import type { End } from "../core/ends.ts";
import type { ListenerPlan } from "../messages.ts";

export interface Times {
  /** When a byte or FIN last arrived, or waiting bytes were last sent. */
  readonly activeWheelMs: number;
  /** When `lifetime` is over; Infinity = never. */
  readonly lifetimeEndsWheelMs: number;
  /** When a stop of the worker ends the connection; Infinity while there is none. */
  readonly stopAtWheelMs: number;
  /** One side has sent its FIN. */
  readonly halfClosed: boolean;
}

type Limits = Pick<ListenerPlan["timeoutsMs"], "idle" | "halfClose">;

/** When to check the connection next; Infinity = never. */
export function nextDueWheelMs(times: Times, { idle, halfClose }: Limits): number {
  let at = Math.min(times.lifetimeEndsWheelMs, times.stopAtWheelMs);
  if (idle > 0) at = Math.min(at, times.activeWheelMs + idle);
  if (halfClose > 0 && times.halfClosed) at = Math.min(at, times.activeWheelMs + halfClose);
  return at;
}

/** The end that is due, or null. */
export function dueEnd(times: Times, { idle, halfClose }: Limits, nowWheelMs: number): End | null {
  const quietMs = nowWheelMs - times.activeWheelMs;
  if (nowWheelMs >= times.stopAtWheelMs) return "shutdown";
  if (nowWheelMs >= times.lifetimeEndsWheelMs) return "lifetime";
  if (halfClose > 0 && times.halfClosed && quietMs >= halfClose) return "half_close_timeout";
  return idle > 0 && quietMs >= idle ? "idle_timeout" : null;
}
