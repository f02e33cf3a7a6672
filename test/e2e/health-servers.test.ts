// Health checks that speak the protocols of databases, mail and SSH, against the real servers: they are up while they serve, and they log
// no error for a check.
import { chownSync, existsSync, mkdirSync, readFileSync } from "node:fs";
import { readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeAll, beforeEach, describe, expect, test, type TestContext } from "vitest";
import { Authority, peersMissing, type Leaf } from "../support/certificates.ts";
import { eventually } from "../support/eventually.ts";
import { freePort, freePorts, startLb, type Lb } from "../support/lb.ts";
import { redisServer } from "../support/redis.ts";
import { missingOf, NOBODY, run, Server, unprivileged } from "../support/server.ts";

const QUICK = `interval = "50ms", timeout = "5s", rise = 2, fall = 3`;
const CHECKS = 20;

function skipWithout(context: TestContext, missing: string | null): void {
  if (missing !== null) context.skip(missing);
}

/** One listener and pool for each of these health checks, all with the same backend. */
async function startPools(backend: string, checks: Record<string, string>, more = ""): Promise<Lb> {
  const front = await freePort();
  const names = Object.keys(checks);
  const routes = names.map((name) => `{ pool = "${name}", sni = ["${name}.example"] }`).join(", ");
  const pools = names.map(
    (name) => `[pools.${name}]\nbackends = ["${backend}"]\nhealth = { ${checks[name]}, ${QUICK} }\n`,
  );
  return startLb(`
    workers = 1
    listeners.web = { bind = "127.0.0.1:${front}", pool = "${names[0]}", routes = [${routes}] }
    ${pools.join("\n")}
    ${more}
  `);
}

const backendOf = async (lb: Lb, pool: string) =>
  (await lb.status()).pools.find(({ name }) => name === pool)!.backends[0]!;

/** Waits for this many successes in each pool, and no failure meanwhile. */
async function expectChecks(lb: Lb, ...pools: string[]): Promise<void> {
  const before = await Promise.all(pools.map(async (pool) => (await backendOf(lb, pool)).health.checks));
  for (const [index, pool] of pools.entries()) {
    await eventually(`checks of ${pool}`, async () => {
      const { up, health } = await backendOf(lb, pool);
      if (health.checks.failure > before[index]!.failure) throw new Error(`${pool}: ${health.last_error}`);
      return up && health.checks.success >= before[index]!.success + CHECKS;
    });
  }
}

/** The server's log lines while `during` ran. */
async function loggedWhile(server: Server, during: () => Promise<unknown>, file?: string): Promise<string[]> {
  const before = server.log(file).length;
  await during();
  return server
    .log(file)
    .slice(before)
    .split("\n")
    .filter((line) => line !== "");
}

/** The steps of the last exchange in a section of the recipes. */
function stepsOf(section: string): string {
  const recipes = readFileSync(join(import.meta.dirname, "../../docs/health-checks.md"), "utf8");
  const [text] = new RegExp(`### ${section}\\n.*?\\n### `, "s").exec(recipes)!;
  return /.*steps +=\s+\[(.*?)\n\]\n/s.exec(text)![1]!;
}

describe("Redis", () => {
  test("answers PING, with a password too, and logs nothing", async (context) => {
    skipWithout(context, await missingOf("redis-server"));
    const [open, closed] = await freePorts(2);
    await using server = await redisServer(open);
    await using secret = await redisServer(closed, "--requirepass", "hunter2");
    await using lb = await startPools(`127.0.0.1:${open}`, {
      ping: `type = "redis"`,
      master: `type = "redis", role = "master"`,
    });
    await using behind = await startPools(`127.0.0.1:${closed}`, {
      ping: `type = "redis"`,
      master: `type = "redis", role = "master"`,
      steps: `type = "exchange", steps = [
        { send = "AUTH hunter2\\r\\n", expect = "+OK" }, { send = "INFO replication\\r\\n", expect_regex = "^role:master" }]`,
    });
    const logged = await loggedWhile(server, () => expectChecks(lb, "ping", "master"));
    expect(logged).toEqual([]);
    expect(await loggedWhile(secret, () => expectChecks(behind, "ping", "steps"))).toEqual([]);
    expect(await backendOf(behind, "master")).toMatchObject({
      up: false,
      health: { last_error: 'expected role:master, found "-NOAUTH Authentication required."' },
    });
  });
});

