// The explanation of a connection: every possible reason, and the same answer that a worker gives.
import { beforeEach, describe, expect, test } from "vitest";
import { formatAddress, parseAddress } from "../../src/core/address.ts";
import type { Explanation, ExplainQuery } from "../../src/observe/live.ts";
import { monotonicMs } from "../../src/platform/clock.ts";
import { claim } from "../../src/shared/cells.ts";
import { ClientTable } from "../../src/shared/clients.ts";
import { SharedQueue } from "../../src/shared/queue.ts";
import { ActiveConfig } from "../../src/supervisor/active-config.ts";
import { explain, type ExplainSources } from "../../src/supervisor/explain.ts";
import { poolPlan } from "../../src/supervisor/plans.ts";
import { Registry, type BackendRecord } from "../../src/supervisor/registry.ts";
import { ListeningSockets } from "../../src/supervisor/sockets.ts";
import { ClientPrefix } from "../../src/core/client-prefix.ts";
import { Pool } from "../../src/worker/pool.ts";
import { configOf } from "../support/config.ts";
import { recordingLog } from "../support/recording-log.ts";

function start(toml: string): { registry: Registry; sources: ExplainSources } {
  const config = configOf(toml);
  const registry = new Registry();
  const { log } = recordingLog();
  new ActiveConfig(config, { registry, sockets: new ListeningSockets(), addresses: () => [], log }).put(config);
  return { registry, sources: { registry, open: 3, maxConnections: 100, lastError: () => null } };
}

let registry: Registry;
let sources: ExplainSources;

function ask(query: Partial<Omit<ExplainQuery, "client">> & { client?: string } = {}): Explanation {
  const client = parseAddress(query.client ?? "10.0.0.1")!;
  const answer = explain({ listener: "web", sni: null, alpn: [], ...query, client }, sources);
  if (!answer.ok) throw new Error(answer.error.detail);
  return answer.value;
}

const backends = (pool = 0): BackendRecord[] => registry.pools[pool]!.backends;
const limit = (answer: Explanation, name: string) => answer.limits.find((one) => one.limit === name);

/** One connection per hour, and three at once. */
const LIMITS = { intervalNs: 3_600_000_000_000, burst: 3, holds: false, dryRunOpen: false, dryRunRate: false };

/** Claims this many connections at a backend. */
function fill(backend: BackendRecord, count: number): void {
  for (let i = 0; i < count; i++) claim(backend.cells.open, 0);
}

describe("limits", () => {
  beforeEach(() => {
    ({ registry, sources } = start(`
      [listeners.web]
      bind = ":8080"
      pool = "app"
      allow = ["10.0.0.0/8", "192.0.2.0/24"]
      deny = ["10.9.0.0/16"]
      max_connections = 5
      max_connections_per_client = 2
      rate_limit = { rate = "1/h", burst = 3 }
      client_prefix = { ipv4 = 24, ipv6 = 64 }
      [pools.app]
      backends = ["127.0.0.1:1"]
    `));
  });

  /** Takes tokens and places of a client, like a worker. */
  function visit(client: string, count: number): void {
    const table = new ClientTable(registry.listeners[0]!.clients!);
    const { w0, w1, w2, w3 } = new ClientPrefix({ ipv4: 24, ipv6: 64 }).of(
      Int32Array.of(...parseAddress(client)!, 0),
      0,
    );
    const limits = { ...LIMITS, maxOpen: 2 };
    for (let i = 0; i < count; i++)
      expect(table.claim(w0, w1, w2, w3, limits, monotonicMs() * 1e6)).toBeGreaterThanOrEqual(0);
  }

  test("that let a client pass report how much is left", () => {
    visit("10.0.0.77", 1);
    claim(registry.listeners[0]!.cells.open, 0);
    const answer = ask();
    expect(answer.end).toBeNull();
    expect(answer.limits.map(({ limit, verdict, current, max }) => [limit, verdict, current, max])).toEqual([
      ["deny", "passes", null, null],
      ["allow", "passes", null, null],
      ["max_connections of the process", "passes", 3, 100],
      ["max_connections", "passes", 1, 5],
      ["max_connections_per_client", "passes", 1, 2],
      ["rate_limit", "passes", 2, 3],
    ]);
  });

  test("are not used up by the request", () => {
    for (let i = 0; i < 10; i++) ask();
    expect(limit(ask(), "rate_limit")).toMatchObject({ current: 3 });
    expect(limit(ask(), "max_connections_per_client")).toMatchObject({ current: 0 });
  });

  test.each([
    ["deny", "denied", { client: "10.9.1.1" }],
    ["allow", "denied", { client: "198.51.100.1" }],
  ] as const)("%s refuses by address", (name, end, query) => {
    const answer = ask(query);
    expect(answer).toMatchObject({ end, backend: null, pool: "app" });
    expect(limit(answer, name)).toMatchObject({ verdict: "refuses", end });
    expect(answer.outcome).toContain(`\`${name}\``);
  });

  test("refuse a client if the process, the listener or the client's own places are full", () => {
    visit("10.0.0.1", 2);
    expect(ask()).toMatchObject({ end: "client_full", backend: null });
    expect(limit(ask(), "rate_limit")).toMatchObject({ verdict: "passes", current: 1 });
    for (let i = 0; i < 5; i++) claim(registry.listeners[0]!.cells.open, 0);
    expect(ask({ client: "10.0.1.1" })).toMatchObject({ end: "listener_full" });
    sources = { ...sources, open: 100 };
    expect(ask({ client: "10.0.1.1" })).toMatchObject({ end: "process_full" });
  });

  test("refuse a client without tokens", () => {
    const { clients } = registry.listeners[0]!;
    const [w0, w1, w2, w3] = parseAddress("10.0.0.0")!;
    const limits = { ...LIMITS, maxOpen: 0 };
    for (let i = 0; i < 3; i++) new ClientTable(clients!).claim(w0, w1, w2 | 0, w3 | 0, limits, monotonicMs() * 1e6);
    expect(ask()).toMatchObject({ end: "rate_limited" });
    expect(ask({ client: "10.0.1.1" })).toMatchObject({ end: null });
  });
});

