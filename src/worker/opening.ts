// A connection before it has a backend: the PROXY header, the ClientHello, the TLS handshake with the client, the route. The
// deadline `timeouts.handshake` covers all of it.
import type { Socket } from "bun";
import type { TlsFailure } from "../shared/counters.ts";
import { HANDSHAKE_BUCKETS_MS, LISTENER, TLS_FAILURES } from "../shared/counters.ts";
import { ROW, ROW_FLOAT, ROW_WORDS } from "../shared/ledger.ts";
import { upgradeToServer, type TlsFacts, type TlsHandler } from "../platform/bun.ts";
import { describeTlvs, type ProxyHeader } from "../wire/proxy-protocol.ts";
import type { ClientHello } from "../wire/client-hello.ts";
import { Ciphertext } from "./ciphertext.ts";
import type { Connection } from "./connection.ts";
import { Head } from "./head.ts";
import { UNRECOGNIZED_NAME } from "./tls-server.ts";

const NOTHING = new Uint8Array(0);

/** Begins with a client that was just accepted and whose address stands in the ledger. Hot path. */
export function open(connection: Connection): void {
  const { listener, plane, row } = connection;
  const proxyHeader = listener.expectsProxyHeader(plane.words, row);
  if (proxyHeader === "untrusted") return connection.finish("proxy_header_bad", "client", "not a trusted proxy");
  const known = proxyHeader === "no";
  const refused =
    (known ? listener.checkAddress(plane, row) : null) ??
    listener.claimPlaces(plane, row) ??
    (known ? listener.admitClient(plane, row) : null);
  if (refused !== null) return connection.finish(refused, "lb");
  if (known && !listener.readsHello) return route(connection, null);
  connection.head = new Head({ proxyHeader, hello: listener.readsHello, tlsOnly: listener.tls !== null });
  connection.enter("reading");
  connection.scheduleHandshake();
}

/** Bytes of the client while the head is being read. */
export function readHead(connection: Connection, chunk: Uint8Array): void {
  const { head } = connection;
  if (head === null) return;
  const answer = head.push(chunk);
  switch (answer.is) {
    case "more":
      return;
    case "refused":
      if (answer.end === "handshake_failed")
        countFailure(connection, answer.why === "not_tls" ? "not_tls" : "bad_hello");
      return connection.finish(answer.end, "client", answer.why);
    case "proxy":
      if (answer.header !== null) believe(connection, answer.header);
      return admitBelieved(connection, head);
    case "done":
      connection.head = null;
      if (connection.listener.tls !== null && answer.hello !== null)
        return secure(connection, answer.hello, head.bytes);
      return route(connection, answer.hello, head.bytes);
  }
}

// The address that the proxy names counts from here on, for every limit, the log and the hash.
function believe(connection: Connection, header: ProxyHeader): void {
  const { words } = connection.plane;
  const at = connection.row * ROW_WORDS;
  connection.plane.debug("proxy header", () => ({
    listener: connection.listener.plan.name,
    version: header.version,
    command: header.command,
    ...(header.tlvs === null ? {} : describeTlvs(header.tlvs)),
  }));
  if (header.source === null) return;
  words.copyWithin(at + ROW.peer, at + ROW.address, at + ROW.address + 5);
  words[at + ROW.proxied] = 1;
  words.set(header.source.address, at + ROW.address);
  words[at + ROW.port] = header.source.port;
  connection.addressed = header.destination;
}

function admitBelieved(connection: Connection, head: Head): void {
  const { listener, plane, row } = connection;
  const refused = listener.checkAddress(plane, row) ?? listener.admitClient(plane, row);
  if (refused !== null) return connection.finish(refused, "lb");
  // A listener that needs no hello dials now: the client may be waiting for the server to speak first.
  if (listener.readsHello && head.empty) return;
  readHead(connection, NOTHING);
}

/** The client has sent its FIN before it was done. */
export function clientGone(connection: Connection): void {
  const { head } = connection;
  if (head?.empty) return connection.finish("eof", "client");
  if (connection.phase === "securing" || connection.listener.tls !== null) {
    countFailure(connection, "closed");
    return connection.finish("handshake_failed", "client", "closed");
  }
  connection.finish(head?.readingProxyHeader ? "proxy_header_bad" : "handshake_failed", "client", "closed");
}

