// Predicts what would happen to a client's connection: which limits apply, which route and pool it takes, which backend, and why not the
// others. Nothing is connected and nothing is claimed. The decisions use the workers' own code.
import { ClientPrefix } from "../core/client-prefix.ts";
import type { End } from "../core/ends.ts";
import { cidrTable } from "../core/cidr-set.ts";
import { formatCidr, type Cidr } from "../core/address.ts";
import type { ListenerConfig } from "../config/schema.ts";
import { failure, type Result } from "../admin/operations.ts";
import type { ExplainedCandidate, ExplainedLimit, ExplainQuery, Explanation } from "../observe/live.ts";
import { monotonicMs } from "../platform/clock.ts";
import { isAllowed, isDenied } from "../policy/address-lists.ts";
import { createBalancer } from "../policy/balance.ts";
import { isFree, type Candidate } from "../policy/candidate.ts";
import { chooseRoute, nameMatches } from "../policy/route.ts";
import type { Tier } from "../policy/tiers.ts";
import { bucketSize, tokenIntervalNs, tokensLeft } from "../policy/token-bucket.ts";
import { claimed } from "../shared/cells.ts";
import { ClientTable } from "../shared/clients.ts";
import { SharedQueue } from "../shared/queue.ts";
import { hashTable } from "./plans.ts";
import { orderOf, poolTiers, tierInput } from "./pool-tiers.ts";
import { ejectionReason } from "./reasons.ts";
import type { BackendRecord, ListenerRecord, PoolRecord, Registry } from "./registry.ts";

export interface ExplainSources {
  registry: Registry;
  /** Connections of the whole process, and its cap. */
  open: number;
  maxConnections: number;
  /** Why the last check of a backend failed, or that its agent says down; null = neither. */
  lastError: (backend: number) => string | null;
}

export function explain(query: ExplainQuery, sources: ExplainSources): Result<Explanation> {
  const { listeners, pools } = sources.registry;
  const listener = listeners.find(({ name }) => name === query.listener);
  if (listener === undefined) {
    const names = listeners.map(({ name }) => name).join(", ");
    const detail = `there is no listener ${JSON.stringify(query.listener)}`;
    return failure("no_such_listener", detail, `the listeners are ${names}`);
  }
  // In the form of a ledger row: the address, and the port, which is unknown.
  const words = Int32Array.of(...query.client, 0);
  const limits = limitsOf(listener, words, query, sources);
  const refusal = limits.find(({ verdict }) => verdict === "refuses") ?? null;
  const routed = routeOf(listener.config, query);
  const pool = pools.find(({ name }) => name === routed.pool) ?? null;
  const choice = pool === null ? NO_POOL : choose(pool, listener.config, words, query.sni, sources);
  const end = refusal?.end ?? choice.end;
  return {
    ok: true,
    value: {
      outcome: refusal === null ? choice.outcome : `is refused: ${refusal.detail}`,
      end,
      limits,
      route: routed.route,
      pool: pool?.name ?? null,
      backend: refusal === null && end === null ? choice.backend : null,
      candidates: choice.candidates,
    },
  };
}

// ---------------------------------------------------------------------- limits

function limitsOf(
  { config, cells, clients }: ListenerRecord,
  words: Int32Array,
  query: ExplainQuery,
  { registry, open, maxConnections }: ExplainSources,
): ExplainedLimit[] {
  const lists = { allow: cidrTable(config.allow), deny: cidrTable(config.deny) };
  const limits: ExplainedLimit[] = [];
  if (registry.changes.isDrained(config.name)) limits.push(DRAINED);
  if (lists.deny !== null) limits.push(listed("deny", isDenied(lists, words, 0), config.deny));
  if (lists.allow !== null) limits.push(listed("allow", !isAllowed(lists, words, 0), config.allow));
  limits.push(cap("max_connections of the process", "process_full", open, maxConnections));
  if (config.max_connections > 0)
    limits.push(cap("max_connections", "listener_full", claimed(cells.open), config.max_connections));
  if (clients !== null) limits.push(...clientLimits(config, new ClientTable(clients), words));
  if (config.tls !== null) limits.push(...tlsConditions(config.tls, query));
  return limits;
}

/** The kernel refuses the client, so the connection has no end in the log. */
const DRAINED: ExplainedLimit = {
  limit: "state",
  verdict: "refuses",
  end: null,
  current: null,
  max: null,
  detail: "an operator has drained the listener, which accepts no connections",
};

function listed(limit: "allow" | "deny", refuses: boolean, networks: readonly Cidr[]): ExplainedLimit {
  const is = (limit === "deny") === refuses ? "is" : "is not";
  const detail = `the client ${is} in \`${limit}\` (${shortened(networks.map(formatCidr))})`;
  return limitOf(limit, refuses ? "denied" : null, detail);
}

function cap(limit: string, end: End, current: number, max: number, dryRun = false): ExplainedLimit {
  return limitOf(limit, current >= max ? end : null, `${current} of ${max} connections are open`, {
    current,
    max,
    dryRun,
  });
}

