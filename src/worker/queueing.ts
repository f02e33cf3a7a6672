// The phase in which a connection waits in the queue of a pool, because all backends that it could use are full. Bytes from the client are
// held as in the phase dialing. The connection's timer is `queue.timeout`. dialing.ts has what follows the wait.
import { CLAIM, ROW, ROW_FLOAT, ROW_FLOATS, ROW_WORDS } from "../shared/ledger.ts";
import type { Connection, Phase } from "./connection.ts";
import type { Pool } from "./pool.ts";

/** Claims a place in the queue of the pool, for `wait`; false = the queue is full. */
export function enterQueue({ host, row }: Connection, { queue, plan }: Pool): boolean {
  if (queue === null || !queue.enter(plan.queue.size)) return false;
  host.words[row * ROW_WORDS]! |= CLAIM.queue;
  return true;
}

/** Starts to wait, in the phase `queued`. A connection that waits again has the rest of the time. */
export function wait(connection: Connection, pool: Pool, queued: Phase): void {
  const { host, row } = connection;
  const { queue, plan } = pool;
  if (queue === null) return;
  connection.enter(queued);
  host.queues.add(queue);
  queue.join(connection);
  const leftMs = Math.max(0, plan.queue.timeoutMs - host.words[row * ROW_WORDS + ROW.queueMs]!);
  // The wheel's clock lags by more than a tick while the thread waits for a CPU; the deadline must not.
  host.wheel.schedule(connection, Math.max(host.wheel.now, performance.now()) + leftMs);
}

/** Events of the phase `queued`. */
export const QUEUED: Pick<Phase, "clientEnded" | "timer"> = {
  // After a request a FIN is a half-close, and the client waits for the answer. A client that has sent nothing has left.
  clientEnded(connection) {
    const { host, row } = connection;
    if (host.floats[row * ROW_FLOATS + ROW_FLOAT.bytesIn] === 0) connection.finish("eof", "client");
    else connection.noteClientEnd();
  },

  timer: (connection) => connection.finish("queue_timeout", "lb"),
};
