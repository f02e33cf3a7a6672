// The streams of the admin endpoint with the compiled binary: events, and lines of the access log.
import { readFile } from "node:fs/promises";
import { request } from "node:http";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { echo, type Backend } from "../support/backends.ts";
import { connect } from "../support/client.ts";
import { eventually } from "../support/eventually.ts";
import { freePort, runLb, startLb, type Lb } from "../support/lb.ts";

let lb: Lb;
let port: number;
let backend: Backend;

beforeAll(async () => {
  port = await freePort();
  backend = await echo();
  lb = await startLb(`workers = 2
[log]
access = "off"
format = "json"
[listeners.web]
bind = "127.0.0.1:${port}"
pool = "app"
[pools.app]
backends = [{ address = "${backend.address}", name = "one" }]
health = { interval = "50ms", fall = 1, rise = 1 }
`);
});

afterAll(async () => {
  await lb.stop();
  backend.stop();
});

interface Stream extends Disposable {
  lines: string[];
  /** "end", or the code of the error that the reader got. */
  ended: string | null;
}

async function open(path: string): Promise<Stream> {
  const { promise, resolve, reject } = Promise.withResolvers<Stream>();
  const outgoing = request(`${lb.adminUrl}${path}`, { agent: false }, (answer) => {
    let rest = "";
    const stream: Stream = { lines: [], ended: null, [Symbol.dispose]: () => void answer.destroy() };
    answer.setEncoding("utf8");
    answer.on("data", (text) => {
      const lines = (rest + String(text)).split("\n");
      rest = lines.pop() ?? "";
      stream.lines.push(...lines);
    });
    answer.on("end", () => (stream.ended = "end"));
    answer.on("error", (error) => (stream.ended ??= String("code" in error ? error.code : error)));
    resolve(stream);
  });
  outgoing.on("error", reject);
  outgoing.end();
  return promise;
}

/** A connection with a request and a response, which the client ends. */
async function visit(): Promise<string> {
  using client = await connect(port);
  expect(await client.echoes("hell")).toBe(true);
  client.finish();
  await client.ended;
  return client.address;
}

const changes = ({ lines }: Stream): { event: string }[] =>
  lines.flatMap((line, i) =>
    lines[i - 1] === "event: change" ? [JSON.parse(line.slice("data: ".length)) as ReturnType<typeof changes>[0]] : [],
  );

describe("GET /api/events", () => {
  test("has snapshots, and reports that a backend goes down and up, that a worker dies and that the config is reloaded", async () => {
    using events = await open("/api/events");
    await eventually("two snapshots", () => events.lines.filter((line) => line === "event: snapshot").length >= 2);
    const first = events.lines.find((line) => line.startsWith("data: "))!;
    expect(JSON.parse(first.slice(6))).toMatchObject({ pid: lb.pid, pools: [{ name: "app" }] });
    backend.stopListening();
    await eventually("down", () => changes(events).some(({ event }) => event === "backend down"));
    backend.start();
    await eventually("up", () => changes(events).some(({ event }) => event === "backend up"));
    await lb.restartWorker(1);
    await eventually("the worker", () => changes(events).some(({ event }) => event === "worker started again"));
    lb.signal("SIGHUP");
    await eventually("the reload", () => changes(events).some(({ event }) => event === "reloaded"));
    expect(changes(events).find(({ event }) => event === "backend down")).toMatchObject({
      level: "warn",
      pool: "app",
      backend: "one",
    });
  });
});

test("GET /api/config has the config that is in force after a reload", async () => {
  const config = async () => (await (await lb.fetch("/api/config")).json()) as Record<string, unknown>;
  expect(await config()).toMatchObject({
    workers: 2,
    listeners: { web: { bind: [`127.0.0.1:${port}`], over_limit: "reset" } },
    pools: { app: { backends: [{ address: backend.address, name: "one", weight: 1 }] } },
  });
  const text = await readFile(lb.file, "utf8");
  expect(await lb.reload(text.replace('pool = "app"', 'pool = "app"\nover_limit = "close"'))).toMatchObject({
    ok: true,
  });
  expect(await config()).toMatchObject({ listeners: { web: { over_limit: "close" } } });
  expect(await lb.reload(text.replace("workers", "wokers"))).toMatchObject({ ok: false });
  expect(await config()).toMatchObject({ listeners: { web: { over_limit: "close" } } });
  expect(await lb.reload(text)).toMatchObject({ ok: true });
});

describe("GET /api/logs", () => {
  test("brings the lines of connections as they end, although the log is off, also after a worker was replaced", async () => {
    using all = await open("/api/logs");
    using text = await open("/api/logs?format=text&listener=web&pool=app&backend=one&client=127.0.0.1&end=eof");
    using none = await open("/api/logs?client=10.0.0.0/8");
    using long = await open("/api/logs?min_duration=1h");
    const address = await visit();
    await eventually("a line", () => all.lines.length === 1 && text.lines.length === 1);
    expect(JSON.parse(all.lines[0]!)).toMatchObject({ listener: "web", client: address, pool: "app", bytes_in: 5 });
    expect(text.lines[0]).toMatch(
      new RegExp(`^time=\\S+ id=\\d+ listener=web client=${address} pool=app backend=one `),
    );
    for (const worker of [0, 1]) {
      const count = lb.log().length;
      await lb.restartWorker(worker);
      await lb.waitLog(({ event }) => event === "worker started again", undefined, count);
    }
    await visit();
    await eventually("a line", () => all.lines.length === 2 && text.lines.length === 2);
    expect([none.lines, long.lines, lb.accessLines()]).toEqual([[], [], []]);
  });

  test("has lines of connections that die with their worker", async () => {
    using lost = await open("/api/logs?end=worker_lost");
    using client = await connect(port);
    expect(await client.echoes()).toBe(true);
    for (const worker of [0, 1]) await lb.restartWorker(worker);
    await eventually("a line", () => lost.lines.length === 1);
  });

  test("of an unknown listener or end is refused", async () => {
    expect((await lb.fetch("/api/logs?listener=nobody")).status).toBe(404);
    const bad = await lb.fetch("/api/logs?end=eoff");
    expect([bad.status, await bad.json()]).toMatchObject([400, { cure: 'did you mean "eof"?' }]);
  });

  test("and events end when lb stops, without holding it up, and their readers see a whole answer", async () => {
    const streams = await Promise.all([open("/api/events"), open("/api/logs"), open("/api/logs?format=text")]);
    const followed = runLb(["logs", "--config", lb.file]);
    await visit();
    await eventually("a line", () => streams[1]!.lines.length === 1);
    lb.signal("SIGTERM");
    expect(await lb.exited).toMatchObject({ code: 0 });
    expect(lb.log().at(-1)!.event).toBe("stopped");
    await eventually("the ends", () => streams.every(({ ended }) => ended !== null));
    expect(streams.map(({ ended }) => ended)).toEqual(["end", "end", "end"]);
    await followed;
  });
});
