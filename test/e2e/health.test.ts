// Which backend a client gets: the effect of health checks, weights, backups and retries on real connections.
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { createConnection } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { beforeEach, describe, expect, test } from "vitest";
import { blackhole, echo, refusing, silent, tagged, type Backend } from "../support/backends.ts";
import { ask, askOften, connect, connectMany } from "../support/client.ts";
import { eventually } from "../support/eventually.ts";
import { freePort, freePorts, startLb, type Lb } from "../support/lb.ts";
import { startLoad } from "../support/load.ts";
import { missingOf } from "../support/server.ts";

const INTERVAL_MS = 100;
const HEALTH = `{ interval = "${INTERVAL_MS}ms", timeout = "500ms", rise = 2, fall = 3 }`;

function config(port: number, pool: string): string {
  return `
    [listeners.web]
    bind = "127.0.0.1:${port}"
    pool = "app"
    [pools.app]
    ${pool}
  `;
}

function isUp(lb: Lb, backend: string, up: boolean): Promise<unknown> {
  return lb.waitStatus(({ pools }) =>
    pools.some((pool) => pool.backends.some((b) => b.name === backend && b.up === up)),
  );
}

describe("active checks", () => {
  test("a backend that dies goes down after `fall` failures and comes back after `rise` successes", async () => {
    using a = await tagged("a");
    using b = await tagged("b");
    const port = await freePort();
    const backends = `[{ address = "${a.address}", name = "a" }, { address = "${b.address}", name = "b" }]`;
    // With two workers, turns over two backends come out even wherever the kernel sends the connections.
    await using lb = await startLb(`workers = 2\n${config(port, `backends = ${backends}\nhealth = ${HEALTH}`)}`);
    expect(await askOften(port, 10)).toEqual({ a: 5, b: 5 });

    const stoppedAt = Date.now();
    b.stop();
    const down = await lb.waitLog(({ event }) => event === "backend down");
    expect(down).toMatchObject({ level: "warn", pool: "app", backend: "b", backends_up: 1, backends: 2 });
    expect(down["reason"]).toContain("refused");
    // Three checks, of which the first comes within one interval: at least two intervals, with jitter.
    expect(Date.parse(down.time) - stoppedAt).toBeGreaterThan(2 * 0.9 * INTERVAL_MS - 10);
    const { pools } = await lb.status();
    expect(pools[0]!.backends[1]).toMatchObject({
      name: "b",
      up: false,
      health: { last_error: expect.stringContaining("refused") },
    });
    expect(pools[0]!.backends[1]!.health.checks.failure).toBe(3);
    expect(await lb.metric("lb_backend_up", { backend: "b" })).toBe(0);
    expect(await askOften(port, 10)).toEqual({ a: 10 });
    expect((await lb.ready()).status).toBe(200);

    const startedAt = Date.now();
    b.start();
    const up = await lb.waitLog(({ event }) => event === "backend up");
    expect(Date.parse(up.time) - startedAt).toBeGreaterThan(0.9 * INTERVAL_MS - 10);
    expect(up).toMatchObject({ level: "info", backend: "b", backends_up: 2 });
    expect(await lb.metric("lb_backend_up", { backend: "b" })).toBe(1);
    await eventually("b is used again", async () => (await ask(port)) === "b");
    // Only changes are logged.
    const said = lb
      .log()
      .filter(({ event }) => event.startsWith("backend "))
      .map(({ event }) => event);
    expect(said).toEqual(["backend down", "backend up"]);
  });

  test("fewer failures than `fall` do not change the state", async () => {
    using a = await tagged("a");
    const port = await freePort();
    const backends = `[{ address = "${a.address}", name = "a" }]`;
    await using lb = await startLb(
      config(port, `backends = ${backends}\nhealth = { interval = "100ms", fall = 1000 }`),
    );
    // The first result would decide alone.
    await lb.waitStatus(({ pools }) => pools[0]!.backends[0]!.health.checks.success >= 1);
    a.stop();
    await lb.waitStatus(({ pools }) => pools[0]!.backends[0]!.health.checks.failure >= 3);
    expect(lb.log().some(({ event }) => event === "backend down")).toBe(false);
    expect((await lb.ready()).status).toBe(200);
    expect(await ask(port)).toBe("reset");
    expect(await lb.waitLine(() => true)).toMatchObject({
      end: "connect_refused",
      end_by: "backend",
      error: "ECONNREFUSED",
    });
  });

  test("a backend that accepts nothing is down although it listens", async () => {
    using a = await tagged("a");
    await using hole = await blackhole();
    const port = await freePort();
    const backends = `[{ address = "${a.address}", name = "a" }, { address = "${hole.address}", name = "hole" }]`;
    const health = `{ interval = "100ms", timeout = "100ms", fall = 2 }`;
    await using lb = await startLb(config(port, `backends = ${backends}\nhealth = ${health}`));
    const down = await lb.waitLog(({ event }) => event === "backend down");
    expect(down).toMatchObject({ backend: "hole", reason: expect.stringContaining("timed out") });
    expect(await askOften(port, 4)).toEqual({ a: 4 });
  });

  test("a check connects to `port`", async () => {
    using a = await tagged("a");
    using checked = await silent();
    const port = await freePort();
    await using lb = await startLb(
      config(
        port,
        `backends = ["${a.address}"]\nhealth = { interval = "50ms", fall = 2, rise = 1, port = ${checked.port} }`,
      ),
    );
    // A TCP check is over before the program sees it, unless lb stalls for longer than the kernel delays the ACK.
    let seen = Infinity;
    for (let tries = 0, success = 0; tries < 30 && seen > 0; tries++) {
      const before = checked.accepted;
      const { pools } = await lb.waitStatus(
        (status) => status.pools[0]!.backends[0]!.health.checks.success >= success + 10,
      );
      success = pools[0]!.backends[0]!.health.checks.success;
      seen = checked.accepted - before;
    }
    expect(seen).toBe(0);
    checked.stop();
    await isUp(lb, a.address, false);
    await eventually("every worker knows", async () => (await ask(port)) === "reset");
    const served = a.accepted;
    checked.start();
    await isUp(lb, a.address, true);
    expect(a.accepted).toBe(served);
    await eventually("every worker knows", async () => (await ask(port)) === "a");
  });
});

