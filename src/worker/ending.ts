// The end of a session, whatever kind it is: the counters, the line of the access log, and the claims.
import { monotonicMs } from "../platform/clock.ts";
import { BACKEND, countTime, endCell, LIFE_TIMES, WORKER } from "../shared/counters.ts";
import { ROW_FLOAT, ROW_FLOATS } from "../shared/ledger.ts";
import { countForClient } from "./activity.ts";
import { leaveQueue, releaseAll } from "./admission.ts";
import type { Ended, Session } from "./session.ts";

/** To be called once for each session, when it is closed. Afterwards its row of the ledger belongs to another session. */
export function conclude(session: Session, ended: Ended): void {
  const { host, listener, backend } = session;
  listener.counters[endCell(ended.end, ended.by)]!++;
  host.counters[WORKER.ended]!++;
  if (backend !== null) {
    backend.count(BACKEND.ended);
    const startedMs = host.floats[session.row * ROW_FLOATS + ROW_FLOAT.startedMs]!;
    countTime(listener.counters, LIFE_TIMES, monotonicMs() - startedMs);
  }
  // Before the log line, which has the time in the queue.
  leaveQueue(session);
  host.log(session, ended);
  countForClient(session, ended);
  releaseAll(session);
  host.forget(session);
}
