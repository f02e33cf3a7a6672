// The access log to syslog receivers of the test, which stall, close and return. The sockets are real.
import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { configOf } from "../support/config.ts";
import { eventually } from "../support/eventually.ts";
import { freePort } from "../support/lb.ts";
import { missingOf } from "../support/server.ts";
import { recordingLog } from "../support/recording-log.ts";
import { AccessSink, SYSLOG_BYTES_MAX } from "../../src/supervisor/access-sink.ts";
import type { Log } from "../../src/supervisor/log.ts";

let folder: string;
beforeAll(() => void (folder = mkdtempSync(join(tmpdir(), "lb-syslog-"))));
afterAll(() => rmSync(folder, { recursive: true }));

function sinkTo(syslog: string) {
  const { log, said } = recordingLog();
  const { access } = configOf(`
    [log]
    access = "syslog"
    syslog = ${JSON.stringify(syslog)}
    [listeners.web]
    bind = ":1"
    pool = "app"
    [pools.app]
    backends = ["127.0.0.1:3000"]
  `).log;
  const sink = new AccessSink(log as Log);
  expect(sink.configure(access)).toBeNull();
  return { sink, said };
}

const line = (i: number, more = ""): string => `time=2026-11-22T19:47:00.084Z id=${i} listener=web${more}\n`;

/** A stream receiver: what it has read, and its connections. */
async function receiver(where: { port: number } | { path: string }, isPaused = false) {
  const state = { text: "", connections: [] as Socket[], server: null as unknown as Server };
  state.server = createServer((socket) => {
    state.connections.push(socket);
    socket.on("error", () => undefined);
    socket.setEncoding("utf8").on("data", (text: string) => (state.text += text));
    if (isPaused) socket.pause();
  });
  await new Promise<void>((resolve) => state.server.listen({ host: "127.0.0.1", ...where }, resolve));
  return Object.assign(state, {
    [Symbol.dispose]() {
      state.server.close();
      for (const socket of state.connections) socket.destroy();
    },
  });
}

/** The numbers of the messages of an octet-counted stream; throws if a frame is cut. */
function numbersIn(text: string): number[] {
  const numbers: number[] = [];
  for (let at = 0; at < text.length;) {
    const [prefix, length] = /^(\d+) /.exec(text.slice(at, at + 8))!;
    const message = text.slice(at + prefix.length, at + prefix.length + Number(length));
    numbers.push(Number(/^<134>1 .* - time=\S+ id=(\d+) /.exec(message)![1]));
    at += prefix.length + Number(length);
  }
  return numbers;
}

test("a receiver that does not read loses lines above the limit, which are counted, and gets the rest complete and in order", async () => {
  const port = await freePort();
  using slow = await receiver({ port }, true);
  const { sink, said } = sinkTo(`tcp://127.0.0.1:${port}`);
  const more = ` x=${"y".repeat(960)}`;
  let settled = 0;
  let written = 0;
  // Until the kernel's buffers and the queue are full.
  await eventually("lines are lost", async () => {
    for (let i = 0; i < 20; i++) sink.write(line(written++, more), 1, () => settled++);
    await new Promise((resolve) => setImmediate(resolve));
    return sink.linesLost > 0;
  });
  expect(said.filter(({ event }) => event.includes("too slowly"))).toHaveLength(1);
  const kept = written - sink.linesLost;
  expect((kept - (settled - sink.linesLost)) * line(0, more).length).toBeLessThan(SYSLOG_BYTES_MAX * 1.1);
  slow.connections[0]!.resume();
  await sink.flush(20_000);
  expect(settled).toBe(written);
  await eventually("the rest", () => slow.text.endsWith("\n") || numbersIn(slow.text).length === kept);
  const numbers = numbersIn(slow.text);
  expect(numbers).toEqual(Array.from({ length: kept }, (_, i) => i));
  await sink.close(1000);
});

