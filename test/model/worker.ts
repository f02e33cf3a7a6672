// One worker of the model: real pools, listeners, ledger and queue, and sessions that use them like a TCP connection, without sockets.
// Messages of the supervisor wait in `mail` until the model delivers them, so workers lag as threads do.
import type { EndedBy, End } from "../../src/core/ends.ts";
import type { Plan, PoolState } from "../../src/messages.ts";
import { monotonicMs } from "../../src/platform/clock.ts";
import { CLAIM, ROW, ROW_FLOAT, ROW_FLOATS, ROW_WORDS } from "../../src/shared/ledger.ts";
import { admitClient, claimPlaces, leaveQueue, releaseBackend } from "../../src/worker/admission.ts";
import { conclude } from "../../src/worker/ending.ts";
import { Listener } from "../../src/worker/listener.ts";
import { DataPlane } from "../../src/worker/plane.ts";
import { Pool, type Backend, type Queued } from "../../src/worker/pool.ts";
import type { Session } from "../../src/worker/session.ts";
import { plan, workerStart } from "../support/plans.ts";

/** The facts of a pool in this state: ids of the backends that may be picked, a list per tier, and their caps. */
export interface View {
  tiers: number[][];
  caps: Map<number, number>;
  queueSize: number;
}

/** A message of the supervisor, and the reference's view of it. */
export type Mail =
  { kind: "plan"; plan: Plan; views: Map<number, View> } | { kind: "state"; state: PoolState; view: View };

/** A faulty variant of the code under test, as a control: the model must find it. */
export type Fault =
  "none" | "retry keeps its first place" | "claim is not noted" | "waiter goes without leaving" | "state is lost";

export class ModelWorker {
  readonly index: number;
  readonly host: DataPlane;
  readonly mail: Mail[] = [];
  readonly sessions = new Set<ModelSession>();
  readonly views = new Map<number, View>();
  pools = new Map<number, Pool>();
  listeners: Listener[] = [];
  isDead = false;
  readonly fault: Fault;
  /** Called at each pick: the model checks it. */
  readonly onPicked: (session: ModelSession, backend: Backend) => void;

  constructor(
    { index, ledger, open, fault }: { index: number; ledger: SharedArrayBuffer; open: Int32Array; fault: Fault },
    onPicked: (session: ModelSession, backend: Backend) => void,
  ) {
    this.index = index;
    this.fault = fault;
    this.onPicked = onPicked;
    this.host = new DataPlane({ ...workerStart(plan(), index % 2), index, ledger, open }, () => undefined);
  }

  /** Takes the oldest message. */
  deliver(): void {
    const mail = this.mail.shift();
    if (mail === undefined) return;
    if (mail.kind === "plan") this.#apply(mail.plan, mail.views);
    else this.#update(mail.state, mail.view);
  }

  // Like DataPlane.apply, without sockets.
  #apply({ pools, listeners, maxConnections }: Plan, views: Map<number, View>): void {
    // A state that was sent before the plan was made, and is still in transit, is included in the plan.
    for (const [id, view] of views) this.views.set(id, view);
    const next = new Map(pools.map((pool) => [pool.id, this.pools.get(pool.id) ?? new Pool(pool, null, this.index)]));
    for (const pool of pools) this.pools.get(pool.id)?.apply(pool, null);
    this.pools = next;
    this.listeners = listeners.map((listener) => new Listener(listener, next, null, this.index));
    this.host.maxConnections = maxConnections;
  }

  // Like DataPlane.update.
  #update(state: PoolState, view: View): void {
    const pool = this.pools.get(state.pool);
    if (pool === undefined) return;
    if (this.fault !== "state is lost" || this.index > 0) {
      this.views.set(pool.id, view);
      const down = pool.update(state);
      if (pool.plan.onDown !== "reset") return;
      for (const session of this.sessions) {
        if (session.backend !== null && down.includes(session.backend.id)) session.finish("backend_down", "lb");
      }
    } else {
      this.views.set(pool.id, view);
    }
  }

  /** A client comes. The session may have ended when this returns. */
  arrive(client: number): ModelSession {
    const listener = this.listeners[client % this.listeners.length]!;
    const { words, floats, ledger } = this.host;
    const row = ledger.take();
    const at = row * ROW_WORDS;
    words[at + ROW.listener] = listener.plan.id;
    words[at + ROW.clientFd] = -1;
    words.set([0, 0, 0xffff, 0x0a000000 + client, 40_000], at + ROW.address);
    floats[row * ROW_FLOATS + ROW_FLOAT.startedMs] = 0;
    const session = new ModelSession(this, listener, row, client);
    this.sessions.add(session);
    this.host.remember(session);
    const refused = claimPlaces(this.host, listener, row) ?? admitClient(this.host, listener, row, monotonicMs());
    if (refused !== null) session.finish(refused, "lb");
    else session.dial();
    return session;
  }

  /** A tick of the clock, for waiters. */
  tick(): void {
    for (const queue of this.host.queues) if (!queue.tick()) this.host.queues.delete(queue);
  }

  /** The thread is gone: it does nothing more. Its claims stay. */
  die(): void {
    this.isDead = true;
    for (const pool of this.pools.values()) {
      const nobody = { kind: "pool", pool: pool.id, version: Number.MAX_SAFE_INTEGER, tiers: [], down: [] } as const;
      pool.update({ ...nobody, tiers: [], down: [], backends: null, memory: [] });
    }
  }
}

