// Connecting to a backend: picks one, begins an attempt, hands its socket's events to the connection, names failures, and
// picks another. The deadline of an attempt is the connection's timer.
import type { Socket, SocketHandler } from "bun";
import type { End } from "../core/ends.ts";
import { isConnectionFault, upgradeToClient, type TlsFacts, type TlsHandler } from "../platform/bun.ts";
import { Connector, isSelfConnected, NO_DESCRIPTOR } from "../platform/connector.ts";
import { errnoName, LOCAL_ERRORS } from "../platform/libc.ts";
import { faultOf } from "../platform/tls-client.ts";
import { BACKEND } from "../shared/counters.ts";
import { CLAIM, ROW, ROW_FLOAT, ROW_WORDS } from "../shared/ledger.ts";
import { Ciphertext } from "./ciphertext.ts";
import type { Connection } from "./connection.ts";
import { giveBackBackend } from "./ending.ts";
import type { AttemptOutcome, Backend, Pool } from "./pool.ts";
import { proxyHeaderFor } from "./send-proxy.ts";

/** Picks a backend and connects to it; ends the connection where there is none. */
export function dial(connection: Connection): void {
  const { pool } = connection;
  if (pool === null) {
    connection.finish("no_route", "lb");
    return;
  }
  const backend = pool.pick(connection);
  if (backend === null) {
    connection.finish(pool.hasCandidate ? "queue_full" : "no_backend", "lb");
    return;
  }
  connection.plane.words[connection.row * ROW_WORDS + ROW.pool] = pool.id;
  dialBackend(connection, backend, pool);
}

function dialBackend(connection: Connection, backend: Backend, pool: Pool): void {
  connection.backend = backend;
  const at = connection.row * ROW_WORDS;
  const { words } = connection.plane;
  words[at + ROW.backend] = backend.id;
  words[at]! |= CLAIM.backend;
  backend.counters[BACKEND.dials]!++;
  connection.enter("dialing");
  connection.dialStartedMs = performance.now();
  connection.connectMs = -1;
  const error = beginDial(backend, pool, connection);
  if (error !== null) {
    attemptFailed(connection, error);
    return;
  }
  // The wheel's clock is behind by more than a tick while the thread waits for a processor; the deadline must not be.
  const { wheel } = connection.plane;
  wheel.schedule(connection, Math.max(wheel.now, connection.dialStartedMs) + pool.plan.connectTimeoutMs);
}

/** The attempt has failed for this reason (an errno's name, or TLS_FAILED and what was wrong): another backend if there is one, else the end. */
export function attemptFailed(connection: Connection, code: string): void {
  const { backend, pool, backendSocket } = connection;
  if (backend === null || pool === null) return;
  connection.backendSocket = null;
  connection.plane.words[connection.row * ROW_WORDS + ROW.backendFd] = -1;
  backendSocket?.terminate();
  // What this machine has run out of is no failure of the backend.
  const isLocal = LOCAL_ERRORS.has(code);
  const failure = failureOf(code);
  if (!isLocal) backend.attemptEnded(failure.outcome, performance.now() - connection.dialStartedMs);
  const at = connection.row * ROW_WORDS;
  const { words } = connection.plane;
  const retries = words[at + ROW.retries] ?? 0;
  connection.tried = connection.tried === null ? [backend.id] : [...connection.tried, backend.id];
  const next = retries < pool.plan.retries ? pool.pick(connection) : null;
  if (next === null) {
    connection.finish(failure.end, isLocal ? "lb" : "backend", code);
    return;
  }
  giveBackBackend(connection);
  backend.counters[BACKEND.retriedAway]!++;
  words[at + ROW.retries] = retries + 1;
  dialBackend(connection, next, pool);
}

/** TCP is connected; what the pool wants said first is said, and TLS goes before the client's bytes. */
export function connected(connection: Connection, socket: Socket<unknown>): void {
  const { backend, pool } = connection;
  if (backend === null || pool === null || connection.connectMs >= 0) return;
  if (backend.maySelfConnect && selfConnected(connection, backend, socket))
    return attemptFailed(connection, "ECONNREFUSED");
  connection.connectMs = performance.now() - connection.dialStartedMs;
  backend.attemptEnded(BACKEND.connected, connection.connectMs);
  if (pool.plain) connection.relay(socket);
  else greet(connection, backend, pool, socket);
}

function selfConnected({ plane, row }: Connection, { endpoint }: Backend, socket: Socket<unknown>): boolean {
  const fd = plane.words[row * ROW_WORDS + ROW.backendFd] ?? -1;
  return endpoint.kind === "ip" && isSelfConnected(socket, fd, endpoint.port);
}

// ---------------------------------------------------------------------- one attempt

/** The one table of handlers for all sockets to backends. */
export const backendEvents: SocketHandler<Connection, "uint8array"> = {
  binaryType: "uint8array",
  open: (socket) => socket.data.backendOpened(socket),
  data: (socket, chunk) => socket.data.backendData(socket, chunk),
  drain: (socket) => socket.data.backendDrained(socket),
  end: (socket) => socket.data.backendEnded(socket),
  close: (socket, error) => socket.data.backendClosed(socket, error),
  // A socket that never opened is not known yet; one given up before does not count.
  connectError: (socket, error) => {
    if (socket.data.backendSocket === null) socket.data.backendOpened(socket);
    socket.data.backendClosed(socket, error);
  },
  error: (socket, error) => socket.data.plane.crash(error),
};

