// Every message between threads, and the plan: the part of a config that a worker needs, with the cells in shared memory that
// belong to it. All of it passes through structured clone; views on shared memory stay shared.
import type { Balance, HashKeyName } from "./core/balance.ts";
import type { CidrTable } from "./core/cidr-set.ts";
import type { DryRunLimit } from "./core/dry-run.ts";
import type { End } from "./core/ends.ts";
import type { TlsClientPlan, TlsVersion } from "./platform/tls-client.ts";
import type { HashTable } from "./policy/candidate.ts";
import type { TierEntry } from "./policy/tiers.ts";

/** One backend address. Kept across reloads and lookups by `id` as long as pool, name and address stay the same. */
export interface BackendPlan {
  id: number;
  /** The name in logs and metrics: the configured `name`, else the address. */
  name: string;
  /** The address to connect to: "10.0.0.1:80", "[2001:db8::1]:80", "unix:/run/app.sock", "unix:@name". */
  address: string;
  /** The host name in the config, for the name in TLS; "" for an IP address or a socket. */
  host: string;
  /** 0 = no cap. */
  maxConnections: number;
  /** Its address is one of this machine's and its port one that the kernel uses for outgoing connections. */
  maySelfConnect: boolean;
  /** Address of one Int32 cell in the pool's `memory`: connections open or being dialed, over all workers. */
  openAt: number;
  /** Address of rows of BACKEND.size cells, one per worker, by the worker's index. */
  countersAt: number;
}

/** TLS termination. Certificates and keys are PEM. */
export interface TlsServerPlan {
  /** `names` as in the certificate, lower case, wildcards as "*.example.com". */
  certificates: { cert: string; key: string; names: string[] }[];
  unknownSni: "default" | "reject";
  minVersion: TlsVersion;
  /** TLS 1.2 suites in OpenSSL format; "" = the runtime's default. */
  ciphers: string;
  alpn: string[];
  clientAuth: "off" | "optional" | "required";
  clientCa: string | null;
  clientCrl: string | null;
}

/** A route of a listener: conditions as in policy/route.ts, and the id of the pool. */
export interface RoutePlan {
  sni: string[];
  alpn: string[];
  clients: CidrTable | null;
  pool: number;
}

export interface PoolPlan {
  id: number;
  name: string;
  balance: Balance;
  /** What source_hash hashes of a connection. */
  hashKey: HashKeyName;
  connectTimeoutMs: number;
  retries: number;
  /** Local address of connections to the backends as text, "client", "client_with_port", or "". */
  sourceAddress: string;
  onDown: "keep" | "reset";
  /** 0 = off. */
  keepaliveMs: number;
  sendProxy: "off" | "v1" | "v2";
  /** TLS to the backends, or null. */
  tls: TlsClientPlan | null;
  /** Which failures are reported for passive health; null = none. */
  passive: PassivePlan | null;
  queue: QueuePlan;
  backends: BackendPlan[];
  /** The memory of the backends' cells (shared/cells.ts). */
  memory: SharedArrayBuffer[];
  /** The preferred one first. */
  tiers: PoolTier[];
  /** Rises with each change of `backends` or `tiers`; an older state never replaces a newer one. */
  version: number;
}

export interface PassivePlan {
  connect: boolean;
  earlyReset: boolean;
}

/** Where connections wait for a place while every backend of a pool is full. */
interface QueuePlan {
  /** Over all workers; 0 = none. */
  size: number;
  timeoutMs: number;
  /** In the form of shared/queue.ts; null = there was never a queue. */
  memory: SharedArrayBuffer | null;
}

/** Backends among which new connections are balanced: up, not drained, with a weight greater than 0. */
export interface PoolTier {
  entries: readonly TierEntry[];
  /** For source_hash: over all backends of the tier, usable or not. */
  table: HashTable | null;
}

export interface ListenerPlan {
  id: number;
  name: string;
  /** Id of a pool of the plan; -1 = none: connections without a matching route are refused. */
  pool: number;
  proxyProtocol: "off" | "required" | "optional";
  /** Peers whose PROXY header is trusted. */
  trustedProxies: CidrTable | null;
  tls: TlsServerPlan | null;
  /** The first match wins. */
  routes: RoutePlan[];
  /** Some pool of the listener hashes the server name, so the ClientHello must be read. */
  hashesSni: boolean;
  /** null = the list is empty: everyone is allowed, nobody is denied. */
  allow: CidrTable | null;
  deny: CidrTable | null;
  clientPrefix: { ipv4: number; ipv6: number };
  /** 0 = no limit. */
  maxConnections: number;
  maxConnectionsPerClient: number;
  /** rate in connections per second. */
  rateLimit: { rate: number; burst: number } | null;
  overLimit: "reset" | "close";
  onAbort: "reset" | "close";
  /** Bytes held for a receiver that does not keep up, per direction. */
  buffer: number;
  /** null = unlimited. */
  bandwidth: BandwidthPlan | null;
  /** Limits that are evaluated but not enforced. */
  dryRun: readonly DryRunLimit[];
  timeoutsMs: { handshake: number; idle: number; halfClose: number; lifetime: number };
  /** One Int32 cell: connections open over all workers. */
  open: Int32Array;
  /** Rows of LISTENER.size cells, one per worker, by the worker's index. */
  counters: Float64Array;
  /** The table of per-client counts; null = no limit per client. */
  clients: SharedArrayBuffer | null;
}

