import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import type { EndConnections, FromWorker, ToWorker, WorkerStart } from "../../src/messages.ts";
import type { AccessLine } from "../../src/observe/access-line.ts";
import { Arena, claim, claimed } from "../../src/shared/cells.ts";
import { ClientTable } from "../../src/shared/clients.ts";
import { BACKEND, endCell, WORKER } from "../../src/shared/counters.ts";
import { CLAIM, Ledger, ROW, ROW_FLOAT, ROW_FLOATS, ROW_WORDS } from "../../src/shared/ledger.ts";
import { monotonicMs } from "../../src/platform/clock.ts";
import { Fleet } from "../../src/supervisor/fleet.ts";
import { poolState } from "../../src/supervisor/plans.ts";
import { Registry } from "../../src/supervisor/registry.ts";
import type { WorkerSlot } from "../../src/supervisor/worker-slot.ts";
import { configOf } from "../support/config.ts";
import { plan } from "../support/plans.ts";
import { recordingLog } from "../support/recording-log.ts";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

/** A worker thread as the fleet sees it, simulated by the test. */
class FakeWorker extends EventTarget {
  readonly heard: ToWorker[] = [];
  terminated = false;
  /** Answers plans by itself. */
  willing = true;

  postMessage(message: ToWorker): void {
    this.heard.push(message);
    if (!this.willing) return;
    if (message.kind === "start" || message.kind === "apply") {
      queueMicrotask(() => this.say({ kind: "applied", generation: message.plan.generation }));
    }
    if (message.kind === "exit") queueMicrotask(() => this.die());
  }

  say(message: FromWorker): void {
    this.dispatchEvent(Object.assign(new Event("message"), { data: message }));
  }

  die(): void {
    this.dispatchEvent(new Event("close"));
  }

  terminate(): void {
    this.terminated = true;
    queueMicrotask(() => this.die());
  }

  get start(): WorkerStart {
    return this.heard[0] as WorkerStart;
  }
}

function fleetOf(options: { willing?: boolean } = {}) {
  const workers: FakeWorker[] = [];
  const { log, said } = recordingLog();
  const registry = new Registry();
  const config = configOf(`
    [listeners.web]
    bind = ":8080"
    pool = "app"
    max_connections_per_client = 5
    [pools.app]
    backends = [{ address = "10.0.0.1:80", name = "one" }]
  `);
  registry.commit(registry.draft(config, 1000, () => []));
  const open = new Arena().int32(1);
  const lost: AccessLine[] = [];
  let generation = 1;
  const state = { willing: options.willing ?? true, generation: () => generation, reload: () => generation++ };
  const fleet = new Fleet({
    spawn: () => {
      const worker = new FakeWorker();
      worker.willing = state.willing;
      workers.push(worker);
      return worker;
    },
    registry,
    log,
    planFor: (position) => Object.assign(plan({ generation }), { position }),
    ledgerRows: 16,
    open,
    ids: new Arena().int32(1),
    onAccess: () => undefined,
    onLost: (line) => lost.push(line),
    onOverBudget: () => undefined,
    onDeath: () => undefined,
    onFollowed: () => undefined,
    onFailures: () => undefined,
  });
  return { fleet, workers, said, registry, open, lost, state };
}

const pass = (ms: number): Promise<unknown> => vi.advanceTimersByTimeAsync(ms);

