// The phase in which a backend is connected: picks one, or waits in the pool's queue for one, starts an attempt, sends the PROXY header and
// does the TLS handshake if the pool uses them, names failures, and picks another backend. The connection's timer is the deadline of the
// attempt.
import type { Socket } from "bun";
import { addressAt, isUnixPeerAt } from "../core/address.ts";
import type { End } from "../core/ends.ts";
import { upgradeToClient } from "../platform/bun.ts";
import { Connector, isSelfConnected, NO_DESCRIPTOR } from "../platform/connector.ts";
import { errnoName, LOCAL_ERRORS } from "../platform/libc.ts";
import { sockaddr } from "../platform/sockets.ts";
import { faultOf } from "../platform/tls-client.ts";
import { BACKEND } from "../shared/counters.ts";
import { CLAIM, ROW, ROW_FLOAT, ROW_FLOATS, ROW_WORDS } from "../shared/ledger.ts";
import { leaveQueue, releaseBackend } from "./admission.ts";
import { definePhase, type Connection, type Phase } from "./connection.ts";
import type { AttemptOutcome, Backend, Pool } from "./pool.ts";
import { enterQueue, QUEUED, wait } from "./queueing.ts";
import { startRelaying } from "./relaying.ts";
import { proxyHeaderFor } from "./send-proxy.ts";
import { backendEvents, tlsBackendEvents, type BackendSide } from "./socket-events.ts";
import { TlsObserver } from "./tls-observer.ts";

const connector = new Connector<BackendSide>(backendEvents);

/** Picks a backend and connects to it, or waits for one; ends the connection if neither is possible. Hot path. */
export function dial(connection: Connection): void {
  const { pool, host, row } = connection;
  if (pool === null) return connection.finish("no_route", "lb");
  host.words[row * ROW_WORDS + ROW.pool] = pool.id;
  // While connections wait, a free place belongs to them.
  const backend = pool.queue !== null && pool.queue.isUsed ? null : pool.acquire(connection);
  if (backend !== null) beginAttempt(connection, backend, pool);
  else if (!pool.mayServe(connection)) connection.finish("no_backend", "lb");
  else if (enterQueue(connection, pool)) wait(connection, pool, queued);
  else connection.finish("queue_full", "lb");
}

const queued: Phase = definePhase("queued", {
  ...QUEUED,
  placed(connection, backend) {
    leaveQueue(connection);
    if (connection.pool !== null) beginAttempt(connection, backend, connection.pool);
  },
});

const dialing: Phase = definePhase("dialing", {
  backendOpened: (connection, socket) => void (connection.backendSocket = socket),

  backendData(connection, chunk) {
    connected(connection);
    if (connection.phase !== dialing) connection.phase.backendData(connection, chunk);
  },

  backendDrained: connected,

  backendEnded(connection) {
    if (isConnected(connection)) return tlsFailed(connection, "closed");
    connected(connection);
    if (connection.phase !== dialing) connection.phase.backendEnded(connection);
  },

  backendClosed(connection, error) {
    if (isConnected(connection)) tlsFailed(connection, "closed");
    else attemptFailed(connection, (error as { code?: string } | undefined)?.code ?? "ECONNREFUSED");
  },

  backendHandshake(connection, done, error) {
    const { backend, pool, backendSocket } = connection;
    if (backend === null || backendSocket === null || !pool?.tls) return;
    const fault = pool.tls.verdict(backend.host, backend.address, backendSocket, done, error);
    if (fault !== null) return tlsFailed(connection, fault);
    backend.connectedMs = performance.now();
    startRelaying(connection, backendSocket);
  },

  backendTlsFailed: (connection, error) => tlsFailed(connection, faultOf(error) ?? "failed"),
  timer: (connection) => attemptFailed(connection, "ETIMEDOUT"),
});

// ---------------------------------------------------------------------- one attempt; hot path

/** Connects to a backend of this pool at which a place is claimed for the connection. */
function beginAttempt(connection: Connection, backend: Backend, pool: Pool): void {
  const { host, row } = connection;
  const { words, wheel } = host;
  const at = row * ROW_WORDS;
  connection.backend = backend;
  words[at + ROW.backend] = backend.id;
  words[at]! |= CLAIM.backend;
  backend.count(BACKEND.dials);
  connection.enter(dialing);
  connection.dialStartedMs = performance.now();
  connection.connectMs = -1;
  // The socket belongs to the connection when this returns; `drain` or `data` means that it is connected, `close` that it failed.
  const fd = pool.isTransparent
    ? connector.connect(backend, clientSource(connection, pool), connection, "visible", true)
    : connector.connect(backend, pool.source, connection);
  if (fd < 0) return attemptFailed(connection, errnoName(-fd));
  words[at + ROW.backendFd] = fd === NO_DESCRIPTOR ? -1 : fd;
  // The wheel's clock lags by more than a tick while the thread waits for a CPU; the deadline must not.
  wheel.schedule(connection, Math.max(wheel.now, connection.dialStartedMs) + pool.plan.connectTimeoutMs);
}