function clientLimits(config: ListenerConfig, table: ClientTable, words: Int32Array): ExplainedLimit[] {
  const { max_connections_per_client: maxOpen, rate_limit: rate, dry_run: dryRun } = config;
  const { w0, w1, w2, w3 } = new ClientPrefix(config.client_prefix).of(words, 0);
  const { open, fullAtNs } = table.peek(w0, w1, w2, w3);
  const limits: ExplainedLimit[] = [];
  if (maxOpen > 0) {
    const isDry = dryRun.includes("max_connections_per_client");
    limits.push(cap("max_connections_per_client", "client_full", open, maxOpen, isDry));
  }
  if (rate !== null) {
    const intervalNs = tokenIntervalNs(rate.rate);
    const left = tokensLeft(fullAtNs, monotonicMs() * 1e6, intervalNs, bucketSize(rate.burst, intervalNs));
    const detail = `${left} of ${rate.burst} new connections are left to the client`;
    const more = { current: left, max: rate.burst, dryRun: dryRun.includes("rate_limit") };
    limits.push(limitOf("rate_limit", left < 1 ? "rate_limited" : null, detail, more));
  }
  return limits;
}

/** What TLS that is terminated here requires of a ClientHello. */
function tlsConditions(tls: NonNullable<ListenerConfig["tls"]>, { sni, alpn }: ExplainQuery): ExplainedLimit[] {
  const limits: ExplainedLimit[] = [];
  if (tls.unknown_sni === "reject") {
    const known = sni !== null && tls.certificates.some(({ names }) => names.some((name) => nameMatches(name, sni)));
    const detail = known ? `a certificate has the name ${sni}` : `no certificate has the name ${sni ?? "(none)"}`;
    limits.push(limitOf("tls.unknown_sni", known ? null : "handshake_failed", detail));
  }
  if (tls.alpn.length > 0 && alpn.length > 0) {
    const agreed = agreedAlpn(tls.alpn, alpn);
    const detail = agreed === null ? `only ${tls.alpn.join(", ")} are spoken here` : `${agreed} is agreed on`;
    limits.push(limitOf("tls.alpn", agreed === null ? "handshake_failed" : null, detail));
  }
  return limits;
}

function limitOf(
  limit: string,
  end: End | null,
  detail: string,
  {
    current = null,
    max = null,
    dryRun = false,
  }: { current?: number | null; max?: number | null; dryRun?: boolean } = {},
): ExplainedLimit {
  if (end === null) return { limit, verdict: "passes", end, current, max, detail };
  if (dryRun) return { limit, verdict: "would refuse", end: null, current, max, detail: `${detail} (dry_run)` };
  return { limit, verdict: "refuses", end, current, max, detail };
}

// ---------------------------------------------------------------------- route

function routeOf(
  config: ListenerConfig,
  { client, sni, alpn }: ExplainQuery,
): { route: string | null; pool: string | null } {
  const [w0, w1, w2, w3] = client;
  // If TLS is terminated here, routes see the negotiated protocol.
  const agreed = config.tls === null ? alpn : [agreedAlpn(config.tls.alpn, alpn)].filter((name) => name !== null);
  const facts = { sni, alpn: agreed, w0, w1, w2, w3 };
  for (const [index, route] of config.routes.entries()) {
    const alone = { sni: route.sni, alpn: route.alpn, clients: cidrTable(route.clients), pool: index };
    if (chooseRoute([alone], facts) < 0) continue;
    const conditions = [
      ["sni", route.sni] as const,
      ["alpn", route.alpn] as const,
      ["clients", route.clients.map(formatCidr)] as const,
    ].flatMap(([name, values]) => (values.length > 0 ? `${name} = ${shortened(values)}` : []));
    return { route: `routes[${index}]: ${conditions.join("; ") || "any client"}`, pool: route.pool };
  }
  return { route: null, pool: config.pool };
}

/** The first of the listener's protocols that the client offers (RFC 7301 section 3.2). */
function agreedAlpn(ours: readonly string[], offered: readonly string[]): string | null {
  return ours.find((name) => offered.includes(name)) ?? null;
}

// ---------------------------------------------------------------------- backend

interface Choice {
  outcome: string;
  end: End | null;
  backend: string | null;
  candidates: ExplainedCandidate[];
}

const NO_POOL: Choice = {
  outcome: "is refused: no route matches and the listener has no pool",
  end: "no_route",
  backend: null,
  candidates: [],
};

/** A backend of the first tier, in the form that the workers' balancers see. */
interface Pickable extends Candidate {
  readonly record: BackendRecord;
}

