// Plans for a data plane in the test's own thread: everything has a default, and the cells are real shared memory.
import {
  LISTENING_MAX,
  type BackendPlan,
  type ListenerPlan,
  type Plan,
  type PoolPlan,
  type PoolTier,
  type WorkerStart,
} from "../../src/messages.ts";
import { WEIGHT_UNIT } from "../../src/policy/tiers.ts";
import { Arena, float64At, int32At } from "../../src/shared/cells.ts";
import { activityMemory } from "../../src/shared/client-activity.ts";
import { BACKEND, LISTENER, WORKER } from "../../src/shared/counters.ts";
import { ledgerMemory } from "../../src/shared/ledger.ts";

export const arena = new Arena();
let lastId = 0;

/** Workers whose rows the counters have. */
const WORKERS = 2;

export function backendPlan(given: Partial<BackendPlan> = {}): BackendPlan {
  const id = given.id ?? ++lastId;
  return {
    id,
    name: `backend${id}`,
    address: "127.0.0.1:9",
    host: "",
    maxConnections: 0,
    maySelfConnect: false,
    openAt: arena.take(4),
    countersAt: arena.take(8 * WORKERS * BACKEND.size),
    ...given,
  };
}

/** The cell of a backend's open connections. */
export function openOf({ openAt }: BackendPlan): Int32Array {
  return int32At(arena.memory, openAt, 1);
}

/** The rows of a backend's counters. */
export function countersOf({ countersAt }: BackendPlan): Float64Array {
  return float64At(arena.memory, countersAt, WORKERS * BACKEND.size);
}

/** One tier of backends of weight 1, or of `weights`. */
export function tiersWith(ids: readonly number[], weights: readonly number[] = []): PoolTier[] {
  const entries = ids.map((id, i) => ({ id, effectiveWeight: WEIGHT_UNIT * (weights[i] ?? 1) }));
  return entries.length === 0 ? [] : [{ entries, table: null }];
}

/** By default all backends are up. */
export function poolPlan(given: Partial<PoolPlan> = {}): PoolPlan {
  const id = given.id ?? ++lastId;
  const backends = given.backends ?? [backendPlan()];
  return {
    id,
    name: `pool${id}`,
    balance: "round_robin",
    hashKey: "client",
    connectTimeoutMs: 3000,
    retries: 2,
    sourceAddress: "",
    onDown: "keep",
    keepaliveMs: 75_000,
    sendProxy: "off",
    tls: null,
    passive: null,
    queue: { size: 0, timeoutMs: 5000, memory: null },
    memory: arena.memory,
    tiers: tiersWith(backends.map(({ id }) => id)),
    version: 1,
    ...given,
    backends,
  };
}

export function listenerPlan(given: Partial<ListenerPlan> = {}): ListenerPlan {
  const id = given.id ?? ++lastId;
  return {
    id,
    name: `listener${id}`,
    pool: -1,
    proxyProtocol: "off",
    trustedProxies: null,
    tls: null,
    routes: [],
    hashesSni: false,
    allow: null,
    deny: null,
    clientPrefix: { ipv4: 32, ipv6: 64 },
    maxConnections: 0,
    maxConnectionsPerClient: 0,
    rateLimit: null,
    overLimit: "reset",
    onAbort: "reset",
    buffer: 64 * 1024,
    bandwidth: null,
    dryRun: [],
    timeoutsMs: { handshake: 10_000, idle: 0, halfClose: 0, lifetime: 0 },
    open: arena.int32(1),
    counters: arena.float64(WORKERS * LISTENER.size),
    clients: null,
    ...given,
  };
}

export function plan(given: Partial<Plan> = {}): Plan {
  return {
    generation: 1,
    listeners: [],
    pools: [],
    sockets: [],
    maxConnections: 0,
    lingeringMax: 256,
    accessLog: "json",
    followers: [],
    debug: true,
    ...given,
  };
}

export function workerStart(given: Plan, index = 0): WorkerStart {
  return {
    kind: "start",
    index,
    ledger: ledgerMemory(64),
    activity: activityMemory(),
    open: arena.int32(1),
    ids: arena.int32(1),
    counters: arena.float64(WORKER.size),
    logPending: arena.int32(1),
    listening: arena.int32(LISTENING_MAX),
    plan: given,
  };
}
