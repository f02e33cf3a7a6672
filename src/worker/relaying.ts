// The phase in which both flows run: bytes and FINs both ways, timeouts, keepalive. pump.ts moves waiting bytes.
import type { Socket } from "bun";
import { NO_SLOT } from "../core/timer-wheel.ts";
import { FIN_NEXT, NO_END, RESET_NEXT, setKeepalive } from "../platform/sockets.ts";
import { BACKEND } from "../shared/counters.ts";
import { FIRST_END, ROW, ROW_FLOAT, ROW_FLOATS, ROW_WORDS } from "../shared/ledger.ts";
import { definePhase, type Connection, type Phase } from "./connection.ts";
import type { Flow } from "./flow.ts";
import type { ListenerBandwidth } from "./listener-bandwidth.ts";
import { Pace } from "./pace.ts";
import { follow, pump, PUMP_FROM_BYTES } from "./pump.ts";
import { allowBackendFin, allowClientFin, RESET_BACKEND_AFTER_MS, resetBackendOnClose } from "./reset-on-close.ts";
import { endAfter, forwardBeforeFin } from "./short-reply.ts";
import { dueEnd, nextDueWheelMs } from "./timeouts.ts";

/** The backend is ready for the client's bytes on this socket. */
export function startRelaying(connection: Connection, backendSocket: Socket<unknown>): void {
  const { toBackend, toClient } = connection;
  connection.backendSocket = backendSocket;
  connection.enter(relaying);
  connection.touch();
  toClient.from = backendSocket;
  toBackend.to = backendSocket;
  countEarlyBytes(connection);
  if (connection.speaksTls) toBackend.mustSeeBytes = toClient.mustSeeBytes = true;
  if (connection.listener.bandwidth !== null) limitBandwidth(connection, connection.listener.bandwidth);
  connection.keepaliveMs = connection.pool?.plan.keepaliveMs ?? 0;
  schedule(connection);
  if (toBackend.paused || toBackend.queue !== null) move(connection, toBackend);
  else if (toBackend.state === "ending") passEnds(connection);
}

// Set here, because only now the client is known for certain, and refused connections need no limit.
function limitBandwidth(connection: Connection, bandwidth: ListenerBandwidth): void {
  const { toBackend, toClient, host, row } = connection;
  const entry = host.words[row * ROW_WORDS + ROW.clientEntry]!;
  const now = performance.now();
  const upload = bandwidth.limit("upload", entry, now);
  const download = bandwidth.limit("download", entry, now);
  if (bandwidth.isDryRun) {
    const facts = connection.ensureFacts();
    facts.triedBandwidth = { upload, download };
    return connection.tryBandwidth(facts, "upload", toBackend.waiting);
  }
  if (upload !== null) toBackend.pace = new Pace(upload);
  if (download !== null) toClient.pace = new Pace(download);
}

// Bytes that the client sent before count for the backend that gets them, not for backends that were tried.
function countEarlyBytes({ backend, host, row }: Connection): void {
  if (backend !== null) backend.count(BACKEND.bytesIn, host.floats[row * ROW_FLOATS + ROW_FLOAT.bytesIn]!);
}

const relaying: Phase = definePhase("relaying", {
  // ---------------------------------------------------------------- the client; hot path

  clientData(connection, chunk) {
    const { length } = chunk;
    const { toBackend } = connection;
    if (!connection.forwardToBackend(chunk)) return;
    if (length >= PUMP_FROM_BYTES || toBackend.pace !== null) follow(connection, toBackend, length);
  },

  clientDrained(connection) {
    const { toClient } = connection;
    if (toClient.paused || toClient.queue !== null) move(connection, toClient);
  },

  clientEnded(connection) {
    if (connection.toBackend.state !== "open") return;
    connection.noteClientEnd();
    passEnds(connection);
  },

  // ---------------------------------------------------------------- the backend; hot path

  backendData(connection, chunk) {
    const { toClient } = connection;
    const { length } = chunk;
    const next = nextAfter(connection);
    connection.countOut(length);
    if (next === FIN_NEXT) sendWithFin(connection, chunk);
    else if (!toClient.forward(chunk)) connection.finish("reset", "client");
    else if (next === RESET_NEXT) connection.finish("reset", "backend");
    else if (length >= PUMP_FROM_BYTES || toClient.pace !== null) follow(connection, toClient, length);
  },

  backendDrained(connection) {
    const { toBackend } = connection;
    if (toBackend.paused || toBackend.queue !== null) move(connection, toBackend);
  },

  backendEnded: noteBackendEnd,

  backendClosed(connection, error) {
    if (error !== undefined) return connection.finish("reset", "backend");
    connection.toClient.from = null;
    connection.backendSocket = null;
    connection.host.words[connection.row * ROW_WORDS + ROW.backendFd] = -1;
    noteBackendEnd(connection);
  },

  backendTlsFailed: (connection) => connection.finish("reset", "backend", "tls"),

  // ---------------------------------------------------------------- time

  wake: move,

  timer(connection, nowMs) {
    const end = dueEnd(connection, connection.listener.plan.timeoutsMs, nowMs);
    if (end !== null) return connection.finish(end, "lb");
    startKeepalive(connection, nowMs);
    const isOld = nowMs >= connection.startedWheelMs + RESET_BACKEND_AFTER_MS;
    if (isOld && connection.toBackend.state !== "done") resetBackendOnClose(connection);
    schedule(connection);
  },

  stopping: schedule,
});

