import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import type { Config } from "../../src/config/schema.ts";
import type { SocketPlan } from "../../src/messages.ts";
import { beginConnect, closeDescriptor, listenOn, ownSockets, sockaddr } from "../../src/platform/sockets.ts";
import { ListeningSockets, type Bound } from "../../src/supervisor/sockets.ts";
import { connect, isRefused, type Client } from "../support/client.ts";
import { configOf } from "../support/config.ts";
import { eventually } from "../support/eventually.ts";
import { SO_KEEPALIVE, socketOption, SOL_SOCKET, SOL_TCP, TCP_KEEPIDLE, tcpInfo } from "../support/kernel.ts";
import { freePort, freePorts } from "../support/lb.ts";
import { skipWithoutIPv6 } from "../support/endpoints.ts";

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "lb-sockets-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));
beforeEach((context) => {
  if (!ownSockets()) context.skip("sockets of our own need Linux");
});

/** Listeners "a", "b" and so on, each with one address. */
function listening(binds: readonly string[], more = "", pool = ""): Config {
  const listeners = binds.map((bind, i) => {
    const name = String.fromCharCode(97 + i);
    return `[listeners.${name}]\nbind = ${JSON.stringify(bind)}\npool = "app"\n${more}\n`;
  });
  return configOf(`${listeners.join("")}[pools.app]\nbackends = ["127.0.0.1:1"]\n${pool}\n`);
}

const ids = new Map(["a", "b", "c"].map((name, i) => [name, 100 + i]));

/** Applies a config like a reload; returns the plans of the workers. */
async function take(sockets: ListeningSockets, config: Config, workers: number): Promise<SocketPlan[][]> {
  const bound = await sockets.bind(config, workers);
  if ("error" in bound) throw new Error(bound.error);
  sockets.settle(config, workers);
  return plansOf(sockets, config, workers);
}

function plansOf(sockets: ListeningSockets, config: Config, workers: number): SocketPlan[][] {
  return Array.from({ length: workers }, (_, worker) => sockets.planFor(config, worker, workers, ids));
}

/** The number of connections that wait in the queue of each socket of a group, in the order of their numbers. */
function queues(plans: readonly SocketPlan[][]): number[] {
  const sorted = plans.flat().sort((a, b) => a.index - b.index);
  return sorted.map(({ fd }) => tcpInfo(fd).queued);
}

/** A process of its own that runs this text; resolves once it has run it. */
async function otherProcess(text: string): Promise<{ kill: () => void }> {
  const child = Bun.spawn({
    cmd: [process.execPath, "-e", `${text}; console.log("up")`],
    stdio: ["ignore", "pipe", "inherit"],
  });
  await child.stdout.getReader().read();
  return child;
}

async function clientsOf(
  port: number,
  count: number,
  options: { host?: string; from?: string } = {},
): Promise<Client[]> {
  return Promise.all(Array.from({ length: count }, () => connect(port, options)));
}

