// What peers see when the process is killed or crashes. The kernel closes its sockets then, and a FIN would make a cut answer look
// whole, so a close is a reset (SO_LINGER of zero) until lb itself has a FIN to send. Sockets of clients inherit that from the
// listening socket, except Unix sockets, which know no reset. On sockets of backends it costs two system calls, which short
// connections do not pay: a backend sees a FIN where the connection was younger than RESET_BACKEND_AFTER_MS.
import { finOnClose, ownSockets, resetOnClose } from "../platform/sockets.ts";

/** Age of a connection from which on its backend is reset too. */
export const RESET_BACKEND_AFTER_MS = 1000;

/** The two sockets of a connection, as far as this file needs to know; -1 = there is no such descriptor. */
export interface ResetState {
  readonly clientFd: number;
  readonly backendFd: number;
  /** A close of the backend's socket is a reset, whoever closes it. */
  resetsBackend: boolean;
}

/** Before a FIN to the client. Hot path. */
export function allowClientFin({ clientFd }: ResetState): void {
  if (clientFd >= 0) finOnClose(clientFd);
}

/** Before a FIN to the backend. Hot path. */
export function allowBackendFin(state: ResetState): void {
  if (!state.resetsBackend) return;
  state.resetsBackend = false;
  const { backendFd } = state;
  if (backendFd >= 0) finOnClose(backendFd);
}

/** The connection has lived for a while, and no FIN was sent to the backend yet. */
export function resetBackendOnClose(state: ResetState): void {
  if (state.resetsBackend) return;
  state.resetsBackend = true;
  const { backendFd } = state;
  if (backendFd >= 0 && ownSockets()) resetOnClose(backendFd);
}