describe("workers", () => {
  test("are started with the plan of their position and serve when they report it", async () => {
    const { fleet, workers } = fleetOf();
    expect(await fleet.growTo(3)).toBeNull();
    expect(fleet.slots.map(({ index, position, state }) => ({ index, position, state }))).toEqual([
      { index: 0, position: 0, state: "running" },
      { index: 1, position: 1, state: "running" },
      { index: 2, position: 2, state: "running" },
    ]);
    expect(workers.map(({ start }) => start.kind)).toEqual(["start", "start", "start"]);
    expect(new Set(workers.map(({ start }) => start.ledger)).size).toBe(3);
    expect(new Set(workers.map(({ start }) => start.open)).size).toBe(1);
  });

  test("that refuse a plan report why", async () => {
    const { fleet, workers } = fleetOf();
    await fleet.growTo(2);
    for (const worker of workers) worker.willing = false;
    const applied = fleet.applyAll();
    workers[0]!.say({ kind: "applied", generation: 2 });
    workers[1]!.say({ kind: "refused", generation: 2, reason: "no" });
    expect(await applied).toBe("no");
  });

  test("that do not answer in time count as hung and are restarted", async () => {
    const { fleet, workers, said } = fleetOf();
    await fleet.growTo(1);
    workers[0]!.willing = false;
    const applied = fleet.applyAll();
    await pass(11_000);
    // Its death counts as the answer, because its successor starts with the active plan.
    expect(await applied).toBeNull();
    expect(said.map(({ event }) => event)).toContain("worker does not answer, it is restarted");
    await pass(100);
    expect(workers.length).toBe(2);
    expect(fleet.slots[0]).toMatchObject({ state: "running", restarts: 1 });
  });

  test("report for how long they have not served", async () => {
    const { fleet, workers, state } = fleetOf();
    await fleet.growTo(1);
    expect(fleet.slots[0]!.downMs).toBe(-Infinity);
    state.willing = false;
    workers[0]!.die();
    await pass(1500);
    expect(fleet.slots[0]!.downMs).toBeGreaterThanOrEqual(1500);
    workers[1]!.say({ kind: "applied", generation: 1 });
    expect(fleet.slots[0]!.downMs).toBe(-Infinity);
  });

  test("a plan that comes while a worker starts does not end it later", async () => {
    const { fleet, workers, said, state } = fleetOf();
    await fleet.growTo(1);
    state.willing = false;
    workers[0]!.die();
    await pass(20);
    const [, again] = workers;
    state.reload();
    let done = false;
    const applied = fleet.applyAll().then((reason) => ((done = true), reason));
    again!.say({ kind: "applied", generation: 1 });
    await pass(0);
    // That was its first plan, not the one for which the reload waits.
    expect(done).toBe(false);
    again!.say({ kind: "applied", generation: 2 });
    expect(await applied).toBeNull();
    await pass(60_000);
    expect(again!.terminated).toBe(false);
    expect(workers.length).toBe(2);
    expect(fleet.slots[0]!.state).toBe("running");
    expect(said.map(({ event }) => event)).toEqual(["worker died", "worker started again"]);
  });
});

describe("a worker that is behind", () => {
  test("does not get it while the state changes all the time, as during a ramp", async () => {
    const { fleet, workers, registry, said } = fleetOf();
    await fleet.growTo(1);
    const { counters } = workers[0]!.start;
    counters[WORKER.generation] = 1;
    for (let step = 0; step < 5; step++) {
      // The worker has not yet applied the latest of many changes since the last comparison.
      registry.pools[0]!.version += 20;
      counters[WORKER.poolVersions] = registry.poolVersions - 1;
      fleet.resendOutdated(1);
    }
    expect(said).toEqual([]);
  });

  test("gets the plan again after two comparisons; one that is up to date does not", async () => {
    const { fleet, workers, registry, said } = fleetOf();
    await fleet.growTo(2);
    const [current, behind] = workers.map(({ start }) => start.counters);
    for (const row of [current!, behind!]) {
      row[WORKER.generation] = 1;
      row[WORKER.poolVersions] = registry.poolVersions;
    }
    const compare = async (): Promise<number[]> => {
      fleet.resendOutdated(1);
      await pass(0);
      return workers.map(({ heard }) => heard.filter(({ kind }) => kind === "apply").length);
    };
    expect(await compare()).toEqual([0, 0]);
    registry.pools[0]!.version++;
    current![WORKER.poolVersions] = registry.poolVersions;
    expect(await compare()).toEqual([0, 0]);
    expect(await compare()).toEqual([0, 1]);
    expect(said).toEqual([{ level: "error", event: "worker has an outdated config, it is sent again", worker: 1 }]);
    behind![WORKER.poolVersions] = registry.poolVersions;
    behind![WORKER.generation] = 0;
    fleet.resendOutdated(2);
    expect(await compare()).toEqual([0, 1]);
    expect(await compare()).toEqual([0, 2]);
  });

  test("delays an operator until it has caught up, and two seconds at most if it hangs", async () => {
    const { fleet, workers, registry } = fleetOf();
    await fleet.growTo(2);
    const rows = workers.map(({ start }) => start.counters);
    const answered = async (ms: number): Promise<boolean> => {
      await pass(ms);
      return done;
    };
    registry.pools[0]!.version++;
    let done = false;
    void fleet.catchUp().then(() => (done = true));
    expect(await answered(100)).toBe(false);
    rows[0]![WORKER.poolVersions] = registry.poolVersions;
    expect(await answered(100)).toBe(false);
    rows[1]![WORKER.poolVersions] = registry.poolVersions;
    expect(await answered(2)).toBe(true);

    registry.pools[0]!.version++;
    rows[0]![WORKER.poolVersions] = registry.poolVersions;
    done = false;
    void fleet.catchUp().then(() => (done = true));
    expect(await answered(1900)).toBe(false);
    expect(await answered(200)).toBe(true);
  });

  test("does not delay an operator while it is restarted, because it starts with the latest state", async () => {
    const { fleet, workers, registry, state } = fleetOf();
    await fleet.growTo(1);
    state.willing = false;
    workers[0]!.die();
    registry.pools[0]!.version++;
    let done = false;
    void fleet.catchUp().then(() => (done = true));
    await pass(0);
    expect(done).toBe(true);
  });
});

