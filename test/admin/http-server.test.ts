import { X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { join } from "node:path";
import { connect as connectTls, createSecureContext, type TLSSocket } from "node:tls";
import { afterEach, describe, expect, test } from "vitest";
import { serveHttp, type HttpOptions, type HttpResponse, type HttpServer } from "../../src/admin/http-server.ts";
import { eventually } from "../support/eventually.ts";

const servers: HttpServer[] = [];
const sockets: Socket[] = [];

afterEach(() => {
  for (const server of servers.splice(0)) server.stop();
  for (const socket of sockets.splice(0)) socket.destroy();
});

const TIMES = { requestMs: 30_000, idleMs: 30_000, stalledMs: 30_000 };
const OK: HttpResponse = { status: 200, headers: {}, content: "ok" };

async function serve(options: Partial<HttpOptions> = {}): Promise<HttpServer> {
  const server = await serveHttp(
    { host: "127.0.0.1", port: 0 },
    {
      connectionsMax: 8,
      bodyBytesMax: 1000,
      times: TIMES,
      budget: { share: 1, burstMs: 60_000 },
      tls: null,
      answer: () => Promise.resolve(OK),
      ...options,
    },
  );
  if (typeof server === "string") throw new Error(server);
  servers.push(server);
  return server;
}

interface Peer {
  socket: Socket;
  received: string;
  closed: boolean;
}

function peer(socket: Socket): Peer {
  const made: Peer = { socket, received: "", closed: false };
  sockets.push(socket);
  socket.on("error", () => undefined);
  socket.on("data", (bytes) => (made.received += String(bytes)));
  for (const event of ["end", "close"]) socket.on(event, () => (made.closed = true));
  return made;
}

function dial({ port }: HttpServer): Peer {
  return peer(connect({ host: "127.0.0.1", port, allowHalfOpen: true }));
}

const GET = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

function responses({ received }: Peer): number {
  return received.split("HTTP/1.1 200 OK").length - 1;
}

/** A stream whose parts the test provides one by one. */
function source() {
  let controller!: ReadableStreamDefaultController<Uint8Array>;
  const state = { cancelled: false, pulls: 0 };
  const stream = new ReadableStream<Uint8Array>({
    start: (given) => void (controller = given),
    pull: () => void state.pulls++,
    cancel: () => void (state.cancelled = true),
  });
  return {
    state,
    response: { status: 200, headers: {}, content: stream } satisfies HttpResponse,
    give: (text: string) => controller.enqueue(Buffer.from(text)),
    end: () => controller.close(),
    fail: () => controller.error(new Error("broken")),
  };
}

describe("requests", () => {
  test("with large responses use up the budget by their size", async () => {
    // 200 kB are 1 ms of work, and 1 ms of 0.002 of a core are 500 ms; the request alone is 100 ms.
    const large = { ...OK, content: "x".repeat(200_000) };
    const askedMs: number[] = [];
    const answer = (): Promise<HttpResponse> => {
      askedMs.push(performance.now());
      return Promise.resolve(large);
    };
    const client = dial(await serve({ budget: { share: 0.002, burstMs: 0 }, answer }));
    for (let i = 1; i <= 2; i++) {
      client.socket.write(GET);
      await eventually(`response ${i}`, () => client.received.length > i * 200_000);
    }
    expect(askedMs[1]! - askedMs[0]!).toBeGreaterThan(400);
  });

  test("beyond the budget wait for earlier ones, and none is lost", async () => {
    // 0.2 ms at 0.004 of a core: 50 ms each, after the first.
    const server = await serve({ budget: { share: 0.004, burstMs: 0 } });
    const client = dial(server);
    const begunMs = performance.now();
    for (let i = 1; i <= 5; i++) {
      client.socket.write(GET);
      await eventually(`response ${i}`, () => responses(client) === i);
    }
    expect(performance.now() - begunMs).toBeGreaterThan(190);
  });

  test("on one connection are all answered, one by one and pipelined", async () => {
    const client = dial(await serve());
    client.socket.write(GET);
    await eventually("one response", () => responses(client) === 1);
    client.socket.write(GET + GET);
    await eventually("three responses", () => responses(client) === 3);
    expect(client.closed).toBe(false);
  });

  test("followed by a FIN are answered", async () => {
    const client = dial(await serve());
    client.socket.end(GET);
    await eventually("a response", () => responses(client) === 1);
  });

  test("carry the path, the query, the headers, the body and the peer", async () => {
    const seen: unknown[] = [];
    const server = await serve({
      answer: (request) => {
        seen.push({ ...request, headers: request.headers.get("x-a"), body: String(Buffer.from(request.body ?? [])) });
        return Promise.resolve(OK);
      },
    });
    const client = dial(server);
    client.socket.write("POST /a%20b?c=d&e#f HTTP/1.1\r\nHost: a\r\nX-A: 1\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.socket.write("3\r\nabc\r\n0\r\n\r\n");
    await eventually("a response", () => responses(client) === 1);
    expect(seen).toEqual([
      { method: "POST", path: "/a%20b", query: "c=d&e", headers: "1", body: "abc", peer: "127.0.0.1" },
    ]);
  });

  test("with too large a body have null as their body, and their connection ends", async () => {
    const bodies: unknown[] = [];
    const server = await serve({
      answer: ({ body }) => {
        bodies.push(body);
        return Promise.resolve({ ...OK, status: 413 });
      },
    });
    for (const head of ["Content-Length: 5000", "Transfer-Encoding: chunked"]) {
      const client = dial(server);
      const body = head.startsWith("C") ? "x".repeat(5000) : `1388\r\n${"x".repeat(5000)}\r\n0\r\n\r\n`;
      client.socket.write(`POST / HTTP/1.1\r\nHost: a\r\n${head}\r\n\r\n${body}`);
      await eventually("a response", () => client.received.startsWith("HTTP/1.1 413"));
      expect(client.received.toLowerCase()).toContain("connection: close");
    }
    expect(bodies).toEqual([null, null]);
  });

  test("with too large a head, or that are not HTTP, are refused and closed", async () => {
    const server = await serve();
    const large = dial(server);
    large.socket.write(`GET / HTTP/1.1\r\nHost: a\r\nX-Large: ${"x".repeat(100_000)}\r\n\r\n`);
    await eventually("the end", () => large.closed);
    expect(large.received).toMatch(/^HTTP\/1\.1 431 |^$/);
    const other = dial(server);
    other.socket.write("\x16\x03\x01 no HTTP\r\n\r\n");
    await eventually("the end", () => other.closed);
    expect(other.received).toMatch(/^HTTP\/1\.1 400 /);
  });
});

describe("connections", () => {
  test("that send a head or a body too slowly are closed", async () => {
    const server = await serve({ times: { ...TIMES, requestMs: 300 } });
    const silent = dial(server);
    const head = dial(server);
    head.socket.write("GET / HTTP/1.1\r\nX-A:");
    const body = dial(server);
    body.socket.write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab");
    await eventually("the ends", () => silent.closed && head.closed && body.closed);
    expect(silent.received + head.received + body.received).toBe("");
  });

  test("that send the body of a later request too slowly are closed", async () => {
    const client = dial(await serve({ times: { ...TIMES, requestMs: 300 } }));
    client.socket.write(GET);
    await eventually("a response", () => responses(client) === 1);
    client.socket.write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab");
    await eventually("the end", () => client.closed);
    expect(responses(client)).toBe(1);
  });

  test("that are idle are closed after the idle time", async () => {
    const client = dial(await serve({ times: { ...TIMES, idleMs: 200 } }));
    client.socket.write(GET);
    await eventually("the end", () => client.closed);
    expect(responses(client)).toBe(1);
  });

  test("beyond the maximum replace the one that has waited longest, even if it waits for a body", async () => {
    const server = await serve({ connectionsMax: 3 });
    const slow = [dial(server), dial(server), dial(server)];
    slow[0]!.socket.write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab");
    await eventually("the connections", () => slow.every(({ socket }) => !socket.connecting));
    for (let i = 0; i < 20; i++) {
      const client = dial(server);
      client.socket.write(GET);
      await eventually("a response", () => responses(client) === 1);
    }
    await eventually("the ends", () => slow.every(({ closed }) => closed));
  });

  test("beyond the maximum are closed while all others have a response in progress", async () => {
    const sources = [source(), source()];
    let next = 0;
    const server = await serve({ connectionsMax: 2, answer: () => Promise.resolve(sources[next++]!.response) });
    const busy = [dial(server), dial(server)];
    for (const { socket } of busy) socket.write(GET);
    await eventually("the streams", () => server.streams() === 2);
    const other = dial(server);
    await eventually("its end", () => other.closed);
    for (const { give } of sources) give("still here");
    await eventually("the parts", () => busy.every(({ received }) => received.includes("still here")));
  });

  test("that read nothing of a complete response for too long are closed, and leave their place", async () => {
    const answers = [{ ...OK, content: "x".repeat(32_000_000) }];
    const server = await serve({
      connectionsMax: 1,
      times: { ...TIMES, stalledMs: 300 },
      answer: () => Promise.resolve(answers.shift() ?? OK),
    });
    const socket = connect({ host: "127.0.0.1", port: server.port });
    sockets.push(socket);
    socket.pause();
    socket.write(GET);
    await eventually("the response", () => answers.length === 0);
    let client = dial(server);
    await eventually("a place", () => {
      if (client.closed) client = dial(server);
      if (client.socket.writable && client.received === "") client.socket.write(GET);
      return responses(client) > 0;
    });
  });
});

describe("a response that is a stream", () => {
  test("is sent in parts as they come", async () => {
    const { response, give, end } = source();
    const server = await serve({ answer: () => Promise.resolve(response) });
    const client = dial(server);
    client.socket.write(GET);
    await eventually("the head", () => responses(client) === 1);
    expect(server.streams()).toBe(1);
    give("first");
    await eventually("a part", () => client.received.includes("first"));
    give("second");
    end();
    await eventually("the end", () => client.received.endsWith("second\r\n0\r\n\r\n"));
    await eventually("no stream", () => server.streams() === 0);
  });

  test("stops requesting more while the client does not read, and continues when it does", async () => {
    let given = 0;
    const content = new ReadableStream<Uint8Array>(
      { pull: (controller) => (given++ < 1000 ? controller.enqueue(new Uint8Array(65536)) : controller.close()) },
      { highWaterMark: 0 },
    );
    const server = await serve({ answer: () => Promise.resolve({ ...OK, content }) });
    let bytes = 0;
    const socket = connect({ host: "127.0.0.1", port: server.port });
    sockets.push(socket);
    socket.pause();
    socket.on("data", (chunk) => (bytes += chunk.length));
    socket.write(GET);
    let before = -1;
    await eventually("a stall", () => {
      const isStalled = given > 0 && given === before;
      before = given;
      return isStalled;
    });
    expect(given).toBeLessThan(900);
    socket.resume();
    await eventually("all bytes", () => bytes > 1000 * 65536);
  });

  test("is cancelled when the client disconnects, and when the server stops", async () => {
    const sources = [source(), source()];
    let next = 0;
    const server = await serve({ answer: () => Promise.resolve(sources[next++]!.response) });
    const [gone, stopped] = [dial(server), dial(server)];
    for (const client of [gone, stopped]) {
      client.socket.write(GET);
      await eventually("the head", () => responses(client) === 1);
    }
    gone.socket.destroy();
    await eventually("a cancel", () => sources[0]!.state.cancelled);
    sources[1]!.give("the last part");
    server.stop();
    await eventually("the end", () => stopped.closed);
    expect(sources[1]!.state.cancelled).toBe(true);
    expect(server.streams()).toBe(0);
  });

  test("does not look complete when its source fails", async () => {
    const { response, give, fail } = source();
    const client = dial(await serve({ answer: () => Promise.resolve(response) }));
    client.socket.write(GET);
    give("first");
    await eventually("a part", () => client.received.includes("first"));
    fail();
    await eventually("the end", () => client.closed);
    expect(client.received).not.toContain("0\r\n\r\n");
  });

  test("ends if the client reads nothing for too long", async () => {
    const endless = new ReadableStream<Uint8Array>({ pull: (it) => it.enqueue(new Uint8Array(65536)) });
    const server = await serve({
      times: { ...TIMES, stalledMs: 300 },
      answer: () => Promise.resolve({ ...OK, content: endless }),
    });
    const socket = connect({ host: "127.0.0.1", port: server.port });
    sockets.push(socket);
    socket.pause();
    socket.write(GET);
    await eventually("a stream", () => server.streams() === 1);
    await eventually("its end", () => server.streams() === 0);
  });
});

test("stop lets responses in flight finish, and closes idle connections", async () => {
  const { promise, resolve } = Promise.withResolvers<HttpResponse>();
  let asked = false;
  const server = await serve({
    answer: () => {
      asked = true;
      return promise;
    },
  });
  const [busy, idle] = [dial(server), dial(server)];
  busy.socket.write(GET);
  await eventually("the request", () => asked && !idle.socket.connecting);
  server.stop();
  await eventually("the end of the other", () => idle.closed);
  resolve(OK);
  await eventually("the end", () => busy.closed);
  expect(responses(busy)).toBe(1);
});

/** A certificate from the tests of the config. */
function fixture(name: string): { cert: string; key: string } {
  const read = (file: string) => readFileSync(join(import.meta.dirname, "../config/fixtures", file), "utf8");
  return { cert: new X509Certificate(read(`${name}.pem`)).toString(), key: read(`${name}.key`) };
}

/** The certificate that a server has sent. */
function pemOf(socket: TLSSocket): string {
  return new X509Certificate(socket.getPeerCertificate().raw).toString();
}

describe("TLS", () => {
  test("is used if there is a context; a new certificate applies to new connections, and none means plain HTTP", async () => {
    const [a, b] = [fixture("site"), fixture("site-rsa")];
    const server = await serve({ tls: createSecureContext(a) });
    const secure = async (): Promise<Peer & { socket: TLSSocket }> => {
      const client = peer(connectTls({ host: "127.0.0.1", port: server.port, rejectUnauthorized: false }));
      client.socket.write(GET);
      await eventually("a response", () => responses(client) === 1);
      return client as Peer & { socket: TLSSocket };
    };
    const first = await secure();
    expect(pemOf(first.socket)).toBe(a.cert);
    server.setTls(createSecureContext(b));
    expect(pemOf((await secure()).socket)).toBe(b.cert);
    // The existing connection keeps its certificate.
    first.socket.write(GET);
    await eventually("another response", () => responses(first) === 2);
    const plain = dial(server);
    plain.socket.write(GET);
    await eventually("the end", () => plain.closed);
    server.setTls(null);
    const now = dial(server);
    now.socket.write(GET);
    await eventually("a response", () => responses(now) === 1);
  });
});
