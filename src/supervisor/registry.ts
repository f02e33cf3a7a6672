// The records of listeners, pools and backends: their identity, which lasts over reloads while the config names the same thing, and
// their cells in shared memory. plans.ts makes the messages to workers from them.
import { formatEndpoint, formatHostPort, type Address } from "../core/address.ts";
import { nameOfOne } from "../core/backend-name.ts";
import type { BackendConfig, Config, ListenerConfig, PoolConfig } from "../config/schema.ts";
import { neverEjected, type Ejection } from "../policy/ejection.ts";
import { RAMP_FROM } from "../policy/slow-start.ts";
import { Arena, Cells, claimed } from "../shared/cells.ts";
import { bandwidthMemory } from "../shared/bandwidth.ts";
import { clientMemory, entriesOf } from "../shared/clients.ts";
import { BACKEND, LISTENER } from "../shared/counters.ts";
import { queueMemory } from "../shared/queue.ts";
import { HashTables } from "./hash-tables.ts";
import { RuntimeChanges, type PoolChanges } from "./runtime-changes.ts";
import { NOTHING_REPORTED, type AgentReport } from "../wire/agent.ts";

/**
 * Cells of records that are in no config are kept for this long: by then workers have closed their duplicates of its sockets (see
 * RETIRED_MS_MAX of sockets.ts). Cells of backends are kept longer by the time in which a connection may still reach them.
 */
const KEEP_MS = 6000;

/** Minimum and maximum size of a listener's table of clients. */
const CLIENT_ENTRIES_MIN = 65_536;
const CLIENT_ENTRIES_MAX = 4_194_304;

export interface ListenerRecord {
  readonly id: number;
  readonly name: string;
  config: ListenerConfig;
  readonly cells: Cells;
  clients: SharedArrayBuffer | null;
  /** Shared bandwidth limits, one per entry of the table of clients or one for the listener. */
  bandwidth: SharedArrayBuffer | null;
}

export interface BackendRecord {
  readonly id: number;
  /** What makes it the same backend over reloads: its pool, its name in the config and its address. */
  readonly key: string;
  name: string;
  readonly address: string;
  config: BackendConfig;
  up: boolean;
  /** What its agent reports about new connections. */
  agent: AgentReport;
  /** The same object over reloads. */
  readonly state: BackendState;
  readonly cells: Cells;
}

/** The state that backend-states.ts keeps for a backend. */
export interface BackendState {
  /** When it came up or went down last, or was made. In Date.now(); for a backend that is not checked now. */
  sinceMs: number;
  /** It took connections before it was taken out, or it has joined a pool that was serving: it ramps when it takes connections again. */
  hasServed: boolean;
  /** The fraction of its weight under slow_start, greater than 0, at most 1. */
  ramp: number;
  /** When its ramp began, on performance.now(); null = it does not ramp. */
  rampFromMs: number | null;
  readonly ejection: Ejection;
}

export interface PoolRecord {
  readonly id: number;
  readonly name: string;
  config: PoolConfig;
  backends: BackendRecord[];
  version: number;
  /** The memory of its backends' cells. */
  readonly memory: SharedArrayBuffer[];
  readonly hashTables: HashTables;
  /** The memory of its queue (shared/queue.ts); null until a config first enables a queue. */
  readonly queue: SharedArrayBuffer | null;
  /** The changes of operators: the same object over reloads. */
  readonly changes: PoolChanges;
}

/** The addresses of a backend's name; endpoints that are not names have none. */
export type Addresses = (host: string) => readonly Address[];

/** The records of a config that is not active yet. */
export interface Draft {
  readonly listeners: ListenerRecord[];
  readonly pools: PoolRecord[];
}

export class Registry {
  /** The changes of operators. */
  readonly changes: RuntimeChanges;
  listeners: ListenerRecord[] = [];
  pools: PoolRecord[] = [];
  /** All records that a connection may still refer to, by id. */
  readonly listenerById = new Map<number, ListenerRecord>();
  readonly poolById = new Map<number, PoolRecord>();
  readonly backendById = new Map<number, BackendRecord>();
  readonly arena = new Arena();
  /** Number of rows of the counters: one for each worker that exists or existed. */
  #rows = 1;
  /** All backends of `backendById` by their keys. */
  readonly #backendByKey = new Map<string, BackendRecord>();
  /** Records that an undecided reload may restore. */
  #held: Draft | null = null;
  /** When (performance.now()) a record was first found to be in no config, by id. */
  readonly #goneMs = new Map<number, number>();
  /** False while records that are in no config wait to be forgotten. */
  #isSwept = true;
  #lastId = 0;

  constructor(changes = new RuntimeChanges()) {
    this.changes = changes;
  }

