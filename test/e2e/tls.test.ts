// TLS towards the clients, with OpenSSL, curl and Python as the clients: which certificate each gets, what is refused and with which alert,
// who needs a certificate, how connections end, and that nobody can keep one open without a complete handshake.
import { execFile } from "node:child_process";
import { copyFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { describe, expect, test } from "vitest";
import { echo, type Backend } from "../support/backends.ts";
import { Authority, certificates, peersMissing, type Leaf } from "../support/certificates.ts";
import { connect } from "../support/client.ts";
import { eventually } from "../support/eventually.ts";
import { freePort, freePorts, startLb, type Lb } from "../support/lb.ts";
import { sClient, type Said } from "../support/openssl.ts";
import { descriptors, residentBytes } from "../support/proc.ts";
import { fixture, hello, serverName } from "../wire/hello-bytes.ts";
import { Python, type PythonPeer, type PythonServer } from "../support/python.ts";
import { setUpUnless } from "../support/set-up.ts";
import { expectHeldBack } from "../support/slow-reader.ts";

const run = promisify(execFile);

let ca: Authority;
let python: Python;
let backend: Backend;
let leaf: Leaf;
let other: Leaf;

setUpUnless(peersMissing, async (keep) => {
  python = await keep(new Python());
  backend = await keep(echo());
  ca = await keep(Authority.make());
  [leaf, other] = await Promise.all([ca.leaf("a.example"), ca.leaf("other.example")]);
});

/** A listener that terminates TLS with these certificates. */
function listener(name: string, port: number, leaves: Leaf[], { tls = "", of = "" } = {}): string {
  return `
    [listeners.${name}]
    bind = "127.0.0.1:${port}"
    pool = "app"
    ${of}
    [listeners.${name}.tls]
    ${certificates(...leaves)}
    ${tls}
  `;
}

function pool(name: string, address: string): string {
  return `
    [pools.${name}]
    backends = ["${address}"]
    health.type = "off"
  `;
}

/** A listener with one certificate accepts its sockets as TLS; one that must choose reads the ClientHello and adopts them. */
const WAYS = [
  ["accepted as TLS", (): Leaf[] => [leaf]],
  ["adopted", (): Leaf[] => [leaf, other]],
] as const;

const FAILED = { end: "handshake_failed", end_by: "client", bytes_in: 0 };

describe("which certificate is shown", () => {
  let lb: Lb;
  let names: number;
  let strict: number;
  let types: number;

  setUpUnless(peersMissing, async (keep) => {
    const [first, exact, wild, rsa] = await Promise.all([
      ca.leaf("first.example"),
      ca.leaf("exact", { names: ["DNS:www.b.example", "DNS:other.example"] }),
      ca.leaf("wild", { names: ["DNS:*.b.example"] }),
      ca.leaf("rsa", { names: ["DNS:a.example"], key: "rsa" }),
    ]);
    [names, strict, types] = await freePorts(3);
    lb = await keep(
      startLb(
        listener("names", names, [first, wild, exact]) +
          listener("strict", strict, [first, exact], { tls: 'unknown_sni = "reject"' }) +
          listener("types", types, [rsa, leaf]) +
          pool("app", backend.address),
      ),
    );
  });

  test.each([
    ["www.b.example", "exact"],
    ["WWW.b.Example", "exact"],
    ["other.example", "exact"],
    ["x.b.example", "wild"],
    ["x.y.b.example", "first.example"],
    ["b.example", "first.example"],
    ["unknown.example", "first.example"],
  ])("to a client that asks for %s: that of %s", async (name, subject) => {
    expect(await sClient(names, "-servername", name)).toMatchObject({ echoed: true, subject: `CN = ${subject}` });
  });

  test("to a client that asks for no name: the first", async () => {
    expect(await sClient(names, "-noservername")).toMatchObject({ echoed: true, subject: "CN = first.example" });
  });

  test.each([["-tls1_2"], ["-tls1_3"]])(
    "to a client that asks for a name in no certificate: an alert, with reject (%s)",
    async (version) => {
      expect(await sClient(strict, version, "-servername", "www.b.example")).toMatchObject({
        echoed: true,
        subject: "CN = exact",
      });
      for (const name of [["-servername", "unknown.example"], ["-noservername"]]) {
        const said = await sClient(strict, version, ...name);
        expect(said).toMatchObject({ echoed: false, subject: null, alert: 112 });
        expect(await lb.lineOf(said)).toMatchObject({ ...FAILED, error: "unknown_sni" });
      }
    },
  );

  test.each([
    ["RSA, in TLS 1.2", ["-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"], "CN = rsa", "RSA-PSS"],
    ["ECDSA, in TLS 1.2", ["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"], "CN = a.example", "ECDSA"],
    ["RSA, in TLS 1.3", ["-tls1_3", "-sigalgs", "rsa_pss_rsae_sha256"], "CN = rsa", "RSA-PSS"],
    ["ECDSA, in TLS 1.3", ["-tls1_3", "-sigalgs", "ecdsa_secp256r1_sha256"], "CN = a.example", "ECDSA"],
  ])(
    "to a client that supports only %s: of two with one name the matching one",
    async (_, args, subject, signature) => {
      for (const name of [["-servername", "a.example"], ["-noservername"]]) {
        expect(await sClient(types, ...name, ...args)).toMatchObject({ echoed: true, subject, signature });
      }
    },
  );

  test("to a client that does not support the first's key type: one with its names and another key type", async () => {
    expect(await sClient(types, "-servername", "unknown.example", "-sigalgs", "ecdsa_secp256r1_sha256")).toMatchObject({
      echoed: true,
      subject: "CN = a.example",
    });
  });
});

describe.each(WAYS)("the chain of a certificate on a listener whose sockets are %s", (_, leaves) => {
  test("is exactly that of its file: no issuer is searched for elsewhere", async () => {
    const port = await freePort();
    const { stdout } = await run("openssl", ["x509", "-in", ca.cert, "-noout", "-subject_hash"]);
    // Where OpenSSL and BoringSSL look for an issuer, by the hash of its name.
    copyFileSync(ca.cert, join(ca.dir, `${stdout.trim()}.0`));
    await using _lb = await startLb(listener("web", port, leaves()) + pool("app", backend.address), {
      env: { SSL_CERT_DIR: ca.dir },
    });
    const { output } = await sClient(port, "-showcerts");
    expect(output.match(/BEGIN CERTIFICATE/g)).toHaveLength(1);
  });
});

describe("negotiation", () => {
  let lb: Lb;
  let plain: number;
  let withAlpn: number;
  let modern: number;
  let withCiphers: number;

  setUpUnless(peersMissing, async (keep) => {
    [plain, withAlpn, modern, withCiphers] = await freePorts(4);
    lb = await keep(
      startLb(
        listener("plain", plain, [leaf]) +
          listener("alpn", withAlpn, [leaf], { tls: 'alpn = ["h2", "http/1.1"]' }) +
          listener("modern", modern, [leaf], { tls: 'min_version = "1.3"' }) +
          listener("ciphers", withCiphers, [leaf], { tls: 'ciphers = "ECDHE-ECDSA-CHACHA20-POLY1305"' }) +
          pool("app", backend.address),
      ),
    );
  });

  /** The client is refused with this alert, and the log says why. */
  async function refuses(port: number, alert: number, error: string, ...args: string[]): Promise<void> {
    const said = await sClient(port, ...args);
    expect(said).toMatchObject({ echoed: false, alert });
    expect(await lb.lineOf(said)).toMatchObject({ ...FAILED, error });
  }

  test.each([
    [["-alpn", "http/1.1"], "http/1.1"],
    [["-alpn", "h2"], "h2"],
    [["-alpn", "http/1.1,h2"], "h2"],
    [["-alpn", "spdy/1,http/1.1"], "http/1.1"],
  ])("ALPN: %j gives %s", async (args, alpn) => {
    expect(await sClient(withAlpn, ...args)).toMatchObject({ echoed: true, alpn });
    expect(await sClient(withAlpn, "-tls1_2", ...args)).toMatchObject({ echoed: true, alpn });
  });

  test("no ALPN with a client that offers none, or on a listener that has none", async () => {
    expect(await sClient(withAlpn)).toMatchObject({ echoed: true, alpn: null });
    expect(await sClient(plain, "-alpn", "h2")).toMatchObject({ echoed: true, alpn: null });
  });

  test("a client that offers none of our protocols gets alert no_application_protocol", async () => {
    await refuses(withAlpn, 120, "no_shared_alpn", "-alpn", "spdy/1");
    await refuses(withAlpn, 120, "no_shared_alpn", "-tls1_2", "-alpn", "spdy/1");
  });

  test("TLS 1.2 and 1.3 by default, 1.1 never", async () => {
    expect(await sClient(plain, "-tls1_2")).toMatchObject({ echoed: true, version: "TLSv1.2" });
    expect(await sClient(plain, "-tls1_3")).toMatchObject({ echoed: true, version: "TLSv1.3" });
    await refuses(plain, 70, "protocol_version", "-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0");
  });

  test('min_version = "1.3" refuses TLS 1.2', async () => {
    expect(await sClient(modern)).toMatchObject({ echoed: true, version: "TLSv1.3" });
    await refuses(modern, 70, "protocol_version", "-tls1_2");
  });

  test("the order of ciphers in TLS 1.2 is the server's, whatever the client prefers", async () => {
    const both = ["ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305"];
    const ours = await Promise.all(
      [both, both.toReversed()].map((list) => sClient(plain, "-tls1_2", "-cipher", list.join(":"))),
    );
    expect(both).toContain(ours[0]!.cipher);
    expect(ours[1]!.cipher).toBe(ours[0]!.cipher);
  });

  test("ciphers are those of the config, in TLS 1.2", async () => {
    const cipher = "ECDHE-ECDSA-CHACHA20-POLY1305";
    expect(await sClient(withCiphers, "-tls1_2")).toMatchObject({ echoed: true, cipher });
    await refuses(withCiphers, 40, "no_shared_cipher", "-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256");
    expect(await sClient(withCiphers, "-ciphersuites", "TLS_AES_128_GCM_SHA256")).toMatchObject({
      echoed: true,
      cipher: "TLS_AES_128_GCM_SHA256",
    });
  });

  test("data that is not TLS is refused at once", async () => {
    const request = ["-sS", "--max-time", "5", "--interface", "127.88.0.1", `http://127.0.0.1:${plain}/`];
    await expect(run("curl", request)).rejects.toThrow();
    expect(await lb.lineOf({ from: "127.88.0.1" })).toMatchObject({ ...FAILED, error: "not_tls" });
    expect((await lb.status()).connections.open).toBe(0);
  });

  test("curl gets its page, by a name and with the certificate verified", async () => {
    using server = Bun.serve({
      port: 0,
      hostname: "127.0.0.1",
      fetch: (request) => new Response(`hello ${new URL(request.url).pathname}`),
    });
    const port = await freePort();
    await using web = await startLb(
      listener("web", port, [leaf], { tls: 'alpn = ["http/1.1"]' }) + pool("app", `127.0.0.1:${server.port}`),
    );
    const url = `https://a.example:${port}/there`;
    const { stdout } = await run("curl", ["-sS", "--cacert", ca.cert, "--resolve", `a.example:${port}:127.0.0.1`, url]);
    expect(stdout).toBe("hello /there");
    expect(await web.waitLine(() => true)).toMatchObject({ end: "eof" });
  });
});

describe.each(WAYS)("a hello that is malformed, on a listener whose sockets are %s", (_, leaves) => {
  const DECODE_ERROR = 50;
  const ILLEGAL_PARAMETER = 47;
  test.each([
    ["a length that lies", [DECODE_ERROR, ILLEGAL_PARAMETER], () => fixture("openssl-tls13").fill(0xff, 43, 45)],
    ["an extension twice", [DECODE_ERROR, ILLEGAL_PARAMETER], twice],
  ] as const)("gets an alert: %s", async (__, alerts, bytes) => {
    const port = await freePort();
    await using lb = await startLb(listener("web", port, leaves()) + pool("app", backend.address));
    using client = await connect(port);
    client.send(bytes());
    await client.ended;
    const [type, major, , ...rest] = Buffer.from(client.text, "latin1");
    expect([type, major, ...rest.slice(0, -1)]).toEqual([21, 3, 0, 2, 2]);
    expect(alerts).toContain(rest.at(-1));
    expect(await lb.lineOf(client)).toMatchObject({ ...FAILED, error: "bad_hello" });
  });

  function twice(): Uint8Array {
    return hello({ extensions: [serverName("a.example"), serverName("a.example")] });
  }
});

describe("client certificates", () => {
  let lb: Lb;
  let required: number;
  let optional: number;
  let chained: number;
  const who: { [name: string]: Leaf & { chain?: string } } = {};

  setUpUnless(peersMissing, async (keep) => {
    const stranger = await keep(Authority.make("Another CA"));
    const [good, revoked, expired, server, foreign] = await Promise.all([
      ca.leaf("good"),
      ca.leaf("revoked"),
      ca.leaf("expired", { until: "20200201000000Z" }),
      ca.leaf("server", { usage: "serverAuth" }),
      stranger.leaf("foreign"),
    ]);
    Object.assign(who, { good, revoked, expired, server, foreign, self: await ca.selfSigned("self") });
    const [small, sha1, rsa] = await Promise.all([
      ca.leaf("small", { key: "rsa1024" }),
      ca.leaf("sha1", { digest: "sha1" }),
      ca.leaf("rsa", { key: "rsa" }),
    ]);
    Object.assign(who, { small, sha1, rsa });
    for (const [name, options] of [
      ["below_small", { key: "rsa1024" }],
      ["below_sha1", { digest: "sha1" }],
      ["below_good", {}],
    ] as const) {
      const issuer = await keep(await Authority.make(`Issuer of ${name}`, { by: ca, ...options }));
      who[name] = { ...(await issuer.leaf(name)), chain: issuer.cert };
    }
    const crl = await ca.revoke(revoked);
    [required, optional, chained] = await freePorts(3);
    const check = `client_ca = "${ca.cert}"\nclient_crl = "${crl}"`;
    lb = await keep(
      startLb(
        listener("required", required, [leaf], { tls: `client_auth = "required"\n${check}` }) +
          listener("optional", optional, [leaf], { tls: `client_auth = "optional"\n${check}` }) +
          listener("chained", chained, [leaf], { tls: `client_auth = "required"\nclient_ca = "${ca.cert}"` }) +
          pool("app", backend.address),
      ),
    );
  });

  async function shows(
    name: string | null,
    port: number,
    version: string,
    ...more: string[]
  ): Promise<{ said: Said; accepted: number }> {
    const { accepted } = backend;
    const files = name === null ? [] : ["-cert", who[name]!.cert, "-key", who[name]!.key, ...more];
    const { chain } = name === null ? {} : who[name]!;
    if (chain !== undefined) files.push("-cert_chain", chain);
    // The client's OpenSSL itself shows nothing weak unless it is told to.
    const said = await sClient(port, version, "-cipher", "DEFAULT@SECLEVEL=0", ...files);
    return { said, accepted: backend.accepted - accepted };
  }

  describe.each(["-tls1_2", "-tls1_3"])("%s", (version) => {
    test("required: a client with a valid one is served", async () => {
      expect(await shows("good", required, version)).toMatchObject({ said: { echoed: true }, accepted: 1 });
    });

    test("required: a client without one is refused", async () => {
      const { said, accepted } = await shows(null, required, version);
      expect(said).toMatchObject({ echoed: false, alert: version === "-tls1_3" ? 116 : 40 });
      expect(accepted).toBe(0);
      expect(await lb.lineOf(said)).toMatchObject({ ...FAILED, error: "certificate_missing" });
    });

    test("optional: a client with a valid one or none is served", async () => {
      expect(await shows("good", optional, version)).toMatchObject({ said: { echoed: true }, accepted: 1 });
      expect(await shows(null, optional, version)).toMatchObject({ said: { echoed: true }, accepted: 1 });
    });

    test.each([
      ["revoked", "CERT_REVOKED"],
      ["expired", "CERT_HAS_EXPIRED"],
      ["server", "INVALID_PURPOSE"],
      ["foreign", "UNABLE_TO_VERIFY_LEAF_SIGNATURE"],
      ["self", "UNABLE_TO_GET_CRL"],
      ["small", "EE_KEY_TOO_SMALL: an RSA key of 1024 bits, at least 2048 are needed"],
      ["sha1", "CA_MD_TOO_WEAK: signed with ecdsa-with-SHA1, SHA-256 or better is needed"],
    ])("required and optional: a client with an invalid one is reset, and the log says why (%s)", async (name, why) => {
      for (const port of [required, optional]) {
        const { said, accepted } = await shows(name, port, version);
        expect([said.echoed, accepted]).toEqual([false, 0]);
        // ECONNRESET, where an orderly end is 0.
        expect(said.output).toMatch(/errno=104/);
        expect(await lb.lineOf(said)).toMatchObject({ ...FAILED, error: `certificate_bad ${why}` });
      }
    });

    test("required: a client with a valid one with an RSA key is served", async () => {
      expect(await shows("rsa", required, version)).toMatchObject({ said: { echoed: true }, accepted: 1 });
    });

    // The list of what is revoked is the root's; an issuer below it would need one of its own.
    test.each([
      ["below_small", "CA_KEY_TOO_SMALL: an RSA key of 1024 bits, at least 2048 are needed"],
      ["below_sha1", "CA_MD_TOO_WEAK: signed with ecdsa-with-SHA1, SHA-256 or better is needed"],
      ["below_good", null],
    ])("a chain counts as a whole, not only its first certificate (%s)", async (name, why) => {
      const { said, accepted } = await shows(name, chained, version);
      expect([said.echoed, accepted]).toEqual(why === null ? [true, 1] : [false, 0]);
      if (why === null) return;
      expect(said.output).toMatch(/errno=104/);
      expect(await lb.lineOf(said)).toMatchObject({ ...FAILED, error: `certificate_bad ${why}` });
    });
  });

  test("a client that signs its handshake with SHA-1 is refused", async () => {
    const only = ["-client_sigalgs", "RSA+SHA1"];
    const { said, accepted } = await shows("rsa", required, "-tls1_2", ...only);
    expect([said.echoed, accepted]).toEqual([false, 0]);
    expect(said.alert).not.toBeNull();
  });
});

describe.each(WAYS)("how a connection ends that was %s", (way, leaves) => {
  const adopted = way === "adopted";
  let lb: Lb;
  let server: PythonServer;
  let port: number;
  let slow: number;

  setUpUnless(peersMissing, async (keep) => {
    server = await python.serve({ mode: "manual" });
    [port, slow] = await freePorts(2);
    lb = await keep(
      startLb(
        listener("web", port, leaves()) +
          listener("slow", slow, leaves(), { of: 'bandwidth = { upload = "8MB/s" }' }) +
          pool("app", server.address),
      ),
    );
  });

  describe.each(["1.2", "1.3"] as const)("over TLS %s", (version) => {
    /** A client, and the same connection as the backend sees it. */
    async function pair(to = port): Promise<{ client: PythonPeer; peer: PythonPeer }> {
      const before = server.connections.length;
      const client = await python.connect(to, {
        tls: { ca: ca.cert, name: "a.example", min: version, max: version },
      });
      expect(client.error).toBeNull();
      expect(client.tls?.version).toBe(`TLSv${version}`);
      return { client, peer: await server.nth(before) };
    }

    test("the client's close_notify becomes a FIN for the backend, which can continue", async () => {
      const { client, peer } = await pair();
      await client.send("question");
      await client.closeNotify();
      expect(await peer.read()).toEqual({ data: "question", end: "fin" });
      await peer.send("answer");
      expect(await client.read("answer")).toEqual({ data: "answer", end: null });
      await peer.finish();
      expect(await client.read()).toEqual({ data: "", end: "close_notify" });
      expect(await client.rawEnd()).toBe("fin");
      const line = await lb.lineOf(client);
      expect(line).toMatchObject({ end: "eof", end_by: "client", bytes_in: 8, bytes_out: 6 });
      expect(line.error).toBeUndefined();
    });

    const told = adopted ? "said to be truncated" : "not told from an orderly one";
    test(`the client's FIN without close_notify is an end too, ${told}`, async () => {
      const truncated = () => lb.metric("lb_tls_truncated_total", {});
      const before = (await truncated())!;
      const { client, peer } = await pair();
      await client.send("question");
      await client.fin();
      expect(await peer.read()).toEqual({ data: "question", end: "fin" });
      await peer.send("answer");
      await peer.finish();
      expect(await client.read()).toEqual({ data: "answer", end: "close_notify" });
      const line = await lb.lineOf(client);
      expect(line).toMatchObject({ end: "eof", end_by: "client", bytes_in: 8, bytes_out: 6 });
      expect(line.error).toBe(adopted ? "truncated by client" : undefined);
      expect(await truncated()).toBe(before + (adopted ? 1 : 0));
    });

    if (adopted) {
      test.each([
        ["a long record", "a".repeat(3000)],
        ["one record as long as an alert", "ab"],
        ["many records as long as an alert", "ab ab ab ab"],
      ])("a truncation is distinguished from an orderly end after %s", async (_, words) => {
        for (const orderly of [true, false]) {
          const { client, peer } = await pair();
          for (const word of words.split(" ")) await client.send(word);
          await (orderly ? client.finish() : client.fin());
          expect(await peer.read()).toEqual({ data: words.replaceAll(" ", ""), end: "fin" });
          await peer.finish();
          expect((await lb.lineOf(client)).error).toBe(orderly ? undefined : "truncated by client");
        }
      });

      test("a truncation is distinguished from an orderly end if the client was paused before", async () => {
        for (const orderly of [true, false]) {
          const { client, peer } = await pair(slow);
          const sent = client.send(new Uint8Array(4e6)).then(() => (orderly ? client.finish() : client.fin()));
          const { data, end } = await peer.read();
          expect([data.length, end]).toEqual([4e6, "fin"]);
          await sent;
          await peer.finish();
          expect((await lb.lineOf(client)).error).toBe(orderly ? undefined : "truncated by client");
        }
      });
    }

    test("the backend's FIN becomes close_notify for the client, which can continue", async () => {
      const { client, peer } = await pair();
      await peer.send("greeting");
      await peer.finish();
      expect(await client.read()).toEqual({ data: "greeting", end: "close_notify" });
      await client.send("late words");
      expect(await peer.read("words")).toEqual({ data: "late words", end: null });
      await client.finish();
      expect(await peer.read()).toEqual({ data: "", end: "fin" });
      expect(await lb.lineOf(client)).toMatchObject({ end: "eof", end_by: "backend", bytes_in: 10, bytes_out: 8 });
    });

    test("a short reply, close_notify and FIN are one segment if the backend's FIN has arrived already", async () => {
      const { client, peer } = await pair();
      await client.send("question");
      expect(await peer.read("question")).toMatchObject({ data: "question" });
      const before = await client.segments();
      await lb.whileHeld(async () => {
        await peer.send("answer");
        await peer.finish();
        await peer.segments();
      });
      expect(await client.read()).toEqual({ data: "answer", end: "close_notify" });
      expect(await client.rawEnd()).toBe("fin");
      expect(await client.segments()).toBe(before + 1);
      await client.finish();
      expect(await peer.read()).toEqual({ data: "", end: "fin" });
      expect(await lb.lineOf(client)).toMatchObject({ end: "eof", end_by: "backend", bytes_in: 8, bytes_out: 6 });
    });

    test("a short reply followed by a reset is not followed by close_notify", async () => {
      const { client, peer } = await pair();
      await client.send("question");
      expect(await peer.read("question")).toMatchObject({ data: "question" });
      await lb.whileHeld(async () => {
        await peer.send("half an ans");
        await peer.reset();
      });
      expect(await client.read()).toMatchObject({ end: "reset" });
      expect(await lb.lineOf(client)).toMatchObject({ end: "reset", end_by: "backend" });
    });

    test("the backend's reset is no close_notify", async () => {
      const { client, peer } = await pair();
      await peer.send("half an ans");
      expect(await client.read("ans")).toEqual({ data: "half an ans", end: null });
      await peer.reset();
      expect(await client.read()).toEqual({ data: "", end: "reset" });
      expect(await lb.lineOf(client)).toMatchObject({ end: "reset", end_by: "backend" });
    });

    test("the client's reset is passed on to the backend", async () => {
      const { client, peer } = await pair();
      await client.send("half a quest");
      expect(await peer.read("quest")).toEqual({ data: "half a quest", end: null });
      await client.reset();
      expect(await peer.read()).toEqual({ data: "", end: "reset" });
      expect(await lb.lineOf(client)).toMatchObject({ end: "reset", end_by: "client" });
    });

    test("20 MB in each direction at once arrive complete, ends included", async () => {
      const { client, peer } = await pair();
      const [there, back] = await Promise.all([client.exchange(20e6, true), peer.exchange(20e6, true)]);
      expect(there).toMatchObject({ count: 20e6, end: "close_notify", received: back.sent });
      expect(back).toMatchObject({ count: 20e6, end: "fin", received: there.sent });
      const line = await lb.lineOf(client);
      expect(line).toMatchObject({ end: "eof", bytes_in: 20e6, bytes_out: 20e6 });
      expect(line.error).toBeUndefined();
    });
  });
});

describe('an end by lb, with on_abort = "close"', () => {
  test("is close_notify and FIN if nothing has moved for a while, and a reset if data may be truncated", async () => {
    const [quiet, busy] = await freePorts(2);
    await using lb = await startLb(
      listener("quiet", quiet, [leaf], { of: 'on_abort = "close"\ntimeouts = { idle = "1100ms" }' }) +
        listener("busy", busy, [leaf], { of: 'on_abort = "close"\ntimeouts = { lifetime = "300ms" }' }) +
        pool("app", backend.address),
    );
    await lb.status();
    const before = descriptors(lb.pid);
    const idle = await python.connect(quiet, { tls: { name: "a.example" } });
    expect(await idle.echoes()).toBe(true);
    const talks = await python.connect(busy, { tls: { name: "a.example" } });
    expect(await talks.echoes()).toBe(true);
    expect(await talks.read()).toEqual({ data: "", end: "reset" });
    expect(await lb.lineOf(talks)).toMatchObject({ end: "lifetime", end_by: "lb" });
    expect(await idle.read()).toEqual({ data: "", end: "close_notify" });
    // The client does not answer that, and lb does not wait for it.
    const told = performance.now();
    expect(await idle.rawEnd()).toBe("fin");
    await eventually("the descriptors are free", () => descriptors(lb.pid) <= before);
    // The runtime itself would wait ten seconds for the client's close_notify.
    expect(performance.now() - told).toBeLessThan(8000);
    expect(await lb.lineOf(idle)).toMatchObject({ end: "idle_timeout", end_by: "lb" });
  });
});

describe("a slow reader", () => {
  test.each(["client", "backend"] as const)(
    "slows the other side down, uses bounded memory, and gets every byte: %s",
    async (slow) => {
      const server = await python.serve({ mode: "manual" });
      const port = await freePort();
      await using lb = await startLb(`workers = 1\n${listener("web", port, [leaf])}${pool("app", server.address)}`);
      const client = await python.connect(port, { tls: { name: "a.example" } });
      const end = slow === "client" ? "close_notify" : "fin";
      await expectHeldBack(lb, { slow, client, backend: await server.nth(0), end });
    },
  );
});

describe.each(WAYS)(
  "a client that is refused before its handshake, on a listener whose sockets are %s",
  (_, leaves) => {
    test.each([
      ["denied", 'deny = ["127.0.0.1"]', "reset"],
      ["denied", 'deny = ["127.0.0.1"]', "close"],
      ["rate_limited", 'rate_limit = { rate = "1/h", burst = 1 }', "reset"],
      ["rate_limited", 'rate_limit = { rate = "1/h", burst = 1 }', "close"],
    ])("%s: %s, %s", async (end, of, overLimit) => {
      const port = await freePort();
      const limited = listener("web", port, leaves(), { of: `${of}\nover_limit = "${overLimit}"` });
      await using lb = await startLb(`workers = 1\n${limited}${pool("app", backend.address)}`);
      // The first of its address takes the only token.
      if (end === "rate_limited") {
        const first = await connect(port);
        first.finish();
        await first.ended;
      }
      await lb.waitIdle();
      const before = descriptors(lb.pid);
      using client = await connect(port);
      expect(await client.ended).toBe(overLimit === "reset" ? "reset" : "eof");
      client.finish();
      expect(await lb.lineOf(client)).toMatchObject({ end, end_by: "lb" });
      await eventually("the descriptors are free", () => descriptors(lb.pid) <= before);
    });
  },
);

describe.each(WAYS)("a client that stalls, %s", (_, leaves) => {
  const HANDSHAKE_MS = 500;
  const hello = fixture("go-post-quantum");
  let lb: Lb;
  let port: number;
  let idle: number;

  setUpUnless(peersMissing, async (keep) => {
    port = await freePort();
    const of = `timeouts = { handshake = "${HANDSHAKE_MS}ms" }`;
    lb = await keep(startLb(listener("web", port, leaves(), { of }) + pool("app", backend.address)));
    // What a first connection leaves behind for good has come by now.
    expect(await sClient(port)).toMatchObject({ echoed: true });
    await lb.waitIdle();
    idle = descriptors(lb.pid);
  });

  async function isCut(client: { address: string }): Promise<void> {
    const line = await lb.lineOf(client);
    expect(line).toMatchObject({ end: "handshake_timeout", end_by: "lb", bytes_in: 0 });
    // A worker's clock lags while its thread waits for a CPU.
    expect(line.duration_ms).toBeGreaterThanOrEqual(HANDSHAKE_MS - 250);
    expect(line.duration_ms).toBeLessThan(HANDSHAKE_MS + 10_000);
  }

  describe.concurrent("is ended in time", () => {
    test.each([0, 1, 5, 100, -1, Infinity])("after %d bytes of its hello", async (bytes) => {
      using client = await connect(port);
      if (bytes !== 0) client.send(hello.subarray(0, bytes));
      expect(["eof", "reset"]).toContain(await client.ended);
      await isCut(client);
    });

    test("when it sends a byte at a time without end", async () => {
      // On a busy machine it may be ended before it has sent enough.
      for (let sent = 0; sent <= 3;) {
        sent = 0;
        using client = await connect(port);
        const timer = setInterval(() => client.send(hello.subarray(sent, ++sent)), HANDSHAKE_MS / 10);
        await client.ended;
        clearInterval(timer);
        await isCut(client);
      }
    });

    test.each([
      ["1.2", 0],
      ["1.3", 0],
      ["1.2", 1],
      ["1.3", 1],
    ] as const)("when its TLS %s lacks the last byte of flight %d", async (version, stall) => {
      // On a busy machine it may be ended before it has got so far.
      for (let hasStalled = false; !hasStalled;) {
        const client = await python.connect(port, { stall, tls: { min: version, max: version } });
        hasStalled = client.error === "stalled";
        if (hasStalled) await client.rawEnd();
        await isCut(client);
      }
    });
  });

  test("leaves nothing behind", async () => {
    await lb.waitIdle();
    await eventually("the descriptors are free", () => descriptors(lb.pid) <= idle);
    const ends = lb.accessLines().filter(({ end }) => end === "handshake_timeout").length;
    expect(ends).toBeGreaterThanOrEqual(11);
    expect(await lb.metric("lb_tls_handshake_failures_total", { reason: "timeout" })).toBe(ends);
  });
});

describe.each(WAYS)("thousands of clients that stall, %s", (_, leaves) => {
  // Each with a good part of its hello sent. All must be there before the first of them is ended, on a slow machine too.
  const COUNT = 4000;
  const half = fixture("go-post-quantum").subarray(0, 1200);

  test("use bounded memory, are all ended in time, and leave nothing behind", async (context) => {
    const port = await freePort();
    const of = `timeouts = { handshake = "5s" }`;
    const top = `max_connections = ${COUNT}`;
    await using lb = await startLb(`${top}\n${listener("web", port, leaves(), { of })}${pool("app", backend.address)}`);
    const { max, open_files_limit: limit } = (await lb.status()).connections;
    if (limit < 3000) context.skip(`an open-files limit of ${limit}`);
    const count = Math.min(COUNT, max);
    expect(await sClient(port)).toMatchObject({ echoed: true });
    await lb.waitIdle();
    const before = { memory: residentBytes(lb.pid), descriptors: descriptors(lb.pid) };
    const { flood } = await python.call<{ flood: number }>("flood", {
      port,
      count: count - 1,
      data: Buffer.from(half).toString("latin1"),
    });
    await lb.waitStatus(({ connections }) => connections.open === count - 1);
    // About the bytes themselves, not a hundred times as much.
    expect(residentBytes(lb.pid) - before.memory).toBeLessThan(count * 12_000);
    // A client that continues is served meanwhile.
    expect(await sClient(port)).toMatchObject({ echoed: true });
    await python.call("flood_over", { flood });
    await lb.waitIdle();
    await eventually("the descriptors are free", () => descriptors(lb.pid) <= before.descriptors);
    const failures = await lb.metric("lb_tls_handshake_failures_total", { reason: "timeout" });
    expect(failures).toBe(count - 1);
    expect(await sClient(port)).toMatchObject({ echoed: true });
  });
});

describe("a PROXY header, TLS and routes on one listener", () => {
  test("are handled in order, and each uses the facts of the one before", async () => {
    const [api, h2, inside] = await Promise.all([0, 1, 2].map(() => python.serve({ proxy: true })));
    const port = await freePort();
    await using lb = await startLb(`
      [listeners.web]
      bind = "127.0.0.1:${port}"
      pool = "rest"
      proxy_protocol = "required"
      trusted_proxies = ["127.0.0.0/8"]
      deny = ["203.0.113.66"]
      [listeners.web.tls]
      ${certificates(leaf)}
      alpn = ["h2", "http/1.1"]
      [[listeners.web.routes]]
      sni = ["*.api.example"]
      pool = "api"
      [[listeners.web.routes]]
      alpn = ["h2"]
      pool = "h2"
      [[listeners.web.routes]]
      clients = ["10.0.0.0/8"]
      pool = "inside"
      ${pool("api", api!.address)} send_proxy = "v2"
      ${pool("h2", h2!.address)} send_proxy = "v2"
      ${pool("inside", inside!.address)} send_proxy = "v2"
      ${pool("rest", backend.address)}
    `);
    const preface = (source: string): string => `PROXY TCP4 ${source} 192.0.2.1 4711 443\r\n`;
    const cases = [
      { source: "198.51.100.7", name: "x.api.example", alpn: ["h2"], to: api!, pool: "api" },
      { source: "198.51.100.8", name: "a.example", alpn: ["http/1.1", "h2"], to: h2!, pool: "h2" },
      { source: "10.1.2.3", name: "a.example", alpn: ["http/1.1"], to: inside!, pool: "inside" },
    ];
    for (const { source, name, alpn, to, pool: wanted } of cases) {
      const client = await python.connect(port, { preface: preface(source), tls: { name, alpn } });
      expect(client).toMatchObject({ error: null, tls: { version: "TLSv1.3" } });
      expect(await client.echoes()).toBe(true);
      const { header } = await to.nth(0);
      expect(header).toMatchObject({
        command: "PROXY",
        family: "TCP4",
        source,
        source_port: 4711,
        destination: "192.0.2.1",
        destination_port: 443,
        tlvs: { authority: name, alpn: client.tls!.alpn, ssl: { client: 1, version: "TLSv1.3" } },
      });
      await client.finish();
      expect(await client.read()).toEqual({ data: "", end: "close_notify" });
      const line = await lb.lineOf({ address: `${source}:4711` });
      expect(line).toMatchObject({ end: "eof", pool: wanted, bytes_in: 5, bytes_out: 5 });
    }
    const rest = await python.connect(port, { preface: preface("198.51.100.9"), tls: { name: "a.example" } });
    expect(await rest.echoes()).toBe(true);
    const denied = await python.connect(port, { preface: preface("203.0.113.66"), tls: { name: "a.example" } });
    expect(denied.error).not.toBeNull();
    expect(await lb.lineOf({ address: "203.0.113.66:4711" })).toMatchObject({
      end: "denied",
      end_by: "lb",
    });
    // TLS without the header is no header.
    await rest.close();
    // The header and the hello in one segment, and in pieces at arbitrary boundaries.
    for (const shape of [{}, { segments: 13 }, { segments: 1 }, { records: 50, segments: 31 }]) {
      const source = `198.51.100.${100 + (shape.segments ?? 0)}`;
      const tls = { name: "x.api.example", alpn: ["h2"] };
      const client = await python.connect(port, { preface: preface(source), joined: true, ...shape, tls });
      expect(client.error).toBeNull();
      expect(await client.echoes()).toBe(true);
      await client.finish();
      const line = await lb.lineOf({ address: `${source}:4711` });
      expect(line).toMatchObject({ end: "eof", pool: "api", sni: "x.api.example", bytes_in: 5 });
    }
    using bare = await connect(port);
    bare.send(fixture("go-post-quantum"));
    await bare.ended;
    expect(await lb.lineOf(bare)).toMatchObject({ end: "proxy_header_bad" });
  });
});