/** Bandwidth limits of a listener. */
export interface BandwidthPlan {
  /** Bytes per second; 0 = unlimited. */
  upload: number;
  download: number;
  per: "connection" | "client" | "listener";
  /** The limits that connections share (shared/bandwidth.ts), by entry of the table of clients, or one for the listener. */
  memory: SharedArrayBuffer | null;
}

/** A listening socket that one worker serves. */
export interface SocketPlan {
  /** The bound address; one worker may serve several sockets of one address. */
  key: string;
  /** Number of the socket within its SO_REUSEPORT group. */
  index: number;
  listener: number;
  /** The supervisor's descriptor, which the worker duplicates; -1 = the portable way, by hostname and port. */
  fd: number;
  hostname: string;
  port: number;
  backlog: number;
}

export interface Plan {
  generation: number;
  listeners: ListenerPlan[];
  pools: PoolPlan[];
  /** The sockets that this worker serves. */
  sockets: SocketPlan[];
  /** Cap on connections of the whole process. */
  maxConnections: number;
  /** Descriptors of refused clients that this worker may keep until they have read its FIN. */
  lingeringMax: number;
  accessLog: "text" | "json" | "off";
  /** The current followers of the access log; lines can go to them even if the log is off. */
  followers: Follower[];
  debug: boolean;
}

/** A reader of the access log as it is written. The worker filters and formats, so the supervisor only passes text on. */
export interface Follower {
  id: number;
  format: "text" | "json";
  filter: AccessFilter;
}

/** Conditions on access log lines, all of which must hold; null = no condition. */
export interface AccessFilter {
  listener: string | null;
  pool: string | null;
  /** Names of backends; the line's backend must be one of them. A name with several addresses means all of them. */
  backends: readonly string[] | null;
  clients: CidrTable | null;
  end: End | null;
  /** 0 = no condition. */
  minDurationMs: number;
}

/** Given to a worker once, at its start. */
export interface WorkerStart {
  kind: "start";
  index: number;
  /** The ledger of this worker's connections (shared/ledger.ts). */
  ledger: SharedArrayBuffer;
  /** The counts by client of this worker (shared/client-activity.ts). */
  activity: SharedArrayBuffer;
  /** One Int32 cell: connections of the whole process. */
  open: Int32Array;
  /** One Int32 cell: blocks of connection ids that workers have taken (shared/connection-ids.ts). */
  ids: Int32Array;
  /** This worker's row of WORKER.size cells. */
  counters: Float64Array;
  /** One Int32 cell: characters of access log sent and not yet written. */
  logPending: Int32Array;
  /** LISTENING_MAX cells for the descriptors that the worker accepts on, as many as it has, then zeros. */
  listening: Int32Array;
  plan: Plan;
}

/** Supervisor → one worker. */
export type ToWorker =
  | WorkerStart
  | { kind: "apply"; plan: Plan }
  | { kind: "follow"; followers: Follower[] }
  | PoolState
  | EndConnections
  /** Config changes are complete: memory that they needed can be released. */
  | { kind: "settled" }
  /** Exit at once: connections are reset, and the supervisor releases their claims. */
  | { kind: "exit" }
  /**
   * Stop accepting and exit when the last connection has ended. The remaining connections are ended over the time from `spreadFromMs` to
   * `deadlineMs` (both on monotonicMs(); Infinity = never).
   */
  | { kind: "stop"; spreadFromMs: number; deadlineMs: number };

/** Failures of one backend that passive health counts. */
export interface BackendFailures {
  backend: number;
  connect: number;
  earlyReset: number;
}

/** One worker → supervisor. */
export type FromWorker =
  | { kind: "applied"; generation: number }
  | { kind: "refused"; generation: number; reason: string }
  | { kind: "access"; text: string; lines: number }
  /** Whole lines for a follower, and the number of lines that were dropped beyond the maximum. */
  | { kind: "followed"; follower: number; text: string; lost: number }
  | { kind: "over_budget" }
  /** Failures since the last such message, by the backend's id. */
  | { kind: "failures"; failures: BackendFailures[] }
  /** The answer to EndConnections: how many connections it ended. */
  | { kind: "ended"; request: number; count: number }
  | { kind: "debug"; event: string; fields: Record<string, string | number> }
  | { kind: "crashed"; reason: string }
  | { kind: "stopped" };

/**
 * The whole new state of one pool, applied in one step. It is sent on the same channel as the plans, so a worker that is starting
 * gets it after its first plan, and no state overtakes the plan that it belongs to.
 */
export interface PoolState {
  kind: "pool";
  pool: number;
  version: number;
  /** The preferred one first. */
  tiers: PoolTier[];
  /** Ids of the backends that are down or that a lookup removed. */
  down: number[];
  /** The new backends if a lookup changed them, else null. */
  backends: BackendPlan[] | null;
  /** As in the plan. */
  memory: SharedArrayBuffer[];
}

/** Ends of connections on request from outside the worker. They are resets, whatever the listener's setting. */
export type OrderedEnd = "killed" | "drain";

/** Ends the connections in these rows of the worker's ledger, each only if it still has the id beside it: rows are reused. */
export interface EndConnections {
  kind: "end";
  /** Returned with the answer. */
  request: number;
  end: OrderedEnd;
  rows: Uint32Array;
  ids: Float64Array;
}

/** How long a worker accepts the connections in the queue of a listening socket before it closes the socket. */
export const ACCEPT_DRAIN_MS = 250;

/** Maximum number of listening descriptors that a worker records for the supervisor. */
export const LISTENING_MAX = 4096;
