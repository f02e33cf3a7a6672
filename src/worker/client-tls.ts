// The phase of TLS with the client, from its ClientHello to the end of the handshake. A socket becomes TLS in one of two ways: it is
// accepted as TLS, if nothing that the client sends changes the handshake (Listener.acceptsTls), or it is adopted with the context that
// the ClientHello chose.
import type { Socket } from "bun";
import { upgradeToServer, tlsFacts } from "../platform/bun.ts";
import { monotonicMs } from "../platform/clock.ts";
import { hasOnlySentFin } from "../platform/sockets.ts";
import type { TlsFailure } from "../shared/counters.ts";
import { countTime, HANDSHAKE_TIMES, LISTENER, tlsFailureCell } from "../shared/counters.ts";
import { ROW_FLOAT, ROW_FLOATS } from "../shared/ledger.ts";
import { hostNameOf, type ClientHello } from "../wire/client-hello.ts";
import { ALERTS, fatalAlert } from "../wire/tls-records.ts";
import { shownCertificate } from "./client-certificate.ts";
import { definePhase, type Connection, type Phase } from "./connection.ts";
import { route } from "./routing.ts";
import { tlsClientEvents, type ClientSide } from "./socket-events.ts";
import { TlsObserver } from "./tls-observer.ts";

/** The client's socket was accepted as TLS: the runtime does the handshake with it. */
export function awaitHandshake(connection: Connection): void {
  connection.enter(handshaking);
  scheduleDeadline(connection);
}

/** Begins the handshake with a client whose ClientHello has been read: `bytes` are all that it has sent. */
export function beginHandshake(connection: Connection, hello: ClientHello, bytes: Uint8Array): void {
  const { client, listener, host, row } = connection;
  connection.noteSni(hello.serverName ?? "");
  const tls = listener.tls?.choose(hello.serverName) ?? null;
  if (client === null) return;
  if (tls === null) {
    countFailure(connection, "unknown_sni");
    client.write(fatalAlert(ALERTS.unrecognizedName));
    return connection.finish("handshake_failed", "client", "unknown_sni");
  }
  connection.enter(handshaking);
  const observer = new TlsObserver(host, host.floats, row * ROW_FLOATS + ROW_FLOAT.bytesIn);
  observer.push(bytes);
  connection.ensureFacts().tlsObserver = observer;
  upgradeToServer(client as Socket<ClientSide>, {
    tls,
    bytes,
    data: connection,
    twin: observer,
    handlers: tlsClientEvents,
  });
}

/** The deadline `timeouts.handshake` runs from accept, over everything before a backend is dialed. */
export function scheduleDeadline(connection: Connection): void {
  const { host, startedWheelMs, listener } = connection;
  host.wheel.schedule(connection, startedWheelMs + listener.plan.timeoutsMs.handshake);
}

const handshaking: Phase = definePhase("handshaking", {
  clientEnded: handshakeCut,

  clientHandshake(connection, socket, done, error) {
    const { listener } = connection;
    if (listener.acceptsTls !== null) connection.noteSni(hostNameOf(tlsFacts(socket).getServername() ?? "") ?? "");
    // This is how Bun reports a FIN before the end of the handshake on a socket that was accepted as TLS.
    if (!done && (error as { code?: string } | null)?.code === "ECONNRESET") return handshakeCut(connection);
    if (!done) return refuse(connection, reasonOf(error));
    if (listener.tls?.wantsClientCertificate && !acceptCertificate(connection, socket)) return;
    noteHandshake(connection, socket);
    route(connection, null);
  },

  clientTlsFailed: (connection, error) => refuse(connection, reasonOf(error)),

  timer(connection) {
    countFailure(connection, "timeout");
    connection.finish("handshake_timeout", "lb");
  },
});

function noteHandshake(connection: Connection, socket: Socket<unknown>): void {
  const { host, row, listener } = connection;
  const { counters } = listener;
  const facts = connection.ensureFacts();
  facts.tlsVersion = tlsFacts(socket).getTLSVersion() ?? "unknown";
  facts.alpn = typeof socket.alpnProtocol === "string" ? socket.alpnProtocol : "";
  const resumed = socket.isSessionReused() ? 1 : 0;
  counters[(facts.tlsVersion === "TLSv1.3" ? LISTENER.tls13 : LISTENER.tls12) + resumed]!++;
  countTime(counters, HANDSHAKE_TIMES, monotonicMs() - host.floats[row * ROW_FLOATS + ROW_FLOAT.startedMs]!);
}

/** Whether the client's certificate, or the lack of one, is accepted; if not, the connection has ended. */
function acceptCertificate(connection: Connection, socket: Socket<unknown>): boolean {
  const shown = shownCertificate(socket);
  if (shown.is === "good") {
    connection.ensureFacts().certificate = shown.certificate;
    return true;
  }
  if (shown.is === "bad") refuseCertificate(connection, shown.why);
  else if (connection.listener.tls?.requiresClientCertificate) refuse(connection, "certificate_missing");
  return connection.phase === handshaking;
}

/** The client has sent its FIN before the end of the handshake, or before any byte, as probes do. */
export function handshakeCut(connection: Connection): void {
  if (hasOnlySentFin(connection.clientFd)) return connection.finish("eof", "client");
  countFailure(connection, "closed");
  connection.finish("handshake_failed", "client", "closed");
}

// The runtime has sent the alert.
function refuse(connection: Connection, failure: TlsFailure): void {
  countFailure(connection, failure);
  connection.finish("handshake_failed", "client", failure);
}

// Bun (1.4.5) completes the handshake whatever the certificate is, and cannot send an alert afterwards. A close would look like the
// orderly end of an empty answer, so lb resets.
function refuseCertificate(connection: Connection, why: string): void {
  countFailure(connection, "certificate_bad");
  const { client } = connection;
  connection.client = null;
  connection.finish("handshake_failed", "client", `certificate_bad ${why}`);
  client?.terminate();
}

export function countFailure({ listener }: Connection, failure: TlsFailure): void {
  listener.counters[tlsFailureCell(failure)]!++;
}

// BoringSSL's reasons (ssl.h), from the end of its error strings.
const REASONS: readonly (readonly [RegExp, TlsFailure])[] = [
  [/NO_APPLICATION_PROTOCOL/, "no_shared_alpn"],
  [/HTTP_REQUEST|HTTPS_PROXY_REQUEST|WRONG_VERSION_NUMBER/, "not_tls"],
  [/CLIENTHELLO|EXCESSIVE_MESSAGE_SIZE|DECODE_ERROR|UNEXPECTED_RECORD|UNEXPECTED_MESSAGE/, "bad_hello"],
  [/UNSUPPORTED_PROTOCOL|NO_SUPPORTED_VERSIONS|UNKNOWN_PROTOCOL/, "protocol_version"],
  [/NO_SHARED_CIPHER|NO_SHARED_GROUP|NO_COMMON_SIGNATURE/, "no_shared_cipher"],
  [/PEER_DID_NOT_RETURN_A_CERTIFICATE/, "certificate_missing"],
  [/CERTIFICATE_VERIFY_FAILED|BAD_SIGNATURE/, "certificate_bad"],
  // OpenSSL's client sends the alert for an untrusted certificate unencrypted, although TLS 1.3 has keys already: BoringSSL reports a
  // record that is too short.
  [/ALERT|BAD_PACKET_LENGTH/, "alert"],
];

function reasonOf(error: Error | null): TlsFailure {
  const message = error?.message ?? "";
  return REASONS.find(([pattern]) => pattern.test(message))?.[1] ?? "other";
}
