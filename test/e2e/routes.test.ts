// Routes: the destination of a connection by the name and the protocols in its ClientHello, and by its address; with TLS passed through
// byte for byte, and with TLS terminated by lb.
import { once } from "node:events";
import { connect as connectTls } from "node:tls";
import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { tagged, type Backend } from "../support/backends.ts";
import { Authority, certificates, peersMissing, type Leaf } from "../support/certificates.ts";
import { connect, type Client } from "../support/client.ts";
import { freePort, freePorts, startLb, type Lb } from "../support/lb.ts";
import { sClient } from "../support/openssl.ts";
import { Python, type PythonServer } from "../support/python.ts";
import { setUp, setUpUnless } from "../support/set-up.ts";
import { allRead } from "../support/segments.ts";
import {
  alpn,
  extension,
  fixture,
  FIXTURE_NAMES,
  hello,
  serverName,
  supportedVersions,
  u16,
  unwrap,
  wrap,
} from "../wire/hello-bytes.ts";

/** Backends that send their name at once and then echo: what a client receives, and which of its bytes have arrived. */
const NAMES = ["exact", "wild", "h2", "inside", "rest"] as const;
const backends: { [name: string]: Backend } = {};

setUp(async (keep) => {
  for (const name of NAMES) backends[name] = await keep(tagged(name));
});

function pools(): string {
  return NAMES.map((name) => `[pools.${name}]\nbackends = ["${backends[name]!.address}"]\nhealth.type = "off"\n`).join(
    "",
  );
}

function listener(name: string, port: number, more = ""): string {
  return `[listeners.${name}]\nbind = "127.0.0.1:${port}"\n${more}\n`;
}

function route(name: string, conditions: string, pool: string): string {
  return `[[listeners.${name}.routes]]\n${conditions}\npool = "${pool}"\n`;
}

/** Sends these bytes; the backend that they reach, which got exactly these bytes. */
async function reaches(port: number, bytes: Uint8Array, from?: string): Promise<string | null> {
  using client = await connect(port, from === undefined ? {} : { from });
  client.send(bytes);
  return await reached(client, bytes);
}

async function reached(client: Client, bytes: Uint8Array): Promise<string | null> {
  const name = await client.line();
  await client.until(() => client.text.length >= bytes.length);
  expect(client.text).toBe(Buffer.from(bytes).toString("latin1"));
  client.reset();
  return name;
}

const named = (name: string, ...protocols: string[]): Uint8Array =>
  hello({
    extensions: [serverName(name), supportedVersions(0x304), ...(protocols.length > 0 ? [alpn(...protocols)] : [])],
  });

