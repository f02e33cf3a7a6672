// Sends small requests at a fixed rate, regardless of the answers, and measures each latency from the time at which the request was due: so
// a stall counts for all the requests that it delayed (no coordinated omission).
import { smallPath } from "../backend.ts";
import { connectTo, Readiness, receive, sendAll, sleepPrecisely } from "../libc.ts";
import { quantile } from "../statistics.ts";
import { answer, awaitGo, ready, requestFor, task } from "./step.ts";

const { port, connections, perSecond, warmSeconds, seconds } = task<{
  port: number;
  connections: number;
  perSecond: number;
  warmSeconds: number;
  seconds: number;
}>();

const request = requestFor(smallPath);
const sink = new Uint8Array(64 * 1024);
const readiness = new Readiness();
const sockets = new Int32Array(connections);
/** Received bytes of the answer, by connection. */
const received = new Int32Array(connections);
/** When the request of a connection was due. */
const dueAt = new Float64Array(connections);
/** A stack of the idle connections. */
const free = new Int32Array(connections);
let freeCount = 0;

for (let i = 0; i < connections; i++) {
  const fd = connectTo(port);
  sockets[i] = fd;
  readiness.add(fd, i);
  free[freeCount++] = i;
}
const answerBytes = measureAnswer();
sleepPrecisely();
run(warmSeconds);
ready();
awaitGo();
const { latencies, late } = run(seconds);
latencies.sort();
answer({
  p50: quantile(latencies, 0.5) / 1000,
  p99: quantile(latencies, 0.99) / 1000,
  p999: quantile(latencies, 0.999) / 1000,
  requests: latencies.length,
  late,
});

/** The latencies in nanoseconds of all requests of this many seconds, and the number of requests that found no idle connection in time. */
function run(seconds: number): { latencies: Float64Array; late: number } {
  const total = Math.round(perSecond * seconds);
  const latencies = new Float64Array(total);
  const gap = 1e9 / perSecond;
  const startAt = Bun.nanoseconds() + 1e6;
  let sent = 0;
  let done = 0;
  let late = 0;
  while (done < total) {
    const now = Bun.nanoseconds();
    while (sent < total && freeCount > 0 && startAt + sent * gap <= now) {
      const i = free[--freeCount]!;
      dueAt[i] = startAt + sent * gap;
      if (now - dueAt[i]! > 1e6) late++;
      sendAll(sockets[i]!, request);
      sent++;
    }
    const wait = sent < total && freeCount > 0 ? startAt + sent * gap - Bun.nanoseconds() : 1e8;
    const count = readiness.wait(Math.min(wait, 1e8));
    for (let n = 0; n < count; n++) {
      const i = readiness.index(n);
      received[i]! += receive(sockets[i]!, sink);
      if (received[i]! < answerBytes) continue;
      latencies[done++] = Bun.nanoseconds() - dueAt[i]!;
      received[i] = 0;
      free[freeCount++] = i;
    }
  }
  return { latencies, late };
}

/** All answers have the same length: sends one request and waits until no more bytes arrive. */
function measureAnswer(): number {
  sendAll(sockets[0]!, request);
  let bytes = 0;
  while (readiness.wait(bytes === 0 ? 9e8 : 5e7) > 0) bytes += receive(sockets[0]!, sink);
  if (bytes === 0) throw new Error("no answer");
  return bytes;
}