describe("PostgreSQL", () => {
  let programs: string | null = null;
  let missing: string | null = null;
  beforeAll(async () => {
    const root = "/usr/lib/postgresql";
    const versions = await readdir(root).catch(() => []);
    const newest = versions.toSorted((a, b) => Number(b) - Number(a))[0];
    if (newest === undefined) missing = "PostgreSQL is not installed";
    else programs = join(root, newest, "bin");
    missing ??= peersMissing ?? (await missingOf("setpriv"));
  });

  async function postgres(port: number, leaf: Leaf | null): Promise<Server> {
    const server = await Server.make("postgres");
    const data = join(server.dir, "data");
    const initdb = ["-D", data, "-U", "test", "-A", "trust", "-N", "-E", "UTF8", "--locale=C"];
    await run(...unprivileged(join(programs!, "initdb"), initdb), { cwd: server.dir });
    // Users with a password are asked for it, others have no entry.
    await writeFile(
      join(data, "pg_hba.conf"),
      "local all all trust\nhost all trusted all trust\nhost all lb all scram-sha-256\n",
    );
    const settings = [
      `port=${port}`,
      "listen_addresses=127.0.0.1",
      `unix_socket_directories=${server.dir}`,
      "fsync=off",
    ];
    if (leaf !== null) {
      const key = join(server.dir, "key.pem");
      await run("cp", [leaf.key, key]);
      await run("chmod", ["600", key]);
      if (process.getuid?.() === 0) chownSync(key, NOBODY, NOBODY);
      await run("cp", [leaf.cert, join(server.dir, "cert.pem")]);
      settings.push("ssl=on", `ssl_key_file=${key}`, `ssl_cert_file=${server.dir}/cert.pem`);
    }
    const options = ["-D", data, ...settings.flatMap((setting) => ["-c", setting])];
    server.start(unprivileged(join(programs!, "postgres"), options));
    await eventually("PostgreSQL serves", () => server.log().includes("ready to accept connections"), 60_000);
    await sql(server, port, "create user lb password 'secret'; create user trusted");
    return server;
  }

  const sql = (server: Server, port: number, command: string) =>
    run("psql", ["-h", server.dir, "-p", String(port), "-U", "test", "-d", "postgres", "-c", command]);

  beforeEach((context) => skipWithout(context, missing));

  test.each(["with TLS", "without TLS"])(
    "%s is up and logs nothing, with and without a user",
    async (how) => {
      using authority = await Authority.make();
      const leaf = how === "with TLS" ? await authority.leaf("db.example") : null;
      const port = await freePort();
      await using server = await postgres(port, leaf);
      await using lb = await startPools(`127.0.0.1:${port}`, {
        ssl: `type = "postgres"`,
        password: `type = "postgres", user = "lb"`,
        trusted: `type = "postgres", user = "trusted"`,
      });
      expect(await loggedWhile(server, () => expectChecks(lb, "ssl", "password", "trusted"))).toEqual([]);
      await using refused = await startPools(`127.0.0.1:${port}`, { nobody: `type = "postgres", user = "nobody"` });
      await eventually("it is down", async () => !(await backendOf(refused, "nobody")).up);
      expect((await backendOf(refused, "nobody")).health.last_error).toContain('error 28000: "no pg_hba.conf entry');
      // The server says so only after it has accepted the login.
      await sql(server, port, "alter user trusted connection limit 0");
      await eventually("a login is refused", async () => !(await backendOf(lb, "trusted")).up);
      expect((await backendOf(lb, "trusted")).health.last_error).toBe(
        'error 53300: "too many connections for role \\"trusted\\""',
      );
      await server.end("SIGQUIT");
      const down = await lb.waitLog(({ event, pool }) => event === "backend down" && pool === "ssl");
      expect(down["reason"]).toBe("connection refused");
    },
    60_000,
  );
});