describe("a worker that dies", () => {
  test("is restarted at once, and after longer and longer pauses when it dies repeatedly", async () => {
    const { fleet, workers, said } = fleetOf();
    await fleet.growTo(1);
    const pauses: number[] = [];
    for (let i = 0; i < 12; i++) {
      const { length } = workers;
      workers.at(-1)!.die();
      const began = performance.now();
      while (workers.length === length) await pass(1);
      pauses.push(Math.round(performance.now() - began));
      await pass(1);
    }
    expect(pauses[0]).toBeLessThanOrEqual(20);
    for (let i = 1; i < pauses.length; i++) expect(pauses[i]!).toBeGreaterThanOrEqual(pauses[i - 1]! - 1);
    expect(pauses.at(-1)).toBeGreaterThan(4000);
    expect(pauses.at(-1)).toBeLessThan(6000);
    expect(fleet.slots[0]!.restarts).toBe(12);
    expect(said.filter(({ event }) => event === "worker died").length).toBe(12);
    expect(said.filter(({ event }) => event === "worker started again").length).toBe(12);
    // After a long enough life, its death counts as the first again.
    await pass(60_000);
    const { length } = workers;
    workers.at(-1)!.die();
    await pass(20);
    expect(workers.length).toBe(length + 1);
  });

  test("keeps index, counters and ledger, and gets the plan that is active then", async () => {
    const { fleet, workers, state } = fleetOf();
    await fleet.growTo(2);
    workers[1]!.die();
    state.reload();
    await pass(20);
    const { start } = workers[2]!;
    expect(start.index).toBe(1);
    expect(start.counters).toBe(workers[1]!.start.counters);
    expect(start.ledger).toBe(workers[1]!.start.ledger);
    expect(start.plan).toMatchObject({ generation: 2, position: 1 });
  });

  test("has its claims released and its connections logged", async () => {
    const { fleet, workers, registry, open, lost, said } = fleetOf();
    await fleet.growTo(1);
    const [listener] = registry.listeners;
    const [backend] = registry.pools[0]!.backends;
    const clients = new ClientTable(listener!.clients!);
    const { start } = workers[0]!;
    const ledger = new Ledger(start.ledger);
    const limits = { maxOpen: 5, intervalNs: 0, burst: 1, holds: false, dryRunOpen: false, dryRunRate: false };

    // One connection in each state: with all claims, refused by the client's cap, and with no claim but its row.
    const hold = (claims: number): void => {
      const row = ledger.take();
      const at = row * ROW_WORDS;
      ledger.words[at]! |= claims;
      ledger.words[at + ROW.listener] = listener!.id;
      ledger.words[at + ROW.pool] = registry.pools[0]!.id;
      ledger.words[at + ROW.clientFd] = -1;
      ledger.words[at + ROW.retries] = 2;
      ledger.noteSni(row, "www.example.com");
      [0, 0, 0xffff, 0x0a000007, 4711].forEach((word, i) => (ledger.words[at + ROW.address + i] = word));
      ledger.floats[row * ROW_FLOATS + ROW_FLOAT.startedMs] = monotonicMs();
      ledger.floats[row * ROW_FLOATS + ROW_FLOAT.bytesIn] = 100;
      ledger.floats[row * ROW_FLOATS + ROW_FLOAT.bytesOut] = 200;
      if (claims & CLAIM.process) claim(open, 0);
      if (claims & CLAIM.listener) claim(listener!.cells.open, 0);
      if (claims & CLAIM.backend) {
        claim(backend!.cells.open, 0);
        ledger.words[at + ROW.backend] = backend!.id;
      }
      if (claims & CLAIM.client)
        ledger.words[at + ROW.clientEntry] = clients.claim(0, 0, 0xffff, 0x0a000007, limits, 0);
      start.counters[WORKER.accepted]!++;
    };
    hold(CLAIM.process | CLAIM.listener | CLAIM.client | CLAIM.backend);
    hold(CLAIM.process | CLAIM.listener | CLAIM.client | CLAIM.backend);
    hold(CLAIM.process | CLAIM.listener);
    hold(0);
    // And claims of other holders stay.
    claim(open, 0);
    claim(backend!.cells.open, 0);
    const entry = clients.claim(0, 0, 0xffff, 0x0a000007, limits, 0);
    expect(clients.open(entry)).toBe(3);

    workers[0]!.die();
    expect(claimed(open)).toBe(1);
    expect(claimed(listener!.cells.open)).toBe(0);
    expect(claimed(backend!.cells.open)).toBe(1);
    expect(clients.open(entry)).toBe(1);
    expect(lost.length).toBe(4);
    expect(lost[0]).toMatchObject({
      listener: "web",
      client: "10.0.0.7:4711",
      pool: "app",
      backend: "one",
      sni: "www.example.com",
      bytesIn: 100,
      bytesOut: 200,
      retries: 2,
      worker: 0,
      end: "worker_lost",
      endBy: "lb",
    });
    expect(lost[3]).toMatchObject({ backend: "" });
    expect(listener!.cells.counters[endCell("worker_lost", "lb")]).toBe(4);
    expect(start.counters[WORKER.ended]).toBe(4);
    expect(backend!.cells.counters[BACKEND.ended]).toBe(2);
    expect([...ledger.rowsInUse()]).toEqual([]);
    expect(said.find(({ event }) => event === "worker died")).toMatchObject({
      level: "error",
      worker: 0,
      connections_lost: 4,
    });
    // The next one begins with an empty ledger, and its death releases nothing twice.
    await pass(20);
    workers[1]!.die();
    expect(claimed(open)).toBe(1);
    expect(lost.length).toBe(4);
  });

  test("that was told to exit and does not is terminated", async () => {
    const { fleet, workers } = fleetOf();
    await fleet.growTo(1);
    workers[0]!.willing = false;
    expect(fleet.slots[0]!.restart()).toBe(true);
    await pass(0);
    expect(workers[0]!.terminated).toBe(false);
    await pass(1000);
    expect(workers[0]!.terminated).toBe(true);
    expect(workers.length).toBe(2);
    // Its successor is not the worker that should exit.
    await pass(1000);
    expect(workers[1]!.terminated).toBe(false);
  });
});

