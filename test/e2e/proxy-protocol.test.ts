// The PROXY protocol both ways. In: whose header is believed, that the address it names counts for everything, and that a
// header that is bad, slow or missing harms nobody. Out: what a backend written in Python reads.
import { connect as connectUnix } from "node:net";
import { once } from "node:events";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { echo, tagged, type Backend } from "../support/backends.ts";
import { Authority, certificates, peersMissing, type Leaf } from "../support/certificates.ts";
import { connect, type Client } from "../support/client.ts";
import { eventually } from "../support/eventually.ts";
import { freePort, freePorts, startLb, type Lb } from "../support/lb.ts";
import { descriptors } from "../support/proc.ts";
import { addresses4, addresses6, headerV2, tlv } from "../support/proxy-headers.ts";
import { Python, type PythonServer } from "../support/python.ts";
import { setUp, setUpUnless } from "../support/set-up.ts";
import { allRead } from "../support/segments.ts";
import { skipWithoutIPv6 } from "../support/endpoints.ts";

const SOURCE = "198.51.100.7:4711";
const IPV6_SOURCE = "20010db8000000000000000000000007";
const IPV6_TARGET = "20010db8000000000000000000000001";
const INET = addresses4(SOURCE, "192.0.2.1:443");
const INET6 = addresses6(IPV6_SOURCE, IPV6_TARGET, [4711, 443]);

const V1 = Buffer.from("PROXY TCP4 198.51.100.7 192.0.2.1 4711 443\r\n");
const V2 = headerV2({ addresses: INET });

let backend: Backend;
setUp(async (keep) => {
  backend = await keep(echo());
});

function listener(name: string, port: number, more: string): string {
  return `
    [listeners.${name}]
    bind = "127.0.0.1:${port}"
    pool = "app"
    ${more}
  `;
}

function pool(address: string = backend.address, more = ""): string {
  return `
    [pools.app]
    backends = ["${address}"]
    health.type = "off"
    ${more}
  `;
}

const REQUIRED = `proxy_protocol = "required"\ntrusted_proxies = ["127.0.0.0/8"]`;

/** Connects, sends the header and a line in one segment, and gets the line alone back. */
async function through(port: number, header: Uint8Array | string, from?: string): Promise<Client> {
  const client = await connect(port, from === undefined ? {} : { from });
  client.send(Buffer.concat([Buffer.from(header), Buffer.from("ping\n")]));
  expect(await client.line()).toBe("ping");
  return client;
}

/** Such a client comes in, and its line says who it was. */
async function logged(
  lb: Lb,
  port: number,
  header: Uint8Array | string,
): Promise<{ client: string; peer: string | undefined; own: string }> {
  using client = await through(port, header);
  client.finish();
  await client.ended;
  const line = await lb.waitLine((entry) => entry.client === client.address || entry.peer === client.address);
  expect(line).toMatchObject({ end: "eof", end_by: "client", bytes_in: 5, bytes_out: 5 });
  return { client: line.client, peer: line.peer, own: client.address };
}

