// A reply that came whole in the first read, with the backend's FIN behind it, as with `Connection: close` in HTTP. Its bytes and
// the FIN go to the client in one segment, which spares both ends the handling of another: a tenth of what a short connection
// costs. Longer replies, and those whose FIN is still to come, are not looked at twice.
import { finIsNext, ownSockets, sendBeforeFin } from "../platform/sockets.ts";
import { ROW, ROW_WORDS } from "../shared/ledger.ts";
import type { Connection } from "./connection.ts";

/**
 * How many bytes of the first chunk from the backend have been put into the client's socket, for the FIN to follow: all of
 * them where the caller is to pass it on now, none where there is no FIN yet. Hot path.
 */
export function sendWithFin(connection: Connection, chunk: Uint8Array): number {
  const { plane, row, down } = connection;
  if (connection.speaksTls || down.pace !== null || !down.drained || !ownSockets()) return 0;
  const client = plane.words[row * ROW_WORDS + ROW.clientFd]!;
  const backend = plane.words[row * ROW_WORDS + ROW.backendFd]!;
  if (client < 0 || backend < 0 || !finIsNext(backend)) return 0;
  return sendBeforeFin(client, chunk);
}
