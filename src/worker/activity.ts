// Counts an ended session for its client, in the table of the most active clients.
import { REFUSALS } from "../core/ends.ts";
import { monotonicMsOf } from "../platform/clock.ts";
import { ACTIVITY } from "../shared/client-activity.ts";
import { ROW, ROW_FLOAT, ROW_FLOATS, ROW_WORDS } from "../shared/ledger.ts";
import type { Ended, Session } from "./session.ts";

const MINUTE_MS = 60_000;

/** The row of the session must still exist. Hot path. */
export function countForClient({ host, listener, row }: Session, { end }: Ended): void {
  const { activity, words, floats } = host;
  // The wheel's clock runs while there are sessions; reading the real time again would cost more than the rest.
  const nowMs = monotonicMsOf(host.wheel.now);
  const { id } = listener.plan;
  const client = listener.prefix.of(words, row * ROW_WORDS + ROW.address);
  if (REFUSALS.has(end)) return activity.add(ACTIVITY.refusals, 1, nowMs, id, client);
  const floatsAt = row * ROW_FLOATS;
  const startedMs = floats[floatsAt + ROW_FLOAT.startedMs]!;
  activity.add(ACTIVITY.connections, 1, startedMs, id, client);
  const bytesIn = floats[floatsAt + ROW_FLOAT.bytesIn]!;
  const bytesOut = floats[floatsAt + ROW_FLOAT.bytesOut]!;
  // When the bytes arrived is unknown: of a long session, the last minute gets its proportional part.
  const part = Math.min(1, MINUTE_MS / Math.max(1, nowMs - startedMs));
  if (bytesIn > 0) activity.add(ACTIVITY.bytesIn, bytesIn * part, nowMs, id, client);
  if (bytesOut > 0) activity.add(ACTIVITY.bytesOut, bytesOut * part, nowMs, id, client);
}
