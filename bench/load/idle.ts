// Opens connections one after the other, with or without TLS, sends one request on each, and keeps them open.
import { smallPath } from "../backend.ts";
import { connectTo, receive, sendAll } from "../libc.ts";
import { answer, awaitGo, ready, requestFor, task } from "./step.ts";
import { TlsClient } from "./tls.ts";

const { port, connections, warmConnections, tls } = task<{
  port: number;
  connections: number;
  warmConnections: number;
  tls: boolean;
}>();

const client = tls ? new TlsClient("1.3") : undefined;
const request = requestFor(smallPath);
const sink = new Uint8Array(64 * 1024);

// They stay open: what a proxy allocates once, such as compiled code, is not a cost of those that follow.
open(warmConnections);
ready();
awaitGo();
const held = open(connections);
answer({ connections: held.length });
awaitGo();

function open(count: number): number[] {
  return Array.from({ length: count }, () => {
    const fd = connectTo(port);
    if (exchange(fd) === 0) throw new Error("a connection was refused");
    return fd;
  });
}

function exchange(fd: number): number {
  if (client === undefined) {
    sendAll(fd, request);
    return receive(fd, sink);
  }
  const stream = client.over(fd);
  stream.handshake();
  stream.send(request);
  const count = stream.receive(sink);
  // The proxy does not notice that the TLS state of this side is freed.
  stream.free();
  return count;
}
