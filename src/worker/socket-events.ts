// The tables of handlers, one for each kind of socket. Each handler is one call of a method of the socket's data.
import type { Socket, SocketHandler } from "bun";
import { isConnectionFault, type TlsHandler } from "../platform/bun.ts";

/** Handles a broken invariant. */
export interface Crashes {
  crash(error: unknown): never;
}

/** The data of a client's socket. The last two come on TLS sockets only. */
export interface ClientSide {
  readonly host: Crashes;
  /** The socket is accepted, or it is the TLS socket that an accepted one has become. */
  clientOpened(socket: Socket<ClientSide>): void;
  clientData(chunk: Uint8Array): void;
  clientDrained(): void;
  clientEnded(): void;
  clientClosed(error: Error | undefined): void;
  clientHandshake(socket: Socket<ClientSide>, done: boolean, error: Error | null): void;
  clientTlsFailed(error: Error): void;
}

/**
 * The data of a backend's socket. A socket whose attempt was given up can still have events, so each event has its socket as an argument.
 * The last four occur on TLS sockets only.
 */
export interface BackendSide {
  readonly host: Crashes;
  backendOpened(socket: Socket<BackendSide>): void;
  backendData(socket: Socket<BackendSide>, chunk: Uint8Array): void;
  backendDrained(socket: Socket<BackendSide>): void;
  backendEnded(socket: Socket<BackendSide>): void;
  backendClosed(socket: Socket<BackendSide>, error: Error | undefined): void;
  /** A connect has failed; whether `backendOpened` came before depends on the platform. */
  backendRefused(socket: Socket<BackendSide>, error: Error): void;
  backendTlsOpened(socket: Socket<BackendSide>): void;
  backendHandshake(socket: Socket<BackendSide>, done: boolean, error: Error | null): void;
  backendSession(session: Uint8Array): void;
  backendTlsFailed(socket: Socket<BackendSide>, error: Error): void;
}

export const clientEvents: SocketHandler<ClientSide, "uint8array"> = {
  binaryType: "uint8array",
  open: (socket) => socket.data.clientOpened(socket),
  data: (socket, chunk) => socket.data.clientData(chunk),
  drain: (socket) => socket.data.clientDrained(),
  end: (socket) => socket.data.clientEnded(),
  close: (socket, error) => socket.data.clientClosed(error),
  error: (socket, error) => socket.data.host.crash(error),
};

export const tlsClientEvents: TlsHandler<ClientSide> = {
  ...clientEvents,
  handshake: (socket, done, error) => socket.data.clientHandshake(socket, done, error),
  // Called for faults of the connection, and for exceptions of lb's own handlers.
  error: ({ data }, error) => (isConnectionFault(error) ? data.clientTlsFailed(error) : data.host.crash(error)),
};

export const backendEvents: SocketHandler<BackendSide, "uint8array"> = {
  binaryType: "uint8array",
  open: (socket) => socket.data.backendOpened(socket),
  data: (socket, chunk) => socket.data.backendData(socket, chunk),
  drain: (socket) => socket.data.backendDrained(socket),
  end: (socket) => socket.data.backendEnded(socket),
  close: (socket, error) => socket.data.backendClosed(socket, error),
  connectError: (socket, error) => socket.data.backendRefused(socket, error),
  error: (socket, error) => socket.data.host.crash(error),
};

export const tlsBackendEvents: TlsHandler<BackendSide> = {
  ...backendEvents,
  open: (socket) => socket.data.backendTlsOpened(socket),
  handshake: (socket, done, error) => socket.data.backendHandshake(socket, done, error),
  session: (socket, session) => socket.data.backendSession(session),
  error: (socket, error) =>
    isConnectionFault(error) ? socket.data.backendTlsFailed(socket, error) : socket.data.host.crash(error),
};