const connector = new Connector(backendEvents);

/**
 * Begins to connect. Null = under way: the socket is the connection's already, its first `drain` or `data` says that it is
 * connected and `close` that it failed. Else the errno's name, and nothing is left to clean up. Hot path.
 */
function beginDial(backend: Backend, pool: Pool, connection: Connection): string | null {
  const fd = connector.connect(backend, pool.source, connection);
  if (fd < 0) return errnoName(-fd);
  connection.plane.words[connection.row * ROW_WORDS + ROW.backendFd] = fd === NO_DESCRIPTOR ? -1 : fd;
  return null;
}

// ---------------------------------------------------------------------- before the client's bytes

/** What comes before the client's bytes on a connected socket: the PROXY header, and then TLS. Ends in `relay` or a failure. */
function greet(connection: Connection, backend: Backend, pool: Pool, socket: Socket<unknown>): void {
  const { sendProxy } = pool.plan;
  if (sendProxy !== "off") {
    const header = proxyHeaderFor(connection, sendProxy);
    // The buffer of a socket that was just connected is larger than any header.
    if (socket.write(header) !== header.length) return attemptFailed(connection, "EPIPE");
  }
  if (pool.tls === null) return connection.relay(socket);
  const ciphertext = new Ciphertext(connection.plane, connection.row, ROW_FLOAT.bytesOut);
  connection.backendCiphertext = ciphertext;
  upgradeToClient(socket as Socket<Connection>, {
    tls: pool.tls.options(backend.host, backend.address),
    data: connection,
    twin: ciphertext.asTwin,
    handlers: tlsBackendEvents,
  });
}

/** The table of handlers for sockets to backends that speak TLS. */
export const tlsBackendEvents: TlsHandler<Connection> = {
  ...backendEvents,
  open: (socket) => securing(socket.data, socket),
  // Before the handshake is done there is nothing to hear but its end.
  drain: (socket) => (socket.data.phase === "relaying" ? socket.data.backendDrained(socket) : undefined),
  end: (socket) => (socket.data.phase === "relaying" ? socket.data.backendEnded(socket) : tlsFailed(socket, "closed")),
  close: (socket, error) =>
    socket.data.phase === "relaying" ? socket.data.backendClosed(socket, error) : tlsFailed(socket, "closed"),
  handshake: (socket, done, error) => handshakeDone(socket.data, socket, done, error),
  session: (socket, session) => keepSession(socket.data, session),
  error: (socket, error) => tlsErred(socket, error),
};

function securing(connection: Connection, socket: Socket<Connection>): void {
  connection.backendSocket = socket;
  const { backend, pool } = connection;
  const session = backend === null ? null : (pool?.tls?.session(backend.host, backend.address) ?? null);
  if (session !== null) (socket as unknown as TlsFacts).setSession(session);
}

function handshakeDone(connection: Connection, socket: Socket<Connection>, done: boolean, error: Error | null): void {
  if (socket !== connection.backendSocket || connection.phase !== "dialing") return;
  const { backend, pool } = connection;
  if (backend === null || !pool?.tls) return;
  const fault = pool.tls.verdict(backend.host, backend.address, socket, done, error);
  if (fault === null) connection.relay(socket);
  else tlsFailed(socket, fault);
}

function keepSession({ backend, pool }: Connection, session: Uint8Array): void {
  if (backend !== null) pool?.tls?.keep(backend.host, backend.address, session);
}

function tlsFailed(socket: Socket<Connection>, reason: string): void {
  const connection = socket.data;
  if (socket === connection.backendSocket && connection.phase === "dialing")
    attemptFailed(connection, TLS_FAILED + reason);
}

// Faults of the connection come here, and so does what a handler of ours throws.
function tlsErred(socket: Socket<Connection>, error: Error): void {
  if (!isConnectionFault(error)) socket.data.plane.crash(error);
  if (socket.data.phase === "dialing") tlsFailed(socket, faultOf(error) ?? "failed");
  else if (socket === socket.data.backendSocket) socket.data.finish("reset", "backend", "tls");
}

// ---------------------------------------------------------------------- failures

/** What the reason of a failed TLS handshake begins with; the runtime's name for what was wrong follows. */
const TLS_FAILED = "tls ";

const REFUSED = { outcome: BACKEND.refused, end: "connect_refused" } as const satisfies Failure;
const TIMED_OUT = { outcome: BACKEND.timedOut, end: "connect_timeout" } as const satisfies Failure;
const FAILED = { outcome: BACKEND.failed, end: "connect_failed" } as const satisfies Failure;
const UNSECURED = { outcome: BACKEND.tlsFailed, end: "handshake_failed" } as const satisfies Failure;

/** Where a failed attempt is counted, and the end if it was the last. */
interface Failure {
  outcome: AttemptOutcome;
  end: End;
}

function failureOf(code: string): Failure {
  if (code === "ECONNREFUSED") return REFUSED;
  if (code.startsWith(TLS_FAILED)) return UNSECURED;
  return code === "ETIMEDOUT" ? TIMED_OUT : FAILED;
}
