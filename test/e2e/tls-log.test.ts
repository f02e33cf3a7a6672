// TLS with clients in the access log and the metrics: on the listener "web", which reads the ClientHello and adopts its sockets, and on
// "one", which accepts them as TLS.
import { describe, expect, test } from "vitest";
import { echo, type Backend } from "../support/backends.ts";
import { Authority, certificates, peersMissing, type Leaf } from "../support/certificates.ts";
import { connect } from "../support/client.ts";
import { eventually } from "../support/eventually.ts";
import { freePorts, startLb, type AccessEntry, type Lb } from "../support/lb.ts";
import { sClient } from "../support/openssl.ts";
import { Python } from "../support/python.ts";
import { setUpUnless } from "../support/set-up.ts";
import { fixture } from "../wire/hello-bytes.ts";

let ca: Authority;
let python: Python;
let backend: Backend;
let leaf: Leaf;
let soon: Leaf;
let lb: Lb;
let ports: { web: number; one: number; two: number; auth: number; plain: number };

const DAY_MS = 86_400_000;
const SOON_DAYS = 40;

setUpUnless(peersMissing, async (keep) => {
  python = await keep(new Python());
  backend = await keep(echo());
  ca = await keep(Authority.make());
  const until = new Date(Date.now() + SOON_DAYS * DAY_MS).toISOString().replace(/[-:T]|\.\d+/g, "");
  [leaf, soon] = await Promise.all([ca.leaf("a.example"), ca.leaf("b.example", { until })]);
  const [web, one, two, auth, plain] = await freePorts(5);
  ports = { web, one, two, auth, plain };
  lb = await keep(startLb(config()));
});

function config(more = ""): string {
  return `
    workers = 1
    [listeners.web]
    bind = "127.0.0.1:${ports.web}"
    pool = "app"
    timeouts = { handshake = "400ms" }
    [listeners.web.tls]
    ${certificates(leaf, soon)}
    unknown_sni = "reject"
    alpn = ["h2"]
    ciphers = "ECDHE-ECDSA-AES128-GCM-SHA256"
    [listeners.one]
    bind = "127.0.0.1:${ports.one}"
    pool = "app"
    timeouts = { handshake = "400ms" }
    [listeners.one.tls]
    ${certificates(leaf)}
    alpn = ["h2"]
    ciphers = "ECDHE-ECDSA-AES128-GCM-SHA256"
    [listeners.two]
    bind = "127.0.0.1:${ports.two}"
    pool = "app"
    [listeners.two.tls]
    ${certificates(leaf, soon)}
    [listeners.auth]
    bind = "127.0.0.1:${ports.auth}"
    pool = "app"
    [listeners.auth.tls]
    ${certificates(leaf)}
    client_auth = "required"
    client_ca = "${ca.cert}"
    [listeners.plain]
    bind = "127.0.0.1:${ports.plain}"
    pool = "app"
    [pools.app]
    backends = ["${backend.address}"]
    health.type = "off"
    ${more}
  `;
}

const NAMED = ["-servername", "a.example"];

describe("the access log", () => {
  test("has the requested name and the TLS version", async () => {
    const new_ = await sClient(ports.web, "-servername", "A.Example");
    expect(await lb.lineOf(new_)).toMatchObject({ end: "eof", sni: "a.example", tls: "TLSv1.3" });
    const old = await sClient(ports.web, "-tls1_2", "-servername", "b.example");
    expect(await lb.lineOf(old)).toMatchObject({ end: "eof", sni: "b.example", tls: "TLSv1.2" });
  });

  test("has the name in canonical form, and no invalid name, also on a listener that accepts TLS", async () => {
    for (const port of [ports.one, ports.two]) {
      expect((await lb.lineOf(await sClient(port, "-servername", "A.Example."))).sni).toBe("a.example");
      expect((await lb.lineOf(await sClient(port, "-servername", "127.0.0.1"))).sni).toBeUndefined();
    }
  });

  test("has neither without TLS", async () => {
    using client = await connect(ports.plain, { from: "127.50.0.1" });
    expect(await client.echoes()).toBe(true);
    client.finish();
    const plain = await lb.lineOf({ from: "127.50.0.1" });
    expect([plain.sni, plain.tls]).toEqual([undefined, undefined]);
    const mine = await ca.leaf("mine");
    const nameless = await python.connect(ports.auth, { from: "127.50.0.2", tls: { cert: mine.cert, key: mine.key } });
    expect(await nameless.echoes()).toBe(true);
    await nameless.finish();
    const line = await lb.lineOf({ from: "127.50.0.2" });
    expect([line.sni, line.tls]).toEqual([undefined, "TLSv1.3"]);
  });

  test("has the common name of a client's certificate, with unsafe characters replaced", async () => {
    for (const [name, logged] of [
      ["alice", "alice"],
      ["Zoë Ωmega", "Zoë Ωmega"],
      ['a" end=eof\u202e\x07\u2028', 'a" end=eof???'],
    ] as const) {
      const own = await ca.leaf(name, { names: ["DNS:c.example"] });
      const said = await sClient(ports.auth, "-cert", own.cert, "-key", own.key);
      expect(said.echoed).toBe(true);
      expect((await lb.lineOf(said)).client_cert).toBe(logged);
    }
    expect((await lb.lineOf(await sClient(ports.web, ...NAMED))).client_cert).toBeUndefined();
  });

  test("has the name of a handshake that failed, and no version", async () => {
    const said = await sClient(ports.web, "-servername", "unknown.example");
    const line = await lb.lineOf(said);
    expect(line).toMatchObject({
      end: "handshake_failed",
      end_by: "client",
      sni: "unknown.example",
      error: "unknown_sni",
    });
    expect(line.tls).toBeUndefined();
  });
});

