// A pool as one worker sees it: its backends, the tiers of those that may be picked, and a balancer for each tier. A new state of health or
// names replaces them in one step, so a pick never sees half of a change.
import type { BackendPlan, PoolPlan, PoolState, PoolTier } from "../messages.ts";
import { parseAddress, parseEndpoint, type Endpoint } from "../core/address.ts";
import { createBalancer } from "../policy/balance.ts";
import type { Balancer, Candidate, Loads, PickContext, Sources } from "../policy/candidate.ts";
import { Latency } from "../policy/latency.ts";
import { SharedQueue } from "../shared/queue.ts";
import { WaitQueue, type Places, type Waiter } from "./wait-queue.ts";
import { claimAt, claimedAt, float64Index, giveBackAt, int32Index, OpenCells, Pieces } from "../shared/cells.ts";
import { BACKEND, CONNECT_TIMES, countTime } from "../shared/counters.ts";
import { PassiveHealth, type FailureReports } from "./failure-reports.ts";
import { sockaddr } from "../platform/sockets.ts";
import type { TlsClient } from "../platform/tls-client.ts";

/** The result of a connect attempt: the cell of BACKEND that counts it. `tlsFailed` follows a `connected`. */
export type AttemptOutcome =
  | typeof BACKEND.connected
  | typeof BACKEND.refused
  | typeof BACKEND.timedOut
  | typeof BACKEND.failed
  | typeof BACKEND.tlsFailed;

/** For least_latency a failed attempt counts as at least this long, because a refusal is fast but not good. */
const FAILED_LATENCY_MS = 3000;

const SOURCES: Sources = { nowMs: () => performance.now(), random: Math.random };

/**
 * A backend and its cells. Exists as long as a connection or the pool refers to it. It has the plan's fields itself, and no views of its
 * cells: of a thousand backends, none is in the CPU's caches when it is used, so every object that must be read costs time. The fields
 * that each connection uses come first. 18 fields are the most that fit into 160 bytes; test/worker/pool.test.ts measures it.
 */
export class Backend implements Candidate {
  readonly id: number;
  /** 0 = no cap. */
  readonly maxConnections: number;
  /** Whether a connect may reach its own socket, so that each one must be checked. */
  readonly maySelfConnect: boolean;
  /** Contains the cell at `openAt`: connections open or being dialed, over all workers. */
  readonly #open: Int32Array;
  readonly openAt: number;
  readonly #counters: Float64Array;
  /** Index of the first of this worker's BACKEND.size cells in #counters. */
  readonly #row: number;
  /** In the form of connect(2); made at first use, because most of ten thousand backends have no connection of this worker. */
  #sockaddr: Uint8Array | null = null;
  slot = 0;
  /** The balancer of its tier; null = it must not be picked. */
  balancer: Balancer<Backend> | null = null;
  /** When an attempt of this worker last succeeded, TLS included, on performance.now(). */
  connectedMs = -Infinity;
  /** Kept only if the pool's algorithm uses it. */
  latency: Latency | null = null;
  /** Receives failures if the pool has passive health. */
  passive: PassiveHealth | null = null;
  /** The effective weight in its tier. */
  weight = 0;
  readonly name: string;
  readonly address: string;
  /** The host name in the config, or "". */
  readonly host: string;
  readonly countersAt: number;

  /** `pieces` are those of the plan's addresses. */
  constructor(plan: BackendPlan, pieces: Pieces, worker: number) {
    this.id = plan.id;
    this.maxConnections = plan.maxConnections;
    this.maySelfConnect = plan.maySelfConnect;
    this.#open = pieces.int32With(plan.openAt);
    this.openAt = plan.openAt;
    this.#counters = pieces.float64With(plan.countersAt);
    this.#row = float64Index(plan.countersAt) + worker * BACKEND.size;
    this.name = plan.name;
    this.address = plan.address;
    this.host = plan.host;
    this.countersAt = plan.countersAt;
  }

  get endpoint(): Endpoint {
    const endpoint = parseEndpoint(this.address);
    if (endpoint.kind === "bad") throw new Error(`backend address ${this.address}: ${endpoint.why}`);
    return endpoint;
  }

