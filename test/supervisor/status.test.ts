// The snapshot: sums of rows of counters, and the supervisor's own state.
import { resolve } from "node:path";
import { describe, expect, test } from "vitest";
import type { Snapshot } from "../../src/observe/snapshot.ts";
import { monotonicMs } from "../../src/platform/clock.ts";
import { BACKEND, endCell, LISTENER, WORKER } from "../../src/shared/counters.ts";
import { ActiveConfig } from "../../src/supervisor/active-config.ts";
import { Registry } from "../../src/supervisor/registry.ts";
import { ListeningSockets } from "../../src/supervisor/sockets.ts";
import { daysLeft, takeSnapshot, type StatusSources, type WorkerFacts } from "../../src/supervisor/status.ts";
import { configOf } from "../support/config.ts";
import { recordingLog } from "../support/recording-log.ts";

const CONFIG = configOf(`
  workers = 2
  [listeners.web]
  bind = ["127.0.0.1:8080", "127.0.0.1:8081"]
  pool = "app"
  [pools.app]
  balance = "source_hash"
  backends = ["127.0.0.1:1", { address = "127.0.0.1:2", name = "spare", backup = true, weight = 3 }]
  passive = { window = "20s" }
`);

function worker(index: number, more: Partial<WorkerFacts> = {}): WorkerFacts {
  return {
    index,
    state: "running",
    restarts: 0,
    downMs: -Infinity,
    counters: new Float64Array(new SharedArrayBuffer(8 * WORKER.size)),
    ...more,
  };
}

function start() {
  const registry = new Registry();
  const { log } = recordingLog();
  const active = new ActiveConfig(CONFIG, { registry, sockets: new ListeningSockets(), addresses: () => [], log });
  active.put(CONFIG);
  const take = (more: Partial<StatusSources> = {}): Snapshot =>
    takeSnapshot({
      version: "1.2.3",
      file: "lb.toml",
      startedAtMs: Date.now() - 60_000,
      loadedAtMs: Date.now(),
      generation: active.generation,
      reloads: { success: 1, failure: 0, lastError: null },
      adminCertificate: null,
      phase: "running",
      open: 0,
      maxConnections: 100,
      logLinesLost: 0,
      otel: null,
      registry,
      fleet: { slots: [worker(0), worker(1)], retiring: [] },
      health: { facts: () => null, agent: () => null },
      unresolved: () => [],
      ...more,
    });
  return { registry, take };
}

test("a drained listener is not ready, nor is the process", () => {
  const { registry, take } = start();
  expect(take()).toMatchObject({ ready: true, listeners: [{ state: "ready", ready: true }] });
  registry.changes.setListener("web", "drain");
  expect(take()).toMatchObject({
    ready: false,
    not_ready: [expect.stringContaining("web")],
    listeners: [{ state: "drain", ready: false, changes: ["drain by API"] }],
  });
});

describe("the counters", () => {
  test("of a listener and a backend are the sums over the workers' rows", () => {
    const { registry, take } = start();
    const [listener] = registry.listeners;
    const [backend] = registry.pools[0]!.backends;
    for (const row of [0, 1]) {
      listener!.cells.counters[row * LISTENER.size + LISTENER.accepted] = 5 + row;
      listener!.cells.counters[row * LISTENER.size + endCell("reset", "client")] = 1 + row;
      backend!.cells.counters[row * BACKEND.size + BACKEND.connected] = 10 + row;
    }
    const { listeners, pools } = take();
    expect(listeners[0]).toMatchObject({ name: "web", bind: ["127.0.0.1:8080", "127.0.0.1:8081"], accepted: 11 });
    expect(pools[0]!.backends[0]!.connects.succeeded).toBe(21);
  });

  test("omit the ends that never occurred", () => {
    const { registry, take } = start();
    registry.listeners[0]!.cells.counters[endCell("reset", "client")] = 2;
    expect(take().listeners[0]!.ends).toEqual([{ end: "reset", end_by: "client", count: 2 }]);
  });
});