  /**
   * Makes room for the counters of workers with an index below `workers`, in plans from now on. Existing counters grow to a power of two,
   * so that they take at most twice the memory that the workers need.
   */
  makeRoom(workers: number): void {
    if (workers <= this.#rows) return;
    while (this.#rows < workers) this.#rows *= 2;
    for (const { cells } of this.listenerById.values()) cells.grow(this.#rows);
    for (const { cells } of this.backendById.values()) cells.grow(this.#rows);
  }

  /** The records for a config: the active record if the entry is the same, otherwise a new one. Changes nothing. */
  draft(config: Config, connectionsMax: number, addresses: Addresses): Draft {
    const listeners = config.listeners.map((listener) => this.#draftListener(listener, connectionsMax));
    const pools = config.pools.map((pool) => {
      const old = this.pools.find(({ name }) => name === pool.name);
      const id = old?.id ?? this.#nextId();
      return {
        id,
        name: pool.name,
        config: pool,
        version: old?.version ?? 0,
        memory: this.arena.memory,
        hashTables: old?.hashTables ?? new HashTables(),
        queue: old?.queue ?? (pool.queue.size > 0 ? queueMemory() : null),
        changes: this.changes.ofPool(pool.name),
        backends: this.#draftBackends(pool, { id, old }, addresses),
      };
    });
    return { listeners, pools };
  }

  /** Keeps the active records until the next `release`, even if other records are committed. */
  hold(): Draft {
    this.#held = { listeners: this.listeners, pools: this.pools };
    return this.#held;
  }

  /** Call it when nothing will be restored any more. */
  release(): void {
    this.#held = null;
    this.#isSwept = false;
  }

  /** Makes the draft active. Pools get a new version, because their backends may have changed. */
  commit(draft: Draft): void {
    this.#isSwept = false;
    const active = new Map(this.pools.flatMap(({ backends }) => backends.map((backend) => [backend.id, backend])));
    this.listeners = draft.listeners;
    this.pools = draft.pools;
    for (const listener of draft.listeners) this.listenerById.set(listener.id, listener);
    for (const pool of draft.pools) {
      // Health may have changed since the draft was made.
      for (const backend of pool.backends) {
        const now = active.get(backend.id);
        if (isChecked(pool.config)) backend.up = now?.up ?? backend.up;
        if (pool.config.health.agent_port > 0) backend.agent = now?.agent ?? backend.agent;
        this.#remember(backend);
      }
      pool.version = Math.max(pool.version, this.poolById.get(pool.id)?.version ?? 0) + 1;
      this.poolById.set(pool.id, pool);
    }
  }

  /** Sets new addresses for the names of one pool. Returns the ids of the removed backends, or null if nothing changed. */
  readdress(pool: PoolRecord, addresses: Addresses): number[] | null {
    const before = pool.backends;
    const backends = this.#draftBackends(pool.config, { id: pool.id, old: pool }, addresses);
    if (backends.length === before.length && backends.every(({ id }, i) => id === before[i]?.id)) return null;
    this.#isSwept = false;
    pool.backends = backends;
    for (const backend of backends) this.#remember(backend);
    const kept = new Set(backends.map(({ id }) => id));
    return before.map(({ id }) => id).filter((id) => !kept.has(id));
  }

  #remember(backend: BackendRecord): void {
    this.backendById.set(backend.id, backend);
    this.#backendByKey.set(backend.key, backend);
  }

  /** The sum of the versions of all pools. Versions only rise, so a worker has the same sum only if it has the latest version of each. */
  get poolVersions(): number {
    return this.pools.reduce((sum, { version }) => sum + version, 0);
  }

  /**
   * Forgets records that have been in no config for long enough, once no connection counts on them. Call it regularly. True = a config
   * change is complete, and nothing from before it is left.
   */
  sweep(nowMs = performance.now()): boolean {
    if (this.#isSwept) return false;
    const inUse = new Set<object>();
    for (const { listeners, pools } of [this as Draft, ...(this.#held === null ? [] : [this.#held])]) {
      for (const listener of listeners) inUse.add(listener.cells);
      for (const { backends } of pools) for (const { cells } of backends) inUse.add(cells);
    }
    this.#forget(this.backendById, inUse, nowMs, nowMs - KEEP_MS - this.#lateMs());
    for (const [key, { id }] of this.#backendByKey) if (!this.backendById.has(id)) this.#backendByKey.delete(key);
    this.#forget(this.listenerById, inUse, nowMs, nowMs - KEEP_MS);
    for (const [id, pool] of this.poolById) {
      if (!this.pools.some((kept) => kept.id === id) && pool.backends.every((b) => !this.backendById.has(b.id))) {
        this.poolById.delete(id);
      }
    }
    this.#isSwept = this.#goneMs.size === 0;
    return this.#isSwept;
  }

  // A connection that began just before a reload reaches its last backend at most this much later.
  #lateMs(): number {
    let handshakeMs = 0;
    let dialMs = 0;
    for (const { config } of this.listenerById.values()) handshakeMs = Math.max(handshakeMs, config.timeouts.handshake);
    for (const { config, queue } of this.poolById.values()) {
      const queueMs = queue === null ? 0 : config.queue.timeout;
      dialMs = Math.max(dialMs, queueMs + (config.retries + 1) * config.connect_timeout);
    }
    return handshakeMs + dialMs;
  }

  #forget(
    records: Map<number, { readonly cells: Cells }>,
    inUse: ReadonlySet<object>,
    nowMs: number,
    beforeMs: number,
  ): void {
    for (const [id, { cells }] of records) {
      if (inUse.has(cells)) {
        this.#goneMs.delete(id);
        continue;
      }
      const goneMs = this.#goneMs.get(id) ?? nowMs;
      this.#goneMs.set(id, goneMs);
      if (goneMs > beforeMs || claimed(cells.open) > 0) continue;
      this.#goneMs.delete(id);
      records.delete(id);
      cells.free();
    }
  }

  #draftListener(config: ListenerConfig, connectionsMax: number): ListenerRecord {
    const old = this.listeners.find(({ name }) => name === config.name);
    const clients =
      old?.clients ?? (limitsClients(config) ? clientMemory(clientEntries(config, connectionsMax)) : null);
    return {
      id: old?.id ?? this.#nextId(),
      name: config.name,
      config,
      cells: old?.cells ?? new Cells(this.arena, this.#rows, LISTENER.size),
      clients,
      bandwidth: sharedBandwidth(config, clients, old?.bandwidth ?? null),
    };
  }

  #draftBackends(
    pool: PoolConfig,
    { id: poolId, old }: { id: number; old: PoolRecord | undefined },
    addresses: Addresses,
  ): BackendRecord[] {
    const known = new Map(old?.backends.map((backend) => [backend.key, backend]));
    const drafted = new Map<string, BackendRecord>();
    for (const config of pool.backends) {
      for (const { name, address } of expand(config, addresses)) {
        // Not the displayed name: that gets the address appended when a name has a second address.
        const key = `${poolId} ${config.name} ${address}`;
        if (drafted.has(key)) continue;
        const same = known.get(key);
        // One that was removed and comes back may still have connections, which count for its cap. The rest of its state is new.
        const counted = same ?? this.#backendByKey.get(key);
        drafted.set(key, {
          id: counted?.id ?? this.#nextId(),
          key,
          name,
          address,
          config,
          // A backend without health checks is up.
          up: !isChecked(pool) || (same?.up ?? isUpAtFirst(pool)),
          agent: (pool.health.agent_port > 0 ? same?.agent : null) ?? NOTHING_REPORTED,
          state: same?.state ?? firstState(pool, known.size > 0),
          cells: counted?.cells ?? new Cells(this.arena, this.#rows, BACKEND.size),
        });
      }
    }
    return [...drafted.values()];
  }

  #nextId(): number {
    return ++this.#lastId;
  }
}

function isChecked({ health: { type, agent_port } }: PoolConfig): boolean {
  return type !== "off" || agent_port > 0;
}

/** The state of a backend that has never been checked. */
function isUpAtFirst({ health: { type, initial, role } }: PoolConfig): boolean {
  return type === "off" || (initial === "up" && role === "");
}

// A backend that joins a serving pool ramps, like one that returns.
function firstState(pool: PoolConfig, joins: boolean): BackendState {
  const isRamping = joins && pool.slow_start > 0;
  return {
    sinceMs: Date.now(),
    hasServed: joins,
    ramp: isRamping ? RAMP_FROM : 1,
    rampFromMs: isRamping ? performance.now() : null,
    ejection: neverEjected(),
  };
}

export function limitsBandwidth({ bandwidth: { upload, download } }: ListenerConfig): boolean {
  return upload > 0 || download > 0;
}

/** Whether the listener needs a table of clients. */
function limitsClients(config: ListenerConfig): boolean {
  if (config.rate_limit !== null || config.max_connections_per_client > 0) return true;
  return limitsBandwidth(config) && config.bandwidth.per === "client";
}

// It stays the same across reloads while the number of connections that share it stays the same; open connections keep the limit that they
// began with.
function sharedBandwidth(
  config: ListenerConfig,
  clients: SharedArrayBuffer | null,
  old: SharedArrayBuffer | null,
): SharedArrayBuffer | null {
  const { per } = config.bandwidth;
  if (!limitsBandwidth(config) || per === "connection") return null;
  const entries = per === "client" && clients !== null ? entriesOf(clients) : 1;
  const memory = bandwidthMemory(entries);
  return old?.byteLength === memory.byteLength ? old : memory;
}

// A client with open connections keeps its entry, so the table has twice as many entries as there can be such clients.
function clientEntries(config: ListenerConfig, connectionsMax: number): number {
  const holders = Math.min(connectionsMax, config.max_connections || connectionsMax);
  return Math.min(CLIENT_ENTRIES_MAX, Math.max(CLIENT_ENTRIES_MIN, 2 * holders));
}

// A name with several addresses is one backend per address, each with a name of its own.
function expand(config: BackendConfig, addresses: Addresses): { name: string; address: string }[] {
  const { endpoint, name } = config;
  if (endpoint.kind !== "name") return [{ name, address: formatEndpoint(endpoint) }];
  const found = addresses(endpoint.host);
  return found.map((one) => {
    const address = formatHostPort(one, endpoint.port);
    return { name: found.length === 1 ? name : nameOfOne(name, address), address };
  });
}
