// The first choice of a backend, and the phase in which a connection waits for one because all of its pool are full. What the client
// sends meanwhile is held as while dialing. The connection's timer is `queue.timeout`.
import { CLAIM, ROW, ROW_FLOAT, ROW_FLOATS, ROW_WORDS } from "../shared/ledger.ts";
import { leaveQueue } from "./admission.ts";
import { definePhase, type Connection, type Phase } from "./connection.ts";
import { beginAttempt } from "./dialing.ts";
import type { Pool, PoolQueue } from "./pool.ts";

/** Picks a backend and connects to it, or waits for one; ends the connection where neither can be. Hot path. */
export function dial(connection: Connection): void {
  const { pool, host, row } = connection;
  if (pool === null) return connection.finish("no_route", "lb");
  host.words[row * ROW_WORDS + ROW.pool] = pool.id;
  const { queue } = pool;
  // A place that is free while others wait is theirs.
  const backend = queue !== null && queue.isUsed ? null : pool.acquire(connection);
  if (backend !== null) beginAttempt(connection, backend, pool);
  else if (!pool.hasCandidate) connection.finish("no_backend", "lb");
  else if (queue === null || !queue.enter(pool.plan.queue.size)) connection.finish("queue_full", "lb");
  else wait(connection, pool, queue);
}

function wait(connection: Connection, pool: Pool, queue: PoolQueue): void {
  const { host, row } = connection;
  host.words[row * ROW_WORDS]! |= CLAIM.queue;
  connection.enter(queued);
  host.queues.add(queue);
  queue.join(connection);
  // The wheel's clock is behind by more than a tick while the thread waits for a processor; the deadline must not be.
  host.wheel.schedule(connection, Math.max(host.wheel.now, performance.now()) + pool.plan.queue.timeoutMs);
}

const queued: Phase = definePhase("queued", {
  placed(connection, backend) {
    leaveQueue(connection);
    if (connection.pool !== null) beginAttempt(connection, backend, connection.pool);
  },

  // After a request it is half of a close, and the client waits for the answer. Who has asked for nothing has gone.
  clientEnded(connection) {
    const { host, row } = connection;
    if (host.floats[row * ROW_FLOATS + ROW_FLOAT.bytesIn] === 0) connection.finish("eof", "client");
    else connection.noteClientEnd();
  },

  timer: (connection) => connection.finish("queue_timeout", "lb"),
});
