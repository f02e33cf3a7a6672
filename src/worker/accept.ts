// Accepts clients: a new socket gets its row in the ledger and its Connection, and is admitted or refused.
import type { Socket } from "bun";
import { descriptorOf, readPeer } from "../platform/bun.ts";
import { monotonicMs } from "../platform/clock.ts";
import { LISTENER, WORKER } from "../shared/counters.ts";
import { ROW, ROW_FLOAT, ROW_FLOATS, ROW_WORDS } from "../shared/ledger.ts";
import { admitClient, checkAddress, claimPlaces } from "./admission.ts";
import { awaitHandshake } from "./client-tls.ts";
import { Connection } from "./connection.ts";
import type { Listener } from "./listener.ts";
import { startReading } from "./reading.ts";
import { route } from "./routing.ts";
import type { Host } from "./session.ts";
import type { ClientSide } from "./socket-events.ts";

/** The data of accepted sockets until `clientOpened` gives each its connection. */
export class Acceptor implements ClientSide {
  readonly host: Host;
  /** A reload may change it. */
  listener: Listener;

  constructor(host: Host, listener: Listener) {
    this.host = host;
    this.listener = listener;
  }

  /** Hot path. */
  clientOpened(socket: Socket<ClientSide>): void {
    const { host, listener } = this;
    const { words, floats } = host;
    const row = host.ledger.take();
    listener.counters[LISTENER.accepted]!++;
    host.counters[WORKER.accepted]!++;
    const at = row * ROW_WORDS;
    const fd = descriptorOf(socket);
    words[at + ROW.listener] = listener.plan.id;
    words[at + ROW.pool] = listener.plan.pool;
    words[at + ROW.clientFd] = fd;
    floats[row * ROW_FLOATS + ROW_FLOAT.startedMs] = monotonicMs();
    const present = readPeer(socket, fd, words, at + ROW.address);
    // After the address: readers in other threads trust the row from here on.
    floats[row * ROW_FLOATS + ROW_FLOAT.id] = host.ids.next();
    host.startClock();
    const connection = new Connection(host, listener, socket, row);
    socket.data = connection;
    host.remember(connection);
    // A client that has reset the connection while it waited in the accept queue.
    if (!present) return connection.finish("reset", "client");
    admit(connection);
  }

  // Nothing comes before `clientOpened`.
  clientData(): void {}
  clientDrained(): void {}
  clientEnded(): void {}
  clientClosed(): void {}
  clientHandshake(): void {}
  clientTlsFailed(): void {}
}

// Enters the first phase of a client whose address is in the ledger, or ends the connection. Hot path.
function admit(connection: Connection): void {
  const { listener, host, row } = connection;
  const proxyHeader = listener.expectsProxyHeader(host.words, row);
  if (proxyHeader === "untrusted") return connection.finish("proxy_header_bad", "client", "not a trusted proxy");
  // Otherwise the limits are applied to the address in the PROXY header.
  const known = proxyHeader === "no";
  const refused =
    (known ? checkAddress(host, listener, row) : null) ??
    claimPlaces(host, listener, row) ??
    (known ? admitClient(host, listener, row, host.floats[row * ROW_FLOATS + ROW_FLOAT.startedMs]!) : null);
  if (refused !== null) return connection.finish(refused, "lb");
  if (listener.acceptsTls !== null) return awaitHandshake(connection);
  if (known && !listener.readsHello) return route(connection, null);
  startReading(connection, proxyHeader);
}