describe("a header from a trusted proxy", () => {
  let lb: Lb;
  let port: number;

  setUp(async (keep) => {
    port = await freePort();
    lb = await keep(startLb(listener("web", port, REQUIRED) + pool()));
  });

  test.each([
    ["v1 TCP4", V1, SOURCE],
    ["v1 TCP6", "PROXY TCP6 2001:db8::7 2001:db8::1 4711 443\r\n", "[2001:db8::7]:4711"],
    ["v2 TCP4", V2, SOURCE],
    ["v2 TCP6", headerV2({ family: 0x21, addresses: INET6 }), "[2001:db8::7]:4711"],
    [
      "v2 TCP4 with TLVs and a checksum",
      headerV2({ addresses: INET, tlvs: [tlv(0x02, "a.example"), tlv(0x04, "\0\0")], crc: true }),
      SOURCE,
    ],
  ])("%s: the client is whom it names, and the peer is told", async (_, header, client) => {
    const seen = await logged(lb, port, header);
    expect(seen).toMatchObject({ client, peer: seen.own });
  });

  test.each([
    ["v1 UNKNOWN", "PROXY UNKNOWN\r\n"],
    ["v1 UNKNOWN with more", "PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n"],
    ["v2 LOCAL of length 0", headerV2({ command: "local", family: 0 })],
    ["v2 LOCAL with addresses, which do not count", headerV2({ command: "local", addresses: INET })],
    ["v2 UNSPEC", headerV2({ family: 0 })],
    ["v2 UNIX", headerV2({ family: 0x31, addresses: Buffer.alloc(216, "/run/a.sock\0") })],
  ])("%s: the client is the peer", async (_, header) => {
    const seen = await logged(lb, port, header);
    expect(seen).toMatchObject({ client: seen.own, peer: undefined });
  });

  test.each([
    ["v1", V1],
    [
      "v2 with TLVs and a checksum",
      headerV2({ addresses: INET, tlvs: [tlv(0x01, "h2"), tlv(0x02, "a.example"), tlv(0x05, "id")], crc: true }),
    ],
  ])("%s, cut anywhere, is the same header", async (_, header) => {
    const all = Buffer.concat([header, Buffer.from("ping\n")]);
    const clients = await Promise.all(Array.from({ length: all.length - 1 }, () => connect(port)));
    for (const [i, client] of clients.entries()) client.send(all.subarray(0, i + 1));
    await allRead(port, clients);
    for (const [i, client] of clients.entries()) client.send(all.subarray(i + 1));
    for (const client of clients) {
      expect(await client.line()).toBe("ping");
      client.finish();
      await client.ended;
    }
    const own = new Set(clients.map(({ address }) => address));
    const lines = await lb.waitLines(clients.length, ({ peer }) => own.has(peer ?? ""));
    for (const line of lines) expect(line).toMatchObject({ client: SOURCE, bytes_in: 5, bytes_out: 5 });
  });

  test.each([
    ["no header", "GET / HTTP/1.0\r\n\r\n"],
    ["no header, in one byte", "x"],
    ["an address that is none", "PROXY TCP4 198.51.100.700 192.0.2.1 4711 443\r\n"],
    ["a line that does not end", `PROXY UNKNOWN ${"x".repeat(100)}`],
    ["LF without CR", "PROXY UNKNOWN\n"],
    ["version 3", Buffer.from(V2).fill(0x31, 12, 13)],
    ["a command that is not assigned", Buffer.from(V2).fill(0x22, 12, 13)],
    ["a family that is not assigned", headerV2({ family: 0x41, addresses: INET })],
    ["too few bytes for its addresses", headerV2({ addresses: INET.subarray(1) })],
    ["a TLV that is longer than the header", headerV2({ addresses: INET, tlvs: [Buffer.from([0x02, 0, 9, 0x61])] })],
    ["a TLV that is cut in its length", headerV2({ addresses: INET, tlvs: [Buffer.from([0x02, 0])] })],
    ["a wrong checksum", headerV2({ addresses: INET, tlvs: [tlv(0x02, "a.example")], crc: 0x12345678 })],
    ["more than 4 KB", headerV2({ addresses: INET, tlvs: [tlv(0x04, Buffer.alloc(4200))] })],
  ])("that is bad is refused: %s", async (_, bytes) => {
    const { accepted } = backend;
    using client = await connect(port);
    client.send(bytes);
    expect(await client.ended).toBe("reset");
    const line = await lb.lineOf(client);
    expect(line).toMatchObject({
      end: "proxy_header_bad",
      end_by: "client",
      bytes_in: 0,
      error: expect.stringMatching(/./),
    });
    expect(backend.accepted).toBe(accepted);
  });

  test("that ends before it is complete is refused; a peer that closes without a byte is not logged", async () => {
    using client = await connect(port);
    client.send(V1.subarray(0, 20));
    client.finish();
    await client.ended;
    expect(await lb.lineOf(client)).toMatchObject({
      end: "proxy_header_bad",
      end_by: "client",
    });
    using quiet = await connect(port);
    quiet.finish();
    await quiet.ended;
    using last = await through(port, V1);
    last.reset();
    await lb.waitLine(({ peer }) => peer === last.address);
    expect(lb.accessLines().some((line) => line.client === quiet.address)).toBe(false);
  });

  test("is read before a backend is dialed", async () => {
    const { accepted } = backend;
    using client = await connect(port);
    client.send(V1.subarray(0, -1));
    await allRead(port, [client]);
    expect(backend.accepted).toBe(accepted);
    client.send(V1.subarray(-1));
    await eventually("the backend is dialled", () => backend.accepted === accepted + 1);
    expect(await client.echoes()).toBe(true);
  });
});