describe("the metrics", () => {
  const count = (name: string, labels: Record<string, string>): Promise<number | null> =>
    lb.metric(name, { listener: "web", ...labels });

  test("count handshakes by version, and whether a session was resumed", async () => {
    const all = async (): Promise<(number | null)[]> => {
      const counts = [];
      for (const version of ["TLSv1.2", "TLSv1.3"]) {
        for (const resumed of ["false", "true"])
          counts.push(await count("lb_tls_handshakes_total", { version, resumed }));
      }
      return counts;
    };
    const before = await all();
    for (const [version, times] of [
      ["-tls1_2", 1],
      ["-tls1_3", 2],
    ] as const) {
      const file = `${ca.dir}/session${version}`;
      expect(await sClient(ports.web, version, ...NAMED, "-sess_out", file)).toMatchObject({
        echoed: true,
        reused: false,
      });
      for (let i = 0; i < times; i++) {
        expect(await sClient(ports.web, version, ...NAMED, "-sess_in", file)).toMatchObject({
          echoed: true,
          reused: true,
        });
      }
    }
    const after = await all();
    expect(after.map((value, i) => value! - before[i]!)).toEqual([1, 1, 1, 2]);
  });

  test("have a histogram of the duration of handshakes", async () => {
    const done = (await count("lb_tls_handshakes_total", {}))!;
    expect(done).toBeGreaterThan(0);
    const name = "lb_tls_handshake_duration_seconds";
    expect(await count(`${name}_count`, {})).toBe(done);
    expect(await count(`${name}_bucket`, { le: "+Inf" })).toBe(done);
    const sum = (await count(`${name}_sum`, {}))!;
    // A handshake on one machine takes more than 10 µs and less than a second.
    expect(sum).toBeGreaterThan(done * 1e-5);
    expect(sum).toBeLessThan(done);
    const buckets = [];
    for (const le of ["0.001", "0.0025", "0.005", "0.01", "0.1", "1", "10"])
      buckets.push((await count(`${name}_bucket`, { le }))!);
    expect(buckets.toSorted((a, b) => a - b)).toEqual(buckets);
    expect(buckets.at(-1)).toBe(done);
  });

  const failures: { [reason: string]: (port: number) => Promise<unknown> } = {
    not_tls: async (port) => {
      using client = await connect(port);
      client.send("GET / HTTP/1.0\r\n\r\n");
      await client.ended;
    },
    bad_hello: async (port) => {
      using client = await connect(port);
      client.send(fixture("openssl-tls13").fill(0xff, 43, 45));
      await client.ended;
    },
    unknown_sni: (port) => sClient(port, "-servername", "unknown.example"),
    protocol_version: (port) => sClient(port, ...NAMED, "-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"),
    no_shared_cipher: (port) => sClient(port, ...NAMED, "-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-GCM-SHA384"),
    no_shared_alpn: (port) => sClient(port, ...NAMED, "-alpn", "spdy/1"),
    // A client that does not trust our certificate says so: TLS 1.3 too, where OpenSSL does it before it encrypts.
    alert: (port) => sClient(port, ...NAMED, "-no-CAfile", "-no-CApath", "-no-CAstore", "-verify_return_error"),
    closed: async (port) => {
      using client = await connect(port);
      client.send(fixture("openssl-tls13").subarray(0, 50));
      client.finish();
      await client.ended;
    },
    timeout: async (port) => {
      using client = await connect(port);
      client.send(fixture("openssl-tls13").subarray(0, 50));
      await client.ended;
    },
  };

  test.each(
    Object.keys(failures).flatMap((reason) => [
      ["web", reason] as const,
      ...(reason === "unknown_sni" ? [] : [["one", reason] as const]),
    ]),
  )("count failures by reason: %s, %s", async (listener, reason) => {
    const before = (await count("lb_tls_handshake_failures_total", { listener }))!;
    const of = (await count("lb_tls_handshake_failures_total", { listener, reason }))!;
    const end = reason === "timeout" ? "handshake_timeout" : "handshake_failed";
    const such = (line: AccessEntry): boolean => line.listener === listener && line.end === end;
    const from = lb.accessLines().filter(such).length;
    await failures[reason]!(ports[listener]);
    await lb.waitLines(from + 1, such);
    expect(await count("lb_tls_handshake_failures_total", { listener, reason })).toBe(of + 1);
    expect(await count("lb_tls_handshake_failures_total", { listener })).toBe(before + 1);
  });

  test.each([
    ["web", "finish", "eof"],
    ["web", "reset", "reset"],
    ["one", "finish", "eof"],
    ["one", "reset", "reset"],
  ] as const)("count no failure if nothing was sent: %s, %s", async (listener, how, end) => {
    const failed = () => count("lb_tls_handshake_failures_total", { listener });
    const ended = () => count("lb_listener_connections_ended_total", { listener, end, end_by: "client" });
    const before = { failed: await failed(), ended: await ended() };
    using client = await connect(ports[listener]);
    client[how]();
    await eventually("it has ended", async () => (await ended()) === before.ended! + 1);
    expect(await failed()).toBe(before.failed);
  });

  test("count failures by reason: certificate_missing, certificate_bad", async () => {
    const of = (reason: string): Promise<number | null> =>
      lb.metric("lb_tls_handshake_failures_total", { listener: "auth", reason });
    const self = await ca.selfSigned("self");
    const one = await sClient(ports.auth);
    const two = await sClient(ports.auth, "-cert", self.cert, "-key", self.key);
    for (const said of [one, two]) await lb.lineOf(said);
    expect([await of("certificate_missing"), await of("certificate_bad")]).toEqual([1, 1]);
  });

  test("count a completed handshake as nothing else", async () => {
    const before = (await count("lb_tls_handshake_failures_total", {}))!;
    await lb.lineOf(await sClient(ports.web, ...NAMED));
    expect(await count("lb_tls_handshake_failures_total", {})).toBe(before);
  });

  test("have the time at which each certificate expires", async () => {
    const days = async (cert: string): Promise<number> =>
      ((await lb.metric("lb_tls_certificate_expiry_timestamp_seconds", { listener: "web", cert }))! * 1000 -
        Date.now()) /
      DAY_MS;
    expect(Math.abs((await days(soon.cert)) - SOON_DAYS)).toBeLessThan(1.1);
    const far = (Date.UTC(2120, 0, 1) - Date.now()) / DAY_MS;
    expect(Math.abs((await days(leaf.cert)) - far)).toBeLessThan(1.1);
  });

  test("contain nothing for listeners without TLS", async () => {
    const lines = (await lb.metrics()).split("\n").filter((line) => line.startsWith("lb_tls_"));
    expect(lines.some((line) => line.includes('listener="web"'))).toBe(true);
    expect(lines.some((line) => line.includes('listener="plain"'))).toBe(false);
  });

  test("continue over a reload", async () => {
    const before = (await count("lb_tls_handshakes_total", {}))!;
    expect((await lb.reload(config('connect_timeout = "1s"'))).ok).toBe(true);
    await lb.lineOf(await sClient(ports.web, ...NAMED));
    expect(await count("lb_tls_handshakes_total", {})).toBe(before + 1);
  });
});

describe("the log in text", () => {
  test("has the same keys", async () => {
    await lb.reload(`${config()}\n[log]\nformat = "text"\naccess = "stdout"\n`);
    const { from } = await sClient(ports.web, ...NAMED);
    const client = await python.connect(ports.web, { from: "127.50.0.9", tls: { name: "a.example" } });
    expect(await client.echoes()).toBe(true);
    await client.finish();
    await lb.waitIdle();
    const lines = (): string[] =>
      lb.stdout.filter((line) => line.includes(`client=${from}:`) || line.includes("client=127.50.0.9:"));
    await lb.waitStatus(() => lines().length === 2);
    for (const line of lines()) expect(line).toMatch(/ sni=a\.example tls=TLSv1\.3 /);
  });
});