describe("a restart on request", () => {
  test("is logged as such, not as a crash, and does not count towards the restart back-off", async () => {
    const { fleet, workers, said } = fleetOf();
    await fleet.growTo(1);
    for (let round = 1; round <= 12; round++) {
      expect(fleet.slots[0]!.restart()).toBe(true);
      await pass(20);
      expect(workers.length).toBe(round + 1);
    }
    expect(said.filter(({ level }) => level !== "info")).toEqual([]);
    expect(said.slice(0, 2).map(({ event }) => event)).toEqual(["worker ended on request", "worker started again"]);
    workers.at(-1)!.die();
    await pass(0);
    expect(said.at(-1)).toMatchObject({ level: "error", event: "worker died", restart_in_ms: 10 });
  });

  test("during a crash is logged as the crash", async () => {
    const { fleet, workers, said } = fleetOf();
    await fleet.growTo(1);
    workers[0]!.willing = false;
    fleet.slots[0]!.restart();
    workers[0]!.say({ kind: "crashed", reason: "a bug" });
    workers[0]!.die();
    expect(said.map(({ event }) => event)).toEqual(["worker crashed", "worker died"]);
  });
});

describe("fewer workers", () => {
  test("retire the last ones: they stop accepting, serve until their connections have ended, and then are gone", async () => {
    const { fleet, workers, registry } = fleetOf();
    await fleet.growTo(3);
    fleet.shrinkTo(1);
    expect(fleet.slots.map(({ index }) => index)).toEqual([0]);
    expect(fleet.retiring.map(({ index, state }) => ({ index, state }))).toEqual([
      { index: 1, state: "retiring" },
      { index: 2, state: "retiring" },
    ]);
    expect(workers[1]!.heard.at(-1)).toEqual({ kind: "stop", spreadFromMs: Infinity, deadlineMs: Infinity });
    const [pool] = registry.pools;
    fleet.sendPoolState(poolState(pool!));
    expect(workers.map(({ heard }) => heard.at(-1))).toEqual(workers.map(() => poolState(pool!)));
    await pass(3_600_000);
    expect(fleet.retiring.length).toBe(2);
    workers[2]!.say({ kind: "stopped" });
    await pass(0);
    expect(fleet.retiring.map(({ index }) => index)).toEqual([1]);
    expect(workers[2]!.terminated).toBe(true);
    expect(workers.length).toBe(3);
  });

  test("a retired worker that is still busy keeps its index; a new one gets another", async () => {
    const { fleet, workers } = fleetOf();
    await fleet.growTo(3);
    fleet.shrinkTo(1);
    await fleet.growTo(3);
    expect(fleet.slots.map(({ index, position }) => ({ index, position }))).toEqual([
      { index: 0, position: 0 },
      { index: 3, position: 1 },
      { index: 4, position: 2 },
    ]);
    workers[1]!.say({ kind: "stopped" });
    workers[2]!.say({ kind: "stopped" });
    await pass(0);
    await fleet.growTo(4);
    expect(fleet.slots[3]).toMatchObject({ index: 1, position: 3 });
  });

  test("a retiring worker that dies is not started again", async () => {
    const { fleet, workers } = fleetOf();
    await fleet.growTo(2);
    fleet.shrinkTo(1);
    workers[1]!.die();
    await pass(10_000);
    expect(fleet.retiring).toEqual([]);
    expect(workers.length).toBe(2);
  });
});