describe("a check that this machine cannot make", () => {
  /** The soft limit of open files; null = as high as the hard one. */
  const limitFiles = (lb: Lb, files: number | null): void => {
    const hard = /^Max open files\s+\S+\s+(\S+)/m.exec(readFileSync(`/proc/${lb.pid}/limits`, "utf8"))![1];
    const { status, stderr } = spawnSync("prlimit", ["--pid", String(lb.pid), `--nofile=${files ?? hard}:`]);
    if (status !== 0) throw new Error(String(stderr));
  };

  test("changes no state: without a free descriptor backends keep their state, and the log says why", async (context) => {
    const missing = await missingOf("prlimit");
    if (missing !== null) context.skip(missing);
    using a = await tagged("a");
    using b = await tagged("b");
    const port = await freePort();
    const pool = `backends = ["${a.address}", "${b.address}"]\nhealth = { interval = "50ms", fall = 2, rise = 2 }`;
    await using lb = await startLb(`watch = false\n${config(port, pool)}`);
    b.stop();
    await isUp(lb, b.address, false);
    const { pools } = await lb.waitStatus((status) => status.pools[0]!.backends[0]!.health.checks.success > 2);
    const failures = pools[0]!.backends[0]!.health.checks.failure;
    // Open descriptors keep their numbers, and these are below those of new ones.
    const files = 8;
    for (let fd = 0; fd < files; fd++) expect(existsSync(`/proc/${lb.pid}/fd/${fd}`)).toBe(true);
    limitFiles(lb, files);
    const said = await lb.waitLog(({ event }) => event.startsWith("health checks cannot be made"));
    expect(said).toMatchObject({ level: "warn", reason: "not checked: EMFILE on this machine" });
    b.start();
    // Many more checks than it takes to go down, or to come up.
    await new Promise((resolve) => setTimeout(resolve, 20 * 50));
    const changes = lb.log().filter(({ event }) => /^backend (up|down)$/.test(event));
    expect(changes.map(({ event, backend }) => `${event} ${String(backend)}`)).toEqual([`backend down ${b.address}`]);
    limitFiles(lb, null);
    await isUp(lb, b.address, true);
    const after = (await lb.status()).pools[0]!.backends[0]!;
    expect(after).toMatchObject({ up: true, health: { checks: { failure: failures }, last_error: null } });
    expect(lb.log().filter(({ event }) => event.startsWith("health checks cannot")).length).toBe(1);
  });
});

