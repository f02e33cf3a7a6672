// The commands that ask a running lb, as a user types them: what they print where, and their exit codes.
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { echo } from "../support/backends.ts";
import { binary, freePort, runLb, startLb, type Lb } from "../support/lb.ts";

let lb: Lb;
let folder: string;
let port: number;
const secret = "a-secret-of-some-length";

function config(more = ""): string {
  return `[admin]
bind = "unix:admin.sock"
token_file = "../${basename(folder)}/admin.token"
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
    expect(await runLb(admin, { env: { LB_ADMIN_TOKEN: "wrong" } })).toMatchObject({
      code: 1,
      stderr: expect.stringContaining("does not accept the token"),
    });
  });
});

describe("a change at run time", () => {
  test("is made by the commands, shown by `lb status`, and alone by --diff", async () => {
    expect(await run("status", "--diff")).toMatchObject({ code: 0, stdout: "nothing was changed at run time\n" });
    expect(await run("drain", "app/one")).toMatchObject({
      code: 0,
      stdout: "pool app, backend one: takes no new connections\n",
    });
    expect((await run("status")).stdout).toMatch(/^app +one +127\.0\.0\.1:1 +drain /m);
    expect(await run("weight", "app/one", "3")).toMatchObject({ code: 0 });
    expect((await run("status", "--diff")).stdout).toBe(
      "pools.app.backends.one: drain by API\npools.app.backends.one: weight 3 by API, file says 1\n",
    );
    expect(JSON.parse((await run("status", "--diff", "--json")).stdout)).toEqual([
      "pools.app.backends.one: drain by API",
      "pools.app.backends.one: weight 3 by API, file says 1",
    ]);
    expect(await run("maintenance", "app/one")).toMatchObject({
      stdout: "pool app, backend one: takes no new connections and is not checked\n",
    });
    const line = await lb.waitLog(
      ({ event, after }) => event === "change by the admin API" && String(after).includes("maintenance"),
    );
    expect(line).toMatchObject({ outcome: "done", before: expect.stringContaining("drain") });
    expect(await run("ready", "app/one")).toMatchObject({ code: 0 });
    expect(await run("weight", "app/one", "1")).toMatchObject({ code: 0 });
    expect((await run("status", "--diff")).stdout).toBe("nothing was changed at run time\n");
    expect(await run("drain", "app/two")).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('pool app has no backend "two"'),
    });
  });
});

test("lb reload waits for the result, and reports the problems of a file that was rejected", async () => {
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

test("lb top without a terminal names the commands to use instead", async () => {
  expect(await run("top")).toMatchObject({ code: 2, stdout: "", stderr: expect.stringMatching(/lb status prints/) });
});

test("lb config prints a config that lb check accepts in any folder, without secrets", async () => {
  const { code, stdout } = await run("config");
  expect(code).toBe(0);
  expect(stdout).toContain(`token_file = "${join(folder, "admin.token")}"`);
  expect(stdout).not.toContain(secret);
  await mkdir(join(folder, "elsewhere"));
  const file = join(folder, "elsewhere/effective.toml");
  await writeFile(file, stdout);
  expect(await runLb(["check", file])).toMatchObject({ code: 0, stdout: expect.stringMatching(/: fine/) });
  const { stdout: json } = await run("config", "--json");
  expect(JSON.parse(json)).toMatchObject({ pools: { app: { balance: "round_robin" } } });
});

test("a reader gets the whole config however slow it is, and ends what it does not read", async () => {
  const many = Array.from({ length: 1000 }, (_, i) => `"127.0.0.1:${i + 1}"`).join(", ");
  await using big = await startLb(
    config(`[pools.many]\nbackends = [${many}]\nhealth = { type = "off" }\n`).replace(
      `:${port}"`,
      `:${await freePort()}"`,
    ),
  );
  const shell = (command: string): string =>
    spawnSync("sh", ["-c", command], { encoding: "utf8", env: { ...process.env, LB: binary, FILE: big.file } }).stdout;
  const whole = shell('"$LB" config --config "$FILE" | (sleep 0.5; cat)');
  expect(whole.length).toBeGreaterThan(65_536);
  expect(whole.match(/^address = /gm)).toHaveLength(1001);
  expect(shell('"$LB" status --watch --config "$FILE" | head -n 1')).toMatch(/^lb .* ready\n$/);
});

