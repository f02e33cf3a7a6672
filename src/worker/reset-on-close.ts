// What peers see when the process is killed or crashes. The kernel closes its sockets then, and a FIN would make a cut answer look
// whole, so a close is a reset (SO_LINGER of zero) until lb itself has a FIN to send. Sockets of clients inherit that from the
// listening socket, except Unix sockets, which know no reset. On sockets of backends it costs two system calls, which short
// connections do not pay: a backend sees a FIN where the connection was younger than RESET_BACKEND_AFTER_MS.
import { finOnClose, ownSockets, resetOnClose } from "../platform/sockets.ts";
import { ROW, ROW_WORDS } from "../shared/ledger.ts";
import type { Connection } from "./connection.ts";

/** Age of a connection from which on its backend is reset too. */
export const RESET_BACKEND_AFTER_MS = 1000;

/** Before a FIN to the client. Hot path. */
export function allowClientFin({ plane, row }: Connection): void {
  const fd = plane.words[row * ROW_WORDS + ROW.clientFd]!;
  if (fd >= 0) finOnClose(fd);
}

/** Before a FIN to the backend. Hot path. */
export function allowBackendFin(connection: Connection): void {
  if (!connection.resetsBackend) return;
  connection.resetsBackend = false;
  const fd = connection.plane.words[connection.row * ROW_WORDS + ROW.backendFd]!;
  if (fd >= 0) finOnClose(fd);
}

/** A connection that is relaying has lived for a while. */
export function resetBackendOnClose(connection: Connection): void {
  if (connection.resetsBackend || connection.up.state === "done") return;
  connection.resetsBackend = true;
  const fd = connection.plane.words[connection.row * ROW_WORDS + ROW.backendFd]!;
  if (fd >= 0 && ownSockets()) resetOnClose(fd);
}
