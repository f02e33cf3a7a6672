import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { parseAddress } from "../../src/core/address.ts";
import { cidrHas } from "../../src/core/cidr-set.ts";
import { WEIGHT_UNIT } from "../../src/policy/tiers.ts";
import { hashTable, hostOf, listenerPlan, poolPlan, poolState, readdressedState } from "../../src/supervisor/plans.ts";
import { Registry, type BackendRecord, type ListenerRecord, type PoolRecord } from "../../src/supervisor/registry.ts";
import { configOf } from "../support/config.ts";

/** The records of a config in which "app.example" has two addresses. */
function registryOf(toml: string): Registry {
  const registry = new Registry();
  const addresses = ["10.9.0.1", "10.9.0.2"].map((text) => parseAddress(text)!);
  registry.commit(registry.draft(configOf(toml), 1000, () => addresses));
  return registry;
}

const listener = ({ listeners }: Registry, name = "web"): ListenerRecord =>
  listeners.find((record) => record.name === name)!;
const pool = ({ pools }: Registry, name = "app"): PoolRecord => pools.find((record) => record.name === name)!;
const backend = (record: PoolRecord, at = 0): BackendRecord => record.backends[at]!;

const POOLS = `[pools.app]\nbackends = ["10.0.0.1:80"]\n[pools.api]\nbackends = ["10.0.0.2:80"]\n`;

describe("the plan of a listener", () => {
  test("names pools by their ids, in the order of its routes", () => {
    const registry = registryOf(
      `[listeners.web]\nbind = ":8080"\npool = "app"\nroutes = [{ clients = ["10.0.0.0/8"], pool = "api" }]\n${POOLS}`,
    );
    const plan = listenerPlan(listener(registry), registry.pools);
    expect(plan.pool).toBe(pool(registry, "app").id);
    expect(plan.routes.map((route) => route.pool)).toEqual([pool(registry, "api").id]);
    const [{ clients }] = plan.routes as [(typeof plan.routes)[0]];
    expect(cidrHas(clients!, ...parseAddress("10.1.2.3")!)).toBe(true);
    expect(cidrHas(clients!, ...parseAddress("192.0.2.1")!)).toBe(false);
  });

  test("has no pool for connections without a matching route if the config has none", () => {
    const registry = registryOf(
      `[listeners.web]\nbind = ":8080"\nroutes = [{ clients = ["10.0.0.0/8"], pool = "api" }, { clients = ["127.0.0.0/8"], pool = "app" }]\n${POOLS}`,
    );
    expect(listenerPlan(listener(registry), registry.pools).pool).toBe(-1);
  });

  test("has the cells of its record, and no lists and limits that the config does not set", () => {
    const registry = registryOf(
      `[listeners.web]\nbind = ":8080"\npool = "app"\n${POOLS}[listeners.b]\nbind=":8081"\npool="api"`,
    );
    const record = listener(registry);
    expect(listenerPlan(record, registry.pools)).toMatchObject({
      id: record.id,
      name: "web",
      tls: null,
      allow: null,
      deny: null,
      trustedProxies: null,
      bandwidth: null,
      open: record.cells.open,
      counters: record.cells.counters,
    });
  });

  test.each([
    ['hash_key = "sni"', true],
    ['hash_key = "client"', false],
  ])("says whether a pool behind it hashes the server name (%s)", (key, expected) => {
    const registry = registryOf(
      `[listeners.web]\nbind = ":8080"\npool = "app"\nroutes = [{ clients = ["10.0.0.0/8"], pool = "api" }]\n` +
        `[pools.app]\nbackends = ["10.0.0.1:80"]\n[pools.api]\nbackends = ["10.0.0.2:80"]\nbalance = "source_hash"\n${key}\n`,
    );
    expect(listenerPlan(listener(registry), registry.pools).hashesSni).toBe(expected);
  });

  test("has a shared bandwidth limit only if the listener has one", () => {
    const registry = registryOf(
      `[listeners.web]\nbind = ":8080"\npool = "app"\nbandwidth = { upload = "1MB/s", per = "listener" }\n${POOLS}[listeners.b]\nbind=":8081"\npool="api"`,
    );
    const { bandwidth } = listenerPlan(listener(registry), registry.pools);
    expect(bandwidth).toMatchObject({ upload: 1_000_000, download: 0, per: "listener" });
    expect(bandwidth!.memory).not.toBeNull();
    expect(listenerPlan(listener(registry, "b"), registry.pools).bandwidth).toBeNull();
  });
});