describe("a dead backend on a port that the kernel uses for outgoing connections", () => {
  const PORT = 40_000;
  // With one port to choose from, every connect to it on this machine meets itself.
  const setUp = ["ip link set lo up", `echo "${PORT} ${PORT}" > /proc/sys/net/ipv4/ip_local_port_range`];
  const wrapper = ["unshare", "-n", "sh", "-c", `${setUp.join(" && ")} && exec "$@"`, "--"];

  beforeEach((context) => {
    const trouble = spawnSync(wrapper[0]!, [...wrapper.slice(1), "true"]);
    if (trouble.status !== 0)
      context.skip(`no network namespace here: ${String(trouble.error ?? trouble.stderr).trim()}`);
  });

  /** The bytes that come back to a client of a unix socket, and how it ends. */
  async function send(path: string, text: string): Promise<{ heard: string; end: string }> {
    const socket = createConnection(path);
    let heard = "";
    const { promise, resolve } = Promise.withResolvers<string>();
    socket.on("data", (chunk) => {
      heard += String(chunk);
      socket.end();
    });
    socket.on("end", () => resolve("end")).on("error", (error) => resolve((error as { code?: string }).code ?? "?"));
    socket.write(text);
    const end = await promise;
    socket.destroy();
    return { heard, end };
  }

  test.each([
    ["127.0.0.1", "[::1]"],
    ["[::1]", "127.0.0.1"],
  ])(
    "counts as refused: lb detects that the socket is connected to itself (checks of %s)",
    async (hostChecked, host) => {
      const dir = await mkdtemp(join(tmpdir(), "lb-self-"));
      const [checked, unchecked] = [join(dir, "checked.sock"), join(dir, "unchecked.sock")];
      const toml = `
      workers = 1
      [listeners.checked]
      bind = "unix:${checked}"
      pool = "checked"
      [listeners.unchecked]
      bind = "unix:${unchecked}"
      pool = "unchecked"
      [pools.checked]
      backends = ["${hostChecked}:${PORT}"]
      health = { interval = "50ms", fall = 2, rise = 1 }
      [pools.unchecked]
      backends = ["${host}:${PORT}"]
      health = { type = "off" }
    `;
      try {
        await using lb = await startLb(toml, { wrapper });
        expect(await send(unchecked, "hello\n")).toMatchObject({ heard: "" });
        expect(await lb.waitLine(({ listener }) => listener === "unchecked")).toMatchObject({
          end: "connect_refused",
          end_by: "backend",
          error: "ECONNREFUSED",
          bytes_out: 0,
        });
        const { pools } = await lb.waitStatus((status) => !status.pools[0]!.backends[0]!.up);
        expect(pools[0]!.backends[0]!.health).toMatchObject({
          checks: { success: 0 },
          last_error: "connection refused",
        });
        expect(pools[1]!.backends[0]!.connects).toMatchObject({ attempted: 1, succeeded: 0, refused: 1 });
      } finally {
        await rm(dir, { recursive: true, force: true });
      }
    },
  );
});

