// A minimal TLS relay in Bun, for tls-adoption.ts: `bun tls-relay.ts WAY PORT BACKEND_PORT CERTIFICATE`. It has no limits, no timeouts and
// no log, so that the way in which TLS begins has the largest possible share of the cost.
import type { Socket, SocketHandler } from "bun";
import { readFileSync } from "node:fs";
import { createSecureContext } from "node:tls";
import { upgradeToServer, type TlsContext } from "../src/platform/bun.ts";
import { HelloReader } from "../src/wire/client-hello.ts";

/** One end of a connection and the bytes that wait for it. */
interface Side {
  socket: Socket<Side> | undefined;
  peer: Side;
  waiting: Uint8Array[];
  /** No more bytes follow the waiting ones. */
  isEnding: boolean;
}

const [way = "", port = "", backendPort = "", certificate = ""] = process.argv.slice(2);
const pem = readFileSync(certificate, "utf8");

const relayed: SocketHandler<Side, "uint8array"> = {
  binaryType: "uint8array",
  data: ({ data: { peer, socket } }, chunk) => void (write(peer, chunk) || socket?.pause()),
  drain: ({ data: side }) => goOn(side),
  end: ({ data: { peer } }) => end(peer),
  close: ({ data: side }) => closed(side),
  error: ({ data: side }) => closed(side),
};

const backendEvents: SocketHandler<Side, "uint8array"> = {
  ...relayed,
  open(socket) {
    socket.data.socket = socket;
    goOn(socket.data);
  },
};

const clientEvents: SocketHandler<Side, "uint8array"> = {
  ...relayed,
  // An accepted socket has no data of its own yet; an adopted one has.
  open(socket) {
    socket.data ??= newClient();
    socket.data.socket = socket;
  },
  handshake(socket, isDone) {
    if (!isDone) {
      socket.terminate();
      return;
    }
    const data = socket.data.peer;
    const backend = { hostname: "127.0.0.1", port: Number(backendPort), allowHalfOpen: true };
    void Bun.connect({ ...backend, data, socket: backendEvents } as never);
  },
};

// Bun declares neither handlers of Uint8Arrays nor sockets that get their data later.
const place = { hostname: "127.0.0.1", port: Number(port), allowHalfOpen: true };

if (way === "listener") {
  Bun.listen({ ...place, tls: { cert: pem, key: pem }, socket: clientEvents } as never);
} else {
  const secureContext = createSecureContext({ cert: pem, key: pem }).context as TlsContext;
  const tls = { secureContext, ALPNProtocols: "", requestCert: false, rejectUnauthorized: false };
  const adopt = (socket: Socket<HelloReader | null>, bytes: Uint8Array) =>
    upgradeToServer(socket as Socket<unknown>, {
      tls,
      bytes,
      data: newClient(),
      twin: null,
      handlers: clientEvents as never,
    });
  const accepted: SocketHandler<HelloReader | null, "uint8array"> = {
    binaryType: "uint8array",
    open(socket) {
      if (way === "at once") adopt(socket, new Uint8Array(0));
      else socket.data = new HelloReader();
    },
    data(socket, chunk) {
      const reader = socket.data;
      if (reader?.push(chunk).is === "hello") adopt(socket, reader.bytes);
    },
    error: (socket) => socket.terminate(),
  };
  Bun.listen({ ...place, socket: accepted } as never);
}

function newClient(): Side {
  const client: Partial<Side> = { socket: undefined, waiting: [], isEnding: false };
  client.peer = { socket: undefined, waiting: [], isEnding: false, peer: client as Side };
  return client as Side;
}

/** Whether everything was sent; the rest waits. */
function write(side: Side, chunk: Uint8Array): boolean {
  const written = side.socket === undefined || side.waiting.length > 0 ? 0 : side.socket.write(chunk);
  if (written === chunk.length || written < 0) return true;
  side.waiting.push(chunk.subarray(written));
  return false;
}

/** The side takes bytes again, or is connected now. */
function goOn(side: Side): void {
  const chunks = side.waiting;
  side.waiting = [];
  for (const chunk of chunks) write(side, chunk);
  if (side.waiting.length > 0) return;
  if (side.isEnding) side.socket?.end();
  else side.peer.socket?.resume();
}

function end(side: Side): void {
  side.isEnding = true;
  if (side.waiting.length === 0) side.socket?.end();
}

function closed(side: Side): void {
  side.socket = undefined;
  end(side.peer);
}
