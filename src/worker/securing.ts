// TLS with the client, from its ClientHello to the end of the handshake. A socket becomes TLS in one of two ways: accepted as
// such, where nothing of the client has a say before the handshake (Listener.acceptsTls), else adopted with the context that
// the ClientHello chose.
import type { Socket } from "bun";
import { isConnectionFault, upgradeToServer, type TlsFacts, type TlsHandler } from "../platform/bun.ts";
import { hasOnlySentFin } from "../platform/sockets.ts";
import type { TlsFailure } from "../shared/counters.ts";
import { countTime, HANDSHAKE_TIMES, LISTENER, tlsFailureCell } from "../shared/counters.ts";
import { ROW, ROW_FLOAT, ROW_WORDS } from "../shared/ledger.ts";
import { hostNameOf, type ClientHello } from "../wire/client-hello.ts";
import { ALERTS, fatalAlert } from "../wire/tls-records.ts";
import { Ciphertext } from "./ciphertext.ts";
import { shownCertificate } from "./client-certificate.ts";
import type { Connection } from "./connection.ts";
import { route } from "./routing.ts";

/** The client's socket was accepted as TLS: Bun does the handshake with it. */
export function awaitHandshake(connection: Connection): void {
  connection.enter("securing");
  connection.scheduleHandshake();
}

/** Begins the handshake with a client whose ClientHello has been read: `bytes` are all that it has sent. */
export function secure(connection: Connection, hello: ClientHello, bytes: Uint8Array): void {
  const { client, listener, plane, row } = connection;
  connection.sni = hello.serverName ?? "";
  const tls = listener.tls?.choose(hello.serverName) ?? null;
  if (client === null) return;
  if (tls === null) {
    countFailure(connection, "unknown_sni");
    client.write(fatalAlert(ALERTS.unrecognizedName));
    return connection.finish("handshake_failed", "client", "unknown_sni");
  }
  connection.enter("securing");
  const ciphertext = new Ciphertext(plane, row, ROW_FLOAT.bytesIn);
  ciphertext.push(bytes);
  connection.clientCiphertext = ciphertext;
  upgradeToServer(client as Socket<Connection>, {
    tls,
    bytes,
    data: connection,
    twin: ciphertext.asTwin,
    handlers: tlsClientEvents,
  });
}

/** The table of handlers for sockets of clients that speak TLS with us. `open` comes at once: the socket is an adopted one. */
export const tlsClientEvents: TlsHandler<Connection> = {
  binaryType: "uint8array",
  data: (socket, chunk) => socket.data.clientData(chunk),
  drain: (socket) => socket.data.clientDrained(),
  end: (socket) => socket.data.clientEnded(),
  close: (socket, error) => socket.data.clientClosed(error),
  open: (socket) => socket.data.clientSecuring(socket),
  handshake: (socket, done, error) => handshakeDone(socket.data, socket, done, error),
  error: (socket, error) => tlsFailed(socket.data, error),
};

function handshakeDone(connection: Connection, socket: Socket<Connection>, done: boolean, error: Error | null): void {
  if (connection.phase !== "securing") return;
  if (connection.listener.acceptsTls !== null)
    connection.sni = hostNameOf((socket as unknown as TlsFacts).getServername() ?? "") ?? "";
  // So Bun tells of a FIN before the handshake is done, where the socket was accepted as TLS.
  if (!done && (error as { code?: string } | null)?.code === "ECONNRESET") return handshakeCut(connection);
  if (!done) return refuse(connection, reasonOf(error));
  const { counters, tls } = connection.listener;
  if (tls?.wantsClientCertificate) {
    const shown = shownCertificate(socket);
    if (shown.is === "bad") return refuseCertificate(connection, shown.why);
    if (shown.is === "good") connection.clientCertificate = shown.certificate;
    else if (tls.requiresClientCertificate) return refuse(connection, "certificate_missing");
  }
  connection.tlsVersion = (socket as unknown as TlsFacts).getTLSVersion() ?? "unknown";
  connection.alpn = typeof socket.alpnProtocol === "string" ? socket.alpnProtocol : "";
  const resumed = socket.isSessionReused() ? 1 : 0;
  counters[(connection.tlsVersion === "TLSv1.3" ? LISTENER.tls13 : LISTENER.tls12) + resumed]!++;
  countTime(counters, HANDSHAKE_TIMES, performance.now() - connection.startedAtMs);
  route(connection, null);
}

/** The client has sent its FIN before the handshake was done, or before it has said anything at all, as probes do. */
export function handshakeCut(connection: Connection): void {
  const fd = connection.plane.words[connection.row * ROW_WORDS + ROW.clientFd]!;
  if (hasOnlySentFin(fd)) return connection.finish("eof", "client");
  countFailure(connection, "closed");
  connection.finish("handshake_failed", "client", "closed");
}

// The runtime has sent the alert.
function refuse(connection: Connection, failure: TlsFailure): void {
  countFailure(connection, failure);
  connection.finish("handshake_failed", "client", failure);
}

// Bun (1.4.5) completes the handshake whatever the certificate is, and has no way to send an alert after that. A close would
// look like an orderly end of an empty answer, so it is a reset.
function refuseCertificate(connection: Connection, why: string): void {
  countFailure(connection, "certificate_bad");
  const { client } = connection;
  connection.client = null;
  connection.finish("handshake_failed", "client", `certificate_bad ${why}`);
  client?.terminate();
}

// BoringSSL's reasons (ssl.h), as they stand at the end of its error strings.
const REASONS: readonly (readonly [RegExp, TlsFailure])[] = [
  [/NO_APPLICATION_PROTOCOL/, "no_shared_alpn"],
  [/HTTP_REQUEST|HTTPS_PROXY_REQUEST|WRONG_VERSION_NUMBER/, "not_tls"],
  [/CLIENTHELLO|EXCESSIVE_MESSAGE_SIZE|DECODE_ERROR|UNEXPECTED_RECORD|UNEXPECTED_MESSAGE/, "bad_hello"],
  [/UNSUPPORTED_PROTOCOL|NO_SUPPORTED_VERSIONS|UNKNOWN_PROTOCOL/, "protocol_version"],
  [/NO_SHARED_CIPHER|NO_SHARED_GROUP|NO_COMMON_SIGNATURE/, "no_shared_cipher"],
  [/PEER_DID_NOT_RETURN_A_CERTIFICATE/, "certificate_missing"],
  [/CERTIFICATE_VERIFY_FAILED|BAD_SIGNATURE/, "certificate_bad"],
  // OpenSSL's client sends the alert of a certificate that it does not trust in the clear, where TLS 1.3 has keys already:
  // BoringSSL finds a record too short to be one.
  [/ALERT|BAD_PACKET_LENGTH/, "alert"],
];

function reasonOf(error: Error | null): TlsFailure {
  const message = error?.message ?? "";
  return REASONS.find(([pattern]) => pattern.test(message))?.[1] ?? "other";
}

// Faults of the connection come here, and so does what a handler of ours throws.
function tlsFailed(connection: Connection, error: Error): void {
  if (!isConnectionFault(error)) connection.plane.crash(error);
  if (connection.phase === "securing") {
    refuse(connection, reasonOf(error));
  } else {
    connection.finish("reset", "client", "tls");
  }
}

export function countFailure(connection: Connection, failure: TlsFailure): void {
  connection.listener.counters[tlsFailureCell(failure)]!++;
}
