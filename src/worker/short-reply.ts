// A reply that came whole in the first read, with the backend's FIN behind it, as with `Connection: close` in HTTP. Its bytes and
// the FIN, and close_notify between them, go to the client in one segment, which spares both ends the handling of another: a
// tenth of what a short connection costs. Longer replies, and those whose FIN is still to come, are not looked at twice.
import { cork, finIsNext, ownSockets } from "../platform/sockets.ts";
import { ROW, ROW_WORDS } from "../shared/ledger.ts";
import type { Connection } from "./connection.ts";

/**
 * Before the first chunk from the backend is forwarded: true = its FIN is there, and the client's socket holds back what is
 * written to it. When the chunk has gone whole, the FIN is to be passed on at once; else `letGo`. Hot path.
 */
export function holdForFin(connection: Connection): boolean {
  const { plane, row, down } = connection;
  // Behind TLS the end of the ciphertext is not the end of the data.
  if (connection.backendCiphertext !== null || down.pace !== null || !down.drained || !ownSockets()) return false;
  const client = plane.words[row * ROW_WORDS + ROW.clientFd]!;
  const backend = plane.words[row * ROW_WORDS + ROW.backendFd]!;
  if (client < 0 || backend < 0 || !finIsNext(backend)) return false;
  cork(client, true);
  return true;
}

/** Some of the chunk waits for the client. */
export function letGo({ plane, row }: Connection): void {
  const client = plane.words[row * ROW_WORDS + ROW.clientFd]!;
  if (client >= 0) cork(client, false);
}
