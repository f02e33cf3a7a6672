// The data plane of one worker thread: everything that its sessions share. It applies plans from the supervisor, keeps the clock, and stops
// when told to. serving.ts has its listening sockets.
import { PlanCache } from "../core/plan-cache.ts";
import type { TimerNode } from "../core/timer-wheel.ts";
import { TimerWheel } from "../core/timer-wheel.ts";
import type { EndConnections, FromWorker, Plan, PoolState, TlsServerPlan, WorkerStart } from "../messages.ts";
import { monotonicMsOf } from "../platform/clock.ts";
import { Splice } from "../platform/splice.ts";
import { WORKER } from "../shared/counters.ts";
import { ClientActivity } from "../shared/client-activity.ts";
import { ConnectionIds } from "../shared/connection-ids.ts";
import { Ledger, ROW_FLOAT, ROW_FLOATS } from "../shared/ledger.ts";
import { AccessLog } from "./access-log.ts";
import { STALL_MS, TICK_MS } from "./clock.ts";
import { FailureReports } from "./failure-reports.ts";
import { Listener } from "./listener.ts";
import { LoopDelay } from "./loop-delay.ts";
import { Pool, type PoolQueue } from "./pool.ts";
import { TlsClient, type TlsClientPlan } from "../platform/tls-client.ts";
import { Serving, type Begun } from "./serving.ts";
import type { Ended, Host, Session } from "./session.ts";
import { TlsServer } from "./tls-server.ts";
import { Wakes } from "./wakes.ts";

const WHEEL_SLOTS = 1024;
const SCRATCH_BYTES = 64 * 1024;

/** Minimum interval of messages that say that the process is at its cap. */
const OVER_BUDGET_EVERY_MS = 1000;

export class DataPlane implements Host {
  readonly index: number;
  readonly ledger: Ledger;
  readonly words: Int32Array;
  readonly floats: Float64Array;
  /** This worker's row of WORKER.size cells. */
  readonly counters: Float64Array;
  readonly activity: ClientActivity;
  /** One Int32 cell: connections of the whole process. */
  readonly open: Int32Array;
  readonly ids: ConnectionIds;
  readonly wheel = new TimerWheel(TICK_MS, WHEEL_SLOTS, performance.now());
  readonly accessLog: AccessLog;
  #splice: Splice | null = null;
  #canSplice = true;
  maxConnections = 0;
  /** Maximum number of descriptors of refused clients that wait for their FIN to be read; beyond that they are reset. */
  #lingeringMax = 0;
  readonly #post: (message: FromWorker) => void;
  readonly #reports: FailureReports;
  #pools = new Map<number, Pool>();
  #servers: PlanCache<TlsServerPlan, TlsServer> | null = null;
  #clients: PlanCache<TlsClientPlan, TlsClient> | null = null;
  readonly #serving: Serving;
  /** Live sessions by their row of the ledger. */
  readonly #sessions: (Session | undefined)[] = [];
  #sessionCount = 0;
  readonly queues = new Set<PoolQueue>();
  readonly wakes = new Wakes();
  kernelShortUntilWheelMs = 0;
  readonly scratch = new Uint8Array(SCRATCH_BYTES);
  #clock: ReturnType<typeof setInterval> | null = null;
  readonly #loopDelay: LoopDelay;
  /** The last tick came after a stall. */
  #isAfterStall = false;
  #lingering = 0;
  #overBudgetSaidMs = -Infinity;
  #stop: { spreadFromMs: number; deadlineMs: number } | null = null;
  #stopped = false;

  constructor(start: WorkerStart, post: (message: FromWorker) => void) {
    this.index = start.index;
    this.ledger = new Ledger(start.ledger);
    this.words = this.ledger.words;
    this.floats = this.ledger.floats;
    this.counters = start.counters;
    this.#loopDelay = new LoopDelay(start.counters);
    this.activity = new ClientActivity(start.activity);
    this.open = start.open;
    this.ids = new ConnectionIds(start.ids);
    this.#serving = new Serving(this, start.listening, () => this.#stoppedWhenDone());
    this.#post = post;
    this.#reports = new FailureReports(post);
    this.accessLog = new AccessLog(this, start.logPending, {
      send: (text, lines) => post({ kind: "access", text, lines }),
      sendFollowed: (follower, text, lost) => post({ kind: "followed", follower, text, lost }),
    });
    this.apply(start.plan);
  }