describe("a worker", () => {
  test("has its open connections, and is retiring until it is gone", () => {
    const { take } = start();
    const old = worker(2, { state: "gone", restarts: 4 });
    old.counters[WORKER.accepted] = 7;
    old.counters[WORKER.ended] = 3;
    const { workers } = take({ fleet: { slots: [worker(0)], retiring: [old] } });
    expect(workers.map(({ index }) => index)).toEqual([0, 2]);
    expect(workers[1]).toMatchObject({ state: "retiring", restarts: 4, accepted: 7, open: 4 });
  });

  test("is blocked since its clock was due, and only while it is running", () => {
    const { take } = start();
    // Not on performance.timeOrigin: that is the wall clock, which may be set between the starts of two threads.
    const dueMs = monotonicMs() - 5000;
    const [late, idle, starting] = [worker(0), worker(1), worker(2, { state: "starting" })];
    late.counters[WORKER.tickDueMs] = dueMs;
    starting.counters[WORKER.tickDueMs] = dueMs;
    const { workers } = take({ fleet: { slots: [late, idle, starting], retiring: [] } });
    expect(workers[0]!.loop_blocked_ms).toBeGreaterThanOrEqual(5000);
    expect(workers[0]!.loop_blocked_ms).toBeLessThan(3_600_000);
    expect(workers.slice(1).map((one) => one.loop_blocked_ms)).toEqual([0, 0]);
  });

  test("that stays away makes the process unready", () => {
    const { take } = start();
    const snapshot = take({ fleet: { slots: [worker(0), worker(1, { downMs: 60_000 })], retiring: [] } });
    expect(snapshot).toMatchObject({ ready: false, not_ready: [expect.stringContaining("worker 1")] });
    expect(take()).toMatchObject({ ready: true, not_ready: [] });
  });
});

describe("a pool", () => {
  test("has the state of its backends and the results of their checks", () => {
    const { registry, take } = start();
    const [backend] = registry.pools[0]!.backends;
    backend!.up = false;
    const sinceMs = Date.parse("2026-01-01T00:00:00Z");
    const failures = { refused: 1, timeout: 1, tls: 0, answer: 0, failed: 0 };
    const facts = { sinceMs, success: 3, failure: 2, failures, lastError: "connection refused" };
    const health = { facts: (id: number) => (id === backend!.id ? facts : null), agent: () => null };
    const { backends } = take({ health }).pools[0]!;
    expect(backends[0]!.health).toEqual({
      up: false,
      check: "tcp",
      since: "2026-01-01T00:00:00.000Z",
      checks: { success: 3, failure: 2 },
      failures: Object.entries(failures).map(([reason, count]) => ({ reason, count })),
      last_error: "connection refused",
      agent: null,
    });
    registry.pools[0]!.backends[1]!.state.sinceMs = sinceMs;
    expect(take({ health }).pools[0]!.backends[1]!.health.since).toBe("2026-01-01T00:00:00.000Z");
    expect(backends[1]).toMatchObject({ name: "spare", weight: 3, backup: true, up: true });
    expect(backends[1]!.health).toMatchObject({ checks: { success: 0, failure: 0 }, last_error: null });
  });

  test("says why a backend is ejected, and that an agent says down", () => {
    const { registry, take } = start();
    const [backend, spare] = registry.pools[0]!.backends;
    Object.assign(backend!.state.ejection, { untilMs: 1e9, causes: { connect: 0, earlyReset: 3 } });
    const report = { up: false, state: "ready", percent: 100 } as const;
    const agent = (id: number) =>
      id === spare!.id ? { report, downReason: "its agent says fail", lastError: null } : null;
    const { backends } = take({ health: { facts: () => null, agent } }).pools[0]!;
    expect(backends[0]).toMatchObject({ ejection_reason: "3 early resets within 20s", health: { last_error: null } });
    expect(backends[1]).toMatchObject({ ejection_reason: null, health: { last_error: "its agent says fail" } });
  });

  test("names the hosts that have no address yet, and has the fingerprint of its hash table", () => {
    const { take } = start();
    const [pool] = take({ unresolved: () => ["db.example"] }).pools;
    expect(pool!.unresolved).toEqual(["db.example"]);
    expect(pool!.hash_table_fingerprint).toEqual(expect.any(Number));
    expect(take().pools[0]!.hash_table_fingerprint).toBe(pool!.hash_table_fingerprint);
  });
});

test("the config section has the result of the last reload", () => {
  const { take } = start();
  const reloads = { success: 2, failure: 1, lastError: "lb.toml:1:1: no" };
  expect(take({ reloads }).config).toMatchObject({
    file: resolve("lb.toml"),
    generation: 1,
    reloads: { success: 2, failure: 1 },
    last_reload_ok: false,
    last_reload_error: "lb.toml:1:1: no",
  });
  expect(take().config).toMatchObject({ last_reload_ok: true, last_reload_error: null });
});

test("remaining days have fractions, and are negative after the expiry", () => {
  expect(daysLeft(Date.now() + 129_600_000)).toBeCloseTo(1.5, 3);
  expect(daysLeft(Date.now() - 86_400_000)).toBeCloseTo(-1, 3);
});