describe("bind", () => {
  test("makes one socket per worker for each TCP address, and does not touch existing ones", async () => {
    const port = await freePort();
    const sockets = new ListeningSockets();
    const config = listening([`127.0.0.1:${port}`]);
    const plans = await take(sockets, config, 3);
    expect(plans.map((list) => list.map(({ key, index, listener }) => ({ key, index, listener })))).toEqual([
      [{ key: `127.0.0.1:${port}`, index: 0, listener: 100 }],
      [{ key: `127.0.0.1:${port}`, index: 1, listener: 100 }],
      [{ key: `127.0.0.1:${port}`, index: 2, listener: 100 }],
    ]);
    expect(new Set(plans.flat().map(({ fd }) => fd)).size).toBe(3);
    const again = (await sockets.bind(config, 3)) as Bound;
    expect(again.made).toEqual([]);
    expect(plansOf(sockets, config, 3)).toEqual(plans);
    sockets.stopAll();
    expect(await isRefused(port)).toBe(true);
  });

  test("an address in use is refused with its listener, cause and cure, and no new socket stays", async () => {
    const [free, taken] = await freePorts(2);
    const other = await otherProcess(`Bun.listen({ hostname: "127.0.0.1", port: ${taken}, socket: { data() {} } })`);
    try {
      const bound = await new ListeningSockets().bind(listening([`127.0.0.1:${free}`, `127.0.0.1:${taken}`]), 2);
      expect(bound).toEqual({
        error: `listeners.b: cannot listen on 127.0.0.1:${taken}: another process listens on it; stop that one or choose another port (EADDRINUSE)`,
      });
      expect(await isRefused(free)).toBe(true);
      for (const wildcard of [`0.0.0.0:${taken}`, `:${taken}`]) {
        expect(await new ListeningSockets().bind(listening([wildcard]), 2)).toMatchObject({
          error: expect.stringContaining("another process listens on it"),
        });
      }
    } finally {
      other.kill();
    }
  });

  test("a socket of this process is not reported as another process", async () => {
    const port = await freePort();
    const server = Bun.listen({ hostname: "127.0.0.1", port, socket: { data: () => undefined } });
    try {
      for (const bind of [`127.0.0.1:${port}`, `0.0.0.0:${port}`, `:${port}`]) {
        expect(await new ListeningSockets().bind(listening([bind]), 2)).toEqual({
          error: expect.stringContaining("this lb listens on it for something else"),
        });
      }
    } finally {
      server.stop(true);
    }
  });

  test.each(["0.0.0.0", ""])(
    "takes a wildcard (%s) and single addresses of its port; the closest one gets the connection",
    async (wildcard) => {
      const port = await freePort();
      const sockets = new ListeningSockets();
      const binds = [`127.0.0.1:${port}`, `${wildcard}:${port}`, `127.0.0.2:${port}`];
      const [plans] = (await take(sockets, listening(binds), 1)) as [SocketPlan[]];
      expect(plans.map(({ key }) => key)).toEqual(binds);
      const queued = () => plans.map(({ fd }) => tcpInfo(fd).queued);
      const clients: Client[] = [];
      for (const [host, expected] of [
        ["127.0.0.1", [1, 0, 0]],
        ["127.0.0.2", [1, 0, 1]],
        ["127.0.0.3", [1, 1, 1]],
      ] as const) {
        clients.push(await connect(port, { host }));
        await eventually(`${host} is queued`, () => queued().join() === expected.join());
      }
      for (const client of clients) client.reset();
      sockets.stopAll();
    },
  );

  test("does not join the group of another process, SO_REUSEPORT or not", async () => {
    const port = await freePort();
    const first = new ListeningSockets();
    await take(first, listening([`127.0.0.1:${port}`]), 2);
    const bound = await new ListeningSockets().bind(listening([`127.0.0.1:${port}`]), 2);
    expect(bound).toMatchObject({ error: expect.stringContaining("EADDRINUSE") });
    // The check has cost the first one nothing.
    const clients = await clientsOf(port, 5);
    for (const client of clients) client.reset();
    first.stopAll();
  });

  test('":port" takes IPv4 and IPv6', async (context) => {
    skipWithoutIPv6(context);
    const port = await freePort();
    const sockets = new ListeningSockets();
    const plans = await take(sockets, listening([`:${port}`]), 1);
    const clients = [await connect(port), await connect(port, { host: "::1" })];
    await eventually("both are queued", () => queues(plans)[0] === 2);
    for (const client of clients) client.reset();
    sockets.stopAll();
  });

  test("sockets have the backlog and the keepalive of the config, after a reload too", async () => {
    const port = await freePort();
    const sockets = new ListeningSockets();
    const bind = [`127.0.0.1:${port}`];
    const [[plan]] = (await take(
      sockets,
      listening(bind, 'backlog = 77\nkeepalive = "90s"', 'keepalive = "45s"'),
      1,
    )) as [[SocketPlan]];
    const state = () => ({
      backlog: tcpInfo(plan.fd).backlog,
      keepalive: socketOption(plan.fd, SOL_SOCKET, SO_KEEPALIVE),
      idle: socketOption(plan.fd, SOL_TCP, TCP_KEEPIDLE),
    });
    expect(state()).toEqual({ backlog: 77, keepalive: 1, idle: 90 });
    await take(sockets, listening(bind, 'backlog = 55\nkeepalive = "30s"', 'keepalive = "45s"'), 1);
    expect(state()).toEqual({ backlog: 55, keepalive: 1, idle: 30 });
    await take(sockets, listening(bind, 'backlog = 55\nkeepalive = "0s"', 'keepalive = "45s"'), 1);
    expect(state()).toMatchObject({ backlog: 55, keepalive: 0 });
    sockets.stopAll();
  });
});