describe("stopping all", () => {
  test("waits for every worker, including retiring ones", async () => {
    const { fleet, workers } = fleetOf();
    await fleet.growTo(2);
    fleet.shrinkTo(1);
    let done = false;
    const stopped = fleet.stopAll(1000, 2000).then(() => (done = true));
    await pass(0);
    expect(workers[0]!.heard.at(-1)).toEqual({ kind: "stop", spreadFromMs: 1000, deadlineMs: 2000 });
    expect(workers[1]!.heard.at(-1)).toEqual({ kind: "stop", spreadFromMs: 1000, deadlineMs: 2000 });
    workers[0]!.say({ kind: "stopped" });
    await pass(0);
    expect(done).toBe(false);
    workers[1]!.say({ kind: "stopped" });
    await pass(0);
    await stopped;
  });

  test("does not wait for a dead worker whose restart is pending, and does not start it", async () => {
    const { fleet, workers } = fleetOf();
    await fleet.growTo(1);
    workers[0]!.die();
    await fleet.stopAll(0, 0);
    await pass(10_000);
    expect(workers.length).toBe(1);
  });

  test("does not wait for a worker that does not react by the deadline, and does not suspend its thread", async () => {
    const { fleet, workers } = fleetOf();
    await fleet.growTo(1);
    const now = monotonicMs();
    let done = false;
    void fleet.stopAll(now + 1000, now + 2000).then(() => (done = true));
    await pass(2000);
    expect(done).toBe(false);
    await pass(10_000);
    expect(workers[0]!.terminated).toBe(false);
    expect(done).toBe(true);
  });
});

describe("an order to end connections", () => {
  const order = (slot: { endConnections: WorkerSlot["endConnections"] }): Promise<number | null> =>
    slot.endConnections("killed", Uint32Array.of(1), Float64Array.of(5));
  const asked = (worker: FakeWorker): EndConnections => worker.heard.find((message) => message.kind === "end")!;

  test("is answered with the worker's count", async () => {
    const { fleet, workers } = fleetOf();
    await fleet.growTo(1);
    const count = order(fleet.slots[0]!);
    expect(asked(workers[0]!)).toMatchObject({ end: "killed", rows: Uint32Array.of(1), ids: Float64Array.of(5) });
    workers[0]!.say({ kind: "ended", request: asked(workers[0]!).request, count: 1 });
    expect(await count).toBe(1);
  });

  test("is abandoned if a worker does not answer, and its late answer is ignored", async () => {
    const { fleet, workers } = fleetOf();
    await fleet.growTo(1);
    const count = order(fleet.slots[0]!);
    await pass(3000);
    expect(await count).toBeNull();
    workers[0]!.say({ kind: "ended", request: asked(workers[0]!).request, count: 1 });
  });

  test("ends nothing if the worker dies before it answers, or has died", async () => {
    const { fleet, workers } = fleetOf();
    await fleet.growTo(1);
    const count = order(fleet.slots[0]!);
    workers[0]!.die();
    expect(await count).toBe(0);
    expect(await order(fleet.slots[0]!)).toBe(0);
  });
});
