// Resumed sessions: they work where they may, across threads and reloads, and never where a resumed session would bypass a listener's
// requirements for clients (the class of CVE-2025-23419). OpenSSL is the client.
import { existsSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { echo, type Backend } from "../support/backends.ts";
import { Authority, certificates, peersMissing, type Leaf } from "../support/certificates.ts";
import { freePort, freePorts, startLb, type Lb } from "../support/lb.ts";
import { sClient, type Said } from "../support/openssl.ts";
import { Python, type PythonServer } from "../support/python.ts";
import { setUpUnless } from "../support/set-up.ts";

const VERSIONS = ["-tls1_2", "-tls1_3"];

let ca: Authority;
let backend: Backend;
let leaf: Leaf;
let other: Leaf;
let mine: Leaf;
let self: Leaf;
let sessions: string;
let taken = 0;

setUpUnless(peersMissing, async (keep) => {
  backend = await keep(echo());
  ca = await keep(Authority.make());
  sessions = join(ca.dir, "sessions");
  mkdirSync(sessions);
  [leaf, other, mine, self] = await Promise.all([
    ca.leaf("a.example", { names: ["DNS:a.example", "DNS:*.a.example"] }),
    ca.leaf("b.example"),
    ca.leaf("mine"),
    ca.selfSigned("self"),
  ]);
});

function listener(name: string, port: number, tls = ""): string {
  return `
    [listeners.${name}]
    bind = "127.0.0.1:${port}"
    pool = "app"
    worker_affinity = "client"
    [listeners.${name}.tls]
    ${certificates(leaf, other)}
    ${tls}
  `;
}

function pool(more = ""): string {
  return `
    [pools.app]
    backends = ["${backend.address}"]
    health.type = "off"
    ${more}
  `;
}

/** A full handshake from the same address each time, and its session. */
async function session(port: number, ...args: string[]): Promise<{ said: Said; file: string }> {
  const file = join(sessions, `${++taken}`);
  const said = await sClient(port, "-bind", "127.0.0.1:0", "-sess_out", file, ...args);
  expect(said.reused).toBe(false);
  // A refused handshake may still have left one.
  if (said.echoed) expect(existsSync(file)).toBe(true);
  return { said, file };
}

/** `version` is that of the session: a client that offers a newer one gets it, and no session. */
function resume(port: number, file: string, version: string, ...args: string[]): Promise<Said> {
  return sClient(port, "-bind", "127.0.0.1:0", "-sess_in", file, version, ...args);
}

const shows = ({ cert, key }: Leaf): string[] => ["-cert", cert, "-key", key];

describe('with worker_affinity = "client" and two workers', () => {
  test.each(VERSIONS)("a session is resumed every time, whichever worker serves the client (%s)", async (version) => {
    const port = await freePort();
    await using lb = await startLb(`workers = 2\n${listener("web", port)}${pool()}`);
    const workers = new Set<number>();
    for (let address = 1; address <= 12 && workers.size < 2; address++) {
      const bind = ["-bind", `127.0.9.${address}:0`];
      const { file } = await session(port, version, ...bind);
      for (let i = 0; i < 4; i++)
        expect(await resume(port, file, version, ...bind)).toMatchObject({ echoed: true, reused: true });
      const lines = await lb.waitLines(5, ({ client }) => client.startsWith(`127.0.9.${address}:`));
      expect(new Set(lines.map(({ worker }) => worker)).size).toBe(1);
      workers.add(lines[0]!.worker);
    }
    expect([...workers].toSorted((x, y) => x - y)).toEqual([0, 1]);
    const resumed = await lb.metric("lb_tls_handshakes_total", { resumed: "true" });
    const full = await lb.metric("lb_tls_handshakes_total", { resumed: "false" });
    expect(resumed).toBe(4 * full!);
  });
});

describe("a reload", () => {
  let lb: Lb;
  let port: number;

  setUpUnless(peersMissing, async (keep) => {
    port = await freePort();
    lb = await keep(startLb(`workers = 2\n${listener("web", port)}${pool()}`));
  });

  test("keeps the sessions of a listener whose TLS does not change, and ends those of others", async () => {
    const files: [string, string][] = [];
    for (const version of VERSIONS) files.push([(await session(port, version)).file, version]);
    expect((await lb.reload(`workers = 2\n${listener("web", port)}${pool('connect_timeout = "1s"')}`)).ok).toBe(true);
    for (const file of files) expect(await resume(port, ...file)).toMatchObject({ echoed: true, reused: true });
    const another = listener("another", await freePort());
    expect((await lb.reload(`workers = 2\n${another}${listener("web", port)}${pool()}`)).ok).toBe(true);
    for (const file of files) expect(await resume(port, ...file)).toMatchObject({ echoed: true, reused: true });
    expect((await lb.reload(`workers = 2\n${listener("web", port, 'alpn = ["h2"]')}${pool()}`)).ok).toBe(true);
    for (const file of files) expect(await resume(port, ...file)).toMatchObject({ echoed: true, reused: false });
  });

  test("that starts to require client certificates refuses earlier sessions", async () => {
    const files: [string, string][] = [];
    const before = listener("web", port);
    expect((await lb.reload(`workers = 2\n${before}${pool()}`)).ok).toBe(true);
    for (const version of VERSIONS) files.push([(await session(port, version)).file, version]);
    const required = `client_auth = "required"\nclient_ca = "${ca.cert}"`;
    expect((await lb.reload(`workers = 2\n${listener("web", port, required)}${pool()}`)).ok).toBe(true);
    const { accepted } = backend;
    for (const file of files) expect(await resume(port, ...file)).toMatchObject({ echoed: false });
    expect(backend.accepted).toBe(accepted);
    // And in the other direction: sessions with certificates are useless without.
    const { file } = await session(port, "-tls1_3", ...shows(mine));
    expect((await lb.reload(`workers = 2\n${before}${pool()}`)).ok).toBe(true);
    expect(await resume(port, file, "-tls1_3")).toMatchObject({ echoed: true, reused: false });
  });
});

describe("client authentication", () => {
  let open: number;
  let required: number;
  let optional: number;
  let second: number;
  let proxied: number;
  let lb: Lb;
  let python: Python;
  let server: PythonServer;

  setUpUnless(peersMissing, async (keep) => {
    [open, required, optional, second, proxied] = await freePorts(5);
    python = await keep(new Python());
    server = await python.serve({ proxy: true });
    const ask = (auth: string): string => `client_auth = "${auth}"\nclient_ca = "${ca.cert}"`;
    // One worker: a session could be resumed wherever it is offered, if the listeners let it.
    const toServer = listener("proxied", proxied, ask("required")).replace('pool = "app"', 'pool = "server"');
    lb = await keep(
      startLb(
        `workers = 1\n${listener("open", open)}${listener("required", required, ask("required"))}` +
          `${listener("optional", optional, ask("optional"))}${listener("second", second, ask("required"))}${pool()}` +
          `${toServer}[pools.server]\nbackends = ["${server.address}"]\nsend_proxy = "v2"\nhealth.type = "off"\n`,
      ),
    );
  });

  /** The session does not help there: no echo, and the backend gets nothing. */
  async function refused(port: number, file: string, version: string, ...args: string[]): Promise<void> {
    const { accepted } = backend;
    expect(await resume(port, file, version, ...args)).toMatchObject({ echoed: false });
    expect(backend.accepted).toBe(accepted);
  }

  describe.each(VERSIONS)("%s", (version) => {
    test("is part of the session: a client need not send its certificate again", async () => {
      for (const port of [required, optional]) {
        const { file, said } = await session(port, version, ...shows(mine));
        expect(said.echoed).toBe(true);
        expect(await resume(port, file, version)).toMatchObject({ echoed: true, reused: true });
      }
    });

    test("keeps the name in the log and in the PROXY header, which marks it as from an earlier connection", async () => {
      const { said, file } = await session(proxied, version, ...shows(mine));
      expect((await lb.lineOf(said)).client_cert).toBe("mine");
      const resumed = await sClient(proxied, "-bind", "127.0.0.2:0", "-sess_in", file, version);
      expect(resumed).toMatchObject({ echoed: true, reused: true });
      const lines = await lb.waitLines(1, ({ client }) => client.startsWith("127.0.0.2:"));
      expect(lines.at(-1)!.client_cert).toBe("mine");
      const [full, again] = await Promise.all([2, 1].map((back) => server.nth(server.connections.length - back)));
      expect(full!.header?.tlvs["ssl"]).toMatchObject({ client: 7, verify: 0, cn: "mine" });
      expect(again!.header?.tlvs["ssl"]).toMatchObject({ client: 5, verify: 0, cn: "mine" });
    });

    test("cannot be bypassed with a session of a listener that requires none, under any name", async () => {
      for (const name of [["-servername", "a.example"], ["-noservername"]]) {
        const { file } = await session(open, version, ...name);
        for (const offered of [name, ["-servername", "b.example"], ["-servername", "x.a.example"], ["-noservername"]]) {
          await refused(required, file, version, ...offered);
        }
      }
    });

    test("cannot be bypassed with a session of a listener to which no certificate was sent", async () => {
      const { file } = await session(optional, version);
      expect(await resume(optional, file, version)).toMatchObject({ echoed: true, reused: true });
      await refused(required, file, version);
    });

    test("cannot be bypassed with a session of another listener that requires the same", async () => {
      const { file } = await session(second, version, ...shows(mine));
      await refused(required, file, version);
    });

    test("cannot be bypassed with the session of a handshake whose certificate was refused", async () => {
      for (const port of [required, optional]) {
        const { file, said } = await session(port, version, ...shows(self));
        expect(said.echoed).toBe(false);
        // With the reset most clients get no session, which is as good.
        if (!existsSync(file)) continue;
        await refused(required, file, version);
        // Where a certificate is optional, a handshake from the beginning with none is fine, the session is not.
        const without = await resume(port, file, version);
        if (without.echoed) expect([port, without.reused]).toEqual([optional, false]);
        // With a valid one now, whether the session is resumed or not.
        const now = await resume(port, file, version, ...shows(mine));
        if (now.echoed) expect(now.reused).toBe(false);
      }
    });
  });
});

describe("a name", () => {
  test.each(VERSIONS)("with another certificate gets a handshake of its own (%s)", async (version) => {
    const port = await freePort();
    await using _lb = await startLb(`workers = 1\n${listener("web", port)}${pool()}`);
    const { file } = await session(port, version, "-servername", "a.example");
    const resumed = { echoed: true, reused: true };
    expect(await resume(port, file, version, "-servername", "a.example")).toMatchObject(resumed);
    expect(await resume(port, file, version, "-servername", "b.example")).toMatchObject({
      echoed: true,
      reused: false,
      subject: "CN = b.example",
    });
  });
});
