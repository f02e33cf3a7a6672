// TLS towards the backends, with Python and OpenSSL as the backends: which certificates lb trusts, what happens with others, what lb sends,
// and that bytes and ends pass unchanged.
import { describe, expect, test } from "vitest";
import { echo, sink } from "../support/backends.ts";
import { Authority, certificates, peersMissing, type Leaf } from "../support/certificates.ts";
import { connect } from "../support/client.ts";
import { eventually } from "../support/eventually.ts";
import { hostsFile } from "../support/hosts-file.ts";
import { freePort, freePorts, startLb, type AccessEntry, type Lb } from "../support/lb.ts";
import { SServer } from "../support/openssl.ts";
import { descriptors } from "../support/proc.ts";
import { Python, type PythonServer, type PythonTls } from "../support/python.ts";
import { allRead } from "../support/segments.ts";
import { setUpUnless } from "../support/set-up.ts";
import { expectHeldBack } from "../support/slow-reader.ts";

let ca: Authority;
let stranger: Authority;
let python: Python;
let good: Leaf;

setUpUnless(peersMissing, async (keep) => {
  python = await keep(new Python());
  ca = await keep(Authority.make());
  stranger = await keep(Authority.make("Another CA"));
  good = await ca.leaf("good", { names: ["DNS:a.example", "DNS:*.b.example", "DNS:localhost", "IP:127.0.0.1"] });
});

function serve(
  { cert, key }: Leaf,
  tls: PythonTls = {},
  more: { proxy?: boolean; mode?: "echo" | "manual" } = {},
): Promise<PythonServer> {
  return python.serve({ tls: { cert, key, ...tls }, ...more });
}

/** A listener and a pool of the same name. */
function pair(name: string, port: number, backends: readonly string[], tls: string, more = ""): string {
  return `
    [listeners.${name}]
    bind = "127.0.0.1:${port}"
    pool = "${name}"
    [pools.${name}]
    backends = [${backends.map((address) => `"${address}"`).join(", ")}]
    ${/\bhealth\b/.test(more) ? "" : 'health.type = "off"'}
    ${more}
    [pools.${name}.tls]
    ${tls}
  `;
}

const trust = (): string => `ca = "${ca.cert}"`;
/** A client sends something, and is reset before a byte of it was passed on. Returns its line. */
async function expectNoHandshake(lb: Lb, port: number): Promise<AccessEntry> {
  using client = await connect(port);
  client.send("secret\n");
  expect(await client.ended).toBe("reset");
  const line = await lb.lineOf(client);
  expect(line).toMatchObject({ end: "handshake_failed", end_by: "backend", bytes_out: 0 });
  return line;
}