// ---------------------------------------------------------------------- bytes

// Sends what waits, more if the sender is paused, and a FIN after the last byte.
function move(connection: Connection, flow: Flow): void {
  pump(connection, flow);
  passEnds(connection);
}

/** Handles what follows the first chunk from the backend; see short-reply.ts. */
function nextAfter(connection: Connection): ReturnType<typeof endAfter> {
  const { host, row, toBackend, toClient } = connection;
  if (host.floats[row * ROW_FLOATS + ROW_FLOAT.bytesOut] !== 0) return NO_END;
  // With TLS, the end of the ciphertext is not the end of the data.
  if (connection.backendTlsObserver !== null || !toClient.drained) return NO_END;
  // A client that has already ended is closed, not shut down, because with TLS a shutdown takes time.
  if (toBackend.state !== "open") return NO_END;
  return endAfter(connection.clientFd, connection.backendFd);
}

// The backend's first bytes are its last.
function sendWithFin(connection: Connection, chunk: Uint8Array): void {
  const { toClient, clientFd, clientSpeaksTls } = connection;
  if (!forwardBeforeFin(toClient, clientFd, clientSpeaksTls, chunk)) return connection.finish("reset", "client");
  // A write to a TLS socket may have run the handler of its end. The FIN follows the waiting bytes when the runtime reports that they are
  // sent.
  if (connection.phase !== relaying) return;
  if (toClient.drained) noteBackendEnd(connection);
  else if (toClient.pace !== null) follow(connection, toClient, chunk.length);
}

// ---------------------------------------------------------------------- ends

function noteBackendEnd(connection: Connection): void {
  if (connection.toClient.state !== "open") return;
  connection.toClient.state = "ending";
  connection.touch();
  connection.noteFirstEnd(FIRST_END.backend);
  if (connection.backendTlsObserver?.noteEnd() && connection.backend !== null)
    connection.backend.count(BACKEND.tlsTruncated);
  passEnds(connection);
}

/**
 * Passes on each FIN whose bytes were sent. If both directions have ended, a socket that has not got the FIN yet is closed in one step
 * instead of a shutdown and a close.
 */
function passEnds(connection: Connection): void {
  if (connection.phase !== relaying) return;
  const { toBackend, toClient } = connection;
  if (toBackend.state === "ending" && toBackend.drained) {
    if (toClient.state === "done" || (toClient.state === "ending" && toClient.drained)) return finishEof(connection);
    toBackend.state = "done";
    allowBackendFin(connection);
    connection.backendSocket?.shutdown();
    schedule(connection);
  }
  if (toClient.state === "ending" && toClient.drained) {
    if (toBackend.state === "done") return finishEof(connection);
    toClient.state = "done";
    allowClientFin(connection);
    connection.client?.shutdown();
    schedule(connection);
  }
}

function finishEof(connection: Connection): void {
  const { host, row } = connection;
  const backendFirst = host.words[row * ROW_WORDS + ROW.firstEnd] === FIRST_END.backend;
  connection.finish("eof", backendFirst ? "backend" : "client");
}

// ---------------------------------------------------------------------- time

// A short connection never pays for keepalive: it is set when half of its time has passed. The client's socket inherits it from the
// listening socket.
function startKeepalive(connection: Connection, nowMs: number): void {
  const { keepaliveMs, backendFd } = connection;
  if (keepaliveMs === 0 || nowMs < connection.startedWheelMs + keepaliveMs / 2) return;
  if (backendFd >= 0 && connection.backendSocket !== null) setKeepalive(backendFd, keepaliveMs);
  connection.keepaliveMs = 0;
}

// A timer that fires early checks the times again, so it is not moved to a later time.
function schedule(connection: Connection): void {
  const { startedWheelMs, keepaliveMs } = connection;
  let at = nextDueWheelMs(connection, connection.listener.plan.timeoutsMs);
  if (!connection.resetsBackend && connection.toBackend.state !== "done")
    at = Math.min(at, startedWheelMs + RESET_BACKEND_AFTER_MS);
  if (keepaliveMs > 0) at = Math.min(at, startedWheelMs + keepaliveMs / 2);
  const isDueBefore = connection.timerSlot !== NO_SLOT && connection.timerAt <= at;
  if (at !== Infinity && !isDueBefore) connection.host.wheel.schedule(connection, at);
}