describe("the plan of a pool", () => {
  const one = (more: string): PoolRecord =>
    pool(registryOf(`[listeners.web]\nbind = ":8080"\npool = "app"\n[pools.app]\n${more}\n`));

  test("has every backend with the host name of the config, and the tiers", () => {
    const record = one('backends = [{ address = "app.example:80", weight = 3 }, "unix:/run/app.sock"]');
    const plan = poolPlan(record);
    expect(plan.backends.map(({ name, address, host }) => [name, address, host])).toEqual([
      ["app.example:80@10.9.0.1:80", "10.9.0.1:80", "app.example"],
      ["app.example:80@10.9.0.2:80", "10.9.0.2:80", "app.example"],
      ["unix:/run/app.sock", "unix:/run/app.sock", ""],
    ]);
    expect(record.backends.map(hostOf)).toEqual(["app.example", "app.example", ""]);
    expect(plan.tiers).toEqual([
      {
        entries: plan.backends.map(({ id }, i) => ({ id, effectiveWeight: WEIGHT_UNIT * [3, 3, 1][i]! })),
        table: null,
      },
    ]);
    expect(plan.version).toBe(record.version);
  });

  test("says that a backend may be its own peer only for an ephemeral port of this machine", () => {
    const [port] = readFileSync("/proc/sys/net/ipv4/ip_local_port_range", "utf8").split("\t");
    const record = one(`backends = ["127.0.0.1:${port}", "127.0.0.1:80", "192.0.2.1:${port}"]`);
    expect(poolPlan(record).backends.map(({ maySelfConnect }) => maySelfConnect)).toEqual([true, false, false]);
  });

  test("tells workers which failures count for passive health, or none", () => {
    expect(poolPlan(one('backends = ["10.0.0.1:80"]')).passive).toBeNull();
    const counted = poolPlan(one('backends = ["10.0.0.1:80"]\npassive = { count = ["early_reset"] }')).passive;
    expect(counted).toEqual({ connect: false, earlyReset: true });
  });
});

describe("the state of a pool", () => {
  const record = (): PoolRecord =>
    pool(
      registryOf(
        '[listeners.web]\nbind = ":8080"\npool = "app"\n[pools.app]\nbackends = ["10.0.0.1:80", "10.0.0.2:80"]\n',
      ),
    );

  test("has the tiers without the backends that are down, whose ids it names", () => {
    const app = record();
    backend(app).up = false;
    const state = poolState(app);
    expect(state).toMatchObject({
      kind: "pool",
      pool: app.id,
      version: app.version,
      down: [backend(app).id],
      backends: null,
    });
    expect(state.tiers.map(({ entries }) => entries.map(({ id }) => id))).toEqual([[backend(app, 1).id]]);
  });

  test("has the new backends after a lookup, and counts the removed ones as down", () => {
    const app = record();
    backend(app, 1).up = false;
    const state = readdressedState(app, [4711]);
    expect(state.down).toEqual([backend(app, 1).id, 4711]);
    expect(state.backends!.map(({ id }) => id)).toEqual(app.backends.map(({ id }) => id));
  });
});

describe("the hash table of a pool", () => {
  const hashed = (balance: string): PoolRecord =>
    pool(
      registryOf(
        `[listeners.web]\nbind = ":8080"\npool = "app"\n[pools.app]\nbalance = "${balance}"\n` +
          'backends = ["10.0.0.1:80", "10.0.0.2:80", { address = "10.0.0.3:80", backup = true }, { address = "10.0.0.4:80", weight = 0 }]\n',
      ),
    );

  test("exists only with source_hash", () => {
    expect(hashTable(hashed("round_robin"), 0)).toBeNull();
    expect(poolPlan(hashed("round_robin")).tiers[0]!.table).toBeNull();
  });

  test("covers the backends of one priority, up or not, without those of weight 0 in the file", () => {
    const app = hashed("source_hash");
    backend(app).up = false;
    expect(hashTable(app, 0)!.table.ids).toEqual([backend(app, 0).id, backend(app, 1).id]);
    expect(hashTable(app, 1)!.table.ids).toEqual([backend(app, 2).id]);
    expect(poolState(app).tiers[0]!.table).toBe(hashTable(app, 0)!.table);
  });

  test("keeps the place of a backend to which an operator gives the weight 0", () => {
    const app = hashed("source_hash");
    const before = hashTable(app, 0)!;
    app.changes.setWeight({ name: backend(app).name, address: null }, 0, 1);
    expect(hashTable(app, 0)).toBe(before);
    app.changes.setWeight({ name: backend(app).name, address: null }, 5, 1);
    expect(hashTable(app, 0)!.fingerprint).not.toBe(before.fingerprint);
  });
});