function choose(
  pool: PoolRecord,
  { client_prefix }: ListenerConfig,
  words: Int32Array,
  sni: string | null,
  { lastError }: ExplainSources,
): Choice {
  const [tier] = poolTiers(pool);
  const pickable = tier === undefined ? [] : pickablesOf(tier, pool);
  const free = pickable.filter((one) => isFree(one, null));
  const hashKey = (): number => new ClientPrefix(client_prefix).hashOf(words, 0, pool.config.hash_key, sni ?? "");
  const chosen = tier === undefined ? null : certain(pool, tier, pickable, hashKey);
  const candidates = pool.backends.map((backend) => {
    const one = pickable.find(({ record }) => record === backend);
    const usable = one !== undefined && free.includes(one);
    const reason = usable
      ? whyUsable(pool, one, chosen, tier?.panic === true)
      : whyNot(pool, backend, one !== undefined, lastError(backend.id));
    return { backend: backend.name, usable, reason };
  });
  const common = { candidates, backend: chosen?.record.name ?? null };
  if (tier === undefined)
    return { ...common, end: "no_backend", outcome: `is refused: no backend of ${pool.name} is up` };
  const waiting = pool.queue === null ? 0 : new SharedQueue(pool.queue).waiting;
  // While connections wait, a free place belongs to them.
  if (free.length === 0 || waiting > 0) return { ...common, backend: null, ...whenFull(pool, waiting) };
  const where = chosen === null ? `one of ${free.length} backends (${pool.config.balance})` : chosen.record.name;
  return { ...common, end: null, outcome: `goes to ${where} of pool ${pool.name}` };
}

function pickablesOf(tier: Tier, { backends }: PoolRecord): Pickable[] {
  return tier.entries.flatMap(({ id, effectiveWeight }) => {
    const record = backends.find((backend) => backend.id === id);
    if (record === undefined) return [];
    const { cells, config } = record;
    const open = claimed(cells.open);
    const full = config.max_connections > 0 && open >= config.max_connections;
    return {
      id,
      record,
      weight: effectiveWeight,
      openCount: () => open,
      full: () => full,
      latencyMs: () => 0,
      slot: 0,
    };
  });
}

/** The backend that every worker would pick; null = the pick depends on turns, on chance, or on the state of one worker. */
function certain(pool: PoolRecord, tier: Tier, pickable: readonly Pickable[], hashKey: () => number): Pickable | null {
  const { balance, hash_key } = pool.config;
  const free = pickable.filter((one) => isFree(one, null));
  if (free.length === 1) return free[0]!;
  // The port is unknown.
  const isCertain = balance === "first" || (balance === "source_hash" && hash_key !== "client_port");
  if (!isCertain) return null;
  const table = hashTable(pool, tier.priority)?.table ?? null;
  const sources = { nowMs: () => 0, random: () => 0 };
  const balancer = createBalancer(pickable, { balance, startAt: 0, sources, table }, null);
  return balancer.pick({ tried: null, hashKey });
}

function whenFull({ name, config }: PoolRecord, waiting: number): Pick<Choice, "end" | "outcome"> {
  const { size } = config.queue;
  const queue = `the queue of pool ${name}, where ${waiting} of ${size} connections wait`;
  if (waiting < size) return { end: null, outcome: `waits in ${queue}` };
  const full = `is refused: every usable backend of pool ${name} is full`;
  return { end: "queue_full", outcome: size === 0 ? full : `${full}, and so is ${queue}` };
}

function whyUsable({ config }: PoolRecord, one: Pickable, chosen: Pickable | null, panic: boolean): string {
  const { balance } = config;
  const state = panic ? "; health is ignored, because too few backends are up (panic_threshold)" : "";
  if (one === chosen) {
    if (balance === "source_hash") return `the client's hash selects this backend${state}`;
    return (balance === "first" ? "the first that is usable" : "the only one that is usable") + state;
  }
  if (balance === "source_hash" && chosen !== null)
    return `usable, but the client's hash selects another backend${state}`;
  if (balance === "first") return `usable, but another one comes first${state}`;
  return `a candidate of ${balance}${state}`;
}

function whyNot(pool: PoolRecord, backend: BackendRecord, inTier: boolean, lastError: string | null): string {
  const { config, agent, cells } = backend;
  if (inTier) return `full: ${claimed(cells.open)} of ${config.max_connections} connections are open`;
  const { drained, weight, healthUp, ejected } = tierInput(pool, backend);
  const order = orderOf(pool, backend);
  if (order.state !== "ready") return `taken out by an operator (${order.state})`;
  if (drained) return `taken out by its agent (${agent.state})`;
  if (weight === 0) {
    if (order.weight === 0) return `its weight is 0 by an operator (the file says ${config.weight})`;
    return config.weight === 0 ? "its weight is 0" : "its weight is 0 by its agent";
  }
  if (!healthUp) return `down: ${lastError ?? "its health checks have failed"}`;
  if (ejected) return `ejected: ${ejectionReason(pool, backend)} (passive health)`;
  return "a backup, and a primary is usable";
}

const NAMES_MAX = 3;

function shortened(names: readonly string[]): string {
  const more = names.length > NAMES_MAX ? ` and ${names.length - NAMES_MAX} more` : "";
  return names.slice(0, NAMES_MAX).join(", ") + more;
}
