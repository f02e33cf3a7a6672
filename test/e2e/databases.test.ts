// Real databases behind lb: with their own load generators, a hundred thousand operations, none of which may fail; and with health checks,
// which a database must not count as failed logins.
import { execFile, spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { chown, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
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

/** Every connection through lb was ended by the client, and none is left. */
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

  /** Runs redis-benchmark through lb; operations per second by command. */
  async function benchmark(...options: string[]): Promise<Record<string, number>> {
    const all = ["-p", String(ports[0]), "--csv", ...options];
    const { stdout, stderr } = await run("redis-benchmark", all);
    // It continues after an error and reports it; it reports a lost connection too.
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
  });

  beforeEach((context) => {
    if (missing !== null) context.skip(missing);
  });

  afterAll(async () => {
    if (missing !== null) return;
    await lb?.stop();
    // Immediate shutdown: the data is no longer needed.
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

describe("MariaDB", () => {
  // MariaDB counts the failed handshakes of hosts that it knows by name, and never those of 127.0.0.1.
  const [CHECKER, CONTROL] = ["127.0.0.9", "127.0.0.10"];
  const MAX_CONNECT_ERRORS = 5;
  let server: ChildProcess | undefined;
  let folder: string | null = null;
  let back = 0;
  let missing: string | null = null;

  beforeAll(async () => {
    for (const command of ["mariadbd", "mariadb", "mariadb-install-db", "setpriv"]) {
      if (!(await installed(command))) missing = `${command} is not installed`;
    }
    if (missing !== null) return;
    folder = await mkdtemp(join(tmpdir(), "lb-mariadb-"));
    const [data, hosts, users] = [join(folder, "data"), join(folder, "hosts"), join(folder, "users.sql")];
    await writeFile(hosts, `127.0.0.1 localhost\n${CHECKER} checker.example\n${CONTROL} control.example\n`);
    const withHosts = ["-m", "sh", "-c", `mount --bind ${hosts} /etc/hosts && exec "$@"`, "--"];
    const trouble = await run("unshare", [...withHosts, "true"]).then(() => null, String);
    if (trouble !== null) {
      missing = `no mount namespace here: ${trouble}`;
      return;
    }
    await writeFile(users, "create user test@'%';\ngrant all on *.* to test@'%';\n");
    await chown(folder, NOBODY, NOBODY);
    const install = [
      "--no-defaults",
      `--datadir=${data}`,
      "--auth-root-authentication-method=normal",
      "--skip-test-db",
    ];
    await run(...unprivileged("mariadb-install-db", install), { cwd: folder });
    back = (await freePorts(1))[0];
    const options = [
      "--no-defaults",
      `--datadir=${data}`,
      `--socket=${folder}/socket`,
      `--pid-file=${folder}/pid`,
      `--init-file=${users}`,
      `--port=${back}`,
      "--bind-address=127.0.0.1",
      `--max-connect-errors=${MAX_CONNECT_ERRORS}`,
      "--performance-schema=ON",
    ];
    server = spawn("unshare", [...withHosts, ...unprivileged("mariadbd", options).flat()], {
      stdio: "ignore",
      cwd: folder,
    });
    await eventually(
      "MariaDB answers",
      () =>
        aside("select 1").then(
          (answer) => answer === "1",
          () => false,
        ),
      60_000,
    );
  });

  beforeEach((context) => {
    if (missing !== null) context.skip(missing);
  });

  afterAll(async () => {
    await end(server, "SIGKILL");
    if (folder !== null) await rm(folder, { recursive: true, force: true });
  });

  async function query(where: string[], sql: string): Promise<string> {
    const login = ["--no-defaults", ...where, "-utest", "--skip-ssl", "-Nse", sql];
    const { stdout } = await run("mariadb", login);
    return stdout.trim();
  }

  /** By the unix socket, which has no count of errors. */
  const aside = (sql: string): Promise<string> => query([`--socket=${folder}/socket`], sql);
  const through = (port: number): Promise<string> => query(["-h", "127.0.0.1", "-P", String(port)], "select 1");

  /** Connects like a check that completes the handshake: waits for the greeting and closes. */
  async function greeted(from: string): Promise<void> {
    const socket = connect({ host: "127.0.0.1", port: back, localAddress: from });
    await once(socket, "data");
    socket.destroy();
    await once(socket, "close");
  }

  test("never sees a check, so it does not block the host of lb", async () => {
    const [checked, control] = await freePorts(2);
    await using lb = await startLb(`
      workers = 1
      listeners.checked = { bind = "127.0.0.1:${checked}", pool = "checked" }
      listeners.control = { bind = "127.0.0.1:${control}", pool = "control" }
      [pools.checked]
      backends = ["127.0.0.1:${back}"]
      source_address = "${CHECKER}"
      health = { interval = "10ms" }
      [pools.control]
      backends = ["127.0.0.1:${back}"]
      source_address = "${CONTROL}"
      health = { type = "off" }
    `);
    await lb.waitStatus(({ pools }) => pools[0]!.backends[0]!.health.checks.success >= 300);
    expect(await aside("show global status like 'Aborted_connects'")).toBe("Aborted_connects\t0");
    expect(await aside("select count(*) from performance_schema.host_cache where ip like '127.0.0.%'")).toBe("0");
    expect(await through(checked)).toBe("1");

    // The same server blocks a host whose checks complete the handshake.
    expect(await through(control)).toBe("1");
    for (let i = 0; i <= MAX_CONNECT_ERRORS; i++) await greeted(CONTROL);
    await eventually("the control is blocked", () =>
      through(control).then(
        () => false,
        (error: unknown) => String(error).includes("blocked because of many connection errors"),
      ),
    );
    expect(await through(checked)).toBe("1");
    const { pools } = await lb.status();
    expect(pools[0]!.backends[0]).toMatchObject({ up: true, health: { checks: { failure: 0 } } });
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