describe("a backend's certificate", () => {
  test("signed by the CA for its name is accepted: address, host name, wildcard, or the given server_name", async () => {
    const server = await serve(good);
    const [byAddress, byHost, byName, byWildcard] = await freePorts(4);
    await using lb = await startLb(
      pair("address", byAddress, [server.address], trust()) +
        pair("host", byHost, [`localhost:${server.port}`], trust()) +
        pair("name", byName, [server.address], `${trust()}\nserver_name = "a.example"`) +
        pair("wildcard", byWildcard, [server.address], `${trust()}\nserver_name = "x.b.example"`),
    );
    for (const [port, name] of [
      [byAddress, null],
      [byHost, "localhost"],
      [byName, "a.example"],
      [byWildcard, "x.b.example"],
    ] as const) {
      const before = server.connections.length;
      using client = await connect(port);
      expect(await client.echoes()).toBe(true);
      // An address is not a name for SNI (RFC 6066, section 3).
      expect((await server.nth(before)).tls).toMatchObject({ name, version: "TLSv1.3", alpn: null });
      client.finish();
      expect(await client.ended).toBe("eof");
      expect(await lb.lineOf(client)).toMatchObject({
        end: "eof",
        end_by: "client",
        retries: 0,
        bytes_in: 5,
        bytes_out: 5,
      });
    }
  });

  test("is verified against the system's CA certificates if the pool names none", async () => {
    const server = await serve(good);
    const [port, untrusted] = await freePorts(2);
    const pools = pair("app", port, [server.address], "");
    await using lb = await startLb(pools, { env: { SSL_CERT_FILE: ca.cert } });
    using client = await connect(port);
    expect(await client.echoes()).toBe(true);
    await using other = await startLb(pair("app", untrusted, [server.address], ""), {
      env: { SSL_CERT_FILE: stranger.cert },
    });
    expect((await expectNoHandshake(other, untrusted)).error).toMatch(/^tls /);
    expect(lb.running).toBe(true);
  });

  test("must have the current name of the config, although the address is the same", async (context) => {
    const [a, b] = [await ca.leaf("a.test"), await ca.leaf("b.test")];
    await using hosts = await hostsFile();
    if (hosts.trouble !== null) context.skip(hosts.trouble);
    await hosts.write("127.0.0.1 a.test", "127.0.0.1 b.test");
    const server = await serve(a);
    const port = await freePort();
    const toml = (host: string): string => `
      workers = 1
      [listeners.web]
      bind = "127.0.0.1:${port}"
      pool = "app"
      [pools.app]
      backends = [{ address = "${host}:${server.port}", name = "one" }]
      health.type = "off"
      tls = { ca = "${ca.cert}" }
    `;
    await using lb = await startLb(toml("a.test"), { wrapper: hosts.wrapper });
    using first = await connect(port);
    expect(await first.echoes()).toBe(true);
    expect((await server.nth(0)).tls).toMatchObject({ name: "a.test" });
    expect(await lb.reload(toml("b.test"))).toMatchObject({ ok: true });
    await expectNoHandshake(lb, port);
    const other = await serve(b);
    expect(await lb.reload(toml("b.test").replace(String(server.port), String(other.port)))).toMatchObject({
      ok: true,
    });
    using second = await connect(port);
    expect(await second.echoes()).toBe(true);
    expect((await other.nth(0)).tls).toMatchObject({ name: "b.test" });
  });

  describe("that is not valid", () => {
    const faults: { [name: string]: { make: () => Promise<Leaf>; error: RegExp; tls?: string } } = {
      "for another name": { make: () => ca.leaf("other.example"), error: /^tls ERR_TLS_CERT_ALTNAME_INVALID$/ },
      "for another name than server_name": {
        make: () => Promise.resolve(good),
        error: /^tls ERR_TLS_CERT_ALTNAME_INVALID$/,
        tls: 'server_name = "x.y.b.example"',
      },
      "self-signed": {
        make: () => ca.selfSigned("a.example"),
        error: /^tls DEPTH_ZERO_SELF_SIGNED_CERT$/,
        tls: 'server_name = "a.example"',
      },
      "of another CA": {
        make: () => stranger.leaf("s", { names: ["IP:127.0.0.1"] }),
        error: /^tls (UNABLE_TO_VERIFY_LEAF_SIGNATURE|UNABLE_TO_GET_ISSUER_CERT_LOCALLY)$/,
      },
      expired: {
        make: () => ca.leaf("e", { names: ["IP:127.0.0.1"], until: "20210101000000Z" }),
        error: /^tls CERT_HAS_EXPIRED$/,
      },
      "not valid yet": {
        make: () => ca.leaf("f", { names: ["IP:127.0.0.1"], from: "20900101000000Z" }),
        error: /^tls CERT_NOT_YET_VALID$/,
      },
      "made for clients alone": {
        make: () => ca.leaf("c", { names: ["IP:127.0.0.1"], usage: "clientAuth" }),
        error: /^tls (INVALID_PURPOSE|UNSUPPORTED_CERTIFICATE_PURPOSE)$/,
      },
    };

    test.each(Object.keys(faults))("ends the connection before a byte of the client is sent: %s", async (name) => {
      const { make, error, tls = "" } = faults[name]!;
      const server = await serve(await make(), {}, { mode: "manual" });
      const port = await freePort();
      await using lb = await startLb(pair("app", port, [server.address], `${trust()}\n${tls}`));
      const line = await expectNoHandshake(lb, port);
      expect(line).toMatchObject({ backend: server.address, error: expect.stringMatching(error) });
      expect(await lb.metric("lb_backend_connect_failures_total", { reason: "tls" })).toBe(1);
      expect(await lb.metric("lb_backend_connections_open")).toBe(0);
      // What Python has read of it, if it took the handshake for done at all, is no byte.
      const peer = server.connections[0];
      if (peer?.error === null) expect((await peer.read()).data).toBe("");
    });

    test.each(["1.2", "1.3"] as const)(
      "stays refused: a session from a refused handshake does not change that (TLS %s)",
      async (version) => {
        const leaves = { mismatch: await ca.leaf("other.example"), self: await ca.selfSigned("a.example") };
        const ports = await freePorts(2);
        const servers = await Promise.all(
          Object.values(leaves).map((leaf) => serve(leaf, { min: version, max: version })),
        );
        await using lb = await startLb(
          `workers = 1\n${servers.map(({ address }, i) => pair(`p${i}`, ports[i]!, [address], trust())).join("")}`,
        );
        for (const port of ports) for (let i = 0; i < 4; i++) await expectNoHandshake(lb, port);
      },
    );

    test("is accepted with verify = false", async () => {
      const bad = await Promise.all(Object.values(faults).map(({ make }) => make()));
      const servers = await Promise.all(bad.map((leaf) => serve(leaf)));
      const ports = await freePorts(servers.length);
      await using _lb = await startLb(
        servers.map(({ address }, i) => pair(`p${i}`, ports[i]!, [address], "verify = false")).join(""),
      );
      for (const port of ports) {
        using client = await connect(port);
        expect(await client.echoes()).toBe(true);
      }
    });

    test("sends the connection, with the client's data, to another backend", async () => {
      const [bad, well] = await Promise.all([serve(await ca.selfSigned("self")), serve(good)]);
      const port = await freePort();
      await using lb = await startLb(`workers = 1\n${pair("app", port, [bad.address, well.address], trust())}`);
      for (let i = 0; i < 4; i++) {
        using client = await connect(port);
        expect(await client.echoes(`word-${i}`)).toBe(true);
        client.finish();
        await client.ended;
        expect(await lb.lineOf(client)).toMatchObject({
          end: "eof",
          backend: well.address,
          retries: expect.any(Number),
        });
      }
      const label = { backend: bad.address };
      const failures = await lb.metric("lb_backend_connect_failures_total", { ...label, reason: "tls" });
      expect(failures).toBeGreaterThanOrEqual(2);
      expect(await lb.metric("lb_backend_retries_total", label)).toBe(failures);
      expect(lb.accessLines().filter(({ retries }) => retries === 1).length).toBe(failures!);
      expect(await lb.metric("lb_backend_connections_open", label)).toBe(0);
    });
  });
});