describe("unix sockets", () => {
  test("are one socket that all workers share, and its file is removed at the end", async () => {
    const path = join(folder, "a.sock");
    const sockets = new ListeningSockets();
    const plans = await take(sockets, listening([`unix:${path}`]), 3);
    expect(plans.map((list) => list.length)).toEqual([1, 1, 1]);
    expect(new Set(plans.flat().map(({ fd, index }) => `${fd} ${index}`)).size).toBe(1);
    expect(existsSync(path)).toBe(true);
    sockets.stopAll();
    expect(existsSync(path)).toBe(false);
  });

  test("the file of a dead process is replaced; one on which a process listens, or that is not a socket, is not", async () => {
    const path = join(folder, "b.sock");
    const config = listening([`unix:${path}`]);
    // Its process dies without a chance to clean up.
    const program = `Bun.listen({ unix: ${JSON.stringify(path)}, socket: { data() {} } }); process.kill(process.pid, "SIGKILL")`;
    await Bun.spawn({ cmd: [process.execPath, "-e", program], stdio: ["ignore", "ignore", "inherit"] }).exited;
    expect(existsSync(path)).toBe(true);
    const first = new ListeningSockets();
    await take(first, config, 1);
    expect(await new ListeningSockets().bind(config, 1)).toEqual({
      error: `listeners.a: cannot listen on unix:${path}: another process listens on it; stop that one or choose another path`,
    });
    expect(existsSync(path)).toBe(true);
    first.stopAll();
    writeFileSync(path, "precious");
    expect(await new ListeningSockets().bind(config, 1)).toMatchObject({
      error: expect.stringContaining("not a socket"),
    });
    expect(await Bun.file(path).text()).toBe("precious");
  });

  test("the file of a listening process with a full queue is not replaced", async () => {
    const path = join(folder, "full.sock");
    const fd = listenOn({ kind: "unix", path }, 0);
    const filling = [];
    for (;;) {
      const connected = beginConnect(sockaddr({ kind: "unix", path }), null);
      if (connected < 0) break;
      filling.push(connected);
    }
    expect(await new ListeningSockets().bind(listening([`unix:${path}`]), 1)).toEqual({
      error: `listeners.a: cannot listen on unix:${path}: another process listens on it; stop that one or choose another path`,
    });
    expect(existsSync(path)).toBe(true);
    for (const one of [...filling, Number(fd)]) closeDescriptor(one);
    const sockets = new ListeningSockets();
    await take(sockets, listening([`unix:${path}`]), 1);
    sockets.stopAll();
  });

  test("abstract names need no file", async () => {
    const name = `lb-test-${process.pid}-${await freePort()}`;
    const sockets = new ListeningSockets();
    await take(sockets, listening([`unix:@${name}`]), 2);
    expect(await new ListeningSockets().bind(listening([`unix:@${name}`]), 2)).toMatchObject({
      error: expect.stringContaining("EADDRINUSE"),
    });
    sockets.stopAll();
    const again = new ListeningSockets();
    await take(again, listening([`unix:@${name}`]), 1);
    again.stopAll();
  });

  test("a missing folder is reported", async () => {
    const bound = await new ListeningSockets().bind(listening([`unix:${folder}/none/c.sock`]), 1);
    expect(bound).toMatchObject({ error: expect.stringContaining("the folder does not exist") });
  });
});