describe("MariaDB", () => {
  async function mariadb(port: number): Promise<Server> {
    const server = await Server.make("mariadb");
    const data = join(server.dir, "data");
    const install = [
      "--no-defaults",
      `--datadir=${data}`,
      "--auth-root-authentication-method=normal",
      "--skip-test-db",
    ];
    await run(...unprivileged("mariadb-install-db", install), { cwd: server.dir });
    const users = join(server.dir, "users.sql");
    await writeFile(users, "create user lb@'%';\ncreate user secret@'%' identified by 'hunter2';\n");
    const options = [
      "--no-defaults",
      `--datadir=${data}`,
      `--socket=${server.dir}/socket`,
      `--pid-file=${server.dir}/pid`,
      `--init-file=${users}`,
      `--port=${port}`,
      "--bind-address=127.0.0.1",
      // Logs every connection that is aborted.
      "--log-warnings=4",
    ];
    server.start(unprivileged("mariadbd", options));
    await eventually("MariaDB serves", () => server.log().includes("ready for connections"), 60_000);
    return server;
  }

  const sql = async (server: Server, command: string): Promise<string> => {
    const login = ["--no-defaults", `--socket=${server.dir}/socket`, "-uroot", "-Nse", command];
    return (await run("mariadb", login)).stdout;
  };
  const count = async (server: Server, name: string): Promise<string> =>
    (await sql(server, `show global status like '${name}'`)).trim().split("\t")[1]!;

  test("accepts the login of a user without a password and logs nothing; without a user it logs a warning", async (context) => {
    skipWithout(context, await missingOf("mariadbd", "mariadb", "mariadb-install-db", "setpriv"));
    const port = await freePort();
    await using server = await mariadb(port);
    {
      await using lb = await startPools(`127.0.0.1:${port}`, {
        login: `type = "mysql", user = "lb"`,
        primary: `type = "exchange", steps = [${stepsOf("MySQL, MariaDB")}]`,
      });
      expect(await loggedWhile(server, () => expectChecks(lb, "login", "primary"))).toEqual([]);
      expect(await count(server, "Aborted_connects")).toBe("0");
      expect(await count(server, "Aborted_clients")).toBe("0");
      await sql(server, "set global read_only = 1");
      await eventually("a replica is down", async () => !(await backendOf(lb, "primary")).up);
      expect((await backendOf(lb, "primary")).health.last_error).toMatch(/^no "02000004 01 30" before the end/);
      await sql(server, "set global read_only = 0");
      expect(await count(server, "Aborted_clients")).toBe("0");
    }
    await using refused = await startPools(`127.0.0.1:${port}`, { denied: `type = "mysql", user = "secret"` });
    await eventually("it is down", async () => !(await backendOf(refused, "denied")).up);
    expect((await backendOf(refused, "denied")).health.last_error).toMatch(
      /^error 1045: "Access denied for user 'secret'/,
    );
    await using lb = await startPools(`127.0.0.1:${port}`, { greeting: `type = "mysql"` });
    const logged = (await loggedWhile(server, () => expectChecks(lb, "greeting"))).join("\n");
    expect(logged).toContain("Aborted connection");
    expect(logged).not.toContain("ERROR");
    await server.end("SIGKILL");
    await lb.waitLog(({ event }) => event === "backend down");
  });
});

test("OpenLDAP answers the search of the recipe, and logs neither an error nor a lost connection", async (context) => {
  skipWithout(context, existsSync("/usr/sbin/slapd") ? await missingOf("setpriv") : "slapd is not installed");
  const port = await freePort();
  await using server = await Server.make("slapd");
  const file = join(server.dir, "slapd.conf");
  await writeFile(file, `include /etc/ldap/schema/core.schema\npidfile ${server.dir}/pid\n`);
  server.start(unprivileged("/usr/sbin/slapd", ["-d", "stats", "-f", file, "-h", `ldap://127.0.0.1:${port}`]));
  await eventually("slapd serves", () => server.log().includes("slapd starting"));
  await using lb = await startPools(`127.0.0.1:${port}`, { ldap: `type = "exchange", steps = [${stepsOf("LDAP")}]` });
  const logged = await loggedWhile(server, () => expectChecks(lb, "ldap"));
  console.log(`slapd logs of a check: ${logged.slice(0, 6).join(" | ")}`);
  expect(logged.filter((line) => line.includes("UNBIND")).length).toBeGreaterThanOrEqual(CHECKS - 1);
  expect(logged.filter((line) => /lost|err=[1-9]|error/.test(line))).toEqual([]);
  await server.end("SIGTERM");
  await lb.waitLog(({ event }) => event === "backend down");
});