describe("trusted_proxies", () => {
  let lb: Lb;
  let required: number;
  let optional: number;

  setUp(async (keep) => {
    [required, optional] = await freePorts(2);
    const trusted = `trusted_proxies = ["127.0.1.0/24"]`;
    lb = await keep(
      startLb(
        listener("required", required, `proxy_protocol = "required"\n${trusted}`) +
          listener("optional", optional, `proxy_protocol = "optional"\n${trusted}`) +
          pool(),
      ),
    );
  });

  test.each([V1, V2])(
    "required: a trusted proxy's header is accepted; other peers are refused, with a header or without",
    async (header) => {
      (await through(required, header, "127.0.1.5")).reset();
      for (const said of [header, Buffer.from("ping\n"), Buffer.alloc(0)]) {
        using client = await connect(required, { from: "127.0.2.5" });
        client.send(said);
        expect(await client.ended).toBe("reset");
        const line = await lb.lineOf(client);
        expect(line).toMatchObject({ end: "proxy_header_bad", end_by: "client", error: "not a trusted proxy" });
        expect(line.peer).toBeUndefined();
      }
    },
  );

  test.each([V1, V2])(
    "optional: a trusted proxy's header is accepted; the bytes of other peers are passed on unchanged",
    async (header) => {
      using trusted = await through(optional, header, "127.0.1.6");
      trusted.reset();
      expect(await lb.waitLine(({ peer }) => peer === trusted.address)).toMatchObject({ client: SOURCE, bytes_in: 5 });
      using client = await connect(optional, { from: "127.0.2.6" });
      const said = Buffer.concat([header, Buffer.from("ping\n")]).toString("latin1");
      client.send(Buffer.from(said, "latin1"));
      await client.until(() => client.text.length >= said.length);
      expect(client.text).toBe(said);
      client.reset();
      const line = await lb.lineOf(client);
      expect(line.bytes_in).toBe(said.length);
    },
  );

  test.each(["ping\n", "PROXZ\n", "P\n", "\r\n\r\n\n"])(
    "optional: a trusted peer need not send a header: %j",
    async (said) => {
      using client = await connect(optional, { from: "127.0.1.7" });
      client.send(said);
      await client.until(() => client.text.length >= said.length);
      expect(client.text).toBe(said);
      client.reset();
      const line = await lb.lineOf(client);
      expect(line.peer).toBeUndefined();
    },
  );

  test("optional: a trusted peer's bad header is refused, and not passed on", async () => {
    const { accepted } = backend;
    using client = await connect(optional, { from: "127.0.1.8" });
    client.send("PROXY TCP4 1.2.3.4\r\n");
    expect(await client.ended).toBe("reset");
    expect(await lb.lineOf(client)).toMatchObject({ end: "proxy_header_bad" });
    expect(backend.accepted).toBe(accepted);
  });
});

