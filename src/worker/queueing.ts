// Waiting in the queue of a pool, because all backends that a connection could go to are full. What the client sends meanwhile is held
// as while dialing. The connection's timer is `queue.timeout`. What comes behind the wait stands in dialing.ts.
import { CLAIM, ROW, ROW_FLOAT, ROW_FLOATS, ROW_WORDS } from "../shared/ledger.ts";
import type { Connection, Phase } from "./connection.ts";
import type { Pool } from "./pool.ts";

/** Claims a place in the queue of the pool, for `wait`; false = there is none. */
export function enterQueue({ host, row }: Connection, { queue, plan }: Pool): boolean {
  if (queue === null || !queue.enter(plan.queue.size)) return false;
  host.words[row * ROW_WORDS]! |= CLAIM.queue;
  return true;
}

/** Begins to wait, in the phase `queued`. One that waits again has what is left of the time. */
export function wait(connection: Connection, pool: Pool, queued: Phase): void {
  const { host, row } = connection;
  const { queue, plan } = pool;
  if (queue === null) return;
  connection.enter(queued);
  host.queues.add(queue);
  queue.join(connection);
  const leftMs = Math.max(0, plan.queue.timeoutMs - host.words[row * ROW_WORDS + ROW.queueMs]!);
  // The wheel's clock is behind by more than a tick while the thread waits for a processor; the deadline must not be.
  host.wheel.schedule(connection, Math.max(host.wheel.now, performance.now()) + leftMs);
}

/** Events of the phase `queued`. */
export const QUEUED: Pick<Phase, "clientEnded" | "timer"> = {
  // After a request it is half of a close, and the client waits for the answer. Who has asked for nothing has gone.
  clientEnded(connection) {
    const { host, row } = connection;
    if (host.floats[row * ROW_FLOATS + ROW_FLOAT.bytesIn] === 0) connection.finish("eof", "client");
    else connection.noteClientEnd();
  },

  timer: (connection) => connection.finish("queue_timeout", "lb"),
};
