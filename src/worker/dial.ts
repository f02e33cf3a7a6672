// Connecting to a backend: begins one attempt, hands its socket's events to the connection, and names failures. The
// deadline of the attempt and the choice of another backend are the connection's (connection.ts).
import type { SocketHandler } from "bun";
import type { End } from "../core/ends.ts";
import { adoptConnecting, connectByAddress } from "../platform/bun.ts";
import { errnoName } from "../platform/libc.ts";
import { beginConnect, ownSockets } from "../platform/sockets.ts";
import { BACKEND } from "../shared/counters.ts";
import { ROW, ROW_WORDS } from "../shared/ledger.ts";
import type { Connection } from "./connection.ts";
import type { Backend, Pool } from "./pool.ts";

/** The one table of handlers for all sockets to backends. */
export const backendEvents: SocketHandler<Connection, "uint8array"> = {
  binaryType: "uint8array",
  open: (socket) => socket.data.backendOpened(socket),
  data: (socket, chunk) => socket.data.backendData(socket, chunk),
  drain: (socket) => socket.data.backendDrained(socket),
  end: (socket) => socket.data.backendEnded(socket),
  close: (socket, error) => socket.data.backendClosed(socket, error),
  connectError: (socket, error) => socket.data.backendClosed(socket, error),
  error: (socket, error) => socket.data.plane.crash(error),
};

// Without descriptors of our own `open` itself says that it is connected, and no `drain` follows.
const portableEvents: SocketHandler<Connection, "uint8array"> = {
  ...backendEvents,
  open: (socket) => {
    socket.data.backendOpened(socket);
    socket.data.backendDrained(socket);
  },
};

/**
 * Begins to connect. Null = under way: the socket is the connection's already, its first `drain` or `data` says that it is
 * connected and `close` that it failed. Else the errno's name, and nothing is left to clean up. Hot path.
 */
export function beginDial(backend: Backend, pool: Pool, connection: Connection): string | null {
  if (!ownSockets()) {
    connectByAddress(backend.endpoint, connection, portableEvents);
    return null;
  }
  const fd = beginConnect(backend.sockaddr, pool.source);
  if (fd < 0) return errnoName(-fd);
  connection.plane.words[connection.row * ROW_WORDS + ROW.backendFd] = fd;
  adoptConnecting(fd, connection, backendEvents);
  return null;
}

const REFUSED = { cell: BACKEND.refused, end: "connect_refused" } as const satisfies Failure;
const TIMED_OUT = { cell: BACKEND.timedOut, end: "connect_timeout" } as const satisfies Failure;
const FAILED = { cell: BACKEND.failed, end: "connect_failed" } as const satisfies Failure;

/** Where a failed attempt is counted, and the end if it was the last. */
export interface Failure {
  cell: number;
  end: End;
}

export function failureOf(code: string): Failure {
  if (code === "ECONNREFUSED") return REFUSED;
  return code === "ETIMEDOUT" ? TIMED_OUT : FAILED;
}
