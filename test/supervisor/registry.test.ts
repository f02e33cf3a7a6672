import { describe, expect, test } from "vitest";
import { parseAddress, type Address } from "../../src/core/address.ts";
import type { Config } from "../../src/config/schema.ts";
import { claim, claimed, giveBack } from "../../src/shared/cells.ts";
import { entriesOf } from "../../src/shared/clients.ts";
import { BACKEND, LISTENER } from "../../src/shared/counters.ts";
import { listenerPlan, poolPlan, poolState, readdressedState } from "../../src/supervisor/plans.ts";
import { Registry, type BackendRecord } from "../../src/supervisor/registry.ts";
import { configOf } from "../support/config.ts";

/** The registry after a reload with this config. `names` are the resolver's answers. */
function take(registry: Registry, config: Config, names: Record<string, string[]> = {}): void {
  registry.commit(registry.draft(config, 1000, addressesOf(names)));
}

function addressesOf(names: Record<string, string[]>): (host: string) => Address[] {
  return (host) => (names[host] ?? []).map((text) => parseAddress(text)!);
}

function started(toml: string, names: Record<string, string[]> = {}): Registry {
  const registry = new Registry();
  take(registry, configOf(toml), names);
  return registry;
}

const web = (pool: string): string => `[listeners.web]\nbind = ":8080"\npool = "app"\n[pools.app]\n${pool}\n`;

describe("identity", () => {
  test("of a listener, a pool and a backend is kept while the config names the same thing", () => {
    const registry = started(web('backends = ["10.0.0.1:80", "10.0.0.2:80"]'));
    const [listener] = registry.listeners;
    const [pool] = registry.pools;
    const [, second] = pool!.backends;
    const { version } = pool!;
    claim(listener!.cells.open, 0);
    claim(second!.cells.open, 0);
    second!.cells.counters[BACKEND.dials]! += 7;
    second!.up = false;
    take(registry, configOf(web('retries = 5\nbackends = ["10.0.0.3:80", { address = "10.0.0.2:80", weight = 9 }]')));
    expect(registry.listeners[0]).toMatchObject({
      id: listener!.id,
      cells: listener!.cells,
    });
    expect(claimed(registry.listeners[0]!.cells.open)).toBe(1);
    const [after] = registry.pools;
    expect(after!.id).toBe(pool!.id);
    expect(after!.version).toBeGreaterThan(version);
    expect(after!.config.retries).toBe(5);
    const [fresh, same] = after!.backends;
    expect(same!.id).toBe(second!.id);
    expect(same!.up).toBe(false);
    expect(same!.config.weight).toBe(9);
    expect(claimed(same!.cells.open)).toBe(1);
    expect(same!.cells.counters[BACKEND.dials]).toBe(7);
    expect(fresh).toMatchObject({ name: "10.0.0.3:80", up: true });
    expect(claimed(fresh!.cells.open)).toBe(0);
    expect(new Set([fresh!.id, same!.id, pool!.backends[0]!.id]).size).toBe(3);
  });

  test("is new for another address or another pool of the same name", () => {
    const registry = started(web('backends = [{ address = "10.0.0.1:80", name = "a" }]'));
    const [before] = registry.pools[0]!.backends;
    take(registry, configOf(web('backends = [{ address = "10.0.0.9:80", name = "a" }]')));
    expect(registry.pools[0]!.backends[0]!.id).not.toBe(before!.id);
    const other = `[listeners.web]\nbind = ":8080"\npool = "b"\n[pools.b]\nbackends = ["10.0.0.9:80"]\n`;
    const pool = registry.pools[0]!.id;
    take(registry, configOf(other));
    expect(registry.pools[0]!.id).not.toBe(pool);
  });

  test("of a removed backend is kept while its connections count for its cap; its health and its ramp begin anew", () => {
    const first = '{ address = "10.0.0.1:80", max_connections = 2 }';
    const registry = started(web(`slow_start = "5s"\nbackends = [${first}, "10.0.0.2:80"]`));
    const [before] = registry.pools[0]!.backends;
    claim(before!.cells.open, 2);
    claim(before!.cells.open, 2);
    before!.up = false;
    take(registry, configOf(web('slow_start = "5s"\nbackends = ["10.0.0.2:80"]')));
    sweepAll(registry);
    take(registry, configOf(web(`slow_start = "5s"\nbackends = [${first}, "10.0.0.2:80"]`)));
    const [after] = registry.pools[0]!.backends;
    expect(after).toMatchObject({ id: before!.id, up: true, state: { ramp: 0.1 } });
    expect(claim(after!.cells.open, 2)).toBe(false);
    giveBack(before!.cells.open);
    giveBack(before!.cells.open);
    sweepAll(registry);
    expect(claimed(after!.cells.open)).toBe(0);
    expect(registry.backendById.get(after!.id)).toBe(after);
    // Without connections it is forgotten, and another one afterwards.
    take(registry, configOf(web('slow_start = "5s"\nbackends = ["10.0.0.2:80"]')));
    sweepAll(registry);
    take(registry, configOf(web(`slow_start = "5s"\nbackends = [${first}, "10.0.0.2:80"]`)));
    expect(registry.pools[0]!.backends[0]!.id).not.toBe(before!.id);
  });

  test("ids are never given twice", () => {
    const registry = new Registry();
    const seen = new Set<number>();
    for (let i = 0; i < 20; i++) {
      take(registry, configOf(web(`backends = ["10.0.0.${i}:80"]`)));
      registry.sweep();
      registry.sweep();
      for (const { id } of registry.pools[0]!.backends) {
        expect(seen.has(id)).toBe(false);
        seen.add(id);
      }
    }
  });
});