describe("TLS pass-through", () => {
  let lb: Lb;
  let port: number;
  let strict: number;

  setUp(async (keep) => {
    [port, strict] = await freePorts(2);
    lb = await keep(
      startLb(
        listener("web", port, 'pool = "rest"') +
          route("web", 'sni = ["a.example", "other.example"]', "exact") +
          route("web", 'sni = ["*.a.example"]', "wild") +
          route("web", 'alpn = ["h2", "h3"]', "h2") +
          route("web", 'sni = ["both.example"]\nalpn = ["spdy/1"]\nclients = ["127.0.6.0/24"]', "wild") +
          route("web", 'clients = ["127.0.5.0/24"]', "inside") +
          listener("strict", strict) +
          route("strict", 'sni = ["a.example"]', "exact") +
          pools(),
      ),
    );
  });

  test.each([
    ["a.example", "exact"],
    ["A.Example", "exact"],
    ["a.example.", "exact"],
    ["other.example", "exact"],
    ["x.a.example", "wild"],
    ["X.A.EXAMPLE", "wild"],
    ["x.y.a.example", "rest"],
    ["example", "rest"],
    ["xa.example", "rest"],
    ["127.0.0.1", "rest"],
  ])("is routed by its name: %s", async (name, pool) => {
    expect(await reaches(port, named(name))).toBe(pool);
  });

  test("is routed by its protocols, in any order", async () => {
    expect(await reaches(port, named("b.example", "http/1.1", "h2"))).toBe("h2");
    expect(await reaches(port, named("b.example", "http/1.1"))).toBe("rest");
    expect(await reaches(port, named("b.example"))).toBe("rest");
    expect(await reaches(port, hello({ extensions: [alpn("h3")] }))).toBe("h2");
  });

  test("is routed by the client's address", async () => {
    expect(await reaches(port, named("b.example"), "127.0.5.9")).toBe("inside");
    expect(await reaches(port, named("b.example"), "127.0.4.9")).toBe("rest");
  });

  test("uses the first route whose conditions all hold", async () => {
    expect(await reaches(port, named("a.example", "h2"), "127.0.5.9")).toBe("exact");
    expect(await reaches(port, named("both.example", "spdy/1"), "127.0.6.1")).toBe("wild");
    expect(await reaches(port, named("both.example", "spdy/1"), "127.0.5.1")).toBe("inside");
    expect(await reaches(port, named("both.example", "spdy/2"), "127.0.6.1")).toBe("rest");
    expect(await reaches(port, named("neither.example", "spdy/1"), "127.0.6.1")).toBe("rest");
  });

  test("that matches no route, on a listener without a pool, is refused", async () => {
    expect(await reaches(strict, named("a.example"))).toBe("exact");
    for (const said of [named("b.example"), hello(), Buffer.from("GET / HTTP/1.0\r\n\r\n")]) {
      using client = await connect(strict);
      client.send(said);
      expect(await client.ended).toBe("reset");
      expect(await lb.lineOf(client)).toMatchObject({ end: "no_route", end_by: "lb", bytes_out: 0 });
      expect((await lb.lineOf(client)).pool).toBeUndefined();
    }
  });

  test("shows its name in the log, and no version: the backend negotiates it", async () => {
    using client = await connect(port);
    client.send(named("X.a.example"));
    expect(await client.line()).toBe("wild");
    client.reset();
    const line = await lb.lineOf(client);
    expect(line).toMatchObject({ listener: "web", pool: "wild", sni: "x.a.example" });
    expect(line.tls).toBeUndefined();
  });

  test.each(FIXTURE_NAMES)("is recognised and passed on byte for byte, as it was captured: %s", async (name) => {
    const bytes = fixture(name);
    // Clients that offer h2 go there, whatever their name.
    const offersH2 =
      Buffer.from(bytes).includes("\x00\x03\x02h2") ||
      Buffer.from(bytes).includes("\x02h2\x08http/1.1") ||
      name === "openssl-split";
    expect(await reaches(port, bytes)).toBe(offersH2 ? "h2" : "rest");
  });

  test("is recognised among GREASE values (RFC 8701)", async () => {
    const grease = hello({
      suites: [...u16(0x0a0a), ...u16(0x1301)],
      extensions: [
        extension(0x2a2a),
        alpn("\x4a\x4a", "http/1.1"),
        supportedVersions(0x7a7a, 0x304),
        serverName("a.example"),
        extension(0xfafa, [0]),
      ],
    });
    expect(await reaches(port, grease)).toBe("exact");
  });

  test("is recognised wherever it is split", async () => {
    const bytes = named("x.a.example", "h2");
    const clients = await Promise.all(Array.from({ length: bytes.length - 1 }, () => connect(port)));
    for (const [i, client] of clients.entries()) client.send(bytes.subarray(0, i + 1));
    await allRead(port, clients);
    for (const [i, client] of clients.entries()) client.send(bytes.subarray(i + 1));
    for (const client of clients) expect(await reached(client, bytes)).toBe("wild");
  });

  test("is recognised in segments of one byte", async () => {
    const bytes = named("x.a.example");
    using client = await connect(port);
    for (const byte of bytes) {
      client.send(Uint8Array.of(byte));
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect(await reached(client, bytes)).toBe("wild");
  });

  test.each([1, 7, 100, 1000])("is recognised in records of %d bytes", async (size) => {
    const padded = unwrap(hello({ extensions: [extension(21, Buffer.alloc(3000)), serverName("x.a.example")] }));
    expect(
      await reaches(
        port,
        wrap(padded, () => size),
      ),
    ).toBe("wild");
  });

  test("is recognised up to 16 KB, and refused beyond", async () => {
    const padding = (bytes: number): Uint8Array =>
      hello({ extensions: [serverName("a.example"), extension(21, Buffer.alloc(bytes))] });
    const overhead = unwrap(padding(0)).length;
    expect(await reaches(port, padding(16384 - overhead))).toBe("exact");
    using client = await connect(port);
    client.send(wrap(unwrap(padding(16385 - overhead)), () => 8000));
    expect(["reset", "eof"]).toContain(await client.ended);
    expect(await lb.lineOf(client)).toMatchObject({
      end: "handshake_failed",
      end_by: "client",
      error: "bad_hello",
      bytes_in: 0,
    });
  });

  test.each([
    ["a length that lies", 50, () => named("a.example").fill(0xff, 43, 45)],
    ["two names", 47, () => hello({ extensions: [serverName("a.example", "b.example")] })],
    ["an extension twice", 47, () => hello({ extensions: [serverName("a.example"), serverName("b.example")] })],
    ["a NUL in its name", 47, () => named("a.example\0.b.example")],
    ["another message", 10, () => named("a.example").fill(2, 5, 6)],
  ])("that is broken is refused with an alert, and no backend hears of it: %s", async (_, alert, broken) => {
    const before = NAMES.map((name) => backends[name]!.accepted);
    using client = await connect(port);
    client.send(broken());
    expect(await client.ended).toBe("eof");
    expect(client.text).toBe(`\x15\x03\x03\x00\x02\x02${String.fromCharCode(alert)}`);
    expect(await lb.lineOf(client)).toMatchObject({ end: "handshake_failed", end_by: "client", error: "bad_hello" });
    expect(NAMES.map((name) => backends[name]!.accepted)).toEqual(before);
  });

  test.each([
    "GET / HTTP/1.0\r\n\r\n",
    "x",
    "SSH-2.0-OpenSSH\r\n",
    "\x80\x2e\x01\x03\x01",
    "\x16\x02\x01",
    "\x15\x03\x01\0\x02\x02\x28",
  ])("goes to the listener's pool unchanged if it is not TLS: %j", async (said) => {
    expect(await reaches(port, Buffer.from(said, "latin1"))).toBe("rest");
    expect(await reaches(port, Buffer.from(said, "latin1"), "127.0.5.9")).toBe("inside");
  });
});

describe("a client that sends nothing", () => {
  test("is ended by the handshake's deadline if its name is needed, and served at once if not", async () => {
    const [waits, dials] = await freePorts(2);
    const timeouts = 'pool = "rest"\ntimeouts = { handshake = "400ms" }';
    await using lb = await startLb(
      listener("waits", waits, timeouts) +
        route("waits", 'clients = ["127.0.5.0/24"]', "inside") +
        route("waits", 'sni = ["a.example"]', "exact") +
        listener("dials", dials, timeouts) +
        route("dials", 'clients = ["127.0.5.0/24"]', "inside") +
        pools(),
    );
    using silent = await connect(waits);
    using half = await connect(waits);
    half.send(named("a.example").subarray(0, 30));
    using served = await connect(dials, { from: "127.0.5.1" });
    using elsewhere = await connect(dials);
    expect(await served.line()).toBe("inside");
    expect(await elsewhere.line()).toBe("rest");
    for (const client of [silent, half]) {
      expect(await client.ended).toBe("reset");
      const line = await lb.lineOf(client);
      expect(line).toMatchObject({ end: "handshake_timeout", end_by: "lb", bytes_in: 0 });
      expect(line.duration_ms).toBeGreaterThanOrEqual(400);
      // A protocol in which the server speaks first does not work here, and the log says so.
      if (client === half) expect(line.error).toBeUndefined();
      else
        expect(line.error).toMatch(
          /^no byte of a ClientHello has arrived, .* or hash_key = "sni", need one: .* without them$/,
        );
    }
    // The deadline applies only to the handshake: served clients stay.
    expect(await served.echoes()).toBe(true);
    served.reset();
    elsewhere.reset();
  });

  test("and closes is not logged", async () => {
    const port = await freePort();
    await using lb = await startLb(
      listener("web", port, 'pool = "rest"') + route("web", 'sni = ["a.example"]', "exact") + pools(),
    );
    using quiet = await connect(port);
    quiet.finish();
    expect(await quiet.ended).toBe("eof");
    using half = await connect(port);
    half.send(named("a.example").subarray(0, 30));
    await allRead(port, [half]);
    half.finish();
    await half.ended;
    expect(await lb.lineOf(half)).toMatchObject({ end: "handshake_failed", end_by: "client", error: "closed" });
    expect(lb.accessLines().length).toBe(1);
    expect(await lb.metric("lb_listener_connections_ended_total", { end: "eof", end_by: "client" })).toBe(1);
  });
});

describe("real handshakes", () => {
  let python: Python;
  let ca: Authority;
  let a: Leaf;
  let b: Leaf;
  let inA: PythonServer;
  let inB: PythonServer;

  setUpUnless(peersMissing, async (keep) => {
    python = await keep(new Python());
    ca = await keep(Authority.make());
    [a, b] = await Promise.all([ca.leaf("a.example"), ca.leaf("b.example", { names: ["DNS:*.b.example"] })]);
    const serve = ({ cert, key }: Leaf) => python.serve({ tls: { cert, key, alpn: ["h2", "http/1.1"] } });
    [inA, inB] = await Promise.all([serve(a), serve(b)]);
  });

  test("through lb: the client verifies the backend's own certificate, for every library and form of hello", async () => {
    const port = await freePort();
    await using lb = await startLb(`
      ${listener("web", port)}
      ${route("web", 'sni = ["a.example"]', "a")}
      ${route("web", 'sni = ["*.b.example"]', "b")}
      [pools.a]
      backends = ["${inA.address}"]
      health.type = "off"
      [pools.b]
      backends = ["${inB.address}"]
      health.type = "off"
    `);
    const verify = ["-CAfile", ca.cert, "-verify_return_error"];
    expect(await sClient(port, "-servername", "a.example", ...verify)).toMatchObject({
      echoed: true,
      verified: 0,
      subject: "CN = a.example",
    });
    expect(await sClient(port, "-servername", "x.b.example", "-tls1_2", ...verify)).toMatchObject({
      echoed: true,
      verified: 0,
      subject: "CN = b.example",
    });

    // A hello of more than 1,500 bytes, in segments and in records.
    const long = Array.from({ length: 100 }, (_, i) => `protocol-number-${i}`);
    for (const shape of [{}, { segments: 1 }, { records: 100 }, { records: 1, segments: 100 }]) {
      const client = await python.connect(port, {
        ...shape,
        tls: { name: "a.example", ca: ca.cert, alpn: [...long, "h2"] },
      });
      expect(client).toMatchObject({ error: null, tls: { alpn: "h2", fingerprint: a.fingerprint } });
      expect(await client.echoes()).toBe(true);
      await client.finish();
      expect(await client.read()).toEqual({ data: "", end: "close_notify" });
      expect(await lb.lineOf(client)).toMatchObject({ end: "eof", sni: "a.example", pool: "a" });
    }

    // Bun's own client has a post-quantum key share: about as long.
    const bun = connectTls({ port, host: "127.0.0.1", servername: "x.b.example", ca: readFileSync(ca.cert, "utf8") });
    await once(bun, "secureConnect");
    expect(bun.authorized).toBe(true);
    bun.write("ping");
    expect(String((await once(bun, "data"))[0])).toBe("ping");
    bun.end();
  });

  test("that end at lb: routes match the name and the negotiated protocol", async () => {
    const port = await freePort();
    await using lb = await startLb(`
      ${listener("web", port, 'pool = "rest"')}
      [listeners.web.tls]
      ${certificates(a, b)}
      alpn = ["h2", "http/1.1"]
      ${route("web", 'sni = ["a.example"]\nalpn = ["http/1.1"]', "exact")}
      ${route("web", 'sni = ["*.b.example"]', "wild")}
      ${route("web", 'alpn = ["h2"]', "h2")}
      ${route("web", 'clients = ["127.0.5.0/24"]', "inside")}
      ${pools()}
    `);
    const goes = async (name: string, protocols: string[], from = "127.0.0.1"): Promise<string> => {
      const tls = { ...(name === "" ? {} : { name }), ...(protocols.length > 0 ? { alpn: protocols } : {}) };
      const client = await python.connect(port, { from, tls });
      expect(client.error).toBeNull();
      const { data } = await client.read("\n");
      expect(await client.echoes()).toBe(true);
      await client.finish();
      await client.read();
      const line = await lb.lineOf(client);
      expect(line).toMatchObject({
        end: "eof",
        pool: data.trim(),
        tls: "TLSv1.3",
        bytes_in: 5,
        bytes_out: data.length + 5,
      });
      expect(line.sni).toBe(name === "" ? undefined : name);
      return data.trim();
    };
    expect(await goes("a.example", ["http/1.1"])).toBe("exact");
    // Both are offered and h2 is negotiated: the route for http/1.1 does not match.
    expect(await goes("a.example", ["http/1.1", "h2"])).toBe("h2");
    expect(await goes("x.b.example", ["h2"])).toBe("wild");
    expect(await goes("a.example", [])).toBe("rest");
    expect(await goes("", [], "127.0.5.1")).toBe("inside");
    expect(await goes("", ["h2"], "127.0.5.1")).toBe("h2");
  });
});
