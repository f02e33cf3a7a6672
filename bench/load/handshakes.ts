// Makes a TLS connection per request, several at once, for a given time: either with a full handshake each, or each resuming the session of
// the connection before it on its slot. Every connection is checked for which it was.
import { smallPath } from "../backend.ts";
import { closeSocket, connectTo, neverBlock, Readiness } from "../libc.ts";
import { answer, awaitGo, ready, requestFor, task } from "./step.ts";
import { freeSession, TlsClient, type Session, type TlsStream, type TlsVersion } from "./tls.ts";

const { port, atOnce, version, resume, warmSeconds, seconds } = task<{
  port: number;
  atOnce: number;
  version: TlsVersion;
  resume: boolean;
  warmSeconds: number;
  seconds: number;
}>();

interface Slot {
  index: number;
  fd: number;
  stream: TlsStream | undefined;
  session: Session | undefined;
  /** Bytes of the answer; -1 before the handshake is complete. */
  received: number;
}

const request = requestFor(smallPath, true);
const sink = new Uint8Array(32 * 1024);
const readiness = new Readiness();
const client = new TlsClient(version);
const slots = Array.from({ length: atOnce }, (_, index): Slot => {
  return { index, fd: -1, stream: undefined, session: undefined, received: 0 };
});
let ended = 0;
let resumed = 0;
let isOpening = true;

run(warmSeconds);
ready();
awaitGo();
answer(run(seconds));
awaitGo();

/** Opens connections for this long and waits for the end of each, so that none belongs to two runs. */
function run(seconds: number): { handshakes: number; resumed: number; seconds: number } {
  const startedAt = Bun.nanoseconds();
  const until = startedAt + seconds * 1e9;
  ended = 0;
  resumed = 0;
  isOpening = true;
  let open = atOnce;
  for (const slot of slots) begin(slot);
  while (open > 0) {
    if (isOpening) isOpening = Bun.nanoseconds() < until;
    const count = readiness.wait(9e8);
    if (count === 0 && Bun.nanoseconds() > until + 10e9) throw new Error("connections do not end");
    for (let n = 0; n < count; n++) if (!goOn(slots[readiness.index(n)]!)) open--;
  }
  return { handshakes: ended, resumed, seconds: (Bun.nanoseconds() - startedAt) / 1e9 };
}

function begin(slot: Slot): void {
  slot.fd = connectTo(port);
  neverBlock(slot.fd);
  readiness.add(slot.fd, slot.index);
  slot.stream = client.over(slot.fd, slot.session);
  slot.received = -1;
  // The answer may have arrived already, and no later event would report it.
  greet(slot, slot.stream);
}

/** Continues the handshake, and sends the request once it is complete; returns whether it is. */
function greet(slot: Slot, stream: TlsStream): boolean {
  if (!stream.handshake()) return false;
  if (stream.resumed) resumed++;
  stream.send(request);
  slot.received = 0;
  return true;
}

/** Handles a readable socket; false = the slot is empty from now on. */
function goOn(slot: Slot): boolean {
  const stream = slot.stream!;
  if (slot.received < 0 && !greet(slot, stream)) return true;
  for (let count = stream.receive(sink); count >= 0; count = stream.receive(sink)) {
    if (count === 0) return end(slot, stream);
    slot.received += count;
  }
  return true;
}

function end(slot: Slot, stream: TlsStream): boolean {
  if (slot.received === 0) throw new Error("a connection ended without an answer");
  if (resume) {
    freeSession(slot.session);
    slot.session = stream.session();
  }
  stream.free();
  closeSocket(slot.fd);
  slot.stream = undefined;
  ended++;
  if (isOpening) begin(slot);
  return isOpening;
}