describe("a draft", () => {
  test("changes nothing before it is committed", () => {
    const registry = started(web('backends = ["10.0.0.1:80"]'));
    const before = { listeners: registry.listeners, pools: registry.pools, version: registry.pools[0]!.version };
    const draft = registry.draft(
      configOf(web('backends = ["10.0.0.2:80"]').replace("listeners.web", "listeners.new")),
      1000,
      () => [],
    );
    expect(registry.listeners).toBe(before.listeners);
    expect(registry.pools).toBe(before.pools);
    expect(registry.pools[0]!.version).toBe(before.version);
    expect(registry.backendById.size).toBe(1);
    expect(draft.listeners[0]!.name).toBe("new");
  });

  test("includes changes of health before the commit", () => {
    const registry = started(web('backends = ["10.0.0.1:80"]'));
    const draft = registry.draft(configOf(web('retries = 1\nbackends = ["10.0.0.1:80"]')), 1000, () => []);
    registry.pools[0]!.backends[0]!.up = false;
    registry.commit(draft);
    expect(registry.pools[0]!.backends[0]!.up).toBe(false);
  });

  test("that is undone leaves the old records active, with a version that no worker has seen", () => {
    const registry = started(web('backends = ["10.0.0.1:80"]'));
    const old = { listeners: registry.listeners, pools: registry.pools };
    const [backend] = registry.pools[0]!.backends;
    registry.commit(registry.draft(configOf(web('backends = ["10.0.0.2:80"]')), 1000, () => []));
    const { version } = registry.pools[0]!;
    registry.commit(old);
    expect(registry.pools[0]!.backends[0]!.id).toBe(backend!.id);
    expect(registry.pools[0]!.version).toBeGreaterThan(version);
  });
});

