// A new config at run time: however it reaches the disk, it is applied whole or not at all, and no connection notices.
import { spawnSync } from "node:child_process";
import { mkdir, mkdtemp, open, rename, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { echo, tagged, type Backend } from "../support/backends.ts";
import { ask, connect, connectMany, isRefused, type Client } from "../support/client.ts";
import { eventually } from "../support/eventually.ts";
import { hostsFile, silentServer } from "../support/hosts-file.ts";
import { freePort, freePorts, Lb, startLb } from "../support/lb.ts";
import { startLoad } from "../support/load.ts";
import { descriptors, repeatedSyns } from "../support/proc.ts";

function config(port: number, backend: Backend | readonly Backend[], more = ""): string {
  const backends = [backend].flat().map(({ address }) => JSON.stringify(address));
  return `
    workers = 2
    [listeners.web]
    bind = "127.0.0.1:${port}"
    pool = "app"
    ${more}
    [pools.app]
    backends = [${backends.join(", ")}]
  `;
}

function reloadNow(lb: Lb): Promise<Response> {
  return lb.send("POST", "/api/reload");
}

describe("the new config is loaded", () => {
  test("when the file is written in place", async () => {
    using a = await tagged("a");
    using b = await tagged("b");
    const port = await freePort();
    await using lb = await startLb(config(port, a));
    expect(await ask(port)).toBe("a");
    expect(await lb.reload(config(port, b))).toEqual({ ok: true, generation: 2, error: null });
    expect(await ask(port)).toBe("b");
    expect(await lb.waitLog(({ event }) => event === "reloaded")).toMatchObject({
      cause: "file changed",
      generation: 2,
    });
    const said = lb
      .log()
      .filter(({ event }) => event === "config changed")
      .map(({ what }) => String(what));
    expect(said.join("\n")).toContain("app");
    expect(await lb.metric("lb_config_generation")).toBe(2);
    expect(await lb.metric("lb_config_last_reload_successful")).toBe(1);
  });

  test("when an editor replaces the file, repeatedly", async () => {
    using a = await tagged("a");
    using b = await tagged("b");
    const port = await freePort();
    await using lb = await startLb(config(port, a));
    for (const backend of [b, a, b, a]) {
      const before = await lb.status();
      const other = join(lb.dir, ".lb.toml.swp");
      await writeFile(other, lb.configText(config(port, backend)));
      await rename(other, lb.file);
      expect(await lb.reloaded(before)).toMatchObject({ ok: true });
      expect(await ask(port)).toBe(backend === a ? "a" : "b");
    }
  });

  test("when Kubernetes swaps the folder behind the links", async () => {
    using a = await tagged("a");
    using b = await tagged("b");
    const port = await freePort();
    await using lb = await startLb(config(port, a));
    // As a ConfigMap is mounted: lb.toml -> ..data/lb.toml, ..data -> ..2026_1, and an update renames a new link over ..data.
    const version = async (name: string, backend: Backend): Promise<void> => {
      await mkdir(join(lb.dir, name));
      await writeFile(join(lb.dir, name, "lb.toml"), lb.configText(config(port, backend)));
      await symlink(name, join(lb.dir, "..data_tmp"));
      await rename(join(lb.dir, "..data_tmp"), join(lb.dir, "..data"));
    };
    await version("..1", a);
    await rm(lb.file);
    await symlink("..data/lb.toml", lb.file);
    let last = "..1";
    for (const [name, backend] of [
      ["..2", b],
      ["..3", a],
      ["..4", b],
    ] as const) {
      const before = await lb.status();
      await version(name, backend);
      await rm(join(lb.dir, last), { recursive: true });
      last = name;
      expect(await lb.reloaded(before)).toMatchObject({ ok: true });
      expect(await ask(port)).toBe(backend === a ? "a" : "b");
    }
  });

  test("at SIGHUP, and with watch = false only then", async () => {
    using a = await tagged("a");
    using b = await tagged("b");
    const port = await freePort();
    const toml = (backend: Backend): string => `watch = false\n${config(port, backend)}`;
    await using lb = await startLb(toml(a));
    const before = await lb.status();
    await lb.write(toml(b));
    // Longer than a watcher's event and its poll.
    await expect(lb.reloaded(before, 2500)).rejects.toThrow("did not become as expected");
    expect(await ask(port)).toBe("a");
    lb.signal("SIGHUP");
    expect(await lb.reloaded(before)).toMatchObject({ ok: true, generation: 2 });
    expect(await ask(port)).toBe("b");
    expect(await lb.waitLog(({ event }) => event === "reloaded")).toMatchObject({ cause: "SIGHUP" });
  });

  test("automatically again once a reload enables `watch`", async () => {
    using a = await tagged("a");
    using b = await tagged("b");
    const port = await freePort();
    await using lb = await startLb(`watch = false\n${config(port, a)}`);
    const before = await lb.status();
    await lb.write(config(port, a));
    lb.signal("SIGHUP");
    const watching = await lb.status().then(() => lb.reloaded(before));
    expect(watching).toMatchObject({ ok: true, generation: 2 });
    const then = await lb.status();
    await lb.write(config(port, b));
    expect(await lb.reloaded(then)).toMatchObject({ ok: true, generation: 3 });
    expect(await ask(port)).toBe("b");
  });

  test("at a request to the admin endpoint, which waits for it and returns the result", async () => {
    using a = await tagged("a");
    using b = await tagged("b");
    const port = await freePort();
    const toml = (backend: Backend): string => `watch = false\n${config(port, backend)}`;
    await using lb = await startLb(toml(a));
    await lb.write(toml(b));
    const done = await reloadNow(lb);
    expect(done.status).toBe(200);
    expect(await done.json()).toMatchObject({ ok: true });
    expect(await ask(port)).toBe("b");
    await lb.write("nonsense");
    const failed = await reloadNow(lb);
    expect(failed.status).toBe(422);
    expect(await failed.json()).toMatchObject({ ok: false, message: expect.stringContaining("lb.toml:1:") });
  });
});

describe("an incomplete config", () => {
  const two = (ports: readonly [number, number], backend: Backend, more = ""): string =>
    `${config(ports[0], backend, more)}\n[listeners.other]\nbind = "127.0.0.1:${ports[1]}"\npool = "app"\n`;

  test("is not loaded while it is written, valid or not: no listener is removed", async () => {
    using a = await tagged("a");
    const [port, other] = await freePorts(2);
    await using lb = await startLb(two([port, other], a));
    // startLb adds the end, so that every prefix of it is a config.
    const whole = lb.configText(two([port, other], a, "backlog = 100"));
    const at = whole.indexOf("[listeners.other]");
    const before = await lb.status();
    const writer = await open(lb.file, "w");
    await writer.write(`${whole.slice(0, at)}${whole.slice(whole.indexOf("[admin]"))}\n`);
    // Longer than the watcher needs for an event and a poll.
    await expect(lb.reloaded(before, 2500)).rejects.toThrow("did not become as expected");
    expect(await ask(other)).toBe("a");
    await writer.truncate(0);
    await writer.write(whole, 0);
    await writer.close();
    expect(await lb.reloaded(before)).toMatchObject({ ok: true, generation: 2 });
    expect(await ask(other)).toBe("a");
    expect(lb.log().filter(({ event }) => event === "reloaded").length).toBe(1);
  });

  test("delays a requested reload, which logs that", async () => {
    using a = await tagged("a");
    using b = await tagged("b");
    const port = await freePort();
    const toml = (backend: Backend): string => `watch = false\n${config(port, backend)}`;
    await using lb = await startLb(toml(a));
    const writer = await open(lb.file, "w");
    const reload = reloadNow(lb);
    expect(await lb.waitLog(({ event }) => event.startsWith("reload waits"))).toMatchObject({ file: lb.file });
    expect(await ask(port)).toBe("a");
    await writer.write(lb.configText(toml(b)));
    await writer.close();
    expect((await reload).status).toBe(200);
    expect(await ask(port)).toBe("b");
  });
});

describe("while lb starts", () => {
  /** Starts with a name that is awaited, and changes the config meanwhile. */
  async function changedWhileStarting(options: string, change: (lb: Lb) => Promise<unknown>): Promise<string> {
    using a = await tagged("a");
    using b = await tagged("b");
    const port = await freePort();
    await using server = await silentServer();
    await using hosts = await hostsFile(`nameserver ${server?.address}\n`);
    if (server === null || hosts.trouble !== null) return "skipped";
    const folder = await mkdtemp(join(tmpdir(), "lb-test-"));
    await using lb = new Lb(folder, `unix:${join(folder, "admin.sock")}`, { wrapper: hosts.wrapper });
    const slow = `${config(port, a)}\n[listeners.slow]\nbind = "127.0.0.1:${await freePort()}"\npool = "slow"\n`;
    const started = lb.start(`${options}\n${slow}\n[pools.slow]\nbackends = ["silent.test:1"]`);
    await eventually("it waits for the name", () => server.asked > 0);
    await lb.write(`${options}\n${config(port, b)}`);
    await change(lb);
    await started;
    const { cause } = await lb.waitLog(({ event }) => event === "reloaded");
    expect(await ask(port)).toBe("b");
    return String(cause);
  }

  test("a change of the file is not lost", async (context) => {
    const cause = await changedWhileStarting("", () => Promise.resolve());
    if (cause === "skipped") context.skip("no name server of our own here");
    expect(cause).toBe("file changed");
  });

  test("neither is a SIGHUP, nor a request for a reload", async (context) => {
    const hangUp = await changedWhileStarting("watch = false", (lb) => Promise.resolve(lb.signal("SIGHUP")));
    if (hangUp === "skipped") context.skip("no name server of our own here");
    expect(hangUp).toBe("SIGHUP");
    let asked: Promise<Response> | null = null;
    expect(
      await changedWhileStarting("watch = false", async (lb) => {
        asked = reloadNow(lb);
        await eventually("it is asked for", () => lb.fetch("/live").then(({ ok }) => ok));
      }),
    ).toBe("admin");
    expect((await asked!).status).toBe(200);
  });
});

describe("an invalid config", () => {
  test("changes nothing, is logged as an error and shows in the metrics, until it is repaired", async () => {
    using a = await tagged("a");
    const port = await freePort();
    await using lb = await startLb(config(port, a));
    using client = await connect(port);
    expect(await client.line()).toBe("a");

    const bad = config(port, a).replace('pool = "app"', 'pool = "ap"');
    const { ok, generation, error } = await lb.reload(bad);
    expect({ ok, generation }).toEqual({ ok: false, generation: 1 });
    expect(error).toMatch(/lb\.toml:5:\d+: listeners\.web\.pool: .*did you mean "app"/s);
    const line = await lb.waitLog(({ level }) => level === "error");
    expect(line["event"]).toContain("reload failed");
    expect(line["reason"]).toContain("listeners.web.pool");
    expect(await lb.metric("lb_config_last_reload_successful")).toBe(0);
    expect(await lb.metric("lb_config_reloads_total", { result: "failure" })).toBe(1);
    expect(await lb.metric("lb_config_generation")).toBe(1);
    expect((await lb.ready()).status).toBe(200);
    expect(await client.echoes()).toBe(true);
    expect(await ask(port)).toBe("a");

    expect(await lb.reload(config(port, a, "backlog = 100"))).toMatchObject({ ok: true, generation: 2 });
    expect(await lb.metric("lb_config_last_reload_successful")).toBe(1);
    expect((await lb.status()).config.last_reload_error).toBeNull();
    expect(await client.echoes()).toBe(true);
  });

  test("a missing file changes nothing either", async () => {
    using a = await tagged("a");
    const port = await freePort();
    await using lb = await startLb(config(port, a));
    const before = await lb.status();
    await rm(lb.file);
    lb.signal("SIGHUP");
    expect(await lb.reloaded(before)).toMatchObject({ ok: false });
    expect(await ask(port)).toBe("a");
    const gone = await lb.status();
    await lb.write(config(port, a, "backlog = 100"));
    expect(await lb.reloaded(gone)).toMatchObject({ ok: true, generation: 2 });
  });

  test("a pipe in place of the config is refused at once, without waiting for it", async () => {
    using a = await tagged("a");
    const port = await freePort();
    await using lb = await startLb(`shutdown_timeout = "1s"\n${config(port, a)}`);
    await rm(lb.file);
    expect(spawnSync("mkfifo", [lb.file]).status).toBe(0);
    const failed = await reloadNow(lb);
    expect(failed.status).toBe(422);
    expect(await failed.json()).toMatchObject({ message: expect.stringContaining("it is not a regular file") });
    expect(await ask(port)).toBe("a");
    await rm(lb.file);
    const before = await lb.status();
    await lb.write(config(port, a, "backlog = 100"));
    expect(await lb.reloaded(before)).toMatchObject({ ok: true, generation: 2 });
  });

  test("read from a pipe at the start stays active, and a reload says that it cannot be read again", async () => {
    using a = await tagged("a");
    const port = await freePort();
    await using lb = await startLb(config(port, a), { wrapper: ["bash", "-c", 'exec "$0" <(cat "$1")'] });
    expect(await ask(port)).toBe("a");
    const failed = await reloadNow(lb);
    expect(failed.status).toBe(422);
    expect(await ask(port)).toBe("a");
  });

  test("an address that cannot be bound refuses the whole reload and leaves none of its other sockets behind", async () => {
    using a = await tagged("a");
    const [port, fresh] = await freePorts(2);
    await using lb = await startLb(config(port, a));
    const rest = descriptors(lb.pid);
    const bad = `${config(port, a)}
      [listeners.fresh]
      bind = "127.0.0.1:${fresh}"
      pool = "app"
      [listeners.taken]
      bind = "127.0.0.1:${a.port}"
      pool = "app"
    `;
    const { ok, error } = await lb.reload(bad);
    for (let i = 0; i < 10; i++) await reloadNow(lb);
    expect(ok).toBe(false);
    expect(error).toContain("listeners.taken");
    expect(error).toContain("EADDRINUSE");
    await expect(connect(fresh)).rejects.toThrow("ECONNREFUSED");
    expect(await ask(port)).toBe("a");
    // Two sockets each time; a connection to the admin endpoint may be open or not.
    expect(descriptors(lb.pid)).toBeLessThan(rest + 10);
    expect((await lb.status()).listeners.map(({ name }) => name)).toEqual(["web"]);
  });
});

describe("unchanged parts are not touched", () => {
  test("open connections continue and keep their plan", async () => {
    using a = await echo();
    const port = await freePort();
    await using lb = await startLb(config(port, a, 'timeouts = { idle = "1h" }'));
    const clients = await connectMany(port, 20);
    const strict = `timeouts = { idle = "3s" }\ndeny = ["127.0.0.1"]\nmax_connections = 1`;
    expect((await lb.reload(config(port, a, strict))).ok).toBe(true);
    using refused = await connect(port);
    expect(await refused.ended).toBe("reset");
    using fresh = await connect(port, { from: "127.0.0.2" });
    // Twenty are open already.
    expect(await fresh.ended).toBe("reset");
    expect((await lb.reload(config(port, a, strict.replace("max_connections = 1", "")))).ok).toBe(true);
    using short = await connect(port, { from: "127.0.0.2" });
    expect(await short.echoes(), lb.output()).toBe(true);
    expect(await short.ended).toBe("reset");
    expect(await lb.lineOf(short)).toMatchObject({
      end: "idle_timeout",
      end_by: "lb",
    });
    for (const client of clients) expect(await client.echoes()).toBe(true);
    for (const client of clients) client.reset();
    await lb.waitStatus(({ connections, listeners }) => connections.open === 0 && listeners[0]!.open === 0);
  });

  test("nor are connections when an address becomes the wildcard of its port, and single again", async () => {
    using a = await echo();
    const port = await freePort();
    const toml = (host: string): string => config(port, a).replace("127.0.0.1:", `${host}:`);
    await using lb = await startLb(toml("127.0.0.1"));
    const held: Client[] = [];
    for (const host of ["0.0.0.0", "127.0.0.1", "", "127.0.0.1"]) {
      held.push(...(await connectMany(port, 5)));
      expect(await lb.reload(toml(host))).toMatchObject({ ok: true });
    }
    // An additional listener on the wildcard beside the single address, from the start or by a reload.
    const beside = `${toml("127.0.0.1")}\n[listeners.all]\nbind = ":${port}"\npool = "app"`;
    expect(await lb.reload(beside)).toMatchObject({ ok: true });
    for (const client of held) expect(await client.echoes()).toBe(true);
    for (const [host, listener] of [
      ["127.0.0.1", "web"],
      ["127.0.0.2", "all"],
    ] as const) {
      using client = await connect(port, { host });
      expect(await client.echoes()).toBe(true);
      client.finish();
      expect(await lb.lineOf(client)).toMatchObject({ listener, end: "eof" });
    }
    for (const client of held) client.reset();
  });

  test("connections of a removed listener, and to a removed backend, continue; new ones are refused", async () => {
    using a = await echo();
    using b = await echo();
    const [port, other] = await freePorts(2);
    const both = `${config(port, a)}
      [listeners.other]
      bind = "127.0.0.1:${other}"
      pool = "app"
    `;
    await using lb = await startLb(both);
    using old = await connect(other);
    expect(await old.echoes()).toBe(true);
    expect((await lb.reload(config(port, b))).ok).toBe(true);
    await eventually("the listener is gone", () => isRefused(other));
    expect(await old.echoes("still here")).toBe(true);
    expect((await lb.status()).listeners.map(({ name }) => name)).toEqual(["web"]);
    expect((await lb.status()).connections.open).toBe(1);
    old.finish();
    expect(await old.ended).toBe("eof");
    const line = await lb.lineOf(old);
    expect(line).toMatchObject({ end: "eof", listener: "other", pool: "app", backend: a.address });
    await lb.waitIdle();
    // The address is free: another process may take it, and so may a listener of another name.
    const again = both.replace("listeners.other", "listeners.another").replaceAll(a.address, b.address);
    expect((await lb.reload(again)).ok).toBe(true);
    using client = await connect(other);
    expect(await client.echoes()).toBe(true);
  });

  test("health, counters and connection counts of the backends are kept", async () => {
    using a = await echo();
    using b = await echo();
    using c = await echo();
    using d = await echo();
    const port = await freePort();
    const toml = (backends: Backend[], more = ""): string =>
      `${config(port, backends)}
        balance = "least_connections"
        health = { interval = "100ms", fall = 2, rise = 2 }
        ${more}`;
    await using lb = await startLb(toml([a, b, c]));
    const clients: Client[] = [];
    for (let i = 0; i < 9; i++) {
      clients.push(await connect(port));
      expect(await clients.at(-1)!.echoes()).toBe(true);
    }
    c.stopListening();
    await lb.waitStatus(({ pools }) => pools[0]!.backends[2]!.up === false);
    const backends = async () => (await lb.status()).pools[0]!.backends;
    const before = await backends();
    expect(before.map(({ open }) => open)).toEqual([3, 3, 3]);

    expect((await lb.reload(toml([d, a, b, c], "retries = 1"))).ok).toBe(true);
    const after = await backends();
    expect(after.map(({ address, open, up }) => ({ address, open, up }))).toEqual([
      { address: d.address, open: 0, up: true },
      { address: a.address, open: 3, up: true },
      { address: b.address, open: 3, up: true },
      // Still down: a reload does not change that.
      { address: c.address, open: 3, up: false },
    ]);
    expect(after[3]!.health.since).toBe(before[2]!.health.since);
    expect(after[1]!.connects.succeeded).toBe(3);
    expect(after[1]!.health.checks.success).toBeGreaterThanOrEqual(before[0]!.health.checks.success);
    // The new one gets the missing ones.
    for (let i = 0; i < 3; i++) {
      clients.push(await connect(port));
      expect(await clients.at(-1)!.echoes()).toBe(true);
    }
    expect((await backends()).map(({ open }) => open)).toEqual([3, 3, 3, 3]);
    expect(lb.log().filter(({ event }) => event === "backend down").length).toBe(1);
    for (const client of clients) client.reset();
    await lb.waitStatus(({ pools }) => pools[0]!.backends.every(({ open }) => open === 0));
  });
});

describe("the number of workers", () => {
  test("rises and falls under load without a failed connection", async () => {
    using a = await echo();
    const port = await freePort();
    const toml = (workers: number): string => config(port, a).replace("workers = 2", `workers = ${workers}`);
    await using lb = await startLb(toml(2));
    const held = await connectMany(port, 20);
    await using load = startLoad({ ports: [port], concurrency: 30 });
    await load.running;
    for (const workers of [4, 1, 3, 2, 6, 1, 2]) {
      expect((await lb.reload(toml(workers))).ok).toBe(true);
      const { workers: now } = await lb.status();
      expect(now.filter(({ state }) => state === "running").length).toBe(workers);
      await lb.waitAccepted(100);
    }
    const { started, ok, failures } = await load.stop();
    expect(failures).toEqual({});
    expect(ok).toBe(started);
    // Connections of retired workers stay there.
    for (const client of held) expect(await client.echoes()).toBe(true);
    for (const client of held) client.finish();
    for (const client of held) expect(await client.ended).toBe("eof");
    const status = await lb.waitStatus(({ connections, workers }) => connections.open === 0 && workers.length === 2);
    expect(status.workers.map(({ open }) => open)).toEqual([0, 0]);
    expect(lb.accessLines().filter(({ end }) => end !== "eof")).toEqual([]);
    expect(lb.log().filter(({ level }) => level === "error")).toEqual([]);
    // All of them still get connections.
    const { workers: before } = status;
    await startLoad({ ports: [port], concurrency: 10, total: 200 }).done;
    const { workers: after } = await lb.status();
    for (const [i, worker] of after.entries()) expect(worker.accepted).toBeGreaterThan(before[i]!.accepted);
  });
});

describe("under a load of thousands of connections", () => {
  test("30 reloads that change backends, limits, listeners and workers lose none", async () => {
    using a = await echo();
    using b = await echo();
    using c = await echo();
    const [port, second, extra] = await freePorts(3);
    const toml = (i: number): string => `
      watch = false
      workers = ${1 + (i % 3)}
      max_connections = ${1000 + i}
      [listeners.web]
      bind = "127.0.0.1:${port}"
      pool = "app"
      max_connections = ${500 + i}
      worker_affinity = "${i % 4 < 2 ? "connection" : "client"}"
      ${i % 2 === 0 ? "max_connections_per_client = 400" : ""}
      ${i % 3 === 0 ? `deny = ["10.0.0.0/8"]` : ""}
      [listeners.second${i % 5 === 0 ? "" : "_renamed"}]
      bind = ["127.0.0.1:${second}"]
      pool = "${i % 2 === 0 ? "app" : "other"}"
      ${i % 2 === 0 ? "" : `[listeners.extra]\nbind = "127.0.0.1:${extra}"\npool = "app"`}
      [pools.app]
      balance = "${i % 4 === 0 ? "least_connections" : "round_robin"}"
      backends = [${[a, b, c]
        .filter((_, at) => i % 4 !== at)
        .map(({ address }) => `"${address}"`)
        .join(", ")}]
      connect_timeout = "${2 + (i % 3)}s"
      [pools.other]
      backends = ["${a.address}"]
    `;
    await using lb = await startLb(toml(0));
    await using load = startLoad({ ports: [port, second], concurrency: 30 });
    await load.running;
    const before = repeatedSyns();
    for (let i = 1; i <= 30; i++) {
      await lb.write(toml(i));
      expect(await (await reloadNow(lb)).json()).toMatchObject({
        ok: true,
        message: expect.stringMatching(`^generation ${i + 1} is in force\n`),
      });
      // Each generation has clients of its own.
      await lb.waitAccepted(50);
    }
    const { started, ok, failures, latencyMs } = await load.stop();
    expect({ failures, lost: started - ok }).toEqual({ failures: {}, lost: 0 });
    expect(started).toBeGreaterThan(30 * 2 * 50);
    // Somebody listened at every moment: the kernel answers a SYN at once, also on a busy machine.
    expect(repeatedSyns()).toBe(before);
    // No connection waited for a reload or a timeout; the rest is for a busy machine.
    expect(latencyMs.p99).toBeLessThan(1000);
    expect(latencyMs.max).toBeLessThan(10_000);
    expect(lb.log().filter(({ level }) => level === "error")).toEqual([]);
    const status = await lb.waitStatus(
      ({ connections, workers }) => connections.open === 0 && workers.length === 1 + (30 % 3),
    );
    expect(status.pools.flatMap(({ backends }) => backends.map(({ open }) => open)).every((open) => open === 0)).toBe(
      true,
    );
    expect(lb.accessLines().filter(({ end }) => end !== "eof")).toEqual([]);
    await lb.waitLines(started, () => true);
  });
});
