// The command line: what each command prints where, and the exit codes 0 (success), 1 (failure at run time) and 2 (bad usage or config).
import { spawn, spawnSync } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import manifest from "../../package.json" with { type: "json" };
import { echo } from "../support/backends.ts";
import { connect } from "../support/client.ts";
import { eventually } from "../support/eventually.ts";
import { binary, freePort, freePorts, runLb, startLb } from "../support/lb.ts";
import { cpuSeconds } from "../support/proc.ts";

let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "lb-cli-"));
});

afterAll(async () => {
  await rm(folder, { recursive: true, force: true });
});

/** A file in the test's folder. */
async function file(name: string, text: string): Promise<string> {
  const path = join(folder, name);
  await writeFile(path, text);
  return path;
}

function config(port: number, more = ""): string {
  return `[listeners.web]\nbind = "127.0.0.1:${port}"\npool = "app"\n[pools.app]\nbackends = ["127.0.0.1:1"]\n${more}`;
}

describe("usage", () => {
  test.each(["--help", "-h", "help"])("%s prints the help on stdout", async (argument) => {
    const { code, stdout, stderr } = await runLb([argument]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(stdout).toContain("check <FILE>");
    expect(stdout.split("\n").length).toBeLessThan(60);
  });

  test.each(["version", "--version", "-v"])("%s prints the version of the package", async (argument) => {
    expect(await runLb([argument])).toEqual({ code: 0, signal: null, stdout: `lb ${manifest.version}\n`, stderr: "" });
  });

  test.each([
    { args: [], says: "no config file is given" },
    { args: ["--verbose"], says: "unknown option '--verbose'" },
    { args: ["--config", "lb.toml"], says: "unknown option '--config'" },
    { args: ["check"], says: "missing required argument 'FILE'" },
    { args: ["check", "a.toml", "b.toml"], says: "too many arguments for 'check'" },
    { args: ["chekc", "x"], says: "Did you mean check?" },
    { args: ["schema", "--foo"], says: "unknown option '--foo'" },
    { args: ["a.toml", "b.toml"], says: "too many arguments: b.toml" },
    { args: ["upgrade"], says: "the command upgrade is not supported yet" },
    { args: ["drain"], says: "missing required argument 'POOL/BACKEND'" },
  ])("lb $args is bad usage: $says", async ({ args, says }) => {
    const { code, stdout, stderr } = await runLb(args);
    expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
    expect(stderr).toContain(says);
    expect(stderr).toMatch(/Try "lb [a-z ]*--help"/);
  });

  test("lb schema prints the JSON Schema that is in the repository", async () => {
    const { code, stdout } = await runLb(["schema"]);
    expect(code).toBe(0);
    const repository = join(import.meta.dirname, "../..");
    expect(JSON.parse(stdout)).toEqual(await Bun.file(join(repository, "lb.schema.json")).json());
  });
});

describe("lb check", () => {
  test("reports in one line that a file is valid", async () => {
    const path = await file("good.toml", config(8080));
    const { code, stdout, stderr } = await runLb(["check", path]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(stdout).toBe(`${path}: fine (1 listener, 1 pool, 1 backend)\n`);
  });

  test("reports every problem with file, line and column", async () => {
    const path = await file(
      "bad.toml",
      `${config(8080)}balanse = "round_robin"\n[listeners.b]\nbind = ":1"\npool = "no"\n`,
    );
    const { code, stdout, stderr } = await runLb(["check", path]);
    expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
    expect(stderr).toMatch(/bad\.toml:6:1: .*balanse.*did you mean.*balance/s);
    expect(stderr).toMatch(/bad\.toml:9:\d+: .*listeners\.b\.pool/);
    expect(stderr).toContain("2 problems");
  });

  test("reports a file that does not exist", async () => {
    const { code, stderr } = await runLb(["check", join(folder, "nowhere.toml")]);
    expect(code).toBe(2);
    expect(stderr).toContain("nowhere.toml");
  });

  test("reads a pipe, such as standard input", async () => {
    const path = await file("piped.toml", config(await freePort()));
    const checked = spawnSync("bash", [
      "-c",
      'cat "$1" | "$0" check /dev/stdin && "$0" check <(cat "$1")',
      binary,
      path,
    ]);
    expect({ code: checked.status, stderr: String(checked.stderr) }).toEqual({ code: 0, stderr: "" });
  });

  test("binds nothing: a port in use is not a problem of the file", async () => {
    using backend = await echo();
    const { code } = await runLb(["check", await file("inuse.toml", config(backend.port))]);
    expect(code).toBe(0);
  });
});

describe("lb FILE", () => {
  test("exits with 2 and the problems when the file is invalid", async () => {
    const path = await file("worse.toml", config(8080).replace('pool = "app"', 'pool = "ap"'));
    const { code, stderr } = await runLb([path]);
    expect(code).toBe(2);
    expect(stderr).toMatch(/worse\.toml:3:\d+: .*listeners\.web\.pool/);
  });

  test("accepts a file with the name of a command, given with a path", async () => {
    await file("check", "workers = 0\n");
    const { code, stderr } = await runLb(["./check"], { cwd: folder });
    expect(code).toBe(2);
    expect(stderr).toMatch(/check:1:1: workers/);
  });

  test("exits with 2 when there is no such file", async () => {
    const { code, stderr } = await runLb([join(folder, "nowhere.toml")]);
    expect(code).toBe(2);
    expect(stderr).toContain("nowhere.toml");
  });

  test("exits with 1 and names listener, address and cure when a port is in use", async () => {
    using backend = await echo();
    const [admin] = await freePorts(1);
    const path = await file("taken.toml", config(backend.port, `[admin]\nbind = "127.0.0.1:${admin}"\n`));
    const { code, stderr } = await runLb([path]);
    expect(code).toBe(1);
    expect(stderr).toContain("listeners.web");
    expect(stderr).toContain(`127.0.0.1:${backend.port}`);
    expect(stderr).toContain("EADDRINUSE");
    expect(stderr).toMatch(/another process/);
  });

  test("does not share the port of another lb, from which it would take connections", async () => {
    using backend = await echo();
    const [port, admin] = await freePorts(2);
    const text = config(port).replace('["127.0.0.1:1"]', `["${backend.address}"]`);
    await using first = await startLb(text);
    const { code, stderr } = await runLb([await file("second.toml", `${text}[admin]\nbind = "127.0.0.1:${admin}"\n`)]);
    expect(code).toBe(1);
    expect(stderr).toContain("EADDRINUSE");
    using client = await connect(port);
    expect(await client.echoes()).toBe(true);
    expect((await first.ready()).status).toBe(200);
  });

  test("exits with 1 when the admin address is in use, and leaves nothing listening", async () => {
    const [port, admin] = await freePorts(2);
    const taken = createServer().listen(admin, "127.0.0.1");
    try {
      const path = await file("admin.toml", config(port, `[admin]\nbind = "127.0.0.1:${admin}"\n`));
      const { code, stderr } = await runLb([path]);
      expect(code).toBe(1);
      expect(stderr).toContain("admin");
      expect(stderr).toContain(String(admin));
      await expect(connect(port)).rejects.toThrow("ECONNREFUSED");
    } finally {
      taken.close();
    }
  });

  test("exits with 1 when this machine does not have an address", async () => {
    const [port, admin] = await freePorts(2);
    const text = config(port, `[admin]\nbind = "127.0.0.1:${admin}"\n`).replace(
      "127.0.0.1:" + port,
      `192.0.2.1:${port}`,
    );
    const { code, stderr } = await runLb([await file("elsewhere.toml", text)]);
    expect(code).toBe(1);
    expect(stderr).toContain(`192.0.2.1:${port}`);
    expect(stderr).toContain("EADDRNOTAVAIL");
  });

  test("reads neither .env nor bunfig.toml from its working folder", async () => {
    await file(".env", "LB_TEST_PORT=8080\n");
    await file("bunfig.toml", 'preload = ["./evil.ts"]\n');
    await file("evil.ts", 'console.log("preloaded");\n');
    const path = await file("env.toml", config(8080).replace("127.0.0.1:8080", "127.0.0.1:${LB_TEST_PORT}"));
    const unset = await runLb(["check", path], { cwd: folder });
    expect(unset.code).toBe(2);
    expect(unset.stderr).toContain("LB_TEST_PORT");
    expect(unset.stdout).not.toContain("preloaded");
    const set = await runLb(["check", path], { cwd: folder, env: { LB_TEST_PORT: "8081" } });
    expect(set.code).toBe(0);
    await rm(join(folder, ".env"));
    await rm(join(folder, "bunfig.toml"));
  });

  test("listens with a config of four lines, with less than a second of CPU", async () => {
    const port = await freePort();
    await using lb = await startLb(config(port));
    expect(cpuSeconds(lb.pid)).toBeLessThan(1);
    expect(lb.log().some(({ event, bind }) => event === "listening" && bind === `127.0.0.1:${port}`)).toBe(true);
  });
});

describe("lb health", () => {
  test("exits with 0 while lb is alive, by file, address and URL, and with 1 otherwise", async () => {
    const port = await freePort();
    let file: string;
    let address: string;
    {
      await using lb = await startLb(config(port, '[pools.app.health]\ninterval = "50ms"\n'));
      file = lb.file;
      address = lb.adminUrl.replace("http://", "");
      for (const where of [file, address, lb.adminUrl]) {
        const { code, stdout, stderr } = await runLb(["health", where]);
        expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
        expect(stdout).toContain("alive");
      }
      // Alive but not ready: /ready is only checked on request.
      await lb.waitStatus(({ listeners }) => !listeners[0]!.ready);
      expect((await runLb(["health", file])).code).toBe(0);
      const ready = await runLb(["health", `${lb.adminUrl}/ready/${(await lb.status()).listeners[0]!.name}`]);
      expect(ready.code).toBe(1);
      expect(ready.stderr).toContain("503");
    }
    const { code, stderr } = await runLb(["health", address]);
    expect(code).toBe(1);
    expect(stderr).toContain("ECONNREFUSED");
  });
});

describe("lb demo", () => {
  test("balances over three backends with less than a second of CPU, and Ctrl-C ends it", async () => {
    const child = spawn(binary, ["demo"], { stdio: ["ignore", "pipe", "pipe"], cwd: tmpdir() });
    let output = "";
    child.stdout.setEncoding("utf8").on("data", (text: string) => (output += text));
    child.stderr.setEncoding("utf8").on("data", (text: string) => (output += text));
    const exited = new Promise<number | null>((resolve) => child.once("close", resolve));
    try {
      await eventually("the hints", () => output.includes("Ctrl-C"));
      expect(cpuSeconds(child.pid!)).toBeLessThan(1);
      const url = /curl (http:\/\/127\.0\.0\.1:\d+)\n/.exec(output)?.[1] ?? "";
      const answers: string[] = [];
      for (let i = 0; i < 6; i++) answers.push(await (await fetch(url, { headers: { Connection: "close" } })).text());
      const names = answers.map((text) => /backend ([ABC])/.exec(text)?.[1] ?? text);
      expect(new Set(names)).toEqual(new Set(["A", "B", "C"]));

      const dashboard = /See the dashboard:\s+(http\S+)/.exec(output)?.[1] ?? "";
      expect(await (await fetch(dashboard)).text()).toMatch(/^<!doctype html>/i);
      const command = /The same in a terminal:\s+(.+) top --admin (\S+)/.exec(output);
      expect(command?.[1]).toMatch(/lb'?$/);
      expect(await runLb(["status", "--admin", command?.[2] ?? ""])).toMatchObject({ code: 0 });

      // One is stopped for a while, and no request fails.
      const stop = /curl -X POST (http:\/\/127\.0\.0\.1:\d+\/stop)/.exec(output)?.[1] ?? "";
      expect((await fetch(stop, { method: "POST" })).status).toBe(200);
      await eventually("B is gone", () =>
        fetch(stop.replace("/stop", "")).then(
          () => false,
          () => true,
        ),
      );
      for (let i = 0; i < 6; i++) {
        const answer = await (await fetch(url, { headers: { Connection: "close" } })).text();
        expect(answer).toMatch(/backend [AC]/);
      }
      const file = /Edit, and it reloads:\s+(\S+)/.exec(output)?.[1] ?? "";
      expect(await Bun.file(file).exists()).toBe(true);
      child.kill("SIGINT");
      expect(await exited).toBe(0);
      expect(await Bun.file(file).exists()).toBe(false);
    } finally {
      child.kill("SIGKILL");
      await exited;
    }
  });
});