describe("names", () => {
  const toml = web('backends = [{ address = "app.test:80", weight = 3 }, "10.0.0.1:80"]');

  test("are as many backends as they have addresses", () => {
    const registry = started(toml, { "app.test": ["10.1.0.1", "2001:db8::1"] });
    expect(
      registry.pools[0]!.backends.map(({ name, address, config }) => ({ name, address, weight: config.weight })),
    ).toEqual([
      { name: "app.test:80@10.1.0.1:80", address: "10.1.0.1:80", weight: 3 },
      { name: "app.test:80@[2001:db8::1]:80", address: "[2001:db8::1]:80", weight: 3 },
      { name: "10.0.0.1:80", address: "10.0.0.1:80", weight: 1 },
    ]);
  });

  test("that have one address keep their own name, and those without are omitted", () => {
    expect(started(toml, { "app.test": ["10.1.0.1"] }).pools[0]!.backends[0]).toMatchObject({
      name: "app.test:80",
      address: "10.1.0.1:80",
    });
    expect(started(toml).pools[0]!.backends.map(({ name }) => name)).toEqual(["10.0.0.1:80"]);
  });

  test("that resolve again change the backends, and keep those whose address stays", () => {
    const registry = started(toml, { "app.test": ["10.1.0.1", "10.1.0.2"] });
    const [pool] = registry.pools;
    const [first, second, third] = pool!.backends;
    expect(registry.readdress(pool!, addressesOf({ "app.test": ["10.1.0.1", "10.1.0.2"] }))).toBeNull();
    expect(registry.readdress(pool!, addressesOf({ "app.test": ["10.1.0.2", "10.1.0.3"] }))).toEqual([first!.id]);
    expect(pool!.backends.map(({ address }) => address)).toEqual(["10.1.0.2:80", "10.1.0.3:80", "10.0.0.1:80"]);
    expect(pool!.backends[0]!.id).toBe(second!.id);
    expect(pool!.backends[2]!.id).toBe(third!.id);
    expect(pool!.backends.some(({ id }) => id === first!.id)).toBe(false);
    // The connections of the removed one still refer to it.
    expect(registry.backendById.get(first!.id)).toBeDefined();
  });

  test("that get a second address keep the backend of the first, with its health and its connections", () => {
    const registry = started(toml, { "app.test": ["10.1.0.1"] });
    const [pool] = registry.pools;
    const [first] = pool!.backends;
    first!.up = false;
    claim(first!.cells.open, 0);
    registry.readdress(pool!, addressesOf({ "app.test": ["10.1.0.1", "10.1.0.2"] }));
    expect(pool!.backends[0]).toMatchObject({ id: first!.id, address: "10.1.0.1:80", up: false });
    expect(claimed(pool!.backends[0]!.cells.open)).toBe(1);
    registry.readdress(pool!, addressesOf({ "app.test": ["10.1.0.1"] }));
    expect(pool!.backends[0]).toMatchObject({ id: first!.id, up: false });
  });
});

describe("a removed record", () => {
  test("is forgotten only when no connection counts on it", () => {
    const registry = started(web('backends = ["10.0.0.1:80"]'));
    const [listener] = registry.listeners;
    const pool = registry.pools[0]!;
    const [backend] = pool.backends;
    claim(listener!.cells.open, 0);
    claim(backend!.cells.open, 0);
    take(registry, configOf(`[listeners.b]\nbind = ":8081"\npool = "c"\n[pools.c]\nbackends = ["10.0.0.1:80"]\n`));
    sweepAll(registry);
    expect(registry.listenerById.get(listener!.id)).toBe(listener);
    expect(registry.backendById.get(backend!.id)).toBe(backend);
    expect(registry.poolById.get(pool.id)).toBe(pool);
    giveBack(listener!.cells.open);
    giveBack(backend!.cells.open);
    sweepAll(registry);
    expect(registry.listenerById.size).toBe(1);
    expect(registry.backendById.size).toBe(1);
    expect(registry.poolById.size).toBe(1);
  });

  test("is kept while sockets are closed, and a backend while a connection may still reach it", () => {
    const timeouts = '[listeners.web.timeouts]\nhandshake = "15s"\n[pools.app]\nconnect_timeout = "4s"\nretries = 2\n';
    const registry = started(web('backends = ["10.0.0.1:80"]').replace("[pools.app]\n", timeouts));
    const [listener] = registry.listeners;
    const [backend] = registry.pools[0]!.backends;
    take(registry, configOf(`[listeners.b]\nbind = ":8081"\npool = "c"\n[pools.c]\nbackends = ["10.0.0.1:80"]\n`));
    const knowsAt = (ms: number): [boolean, boolean] => {
      registry.sweep(ms);
      return [registry.listenerById.has(listener!.id), registry.backendById.has(backend!.id)];
    };
    expect(knowsAt(1000)).toEqual([true, true]);
    expect(knowsAt(1000 + 5999)).toEqual([true, true]);
    expect(knowsAt(1000 + 6000)).toEqual([false, true]);
    // While the listener was known, its handshake timeout counted; now only the others' do.
    expect(knowsAt(1000 + 6000 + 10_000 + 3 * 4000 - 1)).toEqual([false, true]);
    expect(knowsAt(1000 + 6000 + 10_000 + 3 * 4000)).toEqual([false, false]);
  });

  test("is kept as long as a connection may wait in the queue before it reaches a backend", () => {
    const registry = started(web('backends = ["10.0.0.1:80"]\nqueue = { size = 1, timeout = "60s" }\nretries = 0'));
    const [backend] = registry.pools[0]!.backends;
    take(registry, configOf(`[listeners.b]\nbind = ":8081"\npool = "c"\n[pools.c]\nbackends = ["10.0.0.1:80"]\n`));
    for (const ms of [1000, 1000 + 6000 + 10_000 + 60_000 + 2999]) registry.sweep(ms);
    expect(registry.backendById.has(backend!.id)).toBe(true);
    registry.sweep(1000 + 6000 + 10_000 + 60_000 + 3 * 3000);
    expect(registry.backendById.has(backend!.id)).toBe(false);
  });

  test("that a reload restores is unchanged", () => {
    const registry = started(web('backends = ["10.0.0.1:80"]'));
    const before = registry.hold();
    const [backend] = before.pools[0]!.backends;
    take(registry, configOf(`[listeners.b]\nbind = ":8081"\npool = "c"\n[pools.c]\nbackends = ["10.0.0.1:80"]\n`));
    sweepAll(registry);
    registry.commit(before);
    registry.release();
    sweepAll(registry);
    expect(registry.backendById.get(backend!.id)).toBe(backend);
    expect([registry.listenerById.size, registry.backendById.size, registry.poolById.size]).toEqual([1, 1, 1]);
  });

  test("releases its memory for new ones: a thousand reloads take no more memory", () => {
    const registry = new Registry();
    const buffers = new Set<ArrayBufferLike>();
    for (let i = 0; i < 1000; i++) {
      take(registry, configOf(web(`backends = ["10.0.${i >> 8}.${i & 255}:80"]`).replace("web", `web${i}`)));
      sweepAll(registry);
      const [backend] = registry.pools[0]!.backends;
      buffers.add(backend!.cells.counters.buffer);
      buffers.add(registry.listeners[0]!.cells.counters.buffer);
      // Memory that was used before is zeroed.
      expect(backend!.cells.counters.every((cell) => cell === 0)).toBe(true);
      backend!.cells.counters.fill(1);
    }
    expect(buffers.size).toBeLessThanOrEqual(2);
  });
});