describe("a unix socket", () => {
  test("needs no list: everyone who may connect to it is trusted", async () => {
    const port = await freePort();
    await using lb = await startLb(listener("other", port, "") + pool());
    const path = join(lb.dir, "in.sock");
    const unix = `[listeners.unix]\nbind = "unix:${path}"\npool = "app"\nproxy_protocol = "required"\n`;
    expect(await lb.reload(listener("other", port, "") + unix + pool())).toMatchObject({ ok: true });
    const client = connectUnix(path);
    client.write(Buffer.concat([V2, Buffer.from("ping\n")]));
    expect(String((await once(client, "data"))[0])).toBe("ping\n");
    client.end();
    expect(await lb.waitLine(({ listener: name }) => name === "unix")).toMatchObject({
      client: SOURCE,
      peer: "unix",
      end: "eof",
    });
  });
});

describe("a server that sends first", () => {
  test("is dialed when the header is complete, without a byte of the client", async () => {
    using server = await tagged("hello");
    const port = await freePort();
    await using lb = await startLb(listener("web", port, REQUIRED) + pool(server.address));
    for (const header of [V1, V2]) {
      using client = await connect(port);
      client.send(header);
      expect(await client.line()).toBe("hello");
      expect(await client.echoes()).toBe(true);
      client.reset();
      expect(await lb.waitLine(({ peer }) => peer === client.address)).toMatchObject({ client: SOURCE });
    }
  });
});

describe("the address in a trusted header counts", () => {
  let lb: Lb;
  let deny: number;
  let allow: number;
  let rate: number;
  let cap: number;
  let local: number;
  const v1 = (source: string, target = source.includes(":") ? "2001:db8::1" : "192.0.2.1"): string =>
    `PROXY TCP${source.includes(":") ? 6 : 4} ${source} ${target} 4711 443\r\n`;

  setUp(async (keep) => {
    [deny, allow, rate, cap, local] = await freePorts(5);
    lb = await keep(
      startLb(
        "workers = 2\n" +
          listener("deny", deny, `${REQUIRED}\ndeny = ["203.0.113.0/24", "2001:db8:bad::/48"]`) +
          listener("allow", allow, `${REQUIRED}\nallow = ["203.0.113.0/24"]`) +
          listener("rate", rate, `${REQUIRED}\nrate_limit = { rate = "1/h", burst = 3 }`) +
          listener("cap", cap, `${REQUIRED}\nmax_connections_per_client = 2`) +
          listener("local", local, `${REQUIRED}\ndeny = ["127.0.0.9"]`) +
          pool(),
      ),
    );
  });

  async function refused(port: number, header: Uint8Array | string, end: string, from = "127.0.0.1"): Promise<void> {
    using client = await connect(port, { from });
    client.send(header);
    expect(await client.ended).toBe("reset");
    const line = await lb.waitLine((entry) => (entry.peer ?? entry.client) === client.address);
    expect(line).toMatchObject({ end, end_by: "lb", bytes_in: 0 });
  }

  test("for deny and allow", async () => {
    await refused(deny, v1("203.0.113.9"), "denied");
    await refused(deny, v1("2001:db8:bad::9"), "denied");
    (await through(deny, v1("198.51.100.9"))).reset();
    await refused(allow, v1("198.51.100.9"), "denied");
    (await through(allow, v1("203.0.113.9"))).reset();
  });

  test("for the rate: the client's tokens are used whatever the peer is, and the peer's are not", async () => {
    for (let i = 0; i < 3; i++) (await through(rate, v1("203.0.113.1"), `127.0.0.${i + 1}`)).reset();
    await refused(rate, v1("203.0.113.1"), "rate_limited", "127.0.0.7");
    for (let i = 2; i < 20; i++) (await through(rate, v1(`203.0.113.${i}`))).reset();
  });

  test("for the cap of a client, by its prefix", async () => {
    const held = [await through(cap, v1("203.0.113.1")), await through(cap, v1("203.0.113.1"), "127.0.0.2")];
    await refused(cap, v1("203.0.113.1"), "client_full");
    held.push(await through(cap, v1("203.0.113.2")));
    // An IPv6 client is a /64.
    held.push(await through(cap, v1("2001:db8:0:1::1")), await through(cap, v1("2001:db8:0:1:ffff::2")));
    await refused(cap, v1("2001:db8:0:1:1::3"), "client_full");
    held.push(await through(cap, v1("2001:db8:0:2::1")));
    held[0]!.reset();
    await lb.waitLine(({ peer }) => peer === held[0]!.address);
    held.push(await through(cap, v1("203.0.113.1")));
    for (const client of held) client.reset();
  });

  test("and if the header has none, the peer's address counts", async () => {
    for (const header of ["PROXY UNKNOWN\r\n", headerV2({ command: "local", family: 0 })]) {
      await refused(local, header, "denied", "127.0.0.9");
      (await through(local, header, "127.0.0.8")).reset();
    }
    // The peer itself is no client where the header names one.
    (await through(local, V1, "127.0.0.9")).reset();
  });
});

