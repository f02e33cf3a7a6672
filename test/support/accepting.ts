// Listening descriptors that are served, and clients of them. Everything that a test opens is closed after it.
import { once } from "node:events";
import { connect, type NetConnectOpts, type Socket as Peer } from "node:net";
import { descriptorOf, listenOnDescriptor, type Listening } from "../../src/platform/bun.ts";
import { closeDescriptor, duplicate } from "../../src/platform/sockets.ts";
import { listenAt } from "./endpoints.ts";

export interface Accepted {
  remoteAddress: string;
  fd: number;
  /** The number of the listening socket. */
  by: number;
}

/** `atEnd` is the result of calledAfterEach(). */
export function accepting(atEnd: (() => unknown)[]) {
  /** A listening descriptor that is closed after the test. */
  function listening(text: string, backlog?: number): number {
    const fd = listenAt(text, backlog);
    atEnd.push(() => closeDescriptor(fd));
    return fd;
  }

  /** Accepts on a duplicate; records what is accepted and answers with the number `by`. */
  function serve(fd: number, accepted: Accepted[], by = 0): Listening {
    const listener = listenOnDescriptor(duplicate(fd) as number, null, {
      binaryType: "uint8array",
      open: (socket) => {
        accepted.push({ remoteAddress: socket.remoteAddress, fd: descriptorOf(socket), by });
        socket.write(String(by));
      },
      data: (socket, chunk) => void socket.write(chunk),
      close: () => {},
      error: () => {},
    });
    atEnd.push(() => listener.stop(true));
    return listener;
  }

  /** A client through node:net: connects, and resolves once it has read something or seen the end. */
  async function visit(options: NetConnectOpts): Promise<{ text: string; peer: Peer }> {
    const peer = connect(options);
    atEnd.push(() => peer.destroy());
    const [chunk] = (await once(peer, "data")) as [Buffer];
    return { text: chunk.toString(), peer };
  }

  return { listening, serve, visit };
}
