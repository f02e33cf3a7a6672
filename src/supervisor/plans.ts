// Messages to workers, made from the records in the registry: plans of listeners and pools, and the new state of a pool.
import { cidrTable } from "../core/cidr-set.ts";
import { parseEndpoint } from "../core/address.ts";
import type { ListenerTlsConfig, PoolTlsConfig } from "../config/schema.ts";
import type {
  BackendPlan,
  BandwidthPlan,
  ListenerPlan,
  PoolPlan,
  PoolState,
  PoolTier,
  TlsServerPlan,
} from "../messages.ts";
import { maySelfConnect } from "../platform/own-addresses.ts";
import type { TlsClientPlan } from "../platform/tls-client.ts";
import type { MadeTable } from "./hash-tables.ts";
import { limitsBandwidth, type BackendRecord, type ListenerRecord, type PoolRecord } from "./registry.ts";
import { orderOf, poolTiers } from "./pool-tiers.ts";

export function listenerPlan(record: ListenerRecord, pools: readonly PoolRecord[]): ListenerPlan {
  const { config } = record;
  return {
    id: record.id,
    name: record.name,
    pool: pools.find(({ name }) => name === config.pool)?.id ?? -1,
    proxyProtocol: config.proxy_protocol,
    trustedProxies: cidrTable(config.trusted_proxies),
    tls: config.tls && serverTlsPlan(config.tls),
    routes: config.routes.map(({ sni, alpn, clients, pool }) => ({
      sni,
      alpn,
      clients: cidrTable(clients),
      pool: pools.find(({ name }) => name === pool)?.id ?? -1,
    })),
    hashesSni: [config.pool, ...config.routes.map(({ pool }) => pool)].some((name) => hashesSni(pools, name)),
    allow: cidrTable(config.allow),
    deny: cidrTable(config.deny),
    clientPrefix: config.client_prefix,
    maxConnections: config.max_connections,
    maxConnectionsPerClient: config.max_connections_per_client,
    rateLimit: config.rate_limit,
    overLimit: config.over_limit,
    onAbort: config.on_abort,
    buffer: config.buffer,
    bandwidth: bandwidthPlan(record),
    dryRun: config.dry_run,
    timeoutsMs: {
      handshake: config.timeouts.handshake,
      idle: config.timeouts.idle,
      halfClose: config.timeouts.half_close,
      lifetime: config.timeouts.lifetime,
    },
    open: record.cells.open,
    counters: record.cells.counters,
    clients: record.clients,
  };
}

function bandwidthPlan({ config, bandwidth: memory }: ListenerRecord): BandwidthPlan | null {
  const { upload, download, per } = config.bandwidth;
  return limitsBandwidth(config) ? { upload, download, per, memory } : null;
}

function hashesSni(pools: readonly PoolRecord[], name: string | null): boolean {
  const config = pools.find((pool) => pool.name === name)?.config;
  return config?.balance === "source_hash" && config.hash_key === "sni";
}

function serverTlsPlan(tls: ListenerTlsConfig): TlsServerPlan {
  return {
    certificates: tls.certificates.map(({ cert_pem, key_pem, names }) => ({ cert: cert_pem, key: key_pem, names })),
    unknownSni: tls.unknown_sni,
    minVersion: tls.min_version,
    ciphers: tls.ciphers,
    alpn: tls.alpn,
    clientAuth: tls.client_auth,
    clientCa: tls.client_ca_pem,
    clientCrl: tls.client_crl_pem,
  };
}

/** TLS settings towards the backends of a pool, for the workers and the health checks. */
export function clientTlsPlan(tls: PoolTlsConfig): TlsClientPlan {
  return {
    verify: tls.verify,
    ca: tls.ca_pem,
    serverName: tls.server_name,
    alpn: tls.alpn,
    minVersion: tls.min_version,
    cert: tls.cert_pem,
    key: tls.key_pem,
  };
}

export function poolPlan(record: PoolRecord): PoolPlan {
  const { config } = record;
  return {
    id: record.id,
    name: record.name,
    balance: config.balance,
    hashKey: config.hash_key,
    connectTimeoutMs: config.connect_timeout,
    retries: config.retries,
    sourceAddress: config.source_address,
    onDown: config.on_down,
    keepaliveMs: config.keepalive,
    sendProxy: config.send_proxy,
    tls: config.tls && clientTlsPlan(config.tls),
    passive: config.passive && {
      connect: config.passive.count.includes("connect"),
      earlyReset: config.passive.count.includes("early_reset"),
    },
    queue: { size: config.queue.size, timeoutMs: config.queue.timeout, memory: record.queue },
    backends: record.backends.map(backendPlan),
    memory: record.memory,
    tiers: tierPlans(record),
    version: record.version,
  };
}

/** The complete state of a pool for the workers, after a change of health. */
export function poolState(record: PoolRecord): PoolState {
  const down = record.backends.filter(({ up }) => !up).map(({ id }) => id);
  return {
    kind: "pool",
    pool: record.id,
    version: record.version,
    tiers: tierPlans(record),
    down,
    backends: null,
    memory: record.memory,
  };
}

/** The complete state with all backends, which have changed; `removed` are the ids of those whose addresses are gone. */
export function readdressedState(record: PoolRecord, removed: readonly number[]): PoolState {
  const state = poolState(record);
  return { ...state, down: [...state.down, ...removed], backends: record.backends.map(backendPlan) };
}

function backendPlan(record: BackendRecord): BackendPlan {
  const { id, name, address, config, cells } = record;
  return {
    id,
    name,
    address,
    host: hostOf(record),
    maxConnections: config.max_connections,
    maySelfConnect: maySelfConnect(parseEndpoint(address)),
    openAt: cells.openAt,
    countersAt: cells.countersAt,
  };
}

/** The backend's host name in the config, "" if the config has an IP address or a unix socket. */
export function hostOf({ config: { endpoint } }: BackendRecord): string {
  return endpoint.kind === "name" ? endpoint.host : "";
}

function tierPlans(pool: PoolRecord): PoolTier[] {
  return poolTiers(pool).map(({ priority, entries }) => ({ entries, table: hashTable(pool, priority)?.table ?? null }));
}

/**
 * The Maglev table over the primaries (priority 0) or the backups (1) of a pool; null if the pool does not hash. A backend with the
 * operator's weight 0 keeps its place, like a drained one: only its own clients go elsewhere.
 */
export function hashTable(pool: PoolRecord, priority: number): MadeTable | null {
  const { config, backends, hashTables } = pool;
  if (config.balance !== "source_hash") return null;
  const members = backends
    .filter(({ config: { backup } }) => Number(backup) === priority)
    .map((backend) => ({
      id: backend.id,
      name: backend.name,
      weight: orderOf(pool, backend).weight || backend.config.weight,
    }));
  return hashTables.of(
    priority,
    members.filter(({ weight }) => weight > 0),
  );
}