describe("a backend without TLS, or a slow one", () => {
  test.each(["verify = true", "verify = false"])(
    "that answers without TLS is replaced by another, or ends the connection (%s)",
    async (verify) => {
      using plain = await echo();
      const old = await serve(good, { max: "1.2" });
      const well = await serve(good);
      const [alone, outdated, three] = await freePorts(3);
      const tls = `${verify.endsWith("true") ? trust() : verify}\nmin_version = "1.3"`;
      await using lb = await startLb(
        `workers = 1\n${pair("alone", alone, [plain.address], tls)}${pair("outdated", outdated, [old.address], tls)}` +
          pair("three", three, [plain.address, old.address, well.address], tls),
      );
      for (const port of [alone, outdated]) expect((await expectNoHandshake(lb, port)).error).toMatch(/^tls ./);
      expect(plain.bytesIn).toBeGreaterThan(0);
      for (let i = 0; i < 3; i++) {
        using client = await connect(three);
        expect(await client.echoes()).toBe(true);
      }
    },
  );

  test("that sends nothing is given up after connect_timeout, and another one is tried", async () => {
    using mute = await sink();
    const well = await serve(good);
    const [alone, two, patient] = await freePorts(3);
    const timeout = 'connect_timeout = "300ms"';
    await using lb = await startLb(
      `workers = 1\n${pair("alone", alone, [mute.address], trust(), timeout)}${pair("two", two, [mute.address, well.address], trust(), timeout)}` +
        pair("patient", patient, [mute.address], trust(), 'connect_timeout = "1m"'),
    );
    const idle = descriptors(lb.pid);
    using client = await connect(alone);
    expect(await client.ended).toBe("reset");
    const line = await lb.lineOf(client);
    expect(line).toMatchObject({ end: "connect_timeout", end_by: "backend" });
    expect(line.duration_ms).toBeGreaterThanOrEqual(300);
    using another = await connect(two);
    using third = await connect(two);
    expect(await another.echoes()).toBe(true);
    expect(await third.echoes()).toBe(true);
    // A client that leaves during the attempt ends the attempt.
    using hasty = await connect(patient);
    hasty.send("x");
    await allRead(patient, [hasty]);
    await eventually("the backend is dialled", () => mute.open.size > 0);
    hasty.reset();
    expect(await lb.lineOf(hasty)).toMatchObject({ end: "reset", end_by: "client" });
    another.reset();
    third.reset();
    await lb.waitIdle();
    await eventually("nothing is left at the backend", () => mute.open.size === 0);
    await eventually("the descriptors are free", () => descriptors(lb.pid) <= idle + 1);
  });
});

