// A reload: the whole new config is applied, or nothing. Files and sockets are real; the fleet is a recorder.
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { loadConfig } from "../../src/config/load.ts";
import type { Config } from "../../src/config/schema.ts";
import { ActiveConfig, workerCount } from "../../src/supervisor/active-config.ts";
import type { Admin } from "../../src/admin/admin.ts";
import { Registry } from "../../src/supervisor/registry.ts";
import { Reloads } from "../../src/supervisor/reload.ts";
import { Resolver } from "../../src/supervisor/resolve.ts";
import { ListeningSockets } from "../../src/supervisor/sockets.ts";
import { parseEndpoint, type Endpoint } from "../../src/core/address.ts";
import { beginConnect, closeDescriptor, sockaddr } from "../../src/platform/sockets.ts";
import { isRefused } from "../support/client.ts";
import { ESTABLISHED, SYN_SENT, tcpInfo } from "../support/kernel.ts";
import { freePort } from "../support/lb.ts";
import { recordingLog } from "../support/recording-log.ts";

let folder: string;
let port: number;
let other: number;
const cleanups: (() => void)[] = [];

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "lb-reload-"));
});
beforeEach(async () => {
  [port, other] = [await freePort(), await freePort()];
});
afterEach(() => {
  for (const cleanup of cleanups.splice(0)) cleanup();
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const text = (bind: number, more = ""): string => `
  workers = 2
  watch = false
  ${more}
  admin.enabled = false
  [listeners.web]
  bind = "127.0.0.1:${bind}"
  pool = "app"
  [pools.app]
  backends = ["127.0.0.1:1"]
`;

/** A fleet that does what it is told; `refusal` is its workers' answer to a plan. */
class RecordedFleet {
  readonly calls: string[] = [];
  readonly slots = { length: 2 };
  refusal: string | null = null;
  /** Runs when the workers accept a plan. */
  onApply: () => void = () => undefined;

  applyAll(): Promise<string | null> {
    this.calls.push("apply");
    this.onApply();
    return Promise.resolve(this.refusal);
  }

  growTo(count: number): Promise<string | null> {
    this.calls.push(`grow to ${count}`);
    return Promise.resolve(null);
  }

  sendBackends(): void {
    this.calls.push("send backends");
  }

  shrinkTo(count: number): void {
    this.calls.push(`shrink to ${count}`);
  }
}

interface Setting {
  startAdmin?: (config: Config) => Promise<Admin | { error: string }>;
  isRunning?: () => boolean;
}

async function start({ startAdmin, isRunning = () => true }: Setting = {}) {
  const file = join(folder, `lb-${port}.toml`);
  const write = (toml: string): void => writeFileSync(file, toml);
  write(text(port));
  const loaded = loadConfig(file, {});
  if (!loaded.ok) throw new Error(JSON.stringify(loaded.problems));
  const { config } = loaded;
  const { log, said } = recordingLog();
  const registry = new Registry();
  const sockets = new ListeningSockets([], registry.changes.isDrained);
  const resolver = new Resolver(log, () => Promise.resolve([]));
  const active = new ActiveConfig(config, { registry, sockets, addresses: resolver.addresses, log });
  expect(await sockets.bind(config, workerCount(config))).not.toHaveProperty("error");
  active.put(config);
  active.settle();
  const fleet = new RecordedFleet();
  const targets: string[] = [];
  const access = {
    configure: (target: Config["log"]["access"]) => {
      targets.push(JSON.stringify(target));
      return null;
    },
  };
  let taken = 0;
  const reloads = new Reloads(loaded, {
    file,
    active,
    sockets,
    resolver,
    fleet,
    access,
    log: Object.assign(log, { configure: () => undefined }),
    isRunning,
    startAdmin: startAdmin ?? (() => Promise.resolve({ error: "there is no admin endpoint here" })),
    onReloaded: () => taken++,
  });
  cleanups.push(() => sockets.stopAll());
  return { active, fleet, reloads, said, targets, write, taken: () => taken };
}

describe("a config that every worker accepts", () => {
  test("is active in its own generation; surplus workers go last", async () => {
    const { active, fleet, reloads, said, write, taken } = await start();
    reloads.begin();
    write(text(other).replace("workers = 2", "workers = 1"));
    expect(await reloads.reload("test")).toEqual({
      ok: true,
      message: "generation 2 is in force\nworkers changed\nlisteners.web: bind changed",
    });
    expect([active.generation, active.config.workers]).toEqual([2, 1]);
    expect(fleet.calls).toEqual(["apply", "grow to 1", "send backends", "shrink to 1"]);
    expect([taken(), reloads.success, reloads.failure, reloads.lastError]).toEqual([1, 1, 0, null]);
    expect(said).toContainEqual(expect.objectContaining({ event: "reloaded", cause: "test", generation: 2 }));
    expect(await isRefused(port)).toBe(true);
    expect(await isRefused(other)).toBe(false);
  });
});

describe("the message of a reload", () => {
  const pool = (from: number, count: number): string => {
    const backends = Array.from({ length: count }, (_, i) => `"127.0.0.1:${from + i}"`);
    return text(port).replace('"127.0.0.1:1"', backends.join(", "));
  };

  test("says that nothing has changed, and since when", async () => {
    const { active, reloads } = await start();
    active.loadedAtMs = Date.UTC(2026, 0, 2, 3, 4, 5);
    reloads.begin();
    const since = "generation 1, which was loaded at 2026-01-02T03:04:05.000Z";
    expect(await reloads.reload("test")).toEqual({
      ok: true,
      message: `generation 2 is in force\nnothing has changed since ${since}`,
    });
  });

  test("names changes of operators that the file has ended", async () => {
    const { active, reloads, write } = await start();
    reloads.begin();
    active.changes.ofPool("app").setWeight({ name: "127.0.0.1:1", address: null }, 5, 1);
    write(pool(2, 1));
    expect((await reloads.reload("test")).message.split("\n").slice(1)).toEqual([
      "pools.app: backend 127.0.0.1:2 added",
      "pools.app: backend 127.0.0.1:1 removed",
      "run-time change dropped: pools.app.backends.127.0.0.1:1: the backend is gone",
    ]);
  });

  test("lists at most 50 changes", async () => {
    const { reloads, write } = await start();
    reloads.begin();
    write(pool(1, 61));
    const lines = (await reloads.reload("test")).message.split("\n");
    expect([lines.length, lines.at(-2), lines.at(-1)]).toEqual([
      52,
      "pools.app: backend 127.0.0.1:51 added",
      "10 more, see the log",
    ]);
  });
});

describe("a removed listener", () => {
  /** The state of a connect that has just begun; on loopback the kernel has handled its SYN. */
  const attempt = (): number => {
    const fd = beginConnect(sockaddr(parseEndpoint(`127.0.0.1:${port}`) as Endpoint), null);
    cleanups.push(() => closeDescriptor(fd));
    return tcpInfo(fd).state;
  };

  test("lets no connection into its queues before the first worker stops serving them", async () => {
    const { fleet, reloads, write } = await start();
    reloads.begin();
    const states: number[] = [];
    fleet.onApply = () => states.push(attempt());
    write(text(other));
    expect((await reloads.reload("test")).ok).toBe(true);
    expect(states).toEqual([SYN_SENT]);
  });

  test("accepts again when a worker refuses the plan", async () => {
    const { fleet, reloads, write } = await start();
    reloads.begin();
    fleet.refusal = "worker 1 cannot";
    write(text(other));
    expect((await reloads.reload("test")).ok).toBe(false);
    expect(attempt()).toBe(ESTABLISHED);
  });
});

describe("a change of an operator", () => {
  test("is applied without reading the file, never at the same time as a reload, and is not counted as one", async () => {
    const { active, fleet, reloads, write, taken } = await start();
    const loadedAtMs = active.loadedAtMs;
    write(text(other));
    const done = reloads.change(() => active.changes.setListener("web", "drain"));
    await Bun.sleep(0);
    expect(active.changes.isDrained("web")).toBe(false);
    reloads.begin();
    expect(await done).toBeNull();
    expect([active.generation, active.loadedAtMs, reloads.success, taken()]).toEqual([2, loadedAtMs, 0, 1]);
    expect(fleet.calls).toEqual(["apply", "grow to 2", "send backends", "shrink to 2"]);
    expect(active.config.listeners[0]!.bind).toMatchObject([{ port }]);
    expect(active.planFor(0).sockets).toEqual([]);
    expect(await isRefused(port)).toBe(true);
    expect(await reloads.change(() => active.changes.setListener("web", "ready"))).toBeNull();
    expect(active.planFor(0).sockets.length).toBe(1);
    expect(await isRefused(port)).toBe(false);
  });

  test("is undone if a worker refuses it, before the workers get the old plan again", async () => {
    const { active, fleet, reloads } = await start();
    reloads.begin();
    fleet.refusal = "worker 1 cannot";
    const sockets: number[] = [];
    fleet.onApply = () => sockets.push(active.planFor(0).sockets.length);
    expect(await reloads.change(() => active.changes.setListener("web", "drain"))).toBe("worker 1 cannot");
    expect(sockets).toEqual([0, 1]);
    expect([active.generation, active.changes.isDrained("web")]).toEqual([1, false]);
    expect(await isRefused(port)).toBe(false);
    expect(reloads.failure).toBe(0);
  });

  test("that changes nothing sends nothing to workers", async () => {
    const { active, fleet, reloads } = await start();
    reloads.begin();
    expect(await reloads.change(() => null)).toBeNull();
    expect([fleet.calls, active.generation]).toEqual([[], 1]);
  });

  test("of backends survives a reload, which reports what the file has ended", async () => {
    const { active, reloads, said, write } = await start();
    reloads.begin();
    const changes = active.changes.ofPool("app");
    expect(await reloads.change(() => changes.remove(active.config.pools[0]!.backends[0]!))).toBeNull();
    expect(active.planFor(0).pools[0]!.backends).toEqual([]);
    write(text(port, "max_connections = 100"));
    expect((await reloads.reload("test")).ok).toBe(true);
    expect(active.planFor(0).pools[0]!.backends).toEqual([]);
    write(text(port).replace('["127.0.0.1:1"]', '[{ address = "127.0.0.1:1", weight = 2 }]'));
    expect((await reloads.reload("test")).ok).toBe(true);
    expect(active.planFor(0).pools[0]!.backends.length).toBe(1);
    expect(said.filter(({ event }) => event === "run-time change dropped")).toEqual([
      expect.objectContaining({
        what: "pools.app.backends.127.0.0.1:1: removed by API, and the file's entry has changed",
      }),
    ]);
  });
});

describe("the old config stays active after", () => {
  const unchanged = async ({ active, reloads, taken }: Awaited<ReturnType<typeof start>>): Promise<void> => {
    expect([active.generation, taken(), reloads.success, reloads.failure]).toEqual([1, 0, 0, 1]);
    expect(active.config.listeners[0]!.bind).toMatchObject([{ port }]);
    expect(await isRefused(port)).toBe(false);
    expect(await isRefused(other)).toBe(true);
  };

  test("a file with problems: no worker gets it, and the result names each problem", async () => {
    const all = await start();
    all.reloads.begin();
    all.write(text(other).replace("bind", "bnid"));
    const result = await all.reloads.reload("test");
    expect(result).toEqual({
      ok: false,
      message: expect.stringMatching(/listeners\.web\.bnid: there is no such option/),
    });
    expect(all.fleet.calls).toEqual([]);
    expect(all.reloads.lastError).toBe(result.message);
    expect(all.said).toContainEqual(expect.objectContaining({ level: "error", reason: result.message }));
    await unchanged(all);
  });

  test("an address that cannot be bound", async () => {
    const all = await start();
    all.reloads.begin();
    const server = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data: () => undefined } });
    cleanups.push(() => server.stop(true));
    all.write(text(other).replace(`"127.0.0.1:${other}"`, `["127.0.0.1:${other}", "127.0.0.1:${server.port}"]`));
    expect(await all.reloads.reload("test")).toEqual({
      ok: false,
      message: expect.stringContaining(`cannot listen on 127.0.0.1:${server.port}`),
    });
    expect(all.fleet.calls).toEqual([]);
    await unchanged(all);
  });

  test("a worker that refuses the plan: all get the old one again, and the log keeps its target", async () => {
    const all = await start();
    all.reloads.begin();
    all.fleet.refusal = "worker 1 cannot make the certificate's context";
    const generations: number[] = [];
    all.fleet.onApply = () => generations.push(all.active.generation);
    all.write(text(other, 'log.access = "stderr"'));
    expect(await all.reloads.reload("test")).toEqual({ ok: false, message: all.fleet.refusal });
    expect(generations).toEqual([2, 1]);
    expect(all.fleet.calls).toEqual(["apply", "apply", "shrink to 2"]);
    expect(all.targets).toEqual(['"stderr"', '"stdout"']);
    await unchanged(all);
  });

  test("an admin endpoint that cannot listen", async () => {
    const all = await start({ startAdmin: () => Promise.resolve({ error: "the admin endpoint cannot listen" }) });
    all.reloads.begin();
    all.write(text(other).replace("admin.enabled = false", `admin.bind = "127.0.0.1:${other + 1}"`));
    expect(await all.reloads.reload("test")).toEqual({ ok: false, message: "the admin endpoint cannot listen" });
    await unchanged(all);
  });
});