describe("a header that does not come", () => {
  const HANDSHAKE_MS = 400;
  let lb: Lb;
  let port: number;
  let optional: number;
  let idle: number;

  setUp(async (keep) => {
    [port, optional] = await freePorts(2);
    const timeouts = `timeouts = { handshake = "${HANDSHAKE_MS}ms" }`;
    const may = REQUIRED.replace("required", "optional");
    lb = await keep(
      startLb(
        listener("web", port, `${REQUIRED}\n${timeouts}`) +
          listener("optional", optional, `${may}\n${timeouts}`) +
          pool(),
      ),
    );
    (await through(port, V1)).reset();
    await lb.waitIdle();
    idle = descriptors(lb.pid);
  });

  describe.concurrent("ends the connection after timeouts.handshake", () => {
    const rich = headerV2({ addresses: INET, tlvs: [tlv(0x02, "a.example")], crc: true });
    test.each([
      ["nothing", V1, 0],
      ["1 byte of v1", V1, 1],
      ["v1 without its LF", V1, V1.length - 1],
      ["1 byte of v2", rich, 1],
      ["the fixed part of v2", rich, 16],
      ["v2 without its last byte", rich, rich.length - 1],
    ])("%s", async (_, header, bytes) => {
      for (const to of [port, optional]) {
        using client = await connect(to);
        if (bytes > 0) client.send(header.subarray(0, bytes));
        expect(await client.ended).toBe("reset");
        const line = await lb.lineOf(client);
        expect(line).toMatchObject({ end: "handshake_timeout", end_by: "lb", bytes_in: 0 });
        expect(line.duration_ms).toBeGreaterThanOrEqual(HANDSHAKE_MS);
        expect(line.duration_ms).toBeLessThan(HANDSHAKE_MS + 5000);
      }
    });
  });

  test("leaves nothing behind", async () => {
    await lb.waitIdle();
    await eventually("the descriptors are free", () => descriptors(lb.pid) <= idle);
    expect(backend.open.size).toBe(0);
  });
});

describe("further information in a header", () => {
  test("is in the debug log, escaped, and nowhere else", async () => {
    const port = await freePort();
    await using lb = await startLb(`
      ${listener("web", port, REQUIRED)}
      ${pool()}
      [log]
      level = "debug"
      format = "json"
      access = "stdout"
    `);
    const endpoint = Buffer.concat([Uint8Array.of(0x01), Buffer.from("vpce-08d2bf15fac5001c9")]);
    const link = Buffer.from([0x01, 0x2a, 0x01, 0x00, 0x00]);
    const ssl = Buffer.concat([
      Buffer.from([0x07, 0, 0, 0, 0]),
      tlv(0x21, "TLSv1.3"),
      tlv(0x22, "someone\x1b[2J"),
      tlv(0x23, "AES"),
    ]);
    const tlvs = [
      tlv(0x01, "h2"),
      tlv(0x02, "a.example"),
      tlv(0x05, "id-\xff\0"),
      tlv(0x20, ssl),
      tlv(0xea, endpoint),
      tlv(0xee, link),
    ];
    (await through(port, headerV2({ addresses: INET, tlvs, crc: true }))).reset();
    const said = await lb.waitLog(({ event }) => event === "proxy header");
    expect(said).toMatchObject({
      level: "debug",
      listener: "web",
      version: 2,
      command: "proxy",
      alpn: "h2",
      authority: "a.example",
      unique_id: "id-\\xff\\x00",
      ssl_client: "ssl cert_conn cert_sess",
      ssl_verify: "0",
      ssl_version: "TLSv1.3",
      ssl_cn: "someone\\x1b[2J",
      ssl_cipher: "AES",
      aws_vpc_endpoint_id: "vpce-08d2bf15fac5001c9",
      azure_link_id: "298",
      checksum: "right",
    });
    const from = lb.log().length;
    (await through(port, V1)).reset();
    expect(await lb.waitLog(({ event }) => event === "proxy header", undefined, from)).toMatchObject({
      version: 1,
      command: "proxy",
    });
  });
});