test("a limit in dry_run reports that it would refuse, and the client passes", () => {
  ({ registry, sources } = start(`
    [listeners.web]
    bind = ":8080"
    pool = "app"
    rate_limit = { rate = "1/h", burst = 3 }
    dry_run = ["rate_limit"]
    [pools.app]
    backends = ["127.0.0.1:1"]
  `));
  const [w0, w1, w2, w3] = parseAddress("10.0.0.1")!;
  const table = new ClientTable(registry.listeners[0]!.clients!);
  for (let i = 0; i < 3; i++) table.claim(w0, w1, w2, w3 | 0, { ...LIMITS, maxOpen: 0 }, monotonicMs() * 1e6);
  const answer = ask();
  expect(answer).toMatchObject({ end: null, backend: "127.0.0.1:1" });
  expect(limit(answer, "rate_limit")).toMatchObject({ verdict: "would refuse", end: null, current: 0 });
});

describe("routes", () => {
  test("are those that workers choose: by name, protocol and address, otherwise the listener's pool", () => {
    ({ registry, sources } = start(`
      [listeners.web]
      bind = ":8080"
      pool = "rest"
      routes = [
        { sni = ["a.example", "*.a.example"], alpn = ["h2"], pool = "api" },
        { clients = ["192.0.2.0/24"], pool = "office" },
      ]
      [listeners.bare]
      bind = ":8081"
      routes = [{ sni = ["a.example"], pool = "api" }]
      [pools.rest]
      backends = ["127.0.0.1:1"]
      [pools.api]
      backends = ["127.0.0.1:2"]
      [pools.office]
      backends = ["127.0.0.1:3"]
    `));
    expect(ask({ sni: "www.a.example", alpn: ["http/1.1", "h2"] })).toMatchObject({
      route: "routes[0]: sni = a.example, *.a.example; alpn = h2",
      pool: "api",
      backend: "127.0.0.1:2",
    });
    expect(ask({ sni: "www.a.example" })).toMatchObject({ route: null, pool: "rest" });
    expect(ask({ client: "192.0.2.9" })).toMatchObject({ route: "routes[1]: clients = 192.0.2.0/24", pool: "office" });
    expect(ask({ listener: "bare" })).toMatchObject({
      end: "no_route",
      route: null,
      pool: null,
      backend: null,
      candidates: [],
      outcome: "is refused: no route matches and the listener has no pool",
    });
    const nowhere = explain({ listener: "wbe", client: parseAddress("::1")!, sni: null, alpn: [] }, sources);
    expect(nowhere).toMatchObject({ ok: false, error: { name: "no_such_listener" } });
  });
});