export class ModelSession implements Session, Queued {
  readonly worker: ModelWorker;
  readonly host: DataPlane;
  readonly listener: Listener;
  readonly row: number;
  readonly client: number;
  pool: Pool | null = null;
  backend: Backend | null = null;
  readonly facts = null;
  readonly connectMs = -1;
  tried: number[] | null = null;
  readonly dialStartedMs = Infinity;
  ended: End | null = null;
  isWaiting = false;

  constructor(worker: ModelWorker, listener: Listener, row: number, client: number) {
    this.worker = worker;
    this.host = worker.host;
    this.listener = listener;
    this.row = row;
    this.client = client;
  }

  hashKey(): number {
    return Math.imul(this.client + 1, 0x9e3779b1) >>> 0;
  }

  // Like the dialing in dialing.ts.
  dial(): void {
    const { words } = this.host;
    const at = this.row * ROW_WORDS;
    const pool = this.listener.pool;
    if (pool === null) return this.finish("no_route", "lb");
    this.pool = pool;
    words[at + ROW.pool] = pool.id;
    const backend = pool.queue !== null && pool.queue.isUsed ? null : pool.acquire(this);
    if (backend !== null) this.#begin(backend);
    else if (!pool.mayServe(this)) this.finish("no_backend", "lb");
    else if (this.#enterQueue(pool)) this.#wait(pool);
    else this.finish("queue_full", "lb");
  }

  #enterQueue({ queue, plan }: Pool): boolean {
    if (queue === null || !queue.enter(plan.queue.size)) return false;
    this.host.words[this.row * ROW_WORDS]! |= CLAIM.queue;
    return true;
  }

  #wait({ queue }: Pool): void {
    if (queue === null) return;
    this.isWaiting = true;
    this.host.queues.add(queue);
    queue.join(this);
  }

  placed(backend: Backend): void {
    leaveQueue(this);
    this.isWaiting = false;
    this.#begin(backend);
  }

  // Like the start of an attempt in dialing.ts.
  #begin(backend: Backend): void {
    const { words } = this.host;
    const at = this.row * ROW_WORDS;
    this.worker.onPicked(this, backend);
    this.backend = backend;
    words[at + ROW.backend] = backend.id;
    if (this.worker.fault !== "claim is not noted") words[at]! |= CLAIM.backend;
  }

  /** Its connect attempt fails: another backend, or the end. */
  fail(): void {
    const { backend, pool } = this;
    if (backend === null || pool === null) return;
    this.tried = [...(this.tried ?? []), backend.id];
    const mayRetry = this.tried.length <= pool.plan.retries;
    const next = mayRetry ? pool.acquire(this) : null;
    const waits = next === null && mayRetry && pool.mayServe(this) && this.#enterQueue(pool);
    if (next === null && !waits) return this.finish("connect_failed", "backend");
    if (this.worker.fault !== "retry keeps its first place") releaseBackend(this);
    if (next !== null) return this.#begin(next);
    this.backend = null;
    this.host.words[this.row * ROW_WORDS + ROW.backend] = 0;
    this.#wait(pool);
  }

  /** Its client goes. */
  leave(): void {
    const isFaulty = this.worker.fault === "waiter goes without leaving" && this.isWaiting;
    if (isFaulty) this.host.words[this.row * ROW_WORDS]! &= ~CLAIM.queue;
    this.finish("eof", "client");
  }

  finish(end: End, by: EndedBy): void {
    if (this.ended !== null || this.worker.isDead) return;
    this.ended = end;
    this.isWaiting = false;
    conclude(this, { end, by, error: "" });
    this.worker.sessions.delete(this);
  }

  stopAt(): void {}
  abandon(): void {}
}