describe("negotiation with a backend", () => {
  test("ALPN: lb's protocols are offered in their order", async () => {
    const [h2, http] = await Promise.all([serve(good, { alpn: ["h2"] }), serve(good, { alpn: ["http/1.1", "h2"] })]);
    const ports = await freePorts(2);
    const offer = `${trust()}\nalpn = ["h2", "http/1.1"]`;
    await using _lb = await startLb(
      pair("a", ports[0]!, [h2!.address], offer) + pair("b", ports[1]!, [http!.address], offer),
    );
    for (const [i, server] of [h2!, http!].entries()) {
      using client = await connect(ports[i]!);
      expect(await client.echoes()).toBe(true);
      expect((await server.nth(0)).tls?.alpn).toBe(["h2", "http/1.1"][i]);
    }
  });

  test('min_version = "1.3" refuses a backend with TLS 1.2; without it both are accepted', async () => {
    const old = await serve(good, { max: "1.2" });
    const [strict, open] = await freePorts(2);
    await using lb = await startLb(
      pair("strict", strict, [old.address], `${trust()}\nmin_version = "1.3"`) +
        pair("open", open, [old.address], trust()),
    );
    using refused = await connect(strict);
    expect(await refused.ended).toBe("reset");
    expect(await lb.lineOf(refused)).toMatchObject({
      end: "handshake_failed",
      end_by: "backend",
      error: expect.stringMatching(/^tls ./),
    });
    using client = await connect(open);
    expect(await client.echoes()).toBe(true);
    expect((await old.connection(({ error }) => error === null)).tls?.version).toBe("TLSv1.2");
  });
});

describe("a backend that requires a client certificate", () => {
  test.each(["1.2", "1.3"] as const)("gets lb's certificate (TLS %s, Python)", async (version) => {
    const ours = await ca.leaf("lb");
    const server = await serve(good, { ca: ca.cert, min: version, max: version });
    const [shows, hides] = await freePorts(2);
    await using lb = await startLb(
      pair("shows", shows, [server.address], `${trust()}\ncert = "${ours.cert}"\nkey = "${ours.key}"`) +
        pair("hides", hides, [server.address], trust()),
    );
    using client = await connect(shows);
    expect(await client.echoes()).toBe(true);
    expect((await server.nth(0)).tls).toMatchObject({ peer: "lb", fingerprint: ours.fingerprint });
    // In TLS 1.3 the backend's alert comes when the handshake is done for us: no clean end then either.
    using refused = await connect(hides);
    refused.send("secret\n");
    expect(await refused.ended).toBe("reset");
    const line = await lb.lineOf(refused);
    expect(line).toMatchObject({ end_by: "backend", bytes_out: 0 });
    expect(line.end).toBe(version === "1.2" ? "handshake_failed" : "reset");
  });

  test("gets lb's certificate (OpenSSL)", async () => {
    const ours = await ca.leaf("lb");
    using server = await SServer.start(
      "-cert",
      good.cert,
      "-key",
      good.key,
      "-CAfile",
      ca.cert,
      "-Verify",
      "1",
      "-verify_return_error",
    );
    const port = await freePort();
    await using lb = await startLb(
      pair("app", port, [server.address], `${trust()}\ncert = "${ours.cert}"\nkey = "${ours.key}"`),
    );
    using client = await connect(port);
    client.send("stressed\n");
    expect(await client.line()).toBe("desserts");
    expect(server.output).toMatch(/Peer certificate: CN = lb/);
    client.finish();
    expect(await client.ended).toBe("eof");
    expect(await lb.lineOf(client)).toMatchObject({ end: "eof", bytes_in: 9, bytes_out: 9 });
  });
});

describe("sessions with a backend", () => {
  test.each(["1.2", "1.3"] as const)(
    "are resumed by the same worker, under the same name only (TLS %s)",
    async (version) => {
      const server = await serve(good, { min: version, max: version });
      const ports = await freePorts(4);
      const [byAddress, byHost, byName, open] = ports;
      await using lb = await startLb(
        `workers = 1\n${pair("address", byAddress, [server.address], trust())}` +
          pair("host", byHost, [`localhost:${server.port}`], trust()) +
          pair("name", byName, [server.address], `${trust()}\nserver_name = "a.example"`) +
          pair("open", open, [server.address], "verify = false"),
      );
      const talk = async (port: number): Promise<boolean> => {
        const before = server.connections.length;
        using client = await connect(port);
        expect(await client.echoes()).toBe(true);
        client.finish();
        await client.ended;
        await lb.lineOf(client);
        return (await server.nth(before)).tls!.reused;
      };
      // The first under each name is a full one, whatever sessions of the same backend exist under others.
      for (const port of [open, byAddress, byHost, byName]) expect(await talk(port)).toBe(false);
      for (const port of ports) for (let i = 0; i < 3; i++) expect(await talk(port)).toBe(true);
    },
  );
});

