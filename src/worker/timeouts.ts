// When a relayed connection is due, and what ends it then. Pure.
import type { End } from "../core/ends.ts";
import type { ListenerPlan } from "../messages.ts";

export interface Times {
  /** When a byte, or a FIN, last came. */
  readonly activeWheelMs: number;
  /** When `lifetime` is over; Infinity = never. */
  readonly lifetimeEndsWheelMs: number;
  /** When a stop of the worker ends the connection; Infinity while none is asked for. */
  readonly stopAtWheelMs: number;
  /** One side has sent its FIN. */
  readonly halfClosed: boolean;
}

type Limits = Pick<ListenerPlan["timeoutsMs"], "idle" | "halfClose">;

/** When to look at the connection next; Infinity = never. */
export function nextDueWheelMs(times: Times, { idle, halfClose }: Limits): number {
  let at = Math.min(times.lifetimeEndsWheelMs, times.stopAtWheelMs);
  if (idle > 0) at = Math.min(at, times.activeWheelMs + idle);
  if (halfClose > 0 && times.halfClosed) at = Math.min(at, times.activeWheelMs + halfClose);
  return at;
}

/** The end whose time has come, or null. */
export function dueEnd(times: Times, { idle, halfClose }: Limits, nowWheelMs: number): End | null {
  const quietMs = nowWheelMs - times.activeWheelMs;
  if (nowWheelMs >= times.stopAtWheelMs) return "shutdown";
  if (nowWheelMs >= times.lifetimeEndsWheelMs) return "lifetime";
  if (halfClose > 0 && times.halfClosed && quietMs >= halfClose) return "half_close_timeout";
  return idle > 0 && quietMs >= idle ? "idle_timeout" : null;
}
