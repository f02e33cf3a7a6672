// Makes an exact number of exchanges per step, a few at once, so that a proxy's work for each can be counted: either with a new connection
// for each, or all on persistent connections.
import { smallPath } from "../backend.ts";
import { closeSocket, connectTo, receive, sendAll } from "../libc.ts";
import { answer, awaitGo, ready, requestFor, task } from "./step.ts";

const { port, exchanges, atOnce, close } = task<{ port: number; exchanges: number; atOnce: number; close: boolean }>();

const request = requestFor(smallPath, close);
const sink = new Uint8Array(64 * 1024);
const exchange = close ? onNewConnections : onKeptConnections(Array.from({ length: atOnce }, () => connectTo(port)));

for (let i = 0; i < 200; i++) exchange();
ready();
for (;;) {
  awaitGo();
  for (let done = 0; done < exchanges; done += atOnce) exchange();
  answer({ exchanges: Math.ceil(exchanges / atOnce) * atOnce });
}

function onNewConnections(): void {
  const sockets = Array.from({ length: atOnce }, () => connectTo(port));
  for (const fd of sockets) sendAll(fd, request);
  for (const fd of sockets) {
    let bytes = 0;
    for (let count = -1; count !== 0; bytes += count) count = receive(fd, sink);
    if (bytes === 0) throw new Error("a connection was refused");
    closeSocket(fd);
  }
}

function onKeptConnections(sockets: number[]): () => void {
  return () => {
    for (const fd of sockets) sendAll(fd, request);
    // The answer is small enough to arrive in one piece.
    for (const fd of sockets) if (receive(fd, sink) === 0) throw new Error("the connection ended");
  };
}
