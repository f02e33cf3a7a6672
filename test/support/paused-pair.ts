// One TCP connection whose accepted end the test reads by descriptor, because the runtime's socket is paused there.
import type { Socket } from "bun";
import { once } from "node:events";
import { connect, type Socket as Peer } from "node:net";
import { descriptorOf } from "../../src/platform/bun.ts";

/** Functions in `atEnd` close both ends. With `reads` false, the peer leaves received bytes in the kernel. */
export async function pausedPair(
  atEnd: (() => void)[],
  { reads = true } = {},
): Promise<{ peer: Peer; socket: Socket<unknown>; fd: number }> {
  const { promise, resolve } = Promise.withResolvers<Socket<unknown>>();
  const listener = Bun.listen({
    hostname: "127.0.0.1",
    port: 0,
    allowHalfOpen: true,
    socket: {
      open(socket) {
        socket.pause();
        resolve(socket);
      },
      data: () => {},
      error: () => {},
    },
  });
  const peer = connect({ port: listener.port, host: "127.0.0.1", allowHalfOpen: true });
  if (!reads) peer.pause();
  peer.on("error", () => {});
  await once(peer, "connect");
  const socket = await promise;
  atEnd.push(() => {
    peer.destroy();
    socket.terminate();
    listener.stop(true);
  });
  return { peer, socket, fd: descriptorOf(socket) };
}