/** The sockaddr of the client, to connect from; null = it has no IP address. */
function clientSource({ host, row }: Connection, { plan }: Pool): Uint8Array | null {
  const { words } = host;
  const at = row * ROW_WORDS + ROW.address;
  if (isUnixPeerAt(words, at)) return null;
  const port = plan.sourceAddress === "client_with_port" ? words[at + 4]! : 0;
  return sockaddr({ kind: "ip", address: addressAt(words, at), port });
}

// In the phase dialing: TCP is connected, TLS is not yet.
function isConnected({ connectMs }: Connection): boolean {
  return connectMs >= 0;
}

/** TCP is connected: sends the PROXY header if there is one, and does the TLS handshake before the client's bytes. */
function connected(connection: Connection): void {
  const { backend, pool, backendSocket } = connection;
  if (backend === null || pool === null || backendSocket === null || isConnected(connection)) return;
  if (backend.maySelfConnect && selfConnected(connection, backend, backendSocket))
    return attemptFailed(connection, "ECONNREFUSED");
  const nowMs = performance.now();
  connection.connectMs = nowMs - connection.dialStartedMs;
  if (pool.tls === null) backend.connectedMs = nowMs;
  backend.attemptEnded(BACKEND.connected, connection.connectMs);
  if (pool.plain) startRelaying(connection, backendSocket);
  else greet(connection, backend, pool, backendSocket);
}

function selfConnected({ backendFd }: Connection, { endpoint }: Backend, socket: Socket<unknown>): boolean {
  return endpoint.kind === "ip" && isSelfConnected(socket, backendFd, endpoint.port);
}

/** Does what comes before the client's bytes: the PROXY header, then TLS. Ends in the next phase or in a failure. */
function greet(connection: Connection, backend: Backend, pool: Pool, socket: Socket<unknown>): void {
  const { sendProxy } = pool.plan;
  if (sendProxy !== "off") {
    const header = proxyHeaderFor(connection, sendProxy);
    // The send buffer of a new connection is larger than any header.
    if (socket.write(header) !== header.length) return attemptFailed(connection, "EPIPE");
  }
  if (pool.tls === null) return startRelaying(connection, socket);
  const { host, row } = connection;
  const observer = new TlsObserver(host, host.floats, row * ROW_FLOATS + ROW_FLOAT.bytesOut);
  connection.backendTlsObserver = observer;
  upgradeToClient(socket as Socket<BackendSide>, {
    tls: pool.tls.options(backend.host, backend.address),
    data: connection,
    twin: observer,
    handlers: tlsBackendEvents,
  });
}

// ---------------------------------------------------------------------- failures

function tlsFailed(connection: Connection, reason: string): void {
  attemptFailed(connection, TLS_FAILED + reason);
}

/**
 * The attempt has failed for this reason (an errno's name, or TLS_FAILED and the fault): tries another backend, now or after the queue, or
 * ends the connection. A retry is older than all waiters, so it takes a free place at once.
 */
export function attemptFailed(connection: Connection, code: string): void {
  const { backend, pool, backendSocket, host, row } = connection;
  if (connection.phase !== dialing || backend === null || pool === null) return;
  const { words } = host;
  const at = row * ROW_WORDS;
  connection.backendSocket = null;
  words[at + ROW.backendFd] = -1;
  backendSocket?.terminate();
  // Exhausted resources of this machine are not a failure of the backend.
  const isLocal = LOCAL_ERRORS.has(code);
  const failure = failureOf(code);
  if (!isLocal) backend.attemptEnded(failure.outcome, performance.now() - connection.dialStartedMs);
  // Not the retries of the log, which include those of backends that were tried again.
  const mayRetry = (connection.tried?.length ?? 0) < pool.plan.retries;
  connection.tried = connection.tried === null ? [backend.id] : [...connection.tried, backend.id];
  const next = mayRetry ? pool.acquire(connection) : null;
  // When a backend dies while all are full, it is the one with free places: without this, all waiters would end at it.
  const waits = next === null && mayRetry && !isLocal && pool.mayServe(connection) && enterQueue(connection, pool);
  if (next === null && !waits) return connection.finish(failure.end, isLocal ? "lb" : "backend", code);
  releaseBackend(connection);
  backend.count(BACKEND.retriedAway);
  words[at + ROW.retries]!++;
  if (next !== null) return beginAttempt(connection, next, pool);
  connection.backend = null;
  words[at + ROW.backend] = 0;
  wait(connection, pool, queued);
}

/** Prefix of the reason of a failed TLS handshake; the runtime's name for the fault follows. */
const TLS_FAILED = "tls ";

const REFUSED = { outcome: BACKEND.refused, end: "connect_refused" } as const satisfies Failure;
const TIMED_OUT = { outcome: BACKEND.timedOut, end: "connect_timeout" } as const satisfies Failure;
const FAILED = { outcome: BACKEND.failed, end: "connect_failed" } as const satisfies Failure;
const UNSECURED = { outcome: BACKEND.tlsFailed, end: "handshake_failed" } as const satisfies Failure;

/** The counter of a failed attempt, and the end of the connection if it was the last attempt. */
interface Failure {
  outcome: AttemptOutcome;
  end: End;
}

function failureOf(code: string): Failure {
  if (code === "ECONNREFUSED") return REFUSED;
  if (code.startsWith(TLS_FAILED)) return UNSECURED;
  return code === "ETIMEDOUT" ? TIMED_OUT : FAILED;
}