describe("a PROXY header and TLS", () => {
  test.each(["v1", "v2"])("%s: the header comes first, unencrypted, and then the handshake", async (version) => {
    const server = await serve(good, {}, { proxy: true });
    const port = await freePort();
    await using _lb = await startLb(pair("app", port, [server.address], trust(), `send_proxy = "${version}"`));
    using client = await connect(port, { from: "127.0.0.5" });
    expect(await client.echoes()).toBe(true);
    const peer = await server.nth(0);
    expect(peer.error).toBeNull();
    expect(peer.header).toMatchObject({
      version: Number(version[1]),
      family: "TCP4",
      source: "127.0.0.5",
      source_port: client.port,
      destination_port: port,
    });
    expect(peer.tls?.version).toBe("TLSv1.3");
  });
});

describe('health.type = "tls"', () => {
  const often = (more = ""): string =>
    `health = { type = "tls", interval = "50ms", timeout = "500ms", rise = 1, fall = 2${more} }`;

  test("detects a backend that accepts a connection and does not complete a trusted handshake", async () => {
    using plain = await echo();
    using mute = await sink();
    const [well, self] = await Promise.all([serve(good), serve(await ca.selfSigned("self"))]);
    const port = await freePort();
    const addresses = [well.address, self.address, plain.address, mute.address];
    await using lb = await startLb(pair("app", port, addresses, trust(), often()));
    const { pools } = await lb.waitStatus((status) => status.pools[0]!.backends.filter(({ up }) => up).length === 1);
    expect(pools[0]!.backends[0]).toMatchObject({
      address: well.address,
      up: true,
      health: { check: "tls", last_error: null },
    });
    for (const backend of pools[0]!.backends.slice(1)) {
      expect(backend).toMatchObject({ up: false, health: { last_error: expect.stringMatching(/./) } });
    }
    expect(pools[0]!.backends[1]!.health!.last_error).toContain("DEPTH_ZERO_SELF_SIGNED_CERT");
    for (let i = 0; i < 8; i++) {
      using client = await connect(port);
      expect(await client.echoes()).toBe(true);
    }
    await eventually("the mute one is left alone between checks", () => mute.open.size <= 1);
  });

  test("without TLS in the pool accepts any certificate; a backend without TLS is down", async () => {
    using plain = await echo();
    const self = await serve(await ca.selfSigned("self"));
    const port = await freePort();
    await using lb = await startLb(`
      [listeners.web]
      bind = "127.0.0.1:${port}"
      pool = "app"
      [pools.app]
      backends = ["${self.address}", "${plain.address}"]
      ${often()}
    `);
    const { pools } = await lb.waitStatus(
      ({ pools: [pool] }) => pool!.backends[1]!.up === false && (pool!.backends[0]!.health?.checks.success ?? 0) > 2,
    );
    expect(pools[0]!.backends[0]).toMatchObject({ up: true, health: { checks: { failure: 0 } } });
  });

  test("follows the validity of the backend's certificate, and sends a PROXY header of its own if the pool does", async () => {
    const first = await serve(good, {}, { proxy: true });
    const port = await freePort();
    await using lb = await startLb(pair("app", port, [first.address], trust(), `send_proxy = "v2"\n${often()}`));
    expect(await first.nth(1)).toMatchObject({
      error: null,
      header: { command: "LOCAL", family: "UNSPEC" },
      tls: { version: "TLSv1.3" },
    });
    await lb.waitStatus(({ pools }) => (pools[0]!.backends[0]!.health?.checks.success ?? 0) > 2);
    expect((await lb.ready("app")).status).toBe(200);
    await first.stop();
    const self = await ca.selfSigned("self");
    await python.serve({ port: first.port, proxy: true, tls: { cert: self.cert, key: self.key } });
    await lb.waitStatus(({ pools }) => {
      const { up, health } = pools[0]!.backends[0]!;
      return !up && (health?.last_error ?? "").includes("DEPTH_ZERO_SELF_SIGNED_CERT");
    });
    expect((await lb.ready("app")).status).toBe(503);
  });
});