describe("a pool without a backend up", () => {
  test("refuses connections at once, and /ready/LISTENER says why", async () => {
    using a = await tagged("a");
    const port = await freePort();
    await using lb = await startLb(config(port, `backends = ["${a.address}"]\nhealth = ${HEALTH}`));
    expect(await lb.ready("web")).toEqual({ status: 200, text: "ready\n" });
    a.stop();
    await isUp(lb, a.address, false);
    expect(await lb.ready("web")).toEqual({ status: 503, text: "not ready\npool app has no backend up\n" });
    expect(await lb.metric("lb_listener_ready", { listener: "web" })).toBe(0);
    // The process still accepts connections.
    expect(await lb.ready()).toEqual({ status: 200, text: "ready\n" });
    expect(await lb.metric("lb_ready")).toBe(1);
    expect(await ask(port)).toBe("reset");
    const line = await lb.waitLine(() => true);
    expect(line).toMatchObject({ end: "no_backend", end_by: "lb", retries: 0 });
    expect(line.backend).toBeUndefined();
    // It has waited neither for a connect (3 s) nor in the queue (5 s).
    expect(line.duration_ms).toBeLessThan(2500);
    a.start();
    await isUp(lb, a.address, true);
    expect((await lb.ready("web")).status).toBe(200);
    expect(await ask(port)).toBe("a");
  });

  test("makes those listeners not ready that route to no other pool", async () => {
    using a = await tagged("a");
    const [routed, other, gone] = await freePorts(3);
    await using lb = await startLb(`
      [listeners.routed]
      bind = "127.0.0.1:${routed}"
      pool = "dead"
      routes = [{ clients = ["127.0.0.9"], pool = "fine" }]
      [listeners.other]
      bind = "127.0.0.1:${other}"
      pool = "dead"
      [listeners.closed]
      bind = "127.0.0.1:${gone}"
      [pools.fine]
      backends = ["${a.address}"]
      health = ${HEALTH}
      [pools.dead]
      backends = ["127.0.0.1:1", { address = "${a.address}", weight = 0 }]
      health = ${HEALTH}
    `);
    await isUp(lb, "127.0.0.1:1", false);
    const dead = "pool dead has no backend up";
    expect(await lb.ready("other")).toEqual({ status: 503, text: `not ready\n${dead}\n` });
    expect(await lb.ready("routed")).toEqual({ status: 200, text: `ready\n${dead}\n` });
    expect(await lb.ready("closed")).toEqual({
      status: 503,
      text: "not ready\nthe listener has no pool and no routes\n",
    });
    expect((await lb.ready()).status).toBe(200);
    for (const unknown of ["none", "%", "other%2F", "other/x"]) expect((await lb.ready(unknown)).status).toBe(404);
  });
});

describe("on_down", () => {
  const withOnDown = (onDown: string, a: Backend, b: Backend): string =>
    `backends = [{ address = "${a.address}", name = "a" }, { address = "${b.address}", name = "b" }]
    on_down = "${onDown}"
    health = { interval = "50ms", fall = 2, rise = 1, port = 0 }`;

  test('"keep" keeps the connections of a backend that goes down', async () => {
    using a = await echo();
    using b = await echo();
    using gate = await silent();
    const port = await freePort();
    await using lb = await startLb(config(port, withOnDown("keep", a, b).replace("port = 0", `port = ${gate.port}`)));
    const clients = await Promise.all([connect(port), connect(port)]);
    for (const client of clients) expect(await client.echoes()).toBe(true);
    gate.stop();
    await lb.waitStatus(({ pools }) => pools[0]!.backends.every(({ up }) => !up));
    for (const client of clients) expect(await client.echoes()).toBe(true);
    for (const client of clients) client.reset();
  });

  test('"reset" resets them with the end backend_down', async () => {
    using a = await echo();
    using b = await echo();
    using gate = await silent();
    const port = await freePort();
    await using lb = await startLb(config(port, withOnDown("reset", a, b).replace("port = 0", `port = ${gate.port}`)));
    const clients = await connectMany(port, 10);
    gate.stop();
    for (const client of clients) expect(await client.ended).toBe("reset");
    const lines = await lb.waitLines(10, () => true);
    for (const line of lines)
      expect(line).toMatchObject({ end: "backend_down", end_by: "lb", bytes_in: 5, bytes_out: 5 });
    expect(lb.log().filter(({ event }) => event === "backend down").length).toBe(2);
    await lb.waitStatus(
      ({ connections, pools }) => connections.open === 0 && pools[0]!.backends.every(({ open }) => open === 0),
    );
    await eventually("the backends see it", () => a.open.size === 0 && b.open.size === 0);
  });

  test('"reset" does not affect the connections of other backends', async () => {
    using a = await echo();
    using b = await echo();
    const port = await freePort();
    await using lb = await startLb(config(port, withOnDown("reset", a, b)));
    const clients = await connectMany(port, 10);
    // Only its listening socket closes: open connections are not affected.
    b.stopListening();
    await lb.waitLines(5, ({ end }) => end === "backend_down");
    const lost = new Set(lb.accessLines().map(({ client }) => client));
    expect(lb.accessLines().every(({ backend }) => backend === "b")).toBe(true);
    for (const client of clients) {
      if (lost.has(client.address)) expect(await client.ended).toBe("reset");
      else expect(await client.echoes()).toBe(true);
      client.reset();
    }
    expect(lost.size).toBe(5);
  });
});

