// Connects to a backend, with a socket of lb's own if possible, otherwise with Bun's API. For the caller both are the
// same: `open` passes the socket, the first `drain`, `data` or `end` means that it is connected, `close` or `connectError` that it failed
// and why.
import type { Socket, SocketHandler } from "bun";
import type { Endpoint } from "../core/address.ts";
import { adoptConnecting, connectByAddress } from "./bun.ts";
import { beginConnect, isConnectedToItself, ownSockets, type Visibility } from "./sockets.ts";

/** The address to connect to, in both forms: `sockaddr` is that of `endpoint`. */
export interface Destination {
  readonly endpoint: Endpoint;
  readonly sockaddr: Uint8Array;
}

/** The result of `connect` if Bun makes the descriptor. */
export const NO_DESCRIPTOR = 0x7fffffff;

/** Connects sockets that share one table of handlers. */
export class Connector<Data> {
  readonly #events: SocketHandler<Data, "uint8array">;
  readonly #portableEvents: SocketHandler<Data, "uint8array">;

  constructor(events: SocketHandler<Data, "uint8array">) {
    this.#events = events;
    // Without descriptors of our own, `open` itself means that it is connected, and no `drain` follows.
    this.#portableEvents = {
      ...events,
      open: (socket) => {
        void events.open?.(socket);
        void events.drain?.(socket);
      },
    };
  }

  /**
   * Begins to connect. Returns the descriptor, NO_DESCRIPTOR, or the negative errno, after which nothing is left to clean up. `source` is
   * the sockaddr of the local address, or null; `transparent` as in beginConnect. Hot path.
   */
  connect(
    to: Destination,
    source: Uint8Array | null,
    data: Data,
    visibility: Visibility = "visible",
    transparent = false,
  ): number {
    if (!ownSockets()) {
      connectByAddress(to.endpoint, data, this.#portableEvents);
      return NO_DESCRIPTOR;
    }
    const fd = beginConnect(to.sockaddr, source, visibility, transparent);
    if (fd >= 0) adoptConnecting(fd, data, this.#events);
    return fd;
  }
}

/**
 * Whether a socket that has just been connected to this port is its own peer. A connect to a port of this machine without a listener
 * succeeds if the kernel chooses that port as the local one (RFC 9293 section 3.5, simultaneous open).
 */
export function isSelfConnected(socket: Socket<unknown>, fd: number, port: number): boolean {
  if (ownSockets()) return isConnectedToItself(fd, port);
  return socket.localPort === socket.remotePort && socket.localAddress === socket.remoteAddress;
}