/** The deadline has passed. */
export function handshakeTimedOut(connection: Connection): void {
  if (connection.listener.tls !== null) countFailure(connection, "timeout");
  connection.finish("handshake_timeout", "lb");
}

// ---------------------------------------------------------------------- TLS with the client

function secure(connection: Connection, hello: ClientHello, bytes: Uint8Array): void {
  const { client, listener, plane, row } = connection;
  connection.sni = hello.serverName ?? "";
  const tls = listener.tls?.choose(hello.serverName) ?? null;
  if (client === null) return;
  if (tls === null) {
    countFailure(connection, "unknown_name");
    client.write(UNRECOGNIZED_NAME);
    return connection.finish("handshake_failed", "client", "unknown_name");
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

/** The table of handlers for sockets of clients that speak TLS with us. */
const tlsClientEvents: TlsHandler<Connection> = {
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
  const failure = done ? certificateFault(connection, socket) : reasonOf(error);
  if (failure !== null) {
    countFailure(connection, failure);
    return connection.finish("handshake_failed", "client", failure);
  }
  const { counters } = connection.listener;
  connection.tlsVersion = (socket as unknown as TlsFacts).getTLSVersion() ?? "";
  connection.alpn = typeof socket.alpnProtocol === "string" ? socket.alpnProtocol : "";
  const resumed = socket.isSessionReused() ? 1 : 0;
  counters[(connection.tlsVersion === "TLSv1.3" ? LISTENER.tls13 : LISTENER.tls12) + resumed]!++;
  countHandshake(counters, performance.now() - connection.startedAtMs);
  route(connection, null);
}

// Bun lets a bad certificate pass and says so; none at all is no fault where it is optional.
function certificateFault(connection: Connection, socket: Socket<Connection>): TlsFailure | null {
  const { tls } = connection.listener;
  if (tls === null || !tls.wantsClientCertificate) return null;
  connection.clientCertificate = socket.authorized;
  if (socket.authorized) return null;
  const presented = (socket.getPeerCertificate() as { subject?: unknown } | null)?.subject !== undefined;
  if (presented) return "certificate_bad";
  return tls.requiresClientCertificate ? "certificate_missing" : null;
}

// BoringSSL's reasons (ssl.h), as they stand at the end of its error strings.
const REASONS: readonly (readonly [RegExp, TlsFailure])[] = [
  [/NO_APPLICATION_PROTOCOL/, "no_shared_alpn"],
  [/UNSUPPORTED_PROTOCOL|WRONG_VERSION|NO_SUPPORTED_VERSIONS|UNKNOWN_PROTOCOL/, "protocol_version"],
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

// Both what TLS meets on its way and what a handler of ours throws comes here; only the former has a code.
function tlsFailed(connection: Connection, error: Error): void {
  if (typeof (error as { code?: unknown }).code !== "string") connection.plane.crash(error);
  if (connection.phase === "securing") {
    const reason = reasonOf(error);
    countFailure(connection, reason);
    connection.finish("handshake_failed", "client", reason);
  } else {
    connection.finish("reset", "client", "tls");
  }
}

function countFailure(connection: Connection, failure: TlsFailure): void {
  connection.listener.counters[LISTENER.tlsFailures + TLS_FAILURES.indexOf(failure)]!++;
}

function countHandshake(counters: Float64Array, ms: number): void {
  counters[LISTENER.handshakeSumMs]! += ms;
  let bucket = 0;
  while (bucket < HANDSHAKE_BUCKETS_MS.length && ms > HANDSHAKE_BUCKETS_MS[bucket]!) bucket++;
  counters[LISTENER.handshakeBuckets + bucket]!++;
}

// ---------------------------------------------------------------------- route

// Chooses the pool and dials; `bytes` are what the client has said already and the backend is to hear.
function route(connection: Connection, hello: ClientHello | null, bytes: Uint8Array = NOTHING): void {
  const { listener } = connection;
  if (hello !== null) connection.sni = hello.serverName ?? "";
  if (listener.routes.length > 0) connection.pool = listener.routeFor(connection, hello);
  connection.dial();
  if (bytes.length > 0 && connection.phase !== "closed") connection.fromClient(bytes);
}
