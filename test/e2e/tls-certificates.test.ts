// Certificates that change on disk at run time: new handshakes use the new ones, live connections continue, and an unusable file changes
// nothing and is reported.
import { once } from "node:events";
import { copyFileSync, mkdirSync, renameSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { connect as connectTls } from "node:tls";
import { describe, expect, test } from "vitest";
import { echo, type Backend } from "../support/backends.ts";
import { Authority, peersMissing, type Leaf } from "../support/certificates.ts";
import { eventually } from "../support/eventually.ts";
import { freePort, startLb, type Lb } from "../support/lb.ts";
import { sClient } from "../support/openssl.ts";
import { Python } from "../support/python.ts";
import { setUpUnless } from "../support/set-up.ts";

/** From the change of a file to the first handshake with its new content. */
const SEEN_WITHIN_MS = 2000;

let ca: Authority;
let python: Python;
let backend: Backend;
let first: Leaf;
let second: Leaf;

setUpUnless(peersMissing, async (keep) => {
  python = await keep(new Python());
  backend = await keep(echo());
  ca = await keep(Authority.make());
  [first, second] = await Promise.all([
    ca.leaf("first", { names: ["DNS:a.example"] }),
    ca.leaf("second", { names: ["DNS:a.example"] }),
  ]);
});

/** A listener with the certificate in site.pem and site.key of `dir`. */
function config(port: number, dir: string, tls = ""): string {
  return `
    [listeners.web]
    bind = "127.0.0.1:${port}"
    pool = "app"
    [listeners.web.tls]
    certificates = [{ cert = "${dir}/site.pem", key = "${dir}/site.key" }]
    ${tls}
    [pools.app]
    backends = ["${backend.address}"]
    health.type = "off"
  `;
}

function put(dir: string, leaf: Leaf): void {
  copyFileSync(leaf.cert, join(dir, "site.pem"));
  copyFileSync(leaf.key, join(dir, "site.key"));
}

/** Makes handshakes until one gets this certificate, within the time that a change may take. */
async function shows(port: number, subject: string): Promise<void> {
  await eventually(
    `handshakes with ${subject}`,
    async () => (await sClient(port)).subject === `CN = ${subject}`,
    SEEN_WITHIN_MS,
  );
}

/** Clients that do handshakes and get an echo, eight at once, repeatedly. */
function handshakes(port: number) {
  const failures: string[] = [];
  const subjects = new Set<string>();
  let done = 0;
  let over = false;
  const one = async (): Promise<void> => {
    const socket = connectTls({ port, host: "127.0.0.1", servername: "a.example", rejectUnauthorized: false });
    try {
      await once(socket, "secureConnect");
      subjects.add(String(socket.getPeerCertificate().subject.CN));
      socket.write("echo");
      const [answer] = await once(socket, "data");
      if (String(answer) !== "echo") failures.push(`echoed ${String(answer)}`);
    } catch (error) {
      failures.push(String(error));
    }
    socket.destroy();
    done++;
  };
  const clients = Array.from({ length: 8 }, async () => {
    while (!over) await one();
  });
  return {
    /** Waits until this many more are complete. */
    more: (count: number) => {
      const enough = done + count;
      return eventually(`${count} more handshakes`, () => done >= enough);
    },
    stop: async () => {
      over = true;
      await Promise.all(clients);
      return { failures, subjects };
    },
  };
}

describe("a certificate that changes on disk", () => {
  test("written in place: new handshakes use it within 2 s, and open connections continue", async () => {
    const dir = join(ca.dir, "in-place");
    mkdirSync(dir);
    put(dir, first);
    const port = await freePort();
    await using lb = await startLb(config(port, dir));
    await shows(port, "first");
    const lives = await python.connect(port, { tls: { ca: ca.cert, name: "a.example" } });
    expect(lives.tls?.fingerprint).toBe(first.fingerprint);
    expect(await lives.echoes()).toBe(true);
    const { generation } = (await lb.status()).config;
    put(dir, second);
    await shows(port, "second");
    expect((await lb.status()).config).toMatchObject({ generation: generation + 1, last_reload_ok: true });
    expect(await lives.echoes()).toBe(true);
    await lives.finish();
    expect(await lives.read()).toEqual({ data: "", end: "close_notify" });
    expect(await lb.lineOf(lives)).toMatchObject({ end: "eof", bytes_in: 10 });
  });

  test("swapped by a symlink, as Kubernetes does with a mounted secret", async () => {
    const dir = join(ca.dir, "swapped");
    for (const [name, leaf] of [
      ["..1", first],
      ["..2", second],
    ] as const) {
      mkdirSync(join(dir, name), { recursive: true });
      put(join(dir, name), leaf);
    }
    symlinkSync("..1", join(dir, "..data"));
    for (const file of ["site.pem", "site.key"]) symlinkSync(`..data/${file}`, join(dir, file));
    const port = await freePort();
    await using _lb = await startLb(config(port, dir));
    await shows(port, "first");
    symlinkSync("..2", join(dir, "..new"));
    renameSync(join(dir, "..new"), join(dir, "..data"));
    await shows(port, "second");
  });

  test("together with the number of certificates, under load, fails no handshake", async () => {
    const dir = join(ca.dir, "under-load");
    mkdirSync(dir);
    put(dir, first);
    const port = await freePort();
    const one = config(port, dir);
    // By two names a listener must choose: it reads the ClientHello before its sockets become TLS.
    const other = await ca.leaf("other", { names: ["DNS:b.example"] });
    const two = one.replace("}]", `}, { cert = "${other.cert}", key = "${other.key}" }]`);
    await using lb = await startLb(`workers = 2\n${one}`);
    const load = handshakes(port);
    for (let round = 0; round < 10; round++) {
      put(dir, round % 2 === 0 ? second : first);
      expect((await lb.reload(round % 3 === 0 ? `workers = 2\n${two}` : `workers = 2\n${one}`)).ok).toBe(true);
      await load.more(50);
    }
    const { failures, subjects } = await load.stop();
    expect(failures).toEqual([]);
    expect([...subjects].toSorted()).toEqual(["first", "second"]);
  });

  describe("and is not usable", () => {
    let dir: string;
    let port: number;
    let lb: Lb;

    setUpUnless(peersMissing, async (keep) => {
      dir = join(ca.dir, "broken");
      mkdirSync(dir);
      put(dir, first);
      port = await freePort();
      lb = await keep(startLb(config(port, dir)));
    });

    test.each([
      [
        "the key of another certificate",
        () => copyFileSync(second.key, join(dir, "site.key")),
        /site\.key.* does not match the certificate/,
      ],
      [
        "cut in the middle",
        () => writeFileSync(join(dir, "site.pem"), "-----BEGIN CERTIFICATE-----\nMIIB\n"),
        /site\.pem/,
      ],
      [
        "expired",
        async () => put(dir, await ca.leaf("expired", { until: "20210101000000Z" })),
        /expired on 2021-01-01/,
      ],
    ])("changes nothing and is told: %s", async (_, spoil, why) => {
      await shows(port, "first");
      const before = await lb.status();
      const from = lb.log().length;
      await Promise.resolve(spoil());
      expect(await lb.reloaded(before)).toMatchObject({
        ok: false,
        generation: before.config.generation,
        error: expect.stringMatching(why),
      });
      expect(await lb.waitLog(({ event }) => event.startsWith("reload failed"), undefined, from)).toMatchObject({
        level: "error",
        reason: expect.stringMatching(why),
      });
      expect(await lb.metric("lb_config_last_reload_successful")).toBe(0);
      expect(await lb.metric("lb_config_reloads_total", { result: "failure" })).toBe(before.config.reloads.failure + 1);
      expect(await sClient(port)).toMatchObject({ echoed: true, subject: "CN = first" });
      // After the correction it is accepted again. That is the active content, so only the success shows.
      const failed = await lb.status();
      put(dir, first);
      expect(await lb.reloaded(failed)).toMatchObject({ ok: true, error: null });
      expect(await lb.metric("lb_config_last_reload_successful")).toBe(1);
    });

    test("the private key is in no log, no error and no status", async () => {
      const secret = await Bun.file(first.key).text();
      const told = [...lb.stdout, ...lb.stderr, JSON.stringify(await lb.status()), await lb.metrics()].join("\n");
      for (const line of secret.split("\n").filter((text) => text.length > 20 && !text.startsWith("-"))) {
        expect(told).not.toContain(line);
      }
      expect(told).not.toContain("PRIVATE KEY");
    });
  });
});

describe("the CA and the CRL for client certificates", () => {
  test("change on disk too: revoked clients are refused, also with an earlier session", async () => {
    const dir = join(ca.dir, "clients");
    mkdirSync(dir);
    put(dir, first);
    const [mine, other] = await Promise.all([ca.leaf("mine"), ca.leaf("other")]);
    copyFileSync(await ca.revoke(), join(dir, "list.crl"));
    const port = await freePort();
    const check = `client_auth = "required"\nclient_ca = "${ca.cert}"\nclient_crl = "${dir}/list.crl"`;
    await using lb = await startLb(`workers = 1\n${config(port, dir, check)}`);
    const shown = ["-cert", mine.cert, "-key", mine.key];
    for (const version of ["-tls1_2", "-tls1_3"]) {
      expect(await sClient(port, version, ...shown, "-sess_out", join(dir, version))).toMatchObject({ echoed: true });
      expect(await sClient(port, version, "-sess_in", join(dir, version))).toMatchObject({
        echoed: true,
        reused: true,
      });
    }
    const before = await lb.status();
    copyFileSync(await ca.revoke(mine), join(dir, "list.crl"));
    expect(await lb.reloaded(before, SEEN_WITHIN_MS)).toMatchObject({ ok: true });
    for (const version of ["-tls1_2", "-tls1_3"]) {
      expect(await sClient(port, version, ...shown)).toMatchObject({ echoed: false });
      expect(await sClient(port, version, ...shown, "-sess_in", join(dir, version))).toMatchObject({ echoed: false });
      expect(await sClient(port, version, "-sess_in", join(dir, version))).toMatchObject({ echoed: false });
      expect(await sClient(port, version, "-cert", other.cert, "-key", other.key)).toMatchObject({ echoed: true });
    }
  });
});
