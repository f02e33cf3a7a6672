// The admin endpoint of the compiled binary: HTTPS, tokens, and how a reload changes them; the commands that use it.
import { copyFile, writeFile } from "node:fs/promises";
import { request } from "node:https";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Authority } from "../support/certificates.ts";
import { eventually } from "../support/eventually.ts";
import { freePorts, runLb, startLb, type Lb } from "../support/lb.ts";

let authority: Authority;
let lb: Lb;
let admin: number;

const file = (name: string): string => join(authority.dir, name);

/** The certificate and the key that the config names. */
async function install(name: string): Promise<string> {
  const leaf = await authority.leaf("lb.example", { names: [name] });
  await copyFile(leaf.cert, file("admin.pem"));
  await copyFile(leaf.key, file("admin.key"));
  return leaf.fingerprint;
}

beforeAll(async () => {
  authority = await Authority.make();
  const [port, adminPort] = await freePorts(2);
  admin = adminPort;
  await install("IP:127.0.0.1");
  await writeFile(file("full.token"), "full-token\n");
  await writeFile(file("read.token"), "read-token\n");
  lb = await startLb(`watch = false
[admin]
bind = "127.0.0.1:${admin}"
token_file = "${file("full.token")}"
read_token_file = "${file("read.token")}"
tls = { cert = "${file("admin.pem")}", key = "${file("admin.key")}" }
[listeners.web]
bind = "127.0.0.1:${port}"
pool = "app"
[pools.app]
backends = ["127.0.0.1:1"]
health = { type = "off" }
`);
});

afterAll(async () => {
  await lb.stop();
  authority[Symbol.dispose]();
});

interface Answer {
  status: number;
  fingerprint: string;
}

function ask(method: string, path: string, token: string): Promise<Answer> {
  const { promise, resolve, reject } = Promise.withResolvers<Answer>();
  const headers = { Authorization: `Bearer ${token}` };
  const options = { host: "127.0.0.1", port: admin, method, path, headers, agent: false, rejectUnauthorized: false };
  const outgoing = request(options, (answer) => {
    const certificate = (
      answer.socket as unknown as { getPeerCertificate(): { fingerprint256: string } }
    ).getPeerCertificate().fingerprint256;
    answer.resume();
    answer.on("end", () =>
      resolve({ status: answer.statusCode ?? 0, fingerprint: certificate.replaceAll(":", "").toLowerCase() }),
    );
  });
  outgoing.on("error", reject);
  outgoing.end();
  return promise;
}

describe("over HTTPS", () => {
  test("the token for reading reads, and each change is logged with who asked for it", async () => {
    expect((await ask("GET", "/live", "none")).status).toBe(200);
    expect((await ask("GET", "/metrics", "none")).status).toBe(401);
    expect((await ask("GET", "/metrics", "read-token")).status).toBe(200);
    expect((await ask("POST", "/api/workers/0/restart", "read-token")).status).toBe(403);
    expect((await ask("POST", "/api/workers/0/restart", "full-token")).status).toBe(200);
    const line = await lb.waitLog(({ event }) => event === "change by the admin API");
    expect(line).toMatchObject({
      client: "127.0.0.1",
      credential: "token",
      request: "POST /api/workers/0/restart",
      outcome: "done",
      before: "running",
      after: "starting",
    });
  });

  test("the commands trust the certificate that the config names, or those of --ca, and no other", async () => {
    for (const command of [["status"], ["health"]]) {
      expect(await runLb([...command, "--config", lb.file])).toMatchObject({ code: 0, stderr: "" });
    }
    const url = ["--admin", `https://127.0.0.1:${admin}`];
    const token = ["--token-file", file("read.token")];
    const { stdout } = await runLb(["status", "--json", "--config", lb.file]);
    expect(JSON.parse(stdout)).toMatchObject({ admin: { certificate: { cert: file("admin.pem") } } });
    expect(await runLb(["status", ...url, ...token, "--ca", authority.cert])).toMatchObject({ code: 0, stderr: "" });
    expect(await runLb(["status", ...url, ...token])).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(
        /has a certificate that is not trusted .*\n +give the certificates to trust with --ca/,
      ),
    });
    expect(await runLb(["status", "--admin", `127.0.0.1:${admin}`, ...token])).toMatchObject({ code: 1 });
    const other = await authority.leaf("other.example");
    expect(await runLb(["status", ...url, ...token, "--ca", other.cert])).toMatchObject({ code: 1 });
  });

  test("a reload reads tokens and certificate again, and a file that is not a certificate changes nothing", async () => {
    const before = await ask("GET", "/live", "");
    const fingerprint = await install("DNS:lb.example");
    await writeFile(file("read.token"), "another-reader");
    const count = lb.log().length;
    lb.signal("SIGHUP");
    await lb.waitLog(({ event }) => event === "reloaded", undefined, count);
    expect(fingerprint).not.toBe(before.fingerprint);
    await eventually("the new certificate", async () => (await ask("GET", "/live", "")).fingerprint === fingerprint);
    expect((await ask("GET", "/metrics", "read-token")).status).toBe(401);
    expect((await ask("GET", "/metrics", "another-reader")).status).toBe(200);
    // It has another name, and is still the certificate that the config names.
    expect(await runLb(["status", "--config", lb.file])).toMatchObject({ code: 0 });

    await writeFile(file("admin.pem"), "no certificate");
    const then = lb.log().length;
    lb.signal("SIGHUP");
    await lb.waitLog(({ event }) => event.startsWith("reload failed"), undefined, then);
    expect(await ask("GET", "/metrics", "another-reader")).toEqual({ status: 200, fingerprint });
    expect(lb.output()).not.toMatch(/full-token|read-token|another-reader/);
  });
});