describe("a reload", () => {
  test("from one address to the wildcard and back takes effect at once", async (context) => {
    skipWithoutIPv6(context);
    const port = await freePort();
    const sockets = new ListeningSockets();
    for (const host of ["127.0.0.1", "0.0.0.0", "127.0.0.1", "", "127.0.0.1", "[::]", "[::1]"]) {
      const plans = await take(sockets, listening([`${host}:${port}`]), 2);
      const client = await connect(port, { host: host.includes(":") ? "::1" : "127.0.0.1" });
      await eventually("it is queued", () => queues(plans).reduce((sum, n) => sum + n) === 1);
      client.reset();
    }
    sockets.stopAll();
  });

  test("that fails keeps the existing sockets and closes the new ones", async () => {
    const [port, fresh] = await freePorts(2);
    const sockets = new ListeningSockets();
    const config = listening([`127.0.0.1:${port}`]);
    const before = await take(sockets, config, 2);
    const bound = await sockets.bind(listening([`127.0.0.1:${port}`, `127.0.0.1:${fresh}`]), 4);
    if ("error" in bound) throw new Error(bound.error);
    expect(bound.made.length).toBe(2 + 4);
    sockets.undo(bound);
    expect(await isRefused(fresh)).toBe(true);
    expect(plansOf(sockets, config, 2)).toEqual(before);
    const clients = await clientsOf(port, 40);
    await eventually("all are queued", () => queues(before).reduce((sum, n) => sum + n) === 40);
    for (const client of clients) client.reset();
    sockets.stopAll();
  });

  test("that removes a listener refuses new connections there, and the address can be bound again", async () => {
    const [port, other] = await freePorts(2);
    const sockets = new ListeningSockets();
    await take(sockets, listening([`127.0.0.1:${port}`, `127.0.0.1:${other}`]), 2);
    await take(sockets, listening([`127.0.0.1:${port}`]), 2);
    expect(await isRefused(other)).toBe(true);
    expect(await isRefused(port)).toBe(false);
    await take(sockets, listening([`127.0.0.1:${port}`, `127.0.0.1:${other}`]), 2);
    expect(await isRefused(other)).toBe(false);
    sockets.stopAll();
  });

  test("with fewer workers shares all sockets among them, and only theirs get new connections", async () => {
    const port = await freePort();
    const sockets = new ListeningSockets();
    const config = listening([`127.0.0.1:${port}`]);
    await take(sockets, config, 5);
    const plans = await take(sockets, config, 2);
    // Every connection that waits in a queue will be accepted.
    expect(plans.map((list) => list.map(({ index }) => index))).toEqual([
      [0, 2, 4],
      [1, 3],
    ]);
    const clients = await clientsOf(port, 60);
    await eventually("all are queued", () => queues(plans).reduce((sum, n) => sum + n) === 60);
    const [first, second, ...others] = queues(plans);
    expect(others).toEqual([0, 0, 0]);
    expect(Math.min(first!, second!)).toBeGreaterThan(10);
    for (const client of clients) client.reset();
    // And back: the sockets without connections get some again.
    const five = await take(sockets, config, 5);
    const more = await clientsOf(port, 200);
    await eventually("all five get some", () => queues(five).every((queued) => queued > 5));
    for (const client of more) client.reset();
    sockets.stopAll();
  });

  test("with more workers adds sockets, and every one gets new connections", async () => {
    const port = await freePort();
    const sockets = new ListeningSockets();
    const config = listening([`127.0.0.1:${port}`]);
    const [[one]] = (await take(sockets, config, 1)) as [[SocketPlan]];
    const plans = await take(sockets, config, 4);
    expect(plans[0]![0]!.fd).toBe(one.fd);
    const clients = await clientsOf(port, 200);
    await eventually("all four get some", () => queues(plans).every((queued) => queued > 10));
    for (const client of clients) client.reset();
    sockets.stopAll();
  });
});

describe("worker_affinity", () => {
  test('"client" puts all connections of an address into one queue, and uses every queue', async () => {
    const port = await freePort();
    const sockets = new ListeningSockets();
    const plans = await take(sockets, listening([`127.0.0.1:${port}`], 'worker_affinity = "client"'), 4);
    const clients: Client[] = [];
    let before = [0, 0, 0, 0];
    for (let i = 0; i < 40; i++) {
      clients.push(...(await clientsOf(port, 3, { from: `127.0.${i}.7` })));
      const total = 3 * (i + 1);
      await eventually("they are queued", () => queues(plans).reduce((sum, n) => sum + n) === total);
      const now = queues(plans);
      expect(now.map((queued, at) => queued - before[at]!).toSorted((a, b) => a - b)).toEqual([0, 0, 0, 3]);
      before = now;
    }
    expect(Math.min(...before)).toBeGreaterThan(0);
    for (const client of clients) client.reset();
    sockets.stopAll();
  });

  test("may change with a reload, in both directions", async () => {
    const port = await freePort();
    const sockets = new ListeningSockets();
    const bind = [`127.0.0.1:${port}`];
    const added = async (plans: SocketPlan[][]): Promise<number> => {
      const before = queues(plans);
      const clients = await clientsOf(port, 40);
      const total = before.reduce((sum, n) => sum + n) + 40;
      await eventually("they are queued", () => queues(plans).reduce((sum, n) => sum + n) === total);
      const used = queues(plans).filter((queued, i) => queued > before[i]!).length;
      for (const client of clients) client.reset();
      return used;
    };
    expect(await added(await take(sockets, listening(bind), 4))).toBe(4);
    expect(await added(await take(sockets, listening(bind, 'worker_affinity = "client"'), 4))).toBe(1);
    expect(await added(await take(sockets, listening(bind, 'worker_affinity = "client"'), 2))).toBe(1);
    expect(await added(await take(sockets, listening(bind), 4))).toBe(4);
    sockets.stopAll();
  });
});