  // ---------------------------------------------------------------- plans

  /**
   * Applies a new generation in one step and confirms it, or reports why not, in which case nothing has changed. Connections keep the
   * listener with which they began.
   */
  apply(plan: Plan): void {
    const pools = new Map<number, Pool>();
    const listeners = new Map<number, Listener>();
    let begun: Begun;
    const servers = new PlanCache(TlsServer, this.#servers);
    const clients = new PlanCache(TlsClient, this.#clients);
    try {
      for (const pool of plan.pools) {
        const client = pool.tls && clients.get(pool.tls);
        pools.set(pool.id, this.#pools.get(pool.id) ?? new Pool(pool, client, this.index, this.#reports));
      }
      for (const listener of plan.listeners) {
        const server = listener.tls && servers.get(listener.tls, listener.id);
        listeners.set(listener.id, new Listener(listener, pools, server, this.index));
      }
      begun = this.#serving.begin(plan.sockets, listeners);
    } catch (error) {
      this.#post({ kind: "refused", generation: plan.generation, reason: String(error) });
      return;
    }
    for (const pool of plan.pools) this.#pools.get(pool.id)?.apply(pool, pool.tls && clients.get(pool.tls));
    this.#servers = servers;
    this.#clients = clients;
    this.#pools = pools;
    this.maxConnections = plan.maxConnections;
    this.#lingeringMax = plan.lingeringMax;
    this.accessLog.format = plan.accessLog;
    this.accessLog.debug = plan.debug;
    this.accessLog.follow(plan.followers);
    this.#serving.serve(plan.sockets, listeners, begun);
    this.counters[WORKER.generation] = plan.generation;
    this.#noteVersions();
    this.#post({ kind: "applied", generation: plan.generation });
    // The received plan is garbage now. The collection is not awaited: connections go on.
    Bun.gc(false);
  }

  /** No config has changed for a while. Without connections, the machine code is not in use; it is compiled again when needed. */
  settled(): void {
    if (this.#sessionCount === 0) Bun.shrink();
  }

  /** Applies a change of health or names in one pool. */
  update(state: PoolState): void {
    const pool = this.#pools.get(state.pool);
    if (pool === undefined) return;
    const down = pool.update(state);
    this.#noteVersions();
    if (down.length === 0 || pool.plan.onDown !== "reset") return;
    for (const session of this.#sessions) {
      if (!session?.backend || !down.includes(session.backend.id)) continue;
      if (this.ledger.phase(session.row) === "relaying") session.finish("backend_down", "lb");
    }
  }

  /** Ends connections on request from outside, and answers with their number. */
  end({ request, end, rows, ids }: EndConnections): void {
    let count = 0;
    for (const [i, row] of rows.entries()) {
      const session = this.#sessions[row];
      if (session === undefined || this.floats[row * ROW_FLOATS + ROW_FLOAT.id] !== ids[i]) continue;
      session.finish(end, "lb");
      count++;
    }
    this.#post({ kind: "ended", request, count });
  }

  // For the supervisor, which compares it with what it has sent.
  #noteVersions(): void {
    let sum = 0;
    for (const pool of this.#pools.values()) sum += pool.version;
    this.counters[WORKER.poolVersions] = sum;
  }

  // ---------------------------------------------------------------- connections; hot path

  remember(session: Session): void {
    this.#sessions[session.row] = session;
    this.#sessionCount++;
    if (this.#stop !== null) session.stopAt(this.#stopTime(this.#stop));
  }

  /** The session has ended: its row is free again. */
  forget(session: Session): void {
    this.ledger.release(session.row);
    this.#sessions[session.row] = undefined;
    this.#sessionCount--;
    if (this.#stop !== null && this.#sessionCount === 0) queueMicrotask(() => this.#stoppedWhenDone());
  }

  /** Opened at first use; null while there is none, for lack of descriptors or permanently. */
  get splice(): Splice | null {
    if (this.#splice === null && this.#canSplice) this.#splice = Splice.open();
    return this.#splice;
  }

  spliceNoMore(): void {
    this.#canSplice = false;
    this.#splice?.close();
    this.#splice = null;
  }

  log(session: Session, ended: Ended): void {
    this.accessLog.write(session, ended);
  }

  /** Whether this many descriptors may outlive their connection; `lingered` releases them. */
  mayLinger(descriptors: number): boolean {
    if (this.#lingering + descriptors > this.#lingeringMax) return false;
    this.#lingering += descriptors;
    return true;
  }

  lingered(descriptors: number): void {
    this.#lingering -= descriptors;
  }

  /** Writes a line to the debug log; `fields` is only called if debug lines are logged. */
  debug(event: string, fields: () => Record<string, string | number>): void {
    if (this.accessLog.debug) this.#post({ kind: "debug", event, fields: fields() });
  }

  /** The cap of the process was reached; the supervisor logs it once. */
  overBudget(): void {
    if (this.wheel.now < this.#overBudgetSaidMs + OVER_BUDGET_EVERY_MS) return;
    this.#overBudgetSaidMs = this.wheel.now;
    this.#post({ kind: "over_budget" });
  }

  // ---------------------------------------------------------------- the clock

  /** The clock stands still while nothing needs it; a connection calls this first, so that the clock is right. */
  startClock(): void {
    if (this.#clock !== null) return;
    const now = performance.now();
    this.wheel.advance(now);
    this.#loopDelay.start(now);
    this.#clock = setInterval(() => this.#tick(), TICK_MS);
  }

  #tick(): void {
    const now = performance.now();
    const isStalled = this.#loopDelay.tick(now) >= STALL_MS;
    // Bun runs timers before it reads sockets (1.4.5). After a stall, what has arrived meanwhile goes before the deadlines: they wait for the
    // next tick, and no longer, since every tick may be late on a busy machine.
    this.#isAfterStall = isStalled && !this.#isAfterStall;
    if (this.#isAfterStall) return this.wheel.setTime(now);
    this.wheel.advance(now);
    for (const queue of this.queues) if (!queue.tick()) this.queues.delete(queue);
    this.accessLog.flush();
    if (this.#sessionCount > 0 || this.wheel.size > 0 || this.#clock === null) return;
    clearInterval(this.#clock);
    this.#clock = null;
    this.#loopDelay.stop();
  }

  // ---------------------------------------------------------------- stopping

  /**
   * Accepts only what is queued already, and ends all connections by the deadline, spread over the window before it (both on
   * monotonicMs()). A second call brings the deadline forward.
   */
  stop(spreadFromMs: number, deadlineMs: number): void {
    // The wheel is on this thread's performance.now().
    const originMs = monotonicMsOf(0);
    const stop = { spreadFromMs: spreadFromMs - originMs, deadlineMs: deadlineMs - originMs };
    this.#stop = stop;
    this.startClock();
    this.#serving.retireAll();
    if (stop.deadlineMs <= performance.now()) return this.#endAll();
    for (const session of this.#sessions) session?.stopAt(this.#stopTime(stop));
    if (deadlineMs !== Infinity) this.wheel.schedule(this.#deadline(), stop.deadlineMs);
    this.#stoppedWhenDone();
  }

  #stopTime(stop: { spreadFromMs: number; deadlineMs: number }): number {
    if (stop.deadlineMs === Infinity) return Infinity;
    return stop.spreadFromMs + Math.random() * (stop.deadlineMs - stop.spreadFromMs);
  }

  // Sessions before the phase relaying have no timer for the stop: the deadline itself ends them.
  #deadline(): TimerNode {
    return { timerNext: null, timerPrev: null, timerSlot: -1, timerAt: 0, onTimer: () => this.#endAll() };
  }

  // Sessions that are accepted from now on would have none either, so none are accepted.
  #endAll(): void {
    this.#serving.closeRetired();
    for (const session of this.#sessions) session?.finish("shutdown", "lb");
    this.#stoppedWhenDone();
  }

  #stoppedWhenDone(): void {
    if (this.#stop === null || this.#stopped || this.#serving.draining || this.#sessionCount > 0) return;
    this.#stopped = true;
    this.spliceNoMore();
    this.accessLog.flush();
    this.#post({ kind: "stopped" });
  }

  /** A broken invariant: this worker ends. */
  crash(error: unknown): never {
    const reason = error instanceof Error ? (error.stack ?? error.message) : String(error);
    this.#post({ kind: "crashed", reason });
    this.exit();
  }

  /**
   * This worker ends at once. Its connections are reset, so that no peer mistakes a truncated answer for a complete one; their claims stay
   * in the ledger, and the supervisor releases them.
   */
  exit(): never {
    this.accessLog.flush();
    this.#serving.abandon();
    for (const session of this.#sessions) session?.abandon();
    this.spliceNoMore();
    process.exit(1);
  }
}
