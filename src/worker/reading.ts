// The phase in which data of the client must be read before it can be routed: the PROXY header, the ClientHello.
import { monotonicMs } from "../platform/clock.ts";
import { describeTlvs, type ProxyHeader } from "../wire/proxy-protocol.ts";
import { fatalAlert } from "../wire/tls-records.ts";
import { admitClient, checkAddress } from "./admission.ts";
import { beginHandshake, countFailure, handshakeCut, scheduleDeadline } from "./client-tls.ts";
import { definePhase, type Connection, type Phase } from "./connection.ts";
import { Head, type HeadNeeds } from "./head.ts";
import { route } from "./routing.ts";

const NOTHING = new Uint8Array(0);

/** Begins to read. If a PROXY header is expected, the limits of the client do not apply yet. */
export function startReading(connection: Connection, proxyHeader: HeadNeeds["proxyHeader"]): void {
  const { listener } = connection;
  connection.ensureFacts().head = new Head({ proxyHeader, hello: listener.readsHello, tlsOnly: listener.tls !== null });
  connection.enter(reading);
  scheduleDeadline(connection);
}

const reading: Phase = definePhase("reading", {
  clientData: readHead,

  clientEnded(connection) {
    const { listener } = connection;
    const head = headOf(connection);
    if (head?.empty) return connection.finish("eof", "client");
    if (listener.tls !== null) return handshakeCut(connection);
    connection.finish(head?.readingProxyHeader ? "proxy_header_bad" : "handshake_failed", "client", "closed");
  },

  timer(connection) {
    const { listener } = connection;
    const head = headOf(connection);
    const terminates = listener.tls !== null;
    if (terminates) countFailure(connection, "timeout");
    const silent = head?.empty && !head.readingProxyHeader;
    connection.finish("handshake_timeout", "lb", silent ? silence(terminates) : "");
  },
});

function headOf({ facts }: Connection): Head | null {
  return facts === null ? null : facts.head;
}

/** Bytes of the client while the head is being read. */
function readHead(connection: Connection, chunk: Uint8Array): void {
  const head = headOf(connection);
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
      connection.ensureFacts().head = null;
      if (connection.listener.tls !== null && answer.hello !== null)
        return beginHandshake(connection, answer.hello, head.bytes);
      return route(connection, answer.hello, head.bytes);
  }
}

// From here on the address in the header counts for every limit, the log and the hash.
function believe(connection: Connection, header: ProxyHeader): void {
  connection.host.debug("proxy header", () => ({
    listener: connection.listener.plan.name,
    version: header.version,
    command: header.command,
    ...(header.tlvs === null ? {} : describeTlvs(header.tlvs)),
  }));
  if (header.source === null) return;
  connection.host.ledger.replaceAddress(connection.row, header.source.address, header.source.port);
  connection.ensureFacts().addressed = header.destination;
}

function admitBelieved(connection: Connection, head: Head): void {
  const { listener, host, row } = connection;
  const refused = checkAddress(host, listener, row) ?? admitClient(host, listener, row, monotonicMs());
  if (refused !== null) return connection.finish(refused, "lb");
  // A listener that needs no hello dials now: the client may be waiting for the server to send first.
  if (listener.readsHello && head.empty) return;
  readHead(connection, NOTHING);
}

// If a ClientHello is needed for a route or a hash, a client that waits for its server to send first waits in vain.
function silence(terminates: boolean): string {
  if (terminates) return "no byte of a ClientHello has arrived";
  return (
    'no byte of a ClientHello has arrived, and routes by sni or alpn, or hash_key = "sni", need one: ' +
    "a protocol in which the server speaks first needs a listener without them"
  );
}
