// The smallest TCP relay on Bun's sockets that makes the same calls as lb for a short connection: `bun bare-relay.ts PORT BACKEND_PORT`. It
// has no limits, timeouts, counters, log or queue (bytes that a full socket does not take are lost, which small exchanges never cause), so
// its cost is the least that any relay on this runtime has.
import type { Socket, SocketHandler } from "bun";
import { parseEndpoint } from "../src/core/address.ts";
import { descriptorOf } from "../src/platform/bun.ts";
import { Connector, type Destination } from "../src/platform/connector.ts";
import { FIN_NEXT, peekNext, sendHeldBack, sockaddr } from "../src/platform/sockets.ts";

/** The two sockets of a connection. */
class Pair {
  readonly client: Socket<Pair>;
  readonly clientFd: number;
  backend: Socket<Pair> | null = null;
  backendFd = -1;
  isConnected = false;
  /** What the client has sent before the backend was connected. */
  early: Uint8Array | null = null;
  /** The backend's FIN was passed on. */
  backendEnded = false;

  constructor(client: Socket<Pair>) {
    this.client = client;
    this.clientFd = descriptorOf(client);
  }
}

const [port = "", backendPort = ""] = process.argv.slice(2);

const backendEvents: SocketHandler<Pair, "uint8array"> = {
  binaryType: "uint8array",
  open: (socket) => void (socket.data.backend = socket),
  drain(socket) {
    const pair = socket.data;
    pair.isConnected = true;
    if (pair.early !== null) socket.write(pair.early);
    pair.early = null;
  },
  data({ data: pair }, chunk) {
    // As in src/worker/short-reply.ts.
    if (peekNext(pair.backendFd) === FIN_NEXT) {
      sendHeldBack(pair.clientFd, chunk);
      endClient(pair);
    } else {
      pair.client.write(chunk);
    }
  },
  end: ({ data: pair }) => endClient(pair),
  close({ data: pair }, error) {
    if (error === undefined) pair.client.close();
    else pair.client.terminate();
  },
  connectError: ({ data: pair }) => pair.client.terminate(),
  error: ({ data: pair }) => pair.client.terminate(),
};

const clientEvents: SocketHandler<Pair, "uint8array"> = {
  binaryType: "uint8array",
  open(socket) {
    const pair = new Pair(socket);
    socket.data = pair;
    pair.backendFd = connector.connect(backend, null, pair);
    if (pair.backendFd < 0) socket.terminate();
  },
  data({ data: pair }, chunk) {
    if (pair.isConnected) pair.backend?.write(chunk);
    else pair.early = chunk;
  },
  drain() {},
  // After our own FIN there is no `end`: the runtime closes the socket.
  end: ({ data: pair }) => pair.backend?.shutdown(),
  close: ({ data: pair }) => pair.backend?.close(),
  error: (socket) => socket.terminate(),
};

const backend = destination(`127.0.0.1:${backendPort}`);
const connector = new Connector(backendEvents);

// Bun does not declare handlers of Uint8Arrays, nor sockets that get their data later.
Bun.listen({ hostname: "127.0.0.1", port: Number(port), allowHalfOpen: true, socket: clientEvents } as never);

function destination(address: string): Destination {
  const endpoint = parseEndpoint(address);
  if (endpoint.kind === "bad") throw new Error(endpoint.why);
  return { endpoint, sockaddr: sockaddr(endpoint) };
}

function endClient(pair: Pair): void {
  if (pair.backendEnded) return;
  pair.backendEnded = true;
  pair.client.shutdown();
}