describe("a header for the backend", () => {
  let python: Python;
  let ca: Authority;
  let leaf: Leaf;

  setUpUnless(peersMissing, async (keep) => {
    python = await keep(new Python());
    ca = await keep(Authority.make());
    leaf = await ca.leaf("a.example");
  });

  /** What the server was told of this client. Not the newest connection's header: lb sends it as soon as it accepts the client. */
  async function toldOf(server: PythonServer, client: Client) {
    expect(await client.echoes()).toBe(true);
    const { error, header } = await server.connection((seen) => seen.header?.source_port === client.port);
    expect(error).toBeNull();
    return header;
  }

  /** What the server was told of the connection that `act` makes. */
  async function told(server: PythonServer, act: () => Promise<unknown>) {
    const before = server.connections.length;
    await act();
    const { error, header } = await server.nth(before);
    expect(error).toBeNull();
    return header;
  }

  test.for(["v1", "v2"] as const)(
    "%s has the client's address and the address it connected to",
    async (version, context) => {
      skipWithoutIPv6(context);
      const server = await python.serve({ proxy: true });
      const [port, v6, behind] = await freePorts(3);
      await using lb = await startLb(
        `${listener("web", port, "")}${listener("behind", behind, REQUIRED)}` +
          `[listeners.six]\nbind = "[::1]:${v6}"\npool = "app"\n` +
          `${pool(server.address, `send_proxy = "${version}"`)}`,
      );
      const unix = `[listeners.unix]\nbind = "unix:${join(lb.dir, "in.sock")}"\npool = "app"\n`;
      const numeral = version === "v1" ? 1 : 2;

      using four = await connect(port, { from: "127.0.0.5" });
      expect(await toldOf(server, four)).toMatchObject({
        version: numeral,
        command: "PROXY",
        family: "TCP4",
        source: "127.0.0.5",
        source_port: four.port,
        destination: "127.0.0.1",
        destination_port: port,
        tlvs: {},
      });
      using six = await connect(v6, { host: "::1" });
      expect(await toldOf(server, six)).toMatchObject({
        family: "TCP6",
        source: "::1",
        source_port: six.port,
        destination: "::1",
        destination_port: v6,
      });
      // Behind another proxy: the client that it names, and whom that one addressed.
      const passed = await told(server, async () => (await through(behind, V2)).reset());
      expect(passed).toMatchObject({
        family: "TCP4",
        source: "198.51.100.7",
        source_port: 4711,
        destination: "192.0.2.1",
        destination_port: 443,
      });
      const local = await told(server, async () =>
        (await through(behind, headerV2({ command: "local", family: 0 }), "127.0.0.6")).reset(),
      );
      expect(local).toMatchObject({
        command: "PROXY",
        family: "TCP4",
        source: "127.0.0.6",
        destination: "127.0.0.1",
        destination_port: behind,
      });

      const before = await lb.status();
      await lb.write(`${listener("web", port, "")}${unix}${pool(server.address, `send_proxy = "${version}"`)}`);
      expect(await lb.reloaded(before)).toMatchObject({ ok: true });
      const unknown = await told(server, async () => {
        const client = connectUnix(join(lb.dir, "in.sock"));
        client.write("ping\n");
        await once(client, "data");
        client.destroy();
      });
      expect(unknown).toMatchObject({ command: "PROXY", family: version === "v1" ? "UNKNOWN" : "UNSPEC" });
    },
  );

  test("v2 has the facts of the client's TLS, and is sent before the client's bytes", async () => {
    const server = await python.serve({ proxy: true });
    const [port, auth, passed] = await freePorts(3);
    const mine = await ca.leaf("mine");
    await using _lb = await startLb(`
      ${listener("web", port, "")}
      [listeners.web.tls]
      ${certificates(leaf)}
      alpn = ["h2", "http/1.1"]
      ${listener("auth", auth, "")}
      [listeners.auth.tls]
      ${certificates(leaf)}
      client_auth = "optional"
      client_ca = "${ca.cert}"
      ${listener("passed", passed, "")}
      [[listeners.passed.routes]]
      sni = ["a.example"]
      pool = "app"
      ${pool(server.address, 'send_proxy = "v2"')}
    `);
    const talk = async (to: number, tls: object): Promise<unknown> =>
      told(server, async () => {
        const client = await python.connect(to, { tls });
        expect(client.error).toBeNull();
        expect(await client.echoes()).toBe(true);
        await client.close();
      });
    expect(await talk(port, { name: "a.example", alpn: ["h2"], max: "1.2" })).toMatchObject({
      tlvs: { authority: "a.example", alpn: "h2", ssl: { client: 1, verify: 1, version: "TLSv1.2" } },
    });
    // No name and no protocol: nothing is said of them.
    expect(await talk(port, {})).toMatchObject({ tlvs: { ssl: { client: 1, verify: 1, version: "TLSv1.3" } } });
    const { tlvs } = (await talk(port, {})) as { tlvs: object };
    expect(Object.keys(tlvs)).toEqual(["ssl"]);
    expect(await talk(auth, { cert: mine.cert, key: mine.key })).toMatchObject({
      tlvs: { ssl: { client: 7, verify: 0 } },
    });
    expect(await talk(auth, {})).toMatchObject({ tlvs: { ssl: { client: 1, verify: 1 } } });
    // TLS that is passed through: the name was read, and we are no end of that TLS.
    const through_ = await told(server, async () => {
      const client = await python.connect(passed, { tls: { name: "a.example" }, stall: 1 });
      await client.close();
    });
    expect(through_).toMatchObject({ tlvs: { authority: "a.example" } });
    expect(Object.keys(through_!.tlvs)).toEqual(["authority"]);
  });

  test.each([
    ["v1", { version: 1, family: "UNKNOWN" }],
    ["v2", { version: 2, command: "LOCAL", family: "UNSPEC", length: 0 }],
  ])("%s: a health check is marked as lb's own connection", async (version, header) => {
    const server = await python.serve({ proxy: true });
    const port = await freePort();
    const health = `send_proxy = "${version}"\nhealth = { type = "tcp", interval = "50ms" }`;
    await using lb = await startLb(
      `${listener("web", port, "")}[pools.app]\nbackends = ["${server.address}"]\n${health}\n`,
    );
    expect((await server.nth(2)).header).toMatchObject(header);
    for (const { error } of server.connections) expect(error).toBeNull();
    const { pools } = await lb.waitStatus((status) => status.pools[0]!.backends[0]!.health!.checks.success > 3);
    expect(pools[0]!.backends[0]).toMatchObject({ up: true, health: { checks: { failure: 0 }, last_error: null } });
    using client = await connect(port);
    expect(await toldOf(server, client)).toMatchObject({ command: "PROXY", family: "TCP4", source: "127.0.0.1" });
  });
});
