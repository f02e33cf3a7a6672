// Connecting to a backend, by a socket of our own where there are such and by Bun's own means elsewhere. Whoever connects sees
// no difference: `open` tells the socket, the first `drain`, `data` or `end` says that it is connected, `close` or
// `connectError` that it failed and why.
import type { Socket, SocketHandler } from "bun";
import type { Endpoint } from "../core/address.ts";
import { adoptConnecting, connectByAddress } from "./bun.ts";
import { beginConnect, isConnectedToItself, ownSockets, type Visibility } from "./sockets.ts";

/** Where to connect to, in both forms: `sockaddr` is that of `endpoint`. */
export interface Destination {
  readonly endpoint: Endpoint;
  readonly sockaddr: Uint8Array;
}

/** What `connect` answers where Bun makes the descriptor. */
export const NO_DESCRIPTOR = 0x7fffffff;

/** Connects sockets that share one table of handlers. */
export class Connector<Data> {
  readonly #events: SocketHandler<Data, "uint8array">;
  readonly #portableEvents: SocketHandler<Data, "uint8array">;

  constructor(events: SocketHandler<Data, "uint8array">) {
    this.#events = events;
    // Without descriptors of our own `open` itself says that it is connected, and no `drain` follows.
    this.#portableEvents = {
      ...events,
      open: (socket) => {
        void events.open?.(socket);
        void events.drain?.(socket);
      },
    };
  }

  /**
   * Begins to connect: the descriptor, NO_DESCRIPTOR, or the errno, negative, and then nothing is left to clean up. `source` is the
   * sockaddr of the local address with port 0, or null. Hot path.
   */
  connect(to: Destination, source: Uint8Array | null, data: Data, visibility: Visibility = "visible"): number {
    if (!ownSockets()) {
      connectByAddress(to.endpoint, data, this.#portableEvents);
      return NO_DESCRIPTOR;
    }
    const fd = beginConnect(to.sockaddr, source, visibility);
    if (fd >= 0) adoptConnecting(fd, data, this.#events);
    return fd;
  }
}

/**
 * Whether a socket that has just been connected to this port is its own peer. A connect to a port of this machine on which
 * nobody listens succeeds when the kernel gives it that port as its local one (RFC 9293 section 3.5, simultaneous open).
 */
export function isSelfConnected(socket: Socket<unknown>, fd: number, port: number): boolean {
  if (ownSockets()) return isConnectedToItself(fd, port);
  return socket.localPort === socket.remotePort && socket.localAddress === socket.remoteAddress;
}
