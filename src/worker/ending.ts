// How a connection ends: counters, claims, the line of the access log, and which of FIN and RST each peer sees.
import type { Socket } from "bun";
import type { End, EndedBy } from "../core/ends.ts";
import { giveBack } from "../shared/cells.ts";
import { BACKEND, endCell, WORKER } from "../shared/counters.ts";
import { CLAIM, ROW, ROW_WORDS } from "../shared/ledger.ts";
import type { Connection } from "./connection.ts";
import { allowBackendFin, allowClientFin } from "./reset-on-close.ts";

/** With `on_abort = "close"` a connection is closed with FIN where nothing waits and nothing has moved for this long. */
const QUIET_MS = 1000;

/** The client's socket outlives a refusal with FIN by at most this long, so that the FIN is not overtaken by a RST. */
export const LINGER_MS = 1000;

/** What Connection.finish says, for a connection that has not ended yet. */
export function conclude(connection: Connection, { end, by, error }: { end: End; by: EndedBy; error: string }): void {
  const relayed = connection.phase === "relaying";
  const orderly = relayed && by === "lb" && closesOnAbort(connection, end);
  connection.enter("closed");
  connection.plane.wheel.cancel(connection);
  count(connection, end, by);
  connection.plane.accessLog.write(
    connection,
    end,
    by,
    connection.connectMs,
    error === "" ? connection.truncated : error,
  );
  giveBackAll(connection);
  connection.up.clear();
  connection.down.clear();
  connection.head = null;
  const { client, backendSocket } = connection;
  // A TLS socket that we end waits for the peer's close_notify, ten seconds long (Bun 1.4.5).
  if (orderly && connection.speaksTls) return linger(connection);
  if (end === "eof" || orderly) {
    allowFins(connection);
    connection.client = null;
    connection.backendSocket = null;
    closeOrderly(client, connection.speaksTls);
    closeOrderly(backendSocket, connection.speaksTls);
    return;
  }
  connection.backendSocket = null;
  backendSocket?.terminate();
  // An alert must reach the client; a reset could overtake it.
  const told = end === "handshake_failed" && by !== "backend";
  if (told || (!relayed && end !== "reset" && connection.listener.plan.overLimit === "close")) {
    linger(connection);
    return;
  }
  connection.client = null;
  client?.terminate();
}

// lb cannot know whether an answer is complete, so an end that it imposes is a reset unless the listener says otherwise, and
// always where the pool asks for a reset.
function closesOnAbort(connection: Connection, end: End): boolean {
  if (connection.listener.plan.onAbort === "reset" || end === "backend_down") return false;
  const { up, down } = connection;
  // Bytes of a paused sender may wait in the kernel.
  if (up.queue !== null || up.paused || down.queue !== null || down.paused) return false;
  // These two have waited for their time without a byte, however short it is.
  if (end === "idle_timeout" || end === "half_close_timeout") return true;
  return connection.plane.wheel.now - connection.activeMs >= QUIET_MS;
}

function count(connection: Connection, end: End, by: EndedBy): void {
  const { plane, listener, backend } = connection;
  listener.counters[endCell(end, by)]!++;
  plane.counters[WORKER.ended]!++;
  if (backend !== null) backend.counters[BACKEND.ended]!++;
}

/** The place at the backend, where one was claimed. */
export function giveBackBackend(connection: Connection): void {
  const { words } = connection.plane;
  const at = connection.row * ROW_WORDS;
  if (connection.backend === null || ((words[at] ?? 0) & CLAIM.backend) === 0) return;
  words[at]! &= ~CLAIM.backend;
  connection.backend.giveBack();
}

// A claim leaves the row before its place is given back, so that the supervisor never gives back a place a second time.
function giveBackAll(connection: Connection): void {
  const { plane, listener } = connection;
  const { words } = plane;
  const at = connection.row * ROW_WORDS;
  giveBackBackend(connection);
  const claims = words[at] ?? 0;
  if (claims & CLAIM.client) {
    words[at]! &= ~CLAIM.client;
    listener.clients?.release(words[at + ROW.clientEntry] ?? 0);
  }
  if (claims & CLAIM.listener) {
    words[at]! &= ~CLAIM.listener;
    giveBack(listener.plan.open);
  }
  if (claims & CLAIM.process) {
    words[at]! &= ~CLAIM.process;
    giveBack(plane.open);
  }
  plane.forget(connection);
}

// A close while bytes of the peer are unread would send RST in spite of us (RFC 1122, 4.2.2.13), so what is left of the
// sockets stays, its bytes ignored, until the peer's own FIN or for a second.
function linger(connection: Connection): void {
  const { client, backendSocket } = connection;
  if (client === null && backendSocket === null) return;
  const descriptors = client === null || backendSocket === null ? 1 : 2;
  if (!connection.plane.mayLinger(descriptors)) {
    client?.terminate();
    backendSocket?.terminate();
    return;
  }
  connection.lingering = descriptors;
  allowFins(connection);
  client?.shutdown();
  backendSocket?.shutdown();
  connection.plane.startClock();
  connection.plane.wheel.schedule(connection, connection.plane.wheel.now + LINGER_MS);
}

/** Both peers have closed, or have had their time. */
export function stopLingering(connection: Connection): void {
  const { lingering } = connection;
  if (lingering === 0) return;
  connection.lingering = 0;
  connection.plane.wheel.cancel(connection);
  connection.plane.lingered(lingering);
}

// The FIN of a side may have been sent before, and then this is done.
function allowFins(connection: Connection): void {
  if (connection.client !== null && connection.down.state !== "done") allowClientFin(connection);
  if (connection.backendSocket !== null) allowBackendFin(connection);
}

// `close` spares `end`'s flush of a buffer that there is none of; only `end` sends a close_notify.
function closeOrderly(socket: Socket<unknown> | null, tls: boolean): void {
  if (tls) socket?.end();
  else socket?.close();
}