  get sockaddr(): Uint8Array {
    return (this.#sockaddr ??= sockaddr(this.endpoint));
  }

  /** Whether a plan is equal to the one that it was made from. */
  isAsIn(plan: BackendPlan): boolean {
    for (const name in plan) if (plan[name as keyof BackendPlan] !== this[name as keyof BackendPlan]) return false;
    return true;
  }

  openCount(): number {
    return claimedAt(this.#open, int32Index(this.openAt));
  }

  full(): boolean {
    return this.maxConnections > 0 && this.openCount() >= this.maxConnections;
  }

  latencyMs(nowMs: number): number {
    return this.latency === null ? 0 : this.latency.at(nowMs);
  }

  /** Adds to a cell of BACKEND in this worker's row. Hot path. */
  count(cell: number, by = 1): void {
    this.#counters[this.#row + cell]! += by;
  }

  /** The only place that is told how each connect attempt ended, `ms` after its start. Hot path. */
  attemptEnded(outcome: AttemptOutcome, ms: number): void {
    this.count(outcome);
    if (outcome === BACKEND.connected) countTime(this.#counters, CONNECT_TIMES, ms, this.#row);
    else this.passive?.connectFailed(this.id);
    if (this.latency === null) return;
    this.latency.add(outcome === BACKEND.connected ? ms : Math.max(ms, FAILED_LATENCY_MS), SOURCES.nowMs());
  }

  /** Claims a place; false = at its cap. */
  claim(): boolean {
    return claimAt(this.#open, int32Index(this.openAt), this.maxConnections);
  }

  giveBack(): void {
    giveBackAt(this.#open, int32Index(this.openAt));
    this.balancer?.released(this);
  }
}

/** A session that can wait in a pool's queue. */
export interface Queued extends PickContext, Waiter<Backend> {
  tried: number[] | null;
  /** When its last attempt to connect began, on performance.now(). */
  readonly dialStartedMs: number;
  finish(end: "no_backend", by: "lb"): void;
}

export type PoolQueue = WaitQueue<Backend, Queued>;

export class Pool implements Places<Queued, Backend> {
  readonly id: number;
  readonly #worker: number;
  readonly #reports: FailureReports | null;
  #plan: PoolPlan;
  #source: Uint8Array | null = null;
  #isTransparent = false;
  #tls: TlsClient | null = null;
  #backends: Backend[] = [];
  /** Ids of the backends that were down in the last state. */
  #down: ReadonlySet<number> = new Set();
  #tiers: readonly Tier[] = [];
  /** Created with the first plan that has a queue. It stays when a reload removes the queue, for connections that still wait. */
  #queue: PoolQueue | null = null;
  #version = -1;

  /** `reports` receives failures for passive health; null = they are not reported. */
  constructor(plan: PoolPlan, tls: TlsClient | null, worker: number, reports: FailureReports | null = null) {
    this.id = plan.id;
    this.#worker = worker;
    this.#reports = reports;
    this.#plan = withoutBackends(plan);
    this.apply(plan, tls);
  }

  /** The version of the current state. */
  get version(): number {
    return this.#version;
  }

  get plan(): PoolPlan {
    return this.#plan;
  }

  /** TLS with the backends, or null. */
  get tls(): TlsClient | null {
    return this.#tls;
  }

  /** The client's bytes are the first that a backend receives. */
  get plain(): boolean {
    return this.#tls === null && this.#plan.sendProxy === "off";
  }

  /** The sockaddr of the local address for connects, or null. */
  get source(): Uint8Array | null {
    return this.#source;
  }

  /** Connects come from the client's own address. */
  get isTransparent(): boolean {
    return this.#isTransparent;
  }

  /** A backend could be picked for a connection that has tried these, if none were full. */
  mayServe({ tried }: PickContext): boolean {
    if (tried === null) return this.#tiers.length > 0;
    return this.#tiers.some(({ backends }) => backends.some(({ id }) => !tried.includes(id)));
  }

  /** A backend could be picked now. */
  get hasPlace(): boolean {
    const tier = this.#tiers[0];
    return tier !== undefined && tier.backends.some((backend) => !backend.full());
  }

  /** The queue for connections while all backends are full; null = there is none. */
  get queue(): PoolQueue | null {
    return this.#queue;
  }

  /** Applies a new generation of the config, with the TLS client that was made from its plan. */
  apply(plan: PoolPlan, tls: TlsClient | null): void {
    this.#plan = withoutBackends(plan);
    this.#tls = tls;
    const source = parseAddress(plan.sourceAddress);
    this.#isTransparent = plan.sourceAddress.startsWith("client");
    this.#source = source === null ? null : sockaddr({ kind: "ip", address: source, port: 0 });
    const { memory } = plan.queue;
    if (memory !== null) this.#queue ??= new WaitQueue<Backend, Queued>(new SharedQueue(memory), this.#worker, this);
    this.#become(plan, true);
    this.#serveQueue();
  }

  /** Applies a change of health or names. Returns the ids of the backends that went down with it. */
  update(state: PoolState): number[] {
    if (state.version <= this.#version) return [];
    const before = this.#down;
    this.#become(state, false);
    this.#serveQueue();
    this.#down = new Set(state.down);
    return state.down.filter((id) => !before.has(id));
  }

  /**
   * The backend for the next connection, with a place claimed; null = no backend may be picked, or all are tried or full. A full tier does
   * not overflow into the next one; only a connection for which a whole tier has failed uses the next one. Hot path.
   */
  acquire(connection: PickContext): Backend | null {
    for (const { balancer, backends } of this.#tiers) {
      for (;;) {
        const backend = balancer.pick(connection);
        if (backend === null) break;
        // Another worker may have taken the last place between the pick and the claim: pick again, since that backend is full now.
        if (backend.claim()) return backend;
      }
      const { tried } = connection;
      if (tried === null || !backends.every(({ id }) => tried.includes(id))) return null;
    }
    return null;
  }

  /** See Places. */
  acquireAgain(waiter: Queued, regardless: boolean): Backend | null {
    const { tried, dialStartedMs } = waiter;
    if (tried === null) return null;
    const isBack = ({ id, connectedMs }: Backend): boolean => connectedMs > dialStartedMs && tried.includes(id);
    if (!regardless && !this.#backends.some(isBack)) return null;
    waiter.tried = null;
    const backend = this.acquire(waiter);
    if (backend === null) waiter.tried = tried;
    return backend;
  }

  /** Releases the place at a backend that `acquire` has returned. Call it once. Hot path. */
  release(backend: Backend): void {
    backend.giveBack();
    if (this.#queue !== null) this.#queue.placeFreed();
  }

  // The set of backends that may be picked has changed. If it is empty, a waiting connection ends like a new one.
  #serveQueue(): void {
    if (this.#queue === null) return;
    for (const waiter of this.#queue.waiters) if (!this.mayServe(waiter)) waiter.finish("no_backend", "lb");
    this.#queue.serveSoon();
  }

  // `settings`: settings other than the backends may have changed too.
  #become({ backends, memory, tiers, version }: PoolPlan | PoolState, settings: boolean): void {
    if (version < this.#version || (version === this.#version && !settings)) return;
    // This includes removed backends: their connections must not keep a former balancer alive.
    for (const backend of this.#backends) backend.balancer = null;
    const pieces = new Pieces(memory);
    if (backends !== null) {
      const known = new Map(this.#backends.map((backend) => [backend.id, backend]));
      this.#backends = backends.map((plan) => {
        const old = known.get(plan.id);
        return old?.isAsIn(plan) === true ? old : new Backend(plan, pieces, this.#worker);
      });
    }
    this.#version = version;
    this.#tiers = this.#makeTiers(tiers, pieces);
  }

  #makeTiers(plans: readonly PoolTier[], pieces: Pieces): Tier[] {
    const { balance, passive: counted } = this.#plan;
    const byId = new Map(this.#backends.map((backend) => [backend.id, backend]));
    const passive = counted && this.#reports && new PassiveHealth(counted, this.#reports);
    for (const backend of this.#backends) {
      backend.passive = passive;
      if (balance === "least_latency") backend.latency ??= new Latency();
      else backend.latency = null;
    }
    return plans.map(({ entries, table }, i) => {
      const backends = entries.flatMap(({ id, effectiveWeight }) => {
        const backend = byId.get(id);
        if (backend !== undefined) backend.weight = effectiveWeight;
        return backend ?? [];
      });
      const loadsOf = (list: readonly Backend[]): Loads => new OpenCells(pieces, list);
      const setting = { balance, startAt: this.#worker, sources: SOURCES, table, loadsOf };
      const balancer = createBalancer(backends, setting, this.#tiers[i]?.balancer ?? null);
      for (const backend of backends) backend.balancer = balancer;
      return { backends, balancer };
    });
  }
}

/** The backends of a tier that may be picked, and the balancer that chooses among them. */
interface Tier {
  readonly backends: readonly Backend[];
  readonly balancer: Balancer<Backend>;
}

// Each backend has its own plan, so keeping the received list would waste memory.
function withoutBackends(plan: PoolPlan): PoolPlan {
  return { ...plan, backends: [] };
}