describe("balance", () => {
  test("round_robin follows the weights exactly", async () => {
    using a = await tagged("a");
    using b = await tagged("b");
    using c = await tagged("c");
    using none = await tagged("none");
    const port = await freePort();
    const backends = [
      `{ address = "${a.address}", weight = 1 }`,
      `{ address = "${b.address}", weight = 3 }`,
      `{ address = "${c.address}", weight = 6 }`,
      `{ address = "${none.address}", weight = 0 }`,
    ];
    await using _ = await startLb(`workers = 1\n${config(port, `backends = [${backends.join(", ")}]`)}`);
    const { byTag, failures } = await startLoad({ ports: [port], concurrency: 10, total: 1000, tagged: true }).done;
    expect(failures).toEqual({});
    expect(byTag).toEqual({ a: 100, b: 300, c: 600 });
  });

  test("round_robin on several workers is fair except for rounding", async () => {
    using a = await tagged("a");
    using b = await tagged("b");
    const port = await freePort();
    const backends = `[{ address = "${a.address}", weight = 1 }, { address = "${b.address}", weight = 3 }]`;
    await using _ = await startLb(`workers = 4\n${config(port, `backends = ${backends}`)}`);
    const { byTag, failures } = await startLoad({ ports: [port], concurrency: 10, total: 1000, tagged: true }).done;
    expect(failures).toEqual({});
    // Each worker is off by at most one round.
    expect(Math.abs(byTag["a"]! - 250)).toBeLessThanOrEqual(4);
  });

  test("least_connections balances the open connections in proportion to the weights", async () => {
    using a = await echo();
    using b = await echo();
    const port = await freePort();
    const backends = `[{ address = "${a.address}", name = "a" }, { address = "${b.address}", name = "b", weight = 2 }]`;
    await using lb = await startLb(
      `workers = 4\n${config(port, `balance = "least_connections"\nbackends = ${backends}`)}`,
    );
    const open = async (): Promise<number[]> => (await lb.status()).pools[0]!.backends.map((backend) => backend.open);
    const clients = [];
    for (let i = 0; i < 30; i++) {
      clients.push(await connect(port));
      expect(await clients.at(-1)!.echoes()).toBe(true);
    }
    expect(await open()).toEqual([10, 20]);
    // All of b's connections end: the next twenty are b's, except those that balance a.
    b.reset();
    await lb.waitLines(20, ({ backend }) => backend === "b");
    expect(await open()).toEqual([10, 0]);
    for (let i = 0; i < 20; i++) {
      clients.push(await connect(port));
      expect(await clients.at(-1)!.echoes()).toBe(true);
    }
    expect(await open()).toEqual([10, 20]);
    for (const client of clients) client.reset();
  });

  test("a backup is used only while no other backend is up", async () => {
    using a = await tagged("a");
    using spare = await tagged("spare");
    const port = await freePort();
    const backends = `[{ address = "${a.address}", name = "a" }, { address = "${spare.address}", name = "spare", backup = true }]`;
    await using lb = await startLb(config(port, `backends = ${backends}\nhealth = ${HEALTH}`));
    expect(await askOften(port, 6)).toEqual({ a: 6 });
    a.stop();
    await isUp(lb, "a", false);
    expect(await askOften(port, 6)).toEqual({ spare: 6 });
    expect((await lb.ready()).status).toBe(200);
    a.start();
    await isUp(lb, "a", true);
    await eventually("a is used again", async () => (await ask(port)) === "a");
    expect(await askOften(port, 6)).toEqual({ a: 6 });
  });

  test("a backend at its max_connections gets no more, and when all are full the client is refused at once", async () => {
    using a = await tagged("a");
    using b = await tagged("b");
    const port = await freePort();
    const backends = `[{ address = "${a.address}", max_connections = 2 }, { address = "${b.address}", max_connections = 3 }]`;
    await using lb = await startLb(`workers = 4\n${config(port, `backends = ${backends}`)}`);
    const clients = [];
    const names: (string | null)[] = [];
    for (let i = 0; i < 5; i++) {
      clients.push(await connect(port));
      names.push(await clients.at(-1)!.line());
    }
    expect(names.map(String).toSorted()).toEqual(["a", "a", "b", "b", "b"]);
    expect(await ask(port)).toBe("reset");
    expect(await lb.waitLine(() => true)).toMatchObject({ end: "queue_full", end_by: "lb" });
    const one = clients.pop()!;
    one.finish();
    await one.ended;
    await lb.lineOf(one);
    expect(["a", "b"]).toContain(await ask(port));
    for (const client of clients) client.reset();
  });
});

