// Reads a large file over several connections at once, with or without TLS, without a pause between answers, and discards the bytes; TLS is
// not decrypted.
import { largeBytes, largePath, smallPath } from "../backend.ts";
import { connectTo, Readiness, receive, sendAll } from "../libc.ts";
import { Records } from "./records.ts";
import { answer, awaitGo, ready, requestFor, task } from "./step.ts";
import { TlsClient, type TlsStream } from "./tls.ts";

const { port, streams, tls, warmSeconds, seconds } = task<{
  port: number;
  streams: number;
  tls: boolean;
  warmSeconds: number;
  seconds: number;
}>();

const request = requestFor(largePath);
const sink = new Uint8Array(256 * 1024);
const readiness = new Readiness();
const client = tls ? new TlsClient("1.3") : undefined;
const sockets = new Int32Array(streams);
const secured: TlsStream[] = [];
const records = Array.from({ length: streams }, () => new Records());
const received = new Float64Array(streams);
const asked = new Float64Array(streams);

for (let i = 0; i < streams; i++) {
  const fd = connectTo(port);
  sockets[i] = fd;
  if (client !== undefined) secured.push(secure(client, fd));
  readiness.add(fd, i);
  ask(i);
}
read(warmSeconds);
ready();
awaitGo();
answer(read(seconds));

/** Reads from any connection that is readable, for this long. */
function read(seconds: number): { bytes: number; seconds: number } {
  const startedAt = Bun.nanoseconds();
  let now = startedAt;
  let bytes = 0;
  for (; now < startedAt + seconds * 1e9; now = Bun.nanoseconds()) {
    const count = readiness.wait(1e8);
    for (let n = 0; n < count; n++) bytes += readOne(readiness.index(n));
  }
  return { bytes, seconds: (now - startedAt) / 1e9 };
}

function readOne(i: number): number {
  const count = receive(sockets[i]!, sink);
  if (count === 0) throw new Error("the stream ended");
  const bytes = tls ? records[i]!.payload(sink, count) : count;
  received[i]! += bytes;
  // Half a file ahead, so that the backend always has the next request.
  if (received[i]! > asked[i]! - largeBytes / 2) ask(i);
  return bytes;
}

function ask(i: number): void {
  if (tls) secured[i]!.send(request);
  else sendAll(sockets[i]!, request);
  asked[i]! += largeBytes;
}

/**
 * A TLS connection that has received a small answer, the last one that is decrypted: the bytes before the first answer are read with it.
 */
function secure(client: TlsClient, fd: number): TlsStream {
  const stream = client.over(fd);
  stream.handshake();
  stream.send(requestFor(smallPath));
  const text = new TextDecoder().decode(sink.subarray(0, stream.receive(sink)));
  if (!text.startsWith("HTTP/1.1 200")) throw new Error("no answer came through TLS");
  return stream;
}
