// A pool as one worker sees it: its backends, which of them are up, and the balancer over those. A new state of health or
// of names replaces the balancer in one step, so no pick ever sees half of a change.
import type { BackendPlan, PoolPlan, PoolState } from "../messages.ts";
import { parseAddress, parseEndpoint, type Endpoint } from "../core/address.ts";
import { createBalancer, eligible, type Balancer, type Candidate } from "../policy/balance.ts";
import { claim, claimed, giveBack } from "../shared/cells.ts";
import { BACKEND } from "../shared/counters.ts";
import { sockaddr } from "../platform/sockets.ts";
import type { TlsClient } from "../platform/tls-client.ts";

/** A backend and the cells that go with it. Lives as long as a connection or the pool knows it. */
export class Backend implements Candidate {
  readonly id: number;
  readonly name: string;
  readonly address: string;
  /** The host name that the config gives, or "". */
  readonly host: string;
  readonly endpoint: Endpoint;
  readonly sockaddr: Uint8Array;
  readonly weight: number;
  readonly backup: boolean;
  readonly maxConnections: number;
  /** Whether a connect may be answered by its own socket, so that each one must be looked at. */
  readonly maySelfConnect: boolean;
  /** This worker's row of BACKEND.size cells. */
  readonly counters: Float64Array;
  readonly open: Int32Array;
  readonly #plan: BackendPlan;

  constructor(plan: BackendPlan, worker: number) {
    this.#plan = plan;
    this.id = plan.id;
    this.name = plan.name;
    this.address = plan.address;
    this.host = plan.host;
    this.weight = plan.weight;
    this.backup = plan.backup;
    this.maxConnections = plan.maxConnections;
    this.maySelfConnect = plan.maySelfConnect;
    this.open = plan.open;
    this.counters = plan.counters.subarray(worker * BACKEND.size, (worker + 1) * BACKEND.size);
    const endpoint = parseEndpoint(plan.address);
    if (endpoint.kind === "bad") throw new Error(`backend address ${plan.address}: ${endpoint.why}`);
    this.endpoint = endpoint;
    this.sockaddr = sockaddr(endpoint);
  }

  /** Whether a plan says of this backend what its own plan says. */
  isAsIn(plan: BackendPlan): boolean {
    return plan === this.#plan || samePlan(plan, this.#plan);
  }

  openCount(): number {
    return claimed(this.open);
  }

  full(): boolean {
    return this.maxConnections > 0 && claimed(this.open) >= this.maxConnections;
  }

  /** Claims a place; false = at its cap. */
  claim(): boolean {
    return claim(this.open, this.maxConnections);
  }

  giveBack(): void {
    giveBack(this.open);
  }
}

export class Pool {
  readonly id: number;
  readonly #worker: number;
  #plan: PoolPlan;
  #source: Uint8Array | null = null;
  #tls: TlsClient | null = null;
  #backends: Backend[] = [];
  #up: ReadonlySet<number> = new Set();
  #balancer: Balancer<Backend> | null = null;
  #hasCandidate = false;
  #version = -1;

  constructor(plan: PoolPlan, tls: TlsClient | null, worker: number) {
    this.id = plan.id;
    this.#worker = worker;
    this.#plan = plan;
    this.apply(plan, tls);
  }

  /** Of the state that is in force here. */
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

  /** The client's bytes are the first that a backend sees. */
  get plain(): boolean {
    return this.#tls === null && this.#plan.sendProxy === "off";
  }

  /** The sockaddr of the local address for connects, or null. */
  get source(): Uint8Array | null {
    return this.#source;
  }

  /** Some backend could be picked if none were full: it is up and takes new connections. */
  get hasCandidate(): boolean {
    return this.#hasCandidate;
  }

  /** A new generation of the config, with the TLS that was made of its plan. */
  apply(plan: PoolPlan, tls: TlsClient | null): void {
    this.#plan = plan;
    this.#tls = tls;
    const source = plan.sourceAddress === "" ? null : parseAddress(plan.sourceAddress);
    this.#source = source === null ? null : sockaddr({ kind: "ip", address: source, port: 0 });
    this.#become(plan.backends, plan.up, plan.version, true);
  }

  /** A change of health or names. Returns the ids of the backends that went down with it. */
  update(state: PoolState): number[] {
    if (state.version <= this.#version) return [];
    const before = this.#up;
    this.#become(state.backends ?? this.#plan.backends, state.up, state.version, false);
    if (state.backends !== null) this.#plan = { ...this.#plan, backends: state.backends };
    return state.down.filter((id) => before.has(id));
  }

  /** The backend for the next connection, with a place claimed; null = none is up, or all are tried or full. Hot path. */
  pick(tried: readonly number[] | null): Backend | null {
    const balancer = this.#balancer;
    if (balancer === null) return null;
    for (;;) {
      const backend = balancer.pick(tried);
      // Between the pick and the claim another worker may have taken the last place: pick again, it is full now.
      if (backend === null || backend.claim()) return backend;
    }
  }

  #become(plans: readonly BackendPlan[], up: readonly number[], version: number, settings: boolean): void {
    if (version < this.#version || (version === this.#version && !settings)) return;
    const known = new Map(this.#backends.map((backend) => [backend.id, backend]));
    this.#backends = plans.map((plan) => {
      const old = known.get(plan.id);
      return old?.isAsIn(plan) === true ? old : new Backend(plan, this.#worker);
    });
    this.#version = version;
    this.#up = new Set(up);
    const candidates = eligible(this.#backends, this.#up);
    this.#hasCandidate = candidates.length > 0;
    this.#balancer = createBalancer(this.#plan.balance, candidates, this.#balancer, this.#worker);
  }
}

// The cells belong to the id, and their views are other objects after each structured clone.
function samePlan(a: BackendPlan, b: BackendPlan): boolean {
  const names = Object.keys(a) as (keyof BackendPlan)[];
  return names.every((name) => ArrayBuffer.isView(a[name]) || a[name] === b[name]);
}