describe("retries", () => {
  test("a refused connect goes to another backend, and the client notices nothing", async () => {
    using good = await tagged("good");
    const bad = await refusing();
    const port = await freePort();
    const pool = `backends = [{ address = "${bad}", name = "bad" }, { address = "${good.address}", name = "good" }]`;
    await using lb = await startLb(`workers = 1\n${config(port, `${pool}\nhealth = { type = "off" }`)}`);
    const { ok, failures, byTag } = await startLoad({ ports: [port], concurrency: 5, total: 100, tagged: true }).done;
    expect({ ok, failures, byTag }).toEqual({ ok: 100, failures: {}, byTag: { good: 100 } });
    const lines = await lb.waitLines(100, () => true);
    expect(lines.every(({ backend, end }) => backend === "good" && end === "eof")).toBe(true);
    // Every second turn is the bad one's, and a retry takes a turn too.
    const retried = lines.filter(({ retries }) => retries === 1).length;
    expect(retried).toBeGreaterThanOrEqual(50);
    const { pools } = await lb.status();
    const connects = { attempted: retried, succeeded: 0, refused: retried, timed_out: 0, retried_away: retried };
    expect(pools[0]!.backends[0]!.connects).toMatchObject(connects);
  });

  test("a connect without an answer is given up at connect_timeout and goes to another backend", async () => {
    await using hole = await blackhole();
    using good = await tagged("good");
    const port = await freePort();
    const pool = `backends = [{ address = "${hole.address}", name = "hole" }, { address = "${good.address}", name = "good" }]`;
    await using lb = await startLb(
      `workers = 1\n${config(port, `${pool}\nconnect_timeout = "200ms"\nhealth = { type = "off" }`)}`,
    );
    expect(await askOften(port, 4)).toEqual({ good: 4 });
    const lines = await lb.waitLines(4, () => true);
    const retried = lines.filter(({ retries }) => retries === 1);
    expect(retried.length).toBeGreaterThanOrEqual(2);
    for (const line of retried) {
      expect(line.duration_ms).toBeGreaterThan(180);
      // By default it would take 3 s.
      expect(line.duration_ms).toBeLessThan(2500);
    }
    const { length } = retried;
    const connects = { attempted: length, succeeded: 0, timed_out: length, retried_away: length };
    expect((await lb.status()).pools[0]!.backends[0]!.connects).toMatchObject(connects);
  });

  test("at most `retries` further backends are tried, each once", async () => {
    const bad = await Promise.all([refusing(), refusing(), refusing(), refusing()]);
    const port = await freePort();
    const backends = bad.map((address) => JSON.stringify(address)).join(", ");
    const toml = (retries: number): string =>
      `workers = 1\n${config(port, `backends = [${backends}]\nretries = ${retries}\nhealth = { type = "off" }`)}`;
    await using lb = await startLb(toml(2));
    expect(await ask(port)).toBe("reset");
    expect(await lb.waitLine(() => true)).toMatchObject({ end: "connect_refused", end_by: "backend", retries: 2 });
    const attempts = async (): Promise<number> =>
      (await lb.status()).pools[0]!.backends.reduce((sum, { connects }) => sum + connects.attempted, 0);
    expect(await attempts()).toBe(3);
    expect((await lb.reload(toml(10))).ok).toBe(true);
    expect(await ask(port)).toBe("reset");
    expect((await lb.waitLines(2, () => true))[1]).toMatchObject({ end: "connect_refused", retries: 3 });
    expect(await attempts()).toBe(7);
    expect((await lb.reload(toml(0))).ok).toBe(true);
    expect(await ask(port)).toBe("reset");
    expect((await lb.waitLines(3, () => true))[2]).toMatchObject({ end: "connect_refused", retries: 0 });
    expect(await attempts()).toBe(8);
  });
});