describe("a slow reader", () => {
  test.each(["client", "backend"] as const)(
    "slows the other side down, uses bounded memory, and gets every byte: %s",
    async (slow) => {
      const server = await serve(good, {}, { mode: "manual" });
      const port = await freePort();
      await using lb = await startLb(`workers = 1\n${pair("app", port, [server.address], trust())}`);
      const client = await python.connect(port);
      const end = slow === "client" ? "fin" : "close_notify";
      await expectHeldBack(lb, { slow, client, backend: await server.nth(0), end });
    },
  );
});

describe("bytes and ends", () => {
  let lb: Lb;
  let clear: number;
  let secure: number;
  let server: PythonServer;

  setUpUnless(peersMissing, async (keep) => {
    server = await serve(good, {}, { mode: "manual" });
    [clear, secure] = await freePorts(2);
    lb = await keep(
      startLb(`
      ${pair("clear", clear, [server.address], trust())}
      [listeners.secure]
      bind = "127.0.0.1:${secure}"
      pool = "clear"
      [listeners.secure.tls]
      ${certificates(good)}
    `),
    );
  });

  describe.each(["plain", "TLS"])("from a client in %s", (kind) => {
    async function both() {
      const before = server.connections.length;
      const client = await (kind === "plain"
        ? python.connect(clear)
        : python.connect(secure, { tls: { name: "a.example", ca: ca.cert } }));
      expect(client.error).toBeNull();
      const peer = await server.nth(before);
      return { client, peer, theEnd: kind === "plain" ? "fin" : "close_notify" };
    }

    test("the client's end becomes close_notify for the backend, which can continue", async () => {
      const { client, peer, theEnd } = await both();
      await client.send("question");
      await client.finish();
      expect(await peer.read()).toEqual({ data: "question", end: "close_notify" });
      await peer.send("answer");
      await peer.finish();
      expect(await client.read()).toEqual({ data: "answer", end: theEnd });
      expect(await lb.lineOf(client)).toMatchObject({ end: "eof", end_by: "client", bytes_in: 8, bytes_out: 6 });
    });

    test.each(["closeNotify", "fin"] as const)(
      "the backend's end is passed on to the client, which can continue (%s)",
      async (how) => {
        const truncated = () => lb.metric("lb_backend_tls_truncated_total", {});
        const before = (await truncated())!;
        const { client, peer, theEnd } = await both();
        await peer.send("greeting");
        await peer[how]();
        expect(await client.read()).toEqual({ data: "greeting", end: theEnd });
        await client.send("late words");
        expect(await peer.read("words")).toEqual({ data: "late words", end: null });
        await client.finish();
        expect(await peer.read()).toEqual({ data: "", end: "close_notify" });
        const line = await lb.lineOf(client);
        expect(line).toMatchObject({ end: "eof", end_by: "backend", bytes_in: 10, bytes_out: 8 });
        expect(line.error).toBe(how === "fin" ? "truncated by backend" : undefined);
        expect(await truncated()).toBe(before + (how === "fin" ? 1 : 0));
      },
    );

    test("a reset of either side is a reset for the other", async () => {
      const first = await both();
      await first.peer.send("half an ans");
      expect((await first.client.read("ans")).data).toBe("half an ans");
      await first.peer.reset();
      expect(await first.client.read()).toEqual({ data: "", end: "reset" });
      expect(await lb.lineOf(first.client)).toMatchObject({ end: "reset", end_by: "backend" });
      const second = await both();
      await second.client.send("half a quest");
      expect((await second.peer.read("quest")).data).toBe("half a quest");
      await second.client.reset();
      expect(await second.peer.read()).toEqual({ data: "", end: "reset" });
      expect(await lb.lineOf(second.client)).toMatchObject({ end: "reset", end_by: "client" });
    });

    test("20 MB in each direction at once arrive complete, ends included", async () => {
      const { client, peer, theEnd } = await both();
      const [there, back] = await Promise.all([client.exchange(20e6, true), peer.exchange(20e6, true)]);
      expect(there).toMatchObject({ count: 20e6, end: theEnd, received: back.sent });
      expect(back).toMatchObject({ count: 20e6, end: "close_notify", received: there.sent });
      const line = await lb.lineOf(client);
      expect(line).toMatchObject({ end: "eof", bytes_in: 20e6, bytes_out: 20e6 });
      expect(line.error).toBeUndefined();
    });
  });
});
