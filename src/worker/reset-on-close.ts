// What peers see when the process is killed or crashes. The kernel then closes its sockets, and a FIN would make a truncated answer
// look complete. So a close is a reset (SO_LINGER of zero) until lb itself sends a FIN. Sockets of clients inherit this from the listening
// socket, except unix sockets, which have no reset. On sockets of backends it costs two system calls, which short connections do not
// pay: a backend gets a FIN if the connection is younger than RESET_BACKEND_AFTER_MS.
import { finOnClose, ownSockets, resetOnClose } from "../platform/sockets.ts";

/** Minimum age of a connection whose backend is reset too. */
export const RESET_BACKEND_AFTER_MS = 1000;

/** The two sockets of a connection, as far as this file needs them; -1 = no descriptor. */
export interface ResetState {
  readonly clientFd: number;
  readonly backendFd: number;
  /** A close of the backend's socket is a reset. */
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

/** To be called once the connection is old enough and no FIN was sent to the backend yet. */
export function resetBackendOnClose(state: ResetState): void {
  if (state.resetsBackend) return;
  state.resetsBackend = true;
  const { backendFd } = state;
  if (backendFd >= 0 && ownSockets()) resetOnClose(backendFd);
}