test("a receiver that closes the connection gets further lines over a new one, and no frame is cut", async () => {
  const port = await freePort();
  using closing = await receiver({ port });
  const { sink } = sinkTo(`tcp://127.0.0.1:${port}`);
  sink.write(line(1, " "), 1, () => undefined);
  await eventually("the first line", () => closing.text !== "");
  closing.connections[0]!.end();
  await eventually("the connection is over", () => closing.connections[0]!.destroyed);
  sink.write(line(2, " "), 1, () => undefined);
  await eventually("the second line", () => numbersIn(closing.text).length === 2);
  expect(closing.connections).toHaveLength(2);
  expect(sink.linesLost).toBe(0);
  await sink.close(1000);
  await eventually("the end", () => closing.connections[1]!.destroyed);
});

test("a unix socket that is a stream gets one line per message", async () => {
  const path = join(folder, "stream");
  using stream = await receiver({ path });
  const { sink } = sinkTo(`unix:${path}`);
  sink.write(line(1) + line(2), 2, () => undefined);
  await eventually("both lines", () => stream.text.split("\n").length === 3);
  expect(stream.text.split("\n").map((message) => /^<134>1 .*id=(\d)/.exec(message)?.[1])).toEqual([
    "1",
    "2",
    undefined,
  ]);
  await sink.close(1000);
});

test("a unix socket of datagrams, with a short queue, gets thousands of lines in a few seconds", async (context) => {
  if (await missingOf("python3")) context.skip("no python3 here");
  const path = join(folder, "datagrams");
  // The runtime has no unix datagrams. The program ends after the last message, and says how many were in order.
  const program = `import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(sys.argv[1])
sys.stdout.write("ready\\n"); sys.stdout.flush()
sys.stdout.write("%d\\n" % sum(b" id=%d " % i in s.recv(9000) for i in range(6000))); sys.stdout.flush()`;
  const child = Bun.spawn(["python3", "-c", program, path], { stdout: "pipe", stderr: "inherit" });
  const output = child.stdout.getReader();
  await output.read();
  const { sink } = sinkTo(`unix:${path}`);
  let settled = 0;
  try {
    for (let i = 0; i < 6000; i += 200)
      sink.write(Array.from({ length: 200 }, (_, at) => line(i + at)).join(""), 200, () => settled++);
    await eventually("all lines are sent", () => settled === 30);
    expect(Buffer.from((await output.read()).value!).toString()).toBe("6000\n");
    expect(sink.linesLost).toBe(0);
  } finally {
    child.kill();
    await sink.close(100);
  }
});

test("lines to a receiver that never comes are dropped and counted when the target changes or the process ends", async () => {
  const { sink, said } = sinkTo(`unix:${join(folder, "nowhere")}`);
  let settled = 0;
  sink.write(line(1) + line(2), 2, () => settled++);
  await eventually("the reason", () => said.find(({ error }) => error === "ENOENT"));
  await sink.close(50);
  expect({ settled, lost: sink.linesLost }).toEqual({ settled: 1, lost: 2 });
});

test("a message over UDP is one datagram of at most 2,048 bytes, cut at a whole character", async () => {
  const udp = await Bun.udpSocket({ hostname: "127.0.0.1", socket: { data: (_, bytes) => void received.push(bytes) } });
  const received: Buffer[] = [];
  const { sink } = sinkTo(`udp://127.0.0.1:${udp.port}`);
  sink.write(line(1, ` error="${"€".repeat(2000)}"`) + line(2), 2, () => undefined);
  await eventually("both datagrams", () => received.length === 2);
  expect(received.map(({ length }) => length <= 2048)).toEqual([true, true]);
  expect(received[0]!.length).toBeGreaterThan(2044);
  expect(received[0]!.toString()).not.toContain("\ufffd");
  expect(received[1]!.toString()).toMatch(/^<134>1 .* id=2 listener=web$/);
  udp.close();
  await sink.close(1000);
});