describe("rows of counters", () => {
  test("are as many as workers; earlier counts stay when there are more", () => {
    const registry = started(web('backends = ["10.0.0.1:80"]'));
    const [{ cells }] = registry.pools[0]!.backends as [BackendRecord];
    const before = cells.counters;
    expect(before).toHaveLength(BACKEND.size);
    before[BACKEND.dials]! += 5;
    claim(cells.open, 0);

    registry.makeRoom(3);
    const after = cells.counters;
    expect(after).toHaveLength(4 * BACKEND.size);
    expect(poolPlan(registry.pools[0]!).backends[0]).toMatchObject({
      openAt: cells.openAt,
      countersAt: cells.countersAt,
    });
    expect(claimed(cells.open)).toBe(1);
    // A worker with the former plan still counts there.
    before[BACKEND.dials]! += 1;
    after[2 * BACKEND.size + BACKEND.dials]! += 2;
    expect(cells.totals()[BACKEND.dials]).toBe(8);

    const { countersAt } = cells;
    registry.makeRoom(4);
    expect(cells.countersAt).toBe(countersAt);
  });
});

describe("plans", () => {
  test("have everything that a worker needs of a listener", () => {
    const registry = started(`
      [listeners.web]
      bind = ":8080"
      pool = "app"
      allow = ["10.0.0.0/8"]
      client_prefix = { ipv4 = 24, ipv6 = 56 }
      max_connections = 100
      max_connections_per_client = 10
      rate_limit = { rate = "600/m", burst = 20 }
      over_limit = "close"
      bandwidth = { upload = "1MB/s" }
      timeouts = { handshake = "1s", idle = "2s", half_close = "3s", lifetime = "4s" }
      [listeners.nowhere]
      bind = ":8081"
      [pools.app]
      backends = ["10.0.0.1:80"]
    `);
    const plan = listenerPlan(registry.listeners[0]!, registry.pools);
    expect(plan).toMatchObject({
      id: registry.listeners[0]!.id,
      name: "web",
      pool: registry.pools[0]!.id,
      deny: null,
      clientPrefix: { ipv4: 24, ipv6: 56 },
      maxConnections: 100,
      maxConnectionsPerClient: 10,
      rateLimit: { rate: 10, burst: 20 },
      overLimit: "close",
      bandwidth: { upload: 1_000_000, download: 0 },
      timeoutsMs: { handshake: 1000, idle: 2000, halfClose: 3000, lifetime: 4000 },
    });
    expect(plan.allow).not.toBeNull();
    expect(plan.clients).not.toBeNull();
    expect(plan.counters.length).toBe(LISTENER.size);
    const nowhere = listenerPlan(registry.listeners[1]!, registry.pools);
    expect(nowhere).toMatchObject({ pool: -1, allow: null, clients: null, rateLimit: null });
  });

  test("have everything that a worker needs of a pool, and which backends are up", () => {
    const registry = started(
      web(`
        balance = "least_connections"
        connect_timeout = "1s"
        retries = 7
        source_address = "10.9.9.9"
        on_down = "reset"
        keepalive = "0s"
        backends = ["10.0.0.1:80", { address = "10.0.0.2:80", name = "b", weight = 5, max_connections = 6, backup = true }]
      `),
    );
    const [pool] = registry.pools;
    pool!.backends[0]!.up = false;
    const plan = poolPlan(pool!);
    expect(plan).toMatchObject({
      id: pool!.id,
      name: "app",
      balance: "least_connections",
      connectTimeoutMs: 1000,
      retries: 7,
      sourceAddress: "10.9.9.9",
      onDown: "reset",
      keepaliveMs: 0,
      hashKey: "client",
      tiers: [{ entries: [{ id: pool!.backends[1]!.id, effectiveWeight: 5000 }], table: null }],
      version: pool!.version,
    });
    expect(plan.backends[1]).toMatchObject({
      name: "b",
      address: "10.0.0.2:80",
      maxConnections: 6,
    });
    expect(plan.backends[0]!.openAt).toBe(pool!.backends[0]!.cells.openAt);
    const [first, second] = pool!.backends;
    const state = {
      kind: "pool",
      pool: pool!.id,
      version: pool!.version,
      tiers: [{ entries: [{ id: second!.id, effectiveWeight: 5000 }], table: null }],
      memory: registry.arena.memory,
    };
    expect(poolState(pool!)).toEqual({ ...state, down: [first!.id], backends: null });
    expect(readdressedState(pool!, [99])).toEqual({ ...state, down: [first!.id, 99], backends: plan.backends });
  });

  test("the table of clients is kept over reloads, and made when a limit needs it", () => {
    const registry = started(web('backends = ["10.0.0.1:80"]'));
    expect(registry.listeners[0]!.clients).toBeNull();
    const limited = web('backends = ["10.0.0.1:80"]').replace("pool =", "max_connections_per_client = 5\npool =");
    take(registry, configOf(limited));
    const { clients } = registry.listeners[0]!;
    expect(clients).toBeInstanceOf(SharedArrayBuffer);
    take(registry, configOf(limited.replace("= 5", "= 6")));
    expect(registry.listeners[0]!.clients).toBe(clients);
  });

  test("a shared bandwidth limit is kept over reloads, and made again for another scope", () => {
    const registry = started(web('backends = ["10.0.0.1:80"]'));
    const shared = (limit: string): SharedArrayBuffer | null => {
      const text = web('backends = ["10.0.0.1:80"]').replace("pool =", `bandwidth = ${limit}\npool =`);
      take(registry, configOf(text));
      const [listener] = registry.listeners;
      expect(listenerPlan(listener!, registry.pools).bandwidth?.memory ?? null).toBe(listener!.bandwidth);
      return listener!.bandwidth;
    };
    expect(shared('{ upload = "1MB/s" }')).toBeNull();
    const ofListener = shared('{ upload = "1MB/s", per = "listener" }');
    expect(ofListener).toBeInstanceOf(SharedArrayBuffer);
    expect(shared('{ upload = "2MB/s", download = "1MB/s", per = "listener" }')).toBe(ofListener);
    const ofClients = shared('{ upload = "1MB/s", per = "client" }');
    // A limit for each entry of the table, which is made with it.
    expect(ofClients!.byteLength).toBe(entriesOf(registry.listeners[0]!.clients!) * ofListener!.byteLength);
    expect(shared('{ upload = "3MB/s", per = "client" }')).toBe(ofClients);
    expect(shared('{ per = "client" }')).toBeNull();
  });
});

/** Long enough for all removed records to be forgotten. */
function sweepAll(registry: Registry): void {
  for (let hours = 0; hours < 3; hours++) registry.sweep(hours * 3_600_000);
}