describe("reloads", () => {
  test("wait for the start, and requests that wait share one", async () => {
    const { fleet, reloads } = await start();
    const [first, second] = [reloads.reload("SIGHUP"), reloads.reload("admin")];
    await Bun.sleep(0);
    expect(fleet.calls).toEqual([]);
    reloads.begin();
    expect(await first).toEqual({ ok: true, message: expect.stringMatching(/^generation 2 is in force\n/) });
    expect(await second).toEqual(await first);
    expect(reloads.success).toBe(1);
  });

  test("run one at a time: a request during one is handled after it", async () => {
    const { fleet, reloads } = await start();
    reloads.begin();
    let during: Promise<unknown> = Promise.resolve();
    let running = 0;
    fleet.onApply = () => {
      running++;
      if (running === 1) during = reloads.reload("second");
    };
    await reloads.reload("first");
    expect([reloads.success, running]).toEqual([1, 1]);
    expect(await during).toEqual({ ok: true, message: expect.stringMatching(/^generation 3 is in force\n/) });
    expect(running).toBe(2);
  });

  test("are refused while the process stops, and count as neither success nor failure", async () => {
    const { fleet, reloads } = await start({ isRunning: () => false });
    reloads.begin();
    expect(await reloads.reload("admin")).toMatchObject({ ok: false, message: expect.stringContaining("stopping") });
    expect([fleet.calls, reloads.success, reloads.failure]).toEqual([[], 0, 0]);
  });
});
