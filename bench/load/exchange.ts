// Makes an exact number of exchanges per step, a few at once, so that a proxy's work for each can be counted: either with a new connection
// for each, or all on persistent connections.
import { smallPath } from "../backend.ts";
import { closeSocket, connectTo, inTurn, receive, sendAll } from "../libc.ts";
import { answer, awaitGo, ready, requestFor, task } from "./step.ts";

const { port, host, paths, exchanges, atOnce, close } = task<{
  port: number;
  host?: string;
  /**
   * Lists of unix sockets to connect to instead of the port; a step is told the number of its list. Each step begins with caches that
   * contain other things, as for a proxy, which uses much more memory than this program before it comes back to a socket.
   */
  paths?: string[][];
  exchanges: number;
  atOnce: number;
  close: boolean;
}>();

const request = requestFor(smallPath, close);
const targets = paths === undefined ? [() => connectTo(port, host)] : paths.map(inTurn);
let connect = targets[0]!;
/** Larger than the caches of one core, in words of 8 bytes. */
const others = new Float64Array(paths === undefined ? 0 : 2 ** 20);
const sink = new Uint8Array(64 * 1024);
const exchange = close ? onNewConnections : onKeptConnections(Array.from({ length: atOnce }, connect));

for (let i = 0; i < 200; i++) exchange();
ready();
for (;;) {
  connect = targets[Number(awaitGo())]!;
  if (paths !== undefined) for (let i = 0; i < others.length; i += 8) others[i]!++;
  for (let done = 0; done < exchanges; done += atOnce) exchange();
  answer({ exchanges: Math.ceil(exchanges / atOnce) * atOnce });
}

function onNewConnections(): void {
  const sockets = Array.from({ length: atOnce }, connect);
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