test("lb explain, connections and clients print tables", async () => {
  const explained = await run("explain", "--listener", "web", "--client", "192.0.2.1");
  expect(explained).toMatchObject({ code: 0, stderr: "" });
  expect(explained.stdout).toMatch(/^The connection goes .*\n\nroute +-\npool +app\nbackend +one\n/);
  expect(explained.stdout).toMatch(/^one +yes/m);
  expect(await run("explain", "--listener", "wbe", "--client", "192.0.2.1")).toMatchObject({
    code: 1,
    stderr: expect.stringMatching(/there is no listener "wbe"\n +the listeners are web/),
  });
  expect(await run("explain", "--listener", "web", "--client", "nobody")).toMatchObject({
    code: 2,
    stderr: 'lb: client: expected an IP address such as "10.0.0.5", without a port, found "nobody"\n',
  });
  expect((await run("connections")).stdout).toMatch(/^ID +CLIENT .*WORKER$/m);
  expect((await run("clients")).stdout).toMatch(/^CLIENT +OPEN /m);
});

describe("lb check --deep", () => {
  const deep = async (text: string): ReturnType<typeof runLb> => {
    const file = join(folder, "deep.toml");
    await writeFile(file, text);
    return runLb(["check", "--deep", file]);
  };
  const pool = (backends: string, more = ""): string => `[pools.app]\nbackends = [${backends}]\n${more}`;

  test("reports that everything works, and leaves nothing behind", async () => {
    using backend = await echo();
    const bind = await freePort();
    const log = join(folder, "access.log");
    const { code, stdout, stderr } = await deep(
      `[admin]\nenabled = false\n[log]\naccess = "${log}"\n[listeners.web]\nbind = "127.0.0.1:${bind}"\npool = "app"\n${pool(`"localhost:${backend.port}"`)}`,
    );
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(stdout).toMatch(/^ok +listeners\.web: 127\.0\.0\.1:\d+ can be bound$/m);
    expect(stdout).toMatch(/^ok +pools\.app: localhost has 1 address$/m);
    expect(stdout).toMatch(/^ok +pools\.app: backend localhost:\d+ \(127\.0\.0\.1:\d+\) is up by its tcp check$/m);
    expect(existsSync(log)).toBe(false);
  });

  test("names each thing that does not, and ends with 1", async () => {
    using taken = await echo();
    const { code, stderr } = await deep(
      `[admin]\nenabled = false\n[log]\naccess = "/nonexistent/access.log"\n[listeners.web]\nbind = ["127.0.0.1:${taken.port}", "192.0.2.55:80"]\npool = "app"\n${pool('"127.0.0.1:1", "nowhere.invalid:80"')}`,
    );
    expect(code).toBe(1);
    for (const line of [
      /^failed +listeners\.web: .*127\.0\.0\.1:\d+.*EADDRINUSE/m,
      /^failed +listeners\.web: .*192\.0\.2\.55:80: this machine has no such address/m,
      /^failed +log\.access: .*the folder does not exist/m,
      /^failed +pools\.app: nowhere\.invalid does not resolve/m,
      /^failed +pools\.app: backend 127\.0\.0\.1:1: connection refused$/m,
    ]) {
      expect(stderr).toMatch(line);
    }
  });

  test("takes the addresses of the lb that runs with this file for its own", async () => {
    const { code, stdout } = await runLb(["check", "--deep", lb.file]);
    expect(stdout).toMatch(/^ok +listeners\.web: 127\.0\.0\.1:\d+ is in use by the lb that runs with this file$/m);
    expect(code).toBe(1);
  });

  test("does not take the addresses of an lb that runs with another file for its own", async () => {
    const { code, stdout, stderr } = await deep(
      config().replace("unix:admin.sock", `unix:${join(lb.dir, "admin.sock")}`),
    );
    expect(stdout).not.toContain("is in use by");
    expect(stderr).toMatch(/^failed +listeners\.web: .*127\.0\.0\.1:\d+.*EADDRINUSE/m);
    expect(code).toBe(1);
  });

  test("asks nothing for a config that is bad", async () => {
    expect(await deep("[pools.app]\n")).toMatchObject({ code: 2, stdout: "" });
  });
});
