// A reply that came whole in the first read, with the backend's FIN behind it, as with `Connection: close` in HTTP. Its bytes and
// the FIN, and close_notify between them, go to the client in one segment, which spares both ends the handling of another: a
// short connection costs 8 % less. Longer replies, and those whose FIN is still to come, are not looked at twice.
import { cork, FIN_NEXT, NO_END, peekNext, ownSockets, type RESET_NEXT } from "../platform/sockets.ts";
import { ROW, ROW_WORDS } from "../shared/ledger.ts";
import type { Connection } from "./connection.ts";

/**
 * What follows the first chunk from the backend, before it is forwarded. With FIN_NEXT the client's socket holds back what is
 * written to it: when the chunk has gone whole, the FIN is to be passed on at once, else `letGo`. With RESET_NEXT nobody else
 * will hear of the reset. Hot path.
 */
export function holdForFin(connection: Connection): typeof NO_END | typeof FIN_NEXT | typeof RESET_NEXT {
  const { plane, row, up, down } = connection;
  // Behind TLS the end of the ciphertext is not the end of the data.
  if (connection.backendCiphertext !== null || down.pace !== null || !down.drained || !ownSockets()) return NO_END;
  // A client that has ended already is closed and not shut down, which with TLS takes its time.
  if (up.state !== "open") return NO_END;
  const client = plane.words[row * ROW_WORDS + ROW.clientFd]!;
  const backend = plane.words[row * ROW_WORDS + ROW.backendFd]!;
  if (client < 0 || backend < 0) return NO_END;
  const next = peekNext(backend);
  if (next === FIN_NEXT) cork(client, true);
  return next;
}

/** Some of the chunk waits for the client. */
export function letGo({ plane, row }: Connection): void {
  const client = plane.words[row * ROW_WORDS + ROW.clientFd]!;
  if (client >= 0) cork(client, false);
}
