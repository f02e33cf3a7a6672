// A connection before it has a backend: the PROXY header and the ClientHello. TLS with the client stands in securing.ts, what
// follows in routing.ts. The deadline `timeouts.handshake` covers all of it.
import { ROW, ROW_WORDS } from "../shared/ledger.ts";
import { describeTlvs, type ProxyHeader } from "../wire/proxy-protocol.ts";
import { fatalAlert } from "../wire/tls-records.ts";
import type { Connection } from "./connection.ts";
import { Head } from "./head.ts";
import { route } from "./routing.ts";
import { awaitHandshake, countFailure, handshakeCut, secure } from "./securing.ts";

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
  if (listener.acceptsTls !== null) return awaitHandshake(connection);
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
      if (answer.alert !== 0) connection.client?.write(fatalAlert(answer.alert));
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
  if (connection.phase === "securing" || connection.listener.tls !== null) return handshakeCut(connection);
  connection.finish(head?.readingProxyHeader ? "proxy_header_bad" : "handshake_failed", "client", "closed");
}

/** The deadline has passed. */
export function handshakeTimedOut(connection: Connection): void {
  const { head, listener } = connection;
  if (listener.tls !== null) countFailure(connection, "timeout");
  connection.finish(
    "handshake_timeout",
    "lb",
    head?.empty && !head.readingProxyHeader ? silence(listener.tls !== null) : "",
  );
}

// Where a ClientHello routes and TLS is passed through, a client that waits for its server to speak first waits in vain.
function silence(terminates: boolean): string {
  if (terminates) return "no ClientHello byte came";
  return (
    "no ClientHello byte came, and the listener's routes by sni or alpn need one: " +
    "a protocol in which the server speaks first needs a listener without such routes"
  );
}