describe("backends", () => {
  const POOL = `
    [listeners.web]
    bind = ":8080"
    pool = "app"
    [pools.app]
    backends = [
      { address = "127.0.0.1:1", name = "one" },
      { address = "127.0.0.1:2", name = "two", max_connections = 2 },
      { address = "127.0.0.1:3", name = "idle", weight = 0 },
      { address = "127.0.0.1:4", name = "spare", backup = true },
    ]
    passive = { window = "20s" }
  `;
  const reasons = (answer: Explanation): Record<string, string> =>
    Object.fromEntries(
      answer.candidates.map(({ backend, usable, reason }) => [backend, `${usable ? "+" : "-"} ${reason}`]),
    );

  beforeEach(() => void ({ registry, sources } = start(POOL)));

  test("are candidates if workers pick by turns, and every other backend has a reason", () => {
    const answer = ask();
    expect(answer).toMatchObject({ end: null, pool: "app", backend: null });
    expect(answer.outcome).toBe("goes to one of 2 backends (round_robin) of pool app");
    expect(reasons(answer)).toEqual({
      one: "+ a candidate of round_robin",
      two: "+ a candidate of round_robin",
      idle: "- its weight is 0",
      spare: "- a backup, and a primary is usable",
    });
  });

  test("that are down, full, ejected or drained by their agent are reported as such", () => {
    const [one, two] = backends();
    one!.up = false;
    sources = { ...sources, lastError: (id) => (id === one!.id ? "connection refused" : null) };
    fill(two!, 2);
    expect(reasons(ask())).toMatchObject({
      one: "- down: connection refused",
      two: "- full: 2 of 2 connections are open",
      spare: "- a backup, and a primary is usable",
    });
    expect(ask()).toMatchObject({ end: "queue_full", outcome: "is refused: every usable backend of pool app is full" });
    Object.assign(two!.state.ejection, { untilMs: Infinity, causes: { connect: 2, earlyReset: 1 } });
    expect(reasons(ask())).toMatchObject({
      two: "- ejected: 2 failed connects and 1 early reset within 20s (passive health)",
    });
    // Now only the backup is left.
    expect(ask()).toMatchObject({ end: null, backend: "spare", outcome: "goes to spare of pool app" });
    two!.agent = { ...two!.agent, state: "drain" };
    expect(reasons(ask())).toMatchObject({
      two: "- taken out by its agent (drain)",
      spare: "+ the only one that is usable",
    });
    for (const backend of backends()) backend.up = false;
    expect(ask()).toMatchObject({ end: "no_backend", backend: null, outcome: "is refused: no backend of app is up" });
  });

  test("that an operator has drained or disabled are reported as such", () => {
    const [one, two] = backends();
    const { changes } = registry.pools[0]!;
    changes.setState({ name: one!.config.name, address: null }, "maintenance", null);
    changes.setWeight({ name: two!.config.name, address: null }, 0, 1);
    expect(reasons(ask())).toMatchObject({
      one: "- taken out by an operator (maintenance)",
      two: "- its weight is 0 by an operator (the file says 1)",
      spare: "+ the only one that is usable",
    });
    registry.changes.setListener("web", "drain");
    expect(ask()).toMatchObject({
      end: null,
      backend: null,
      outcome: "is refused: an operator has drained the listener, which accepts no connections",
    });
  });

  test("that are down are candidates in panic mode", () => {
    ({ registry, sources } = start(POOL.replace("backends =", "panic_threshold = 80\nbackends =")));
    backends()[0]!.up = false;
    const { one, two } = reasons(ask());
    expect(one).toBe(
      "+ a candidate of round_robin; health is ignored, because too few backends are up (panic_threshold)",
    );
    expect(two).toBe(one);
  });

  test("that are full with a queue make the connection wait, and it waits behind others too", () => {
    ({ registry, sources } = start(POOL.replace("backends =", "queue = { size = 2 }\nbackends =")));
    const [one, two] = backends();
    one!.up = false;
    fill(two!, 2);
    expect(ask()).toMatchObject({
      end: null,
      backend: null,
      outcome: "waits in the queue of pool app, where 0 of 2 connections wait",
    });
    const queue = new SharedQueue(registry.pools[0]!.queue!);
    expect([queue.enter(0, 2), queue.enter(0, 2)]).toEqual([true, true]);
    expect(ask()).toMatchObject({ end: "queue_full" });
    queue.leave();
    one!.up = true;
    expect(ask()).toMatchObject({ end: null, backend: null, outcome: expect.stringContaining("waits in") as string });
  });

  test("are certain with first: the first usable one", () => {
    ({ registry, sources } = start(POOL.replace("backends =", `balance = "first"\nbackends =`)));
    expect(ask()).toMatchObject({ backend: "one" });
    expect(reasons(ask())).toMatchObject({
      one: "+ the first that is usable",
      two: "+ usable, but another one comes first",
    });
    backends()[0]!.up = false;
    expect(ask()).toMatchObject({ backend: "two" });
  });

  test("are certain with source_hash, and the same that a worker picks, whichever are down", () => {
    const list = Array.from({ length: 20 }, (_, i) => `"127.0.0.1:${i + 1}"`).join(", ");
    ({ registry, sources } = start(`
      [listeners.web]
      bind = ":8080"
      pool = "app"
      client_prefix = { ipv4 = 24, ipv6 = 64 }
      [pools.app]
      balance = "source_hash"
      backends = [${list}]
    `));
    const prefix = new ClientPrefix({ ipv4: 24, ipv6: 64 });
    const seen = new Set<string>();
    for (const down of [0, 1, 10]) {
      for (const backend of backends().slice(0, down)) backend.up = false;
      registry.pools[0]!.version++;
      const pool = new Pool(poolPlan(registry.pools[0]!), null, 0);
      for (let i = 0; i < 50; i++) {
        const client = formatAddress(0, 0, 0xffff, 0x0a000000 + i * 256 + 7);
        const words = Int32Array.of(...parseAddress(client)!, 0);
        const picked = pool.acquire({ tried: null, hashKey: () => prefix.hashOf(words, 0, "client", "") });
        expect(ask({ client }).backend).toBe(picked!.name);
        seen.add(picked!.name);
      }
    }
    expect(seen.size).toBeGreaterThan(10);
  });

  test("are not certain if the client's port decides", () => {
    const hashed = `balance = "source_hash"\nhash_key = "client_port"\nbackends =`;
    ({ registry, sources } = start(POOL.replace("backends =", hashed)));
    expect(ask().backend).toBeNull();
  });
});
