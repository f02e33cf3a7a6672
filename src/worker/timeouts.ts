// When a relayed connection is due, and what ends it then. Pure; times are on the wheel's clock.
import type { End } from "../core/ends.ts";
import type { ListenerPlan } from "../messages.ts";

export interface Times {
  /** When a byte, or a FIN, last came. */
  readonly activeMs: number;
  /** When `lifetime` is over; Infinity = never. */
  readonly lifetimeEndsMs: number;
  /** When a stop of the worker ends the connection; Infinity while none is asked for. */
  readonly stopAtMs: number;
  /** One side has sent its FIN. */
  readonly halfClosed: boolean;
}

type Limits = Pick<ListenerPlan["timeoutsMs"], "idle" | "halfClose">;

/** When to look at the connection next; Infinity = never. */
export function nextDueMs(times: Times, { idle, halfClose }: Limits): number {
  let at = Math.min(times.lifetimeEndsMs, times.stopAtMs);
  if (idle > 0) at = Math.min(at, times.activeMs + idle);
  if (halfClose > 0 && times.halfClosed) at = Math.min(at, times.activeMs + halfClose);
  return at;
}

/** The end whose time has come, or null. */
export function dueEnd(times: Times, { idle, halfClose }: Limits, nowMs: number): End | null {
  const quietMs = nowMs - times.activeMs;
  if (nowMs >= times.stopAtMs) return "shutdown";
  if (nowMs >= times.lifetimeEndsMs) return "lifetime";
  if (halfClose > 0 && times.halfClosed && quietMs >= halfClose) return "half_close_timeout";
  return idle > 0 && quietMs >= idle ? "idle_timeout" : null;
}