test("OpenSSH answers with its version, and logs no error", async (context) => {
  skipWithout(
    context,
    (await missingOf("ssh-keygen")) ?? (existsSync("/usr/sbin/sshd") ? null : "sshd is not installed"),
  );
  if (process.getuid?.() !== 0) context.skip("sshd must be started as root");
  await using server = await Server.make("sshd");
  const key = join(server.dir, "host_key");
  await run("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-f", key]);
  // Where sshd puts away its privileges.
  mkdirSync("/run/sshd", { recursive: true, mode: 0o755 });
  const port = await freePort();
  const options = ["-D", "-e", "-f", "/dev/null", "-h", key, "-o", "ListenAddress=127.0.0.1", "-p", String(port)];
  server.start(["/usr/sbin/sshd", options]);
  await eventually("sshd serves", () => server.log().includes("Server listening"));
  await using lb = await startPools(`127.0.0.1:${port}`, { ssh: `type = "ssh"` });
  const logged = await loggedWhile(server, () => expectChecks(lb, "ssh"));
  console.log(`sshd logs of a check: ${logged[0]}`);
  expect(logged.filter((line) => /error|fatal|kex_exchange|banner/i.test(line))).toEqual([]);
});

test("Postfix answers to EHLO and QUIT, and logs neither an error nor a lost connection", async (context) => {
  skipWithout(context, existsSync("/usr/sbin/postfix") ? null : "postfix is not installed");
  if (process.getuid?.() !== 0) context.skip("postfix must be started as root");
  await using server = await Server.make("postfix");
  const port = await freePort();
  const { dir } = server;
  const settings = [
    "compatibility_level = 3.6",
    `queue_directory = ${dir}/queue`,
    `data_directory = ${dir}/data`,
    "mail_owner = postfix",
    // Its own file: /dev/stdout cannot be opened where it is a socket.
    `maillog_file_prefixes = ${dir}`,
    `maillog_file = ${dir}/mail.log`,
    "inet_interfaces = 127.0.0.1",
    "inet_protocols = ipv4",
    "myhostname = mail.example",
    "mydestination = mail.example",
    "alias_maps =",
  ];
  const services = [
    `127.0.0.1:${port} inet n - n - - smtpd`,
    ...["cleanup", "anvil", "rewrite trivial-rewrite", "proxymap", "tlsmgr"].map((name) => {
      const [service, program] = name.split(" ");
      return `${service} unix - - n - 1 ${program ?? service}`;
    }),
    "postlog unix-dgram n - n - 1 postlogd",
  ];
  await writeFile(join(dir, "main.cf"), `${settings.join("\n")}\n`);
  await writeFile(join(dir, "master.cf"), `${services.join("\n")}\n`);
  await run("sh", [
    "-c",
    `chmod 755 "$0" && mkdir "$0/queue" "$0/data" && chown root "$0" "$0/queue" && chown postfix "$0/data"`,
    dir,
  ]);
  await run("/usr/sbin/postfix", ["-c", dir, "check"]);
  server.start(["/usr/lib/postfix/sbin/master", ["-c", dir, "-d"]]);
  await eventually(
    "Postfix serves",
    () => existsSync(join(dir, "mail.log")) && server.log("mail.log").includes("daemon started"),
  );
  await using lb = await startPools(`127.0.0.1:${port}`, { smtp: `type = "smtp"` });
  const logged = await loggedWhile(server, () => expectChecks(lb, "smtp"), "mail.log");
  console.log(`Postfix logs of a check: ${logged.slice(0, 2).join(" | ")}`);
  expect(logged.some((line) => line.includes("ehlo=1 quit=1 commands=2"))).toBe(true);
  expect(logged.filter((line) => /error|fatal|lost connection|warning|improper|timeout/i.test(line))).toEqual([]);
  await server.end("SIGTERM");
});
