// The commands that ask a running lb, as a user types them: what they print where, and their exit codes.
import { mkdtemp, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { freePort, runLb, startLb, type Lb } from "../support/lb.ts";

let lb: Lb;
let folder: string;
let port: number;
const secret = "a-secret-of-some-length";

function config(more = ""): string {
  return `[admin]
bind = "unix:admin.sock"
token_file = "${join(folder, "admin.token")}"
[listeners.web]
bind = "127.0.0.1:${port}"
pool = "app"
[pools.app]
backends = [{ address = "127.0.0.1:1", name = "one" }]
health = { type = "off" }
${more}`;
}

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "lb-commands-"));
  await writeFile(join(folder, "admin.token"), secret);
  port = await freePort();
  lb = await startLb(config());
});
afterAll(async () => {
  await lb.stop();
  await rm(folder, { recursive: true, force: true });
});

const run = (...args: string[]): ReturnType<typeof runLb> => runLb([...args, "--config", lb.file]);

describe("lb status", () => {
  test("prints tables", async () => {
    const { code, stdout, stderr } = await run("status");
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(stdout).toMatch(/^lb \S+, process \d+, up \S+: ready\nconnections /);
    expect(stdout).toMatch(/^web +127\.0\.0\.1:\d+ +app +ready +0 /m);
    expect(stdout).toMatch(/^app +one +127\.0\.0\.1:1 +up /m);
  });

  test("--json prints the snapshot", async () => {
    const { stdout } = await run("status", "--json");
    expect(JSON.parse(stdout)).toMatchObject({ ready: true, listeners: [{ name: "web" }] });
  });

  test("takes the endpoint and the token from options and the environment", async () => {
    const admin = ["status", "--json", "--admin", `unix:${join(lb.dir, "admin.sock")}`];
    expect(await runLb(admin)).toMatchObject({
      code: 1,
      stdout: "",
      stderr: expect.stringMatching(/needs a token\n +give it with --token-file or in LB_ADMIN_TOKEN\n$/),
    });
    expect(await runLb([...admin, "--token-file", join(folder, "admin.token")])).toMatchObject({ code: 0 });
    expect(await runLb(admin, { env: { LB_ADMIN_TOKEN: secret } })).toMatchObject({ code: 0 });
    expect(await runLb(admin, { env: { LB_ADMIN_TOKEN: "wrong" } })).toMatchObject({ code: 1 });
  });
});

test("lb reload waits, and says what was wrong where the file was not taken", async () => {
  expect(await run("reload")).toMatchObject({ code: 0, stdout: expect.stringMatching(/\S/), stderr: "" });
  const broken = join(lb.dir, "broken.toml");
  await writeFile(broken, config("balance = 5\n"));
  await rename(broken, lb.file);
  const { code, stderr } = await run("reload");
  expect(code).toBe(1);
  expect(stderr).toMatch(/pools\.app\.(health\.)?balance/);
  await lb.write(config());
  expect(await run("reload")).toMatchObject({ code: 0 });
});

test("lb top without a terminal says what to use instead", async () => {
  expect(await run("top")).toMatchObject({ code: 2, stdout: "", stderr: expect.stringMatching(/lb status prints/) });
});
