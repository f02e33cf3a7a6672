// Real databases with their own load generators behind the balancer: a hundred thousand operations, none of which may fail.
import { execFile, spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { chown, mkdtemp, readdir, rm } from "node:fs/promises";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.ts";
import { freePorts, startLb, type Lb } from "../support/lb.ts";

const run = promisify(execFile);

/** An unprivileged user that every system has: PostgreSQL refuses to run as root. */
const NOBODY = 65534;
const asNobody = ["--reuid", String(NOBODY), "--regid", String(NOBODY), "--clear-groups"];

function unprivileged(command: string, args: string[]): [string, string[]] {
  return process.getuid?.() === 0 ? ["setpriv", [...asNobody, command, ...args]] : [command, args];
}

async function installed(command: string): Promise<boolean> {
  return run("sh", ["-c", `command -v "$0"`, command]).then(
    () => true,
    () => false,
  );
}

function config(front: number, back: number): string {
  return `
    workers = 2
    [listeners.database]
    bind = "127.0.0.1:${front}"
    pool = "database"
    [pools.database]
    backends = ["127.0.0.1:${back}"]
  `;
}

async function answers(port: number): Promise<boolean> {
  const socket = connect({ host: "127.0.0.1", port });
  try {
    await once(socket, "connect");
    return true;
  } catch {
    return false;
  } finally {
    socket.destroy();
  }
}

/** Ends a server and waits until it is gone. */
async function end(child: ChildProcess | undefined, signal: NodeJS.Signals): Promise<void> {
  if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
  const gone = once(child, "exit");
  child.kill(signal);
  await gone;
}

/** Every connection through the balancer ended as the client wanted it, and none is left. */
async function expectCleanEnds(lb: Lb): Promise<void> {
  const { listeners, pools } = await lb.waitIdle();
  expect(listeners[0]!.accepted).toBeGreaterThan(0);
  expect(new Set(listeners[0]!.ends.map(({ end }) => end))).toEqual(new Set(["eof"]));
  expect(pools[0]!.backends[0]!.connects).toMatchObject({ refused: 0, timed_out: 0, failed: 0, retried_away: 0 });
}

describe("Redis", () => {
  let server: ChildProcess | undefined;
  let lb: Lb;
  let missing: string | null = null;
  let ports: number[];

  beforeAll(async () => {
    for (const command of ["redis-server", "redis-benchmark"]) {
      if (!(await installed(command))) missing = `${command} is not installed`;
    }
    if (missing !== null) return;
    ports = await freePorts(2);
    const [front, back] = ports as [number, number];
    const options = ["--port", String(back), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"];
    server = spawn("redis-server", options, { stdio: "ignore", cwd: tmpdir() });
    await eventually("Redis answers", () => answers(back));
    lb = await startLb(config(front, back));
  });

  beforeEach((context) => {
    if (missing !== null) context.skip(missing);
  });

  afterAll(async () => {
    if (missing !== null) return;
    await lb.stop();
    await end(server, "SIGKILL");
  });

  /** Runs redis-benchmark through the balancer; operations a second by command. */
  async function benchmark(...options: string[]): Promise<Record<string, number>> {
    const all = ["-p", String(ports[0]), "--csv", ...options];
    const { stdout, stderr } = await run("redis-benchmark", all);
    // It goes on after an error and says so; a lost connection it says, too.
    expect(stderr + stdout).not.toMatch(/error|closed|reset/i);
    const rows = stdout.trim().split("\n").slice(1);
    return Object.fromEntries(
      rows.map((row) => row.replaceAll('"', "").split(",")).map(([name, rate]) => [name!, Number(rate)]),
    );
  }

  test("60,000 operations of 50 clients, in pipelines", async () => {
    const rates = await benchmark(
      "-t",
      "set,get,lpush",
      "-n",
      "20000",
      "-c",
      "50",
      "-P",
      "16",
      "-d",
      "100",
      "-r",
      "1000",
    );
    expect(Object.keys(rates)).toEqual(["SET", "GET", "LPUSH"]);
    await expectCleanEnds(lb);
  });

  test("20,000 operations one by one, and large values", async () => {
    await benchmark("-t", "incr", "-n", "20000", "-c", "20");
    await benchmark("-t", "set,get", "-n", "1000", "-c", "10", "-d", "100000");
    await expectCleanEnds(lb);
  });

  test("2,000 operations with a connection each", async () => {
    const before = (await lb.status()).listeners[0]!.accepted;
    await benchmark("-t", "set", "-n", "2000", "-c", "20", "-k", "0");
    await expectCleanEnds(lb);
    expect((await lb.status()).listeners[0]!.accepted - before).toBeGreaterThanOrEqual(2000);
  });
});

describe("PostgreSQL", () => {
  let server: ChildProcess | undefined;
  let folder: string | null = null;
  let lb: Lb;
  let missing: string | null = null;
  let ports: number[];

  beforeAll(async () => {
    const programs = await postgresPrograms();
    if (programs === null) missing = "PostgreSQL is not installed";
    else if (!(await installed("pgbench"))) missing = "pgbench is not installed";
    if (programs === null || missing !== null) return;
    folder = await mkdtemp(join(tmpdir(), "lb-postgres-"));
    if (process.getuid?.() === 0) await chown(folder, NOBODY, NOBODY);
    const data = join(folder, "data");
    const initdb = ["-D", data, "-U", "test", "-A", "trust", "-N", "-E", "UTF8", "--locale=C"];
    await run(...unprivileged(join(programs, "initdb"), initdb), { cwd: folder });
    ports = await freePorts(2);
    const [front, back] = ports as [number, number];
    const settings = [`port=${back}`, "listen_addresses=127.0.0.1", `unix_socket_directories=${folder}`, "fsync=off"];
    const options = ["-D", data, ...settings.flatMap((setting) => ["-c", setting])];
    const [command, args] = unprivileged(join(programs, "postgres"), options);
    server = spawn(command, args, { stdio: "ignore", cwd: folder });
    await eventually("PostgreSQL answers", () =>
      query(back, "select 1").then(
        (answer) => answer === "1",
        () => false,
      ),
    );
    lb = await startLb(config(front, back));
  }, 60_000);

  beforeEach((context) => {
    if (missing !== null) context.skip(missing);
  });

  afterAll(async () => {
    if (missing !== null) return;
    await lb?.stop();
    // Immediate shutdown: nobody wants the data any more.
    await end(server, "SIGQUIT");
    if (folder !== null) await rm(folder, { recursive: true, force: true });
  });

  const target = (port: number): string[] => ["-h", "127.0.0.1", "-p", String(port), "-U", "test"];

  async function query(port: number, sql: string): Promise<string> {
    const { stdout } = await run("psql", [...target(port), "-d", "postgres", "-Atc", sql]);
    return stdout.trim();
  }

  async function pgbench(...options: string[]): Promise<{ done: number; failed: number }> {
    const { stdout } = await run("pgbench", [...target(ports[0]!), ...options, "postgres"]);
    const number = (pattern: RegExp): number => Number(pattern.exec(stdout)?.[1]);
    return {
      done: number(/transactions actually processed: (\d+)/),
      failed: number(/failed transactions: (\d+)/),
    };
  }

  test("24,000 transactions of 16 clients", async () => {
    await pgbench("-i", "-q", "-s", "1");
    expect(await pgbench("-S", "-n", "-c", "16", "-j", "2", "-t", "1250")).toEqual({ done: 20_000, failed: 0 });
    expect(await pgbench("-N", "-n", "-c", "8", "-j", "2", "-t", "500")).toEqual({ done: 4000, failed: 0 });
    expect(await query(ports[0]!, "select count(*) from pgbench_history")).toBe("4000");
    await expectCleanEnds(lb);
  });

  test("200 transactions with a connection each", async () => {
    expect(await pgbench("-S", "-n", "-C", "-c", "4", "-t", "50")).toEqual({ done: 200, failed: 0 });
    await expectCleanEnds(lb);
  });

  test("a reply of 30 MB arrives whole", async () => {
    const hash = await query(ports[0]!, "select md5(string_agg(i::text, '')) from generate_series(1, 3000000) i");
    const { stdout } = await run(
      "sh",
      [
        "-c",
        `psql "$@" -d postgres -Atc "select i from generate_series(1, 3000000) i" | tr -d '\\n' | md5sum`,
        "sh",
      ].concat(target(ports[0]!)),
    );
    expect(stdout.split(" ")[0]).toBe(hash);
  });
});

/** Where the server's programs are: in the path, or where Debian keeps them, the newest ones. */
async function postgresPrograms(): Promise<string | null> {
  const inPath = await run("sh", ["-c", "dirname $(command -v postgres)"]).catch(() => null);
  if (inPath !== null) return inPath.stdout.trim();
  const root = "/usr/lib/postgresql";
  const versions = await readdir(root).catch(() => []);
  const newest = versions.toSorted((a, b) => Number(b) - Number(a))[0];
  return newest === undefined ? null : join(root, newest, "bin");
}
