// Valid configs that are probably a mistake.
import { formatEndpoint, type Endpoint } from "../core/address.ts";
import { canRamp } from "../core/balance.ts";
import type { DryRunLimit } from "../core/dry-run.ts";
import { isLoopback, isV4, isWildcard, listenerBinds } from "./check.ts";
import type { Finding, Subject } from "./finding.ts";
import { absoluteEndpoint } from "./paths.ts";
import { formatPath } from "./problem.ts";
import type { KeyPath } from "./problem.ts";
import type { FileListener, FilePool } from "./schema.ts";
import { formatDuration } from "./units.ts";

type Report = (path: KeyPath, message: string) => void;

/** All warnings about the sound parts of a config. */
export function warnings(subject: Subject): Finding[] {
  const { config, isWhole } = subject;
  const findings: Finding[] = [];
  const report: Report = (path, message) => findings.push({ path, message, warning: true });
  if (!isWhole(["pools"])) return findings;
  for (const pool of config.pools) {
    warnOfHealth(subject, pool, report);
    warnOfNoHealth(subject, pool, report);
    warnOfBalance(subject, pool, report);
    warnOfQueue(subject, pool, report);
  }
  if (!isWhole(["listeners"])) return findings;
  const pools = new Map(config.pools.map((pool) => [pool.name, pool]));
  for (const listener of config.listeners) {
    warnOfCircle(subject, listener, pools, report);
    warnOfAlpn(subject, listener, pools, report);
    warnOfDryRun(subject, listener, report);
  }
  return findings;
}

function warnOfHealth({ isSound }: Subject, { name, health }: FilePool, report: Report): void {
  const path = ["pools", name, "health"];
  if (!isSound(path) || health.type === "off") return;
  const [timeout, interval] = [formatDuration(health.timeout), formatDuration(health.interval)];
  if (health.fast_interval > health.interval) {
    report(
      [...path, "fast_interval"],
      `is longer than the interval of ${interval}: checks slow down when a backend fails`,
    );
  }
  if (health.timeout <= health.interval) return;
  report(
    [...path, "timeout"],
    `${timeout} is longer than the interval of ${interval}: checks of slow backends take place less often than the interval says`,
  );
}

/** Options about backends that are down, where nothing finds a backend down. */
function warnOfNoHealth({ isSound }: Subject, pool: FilePool, report: Report): void {
  const path = ["pools", pool.name];
  const { health, passive, on_down, panic_threshold } = pool;
  if (!isSound([...path, "health"]) || health.type !== "off" || health.agent_port > 0) return;
  if (on_down === "reset" && isSound([...path, "on_down"])) {
    report([...path, "on_down"], 'has no effect: health.type is "off", so no backend goes down');
  }
  if (
    panic_threshold > 0 &&
    passive === null &&
    isSound([...path, "panic_threshold"]) &&
    isSound([...path, "passive"])
  ) {
    report([...path, "panic_threshold"], 'has no effect: health.type is "off", and there is no passive');
  }
}

/** Limits in `dry_run` that are not configured. */
function warnOfDryRun({ isSound }: Subject, listener: FileListener, report: Report): void {
  const path = ["listeners", listener.name];
  if (!isSound([...path, "dry_run"])) return;
  for (const [index, limit] of listener.dry_run.entries()) {
    if (isSound([...path, limit]) && !hasLimit(listener, limit)) {
      report([...path, "dry_run", index], `has no effect: the listener has no ${limit}`);
    }
  }
}

function hasLimit(listener: FileListener, limit: DryRunLimit): boolean {
  if (limit === "rate_limit") return listener.rate_limit !== null;
  if (limit === "max_connections_per_client") return listener.max_connections_per_client > 0;
  return listener.bandwidth.upload > 0 || listener.bandwidth.download > 0;
}

/** Options that the pool's algorithm ignores. */
function warnOfBalance({ isSound }: Subject, pool: FilePool, report: Report): void {
  const path = ["pools", pool.name];
  if (!isSound([...path, "balance"])) return;
  if (pool.hash_key !== "client" && pool.balance !== "source_hash" && isSound([...path, "hash_key"])) {
    report([...path, "hash_key"], `has no effect: balance is "${pool.balance}"`);
  }
  if (!canRamp(pool.balance) && isSound([...path, "slow_start"]) && pool.slow_start > 0) {
    report([...path, "slow_start"], `has no effect: balance is "${pool.balance}"`);
  }
  if (pool.balance !== "first" || !isSound([...path, "backends"])) return;
  const { backends } = pool;
  for (const [index, { weight }] of backends.entries()) {
    // 0 = no new connections, with every algorithm.
    if (weight > 1) report([...path, "backends", index, "weight"], 'has no effect: balance is "first"');
  }
  if (backends.length > 1 && backends[0]!.max_connections === 0) {
    report([...path, "backends", 0], 'has no max_connections: with balance = "first" it gets every connection');
  }
}

/** A queue that is never used, because no backend is ever full. */
function warnOfQueue({ isSound }: Subject, { name, queue, backends }: FilePool, report: Report): void {
  const path = ["pools", name];
  if (!isSound([...path, "queue"]) || queue.size === 0 || !isSound([...path, "backends"])) return;
  if (backends.some(({ max_connections }) => max_connections > 0)) return;
  report([...path, "queue"], "has no effect: no backend has max_connections");
}

/** A listener whose pool contains the listener itself: each connection would open another one, without end. */
function warnOfCircle(subject: Subject, listener: FileListener, pools: Map<string, FilePool>, report: Report): void {
  const binds = [...listenerBinds(subject, listener)].map(({ endpoint }) => endpoint);
  for (const name of poolNames(subject, listener)) {
    const path = ["pools", name, "backends"];
    if (!subject.isWhole(path)) continue;
    for (const [index, { address }] of (pools.get(name)?.backends ?? []).entries()) {
      if (!subject.isSound([...path, index])) continue;
      const backend = absoluteEndpoint(subject.folder, address);
      if (!binds.some((bind) => reaches(backend, bind))) continue;
      const what = `${formatEndpoint(address)} is ${formatPath(["listeners", listener.name])} itself, which uses this pool`;
      report([...path, index], `${what}: each connection would open another one, without end`);
    }
  }
}

/** A client that has negotiated h2 with lb speaks it, whatever the backend has negotiated with lb. */
function warnOfAlpn(subject: Subject, listener: FileListener, pools: Map<string, FilePool>, report: Report): void {
  const path = ["listeners", listener.name, "tls", "alpn"];
  if (!subject.isSound(path) || listener.tls === null || !listener.tls.alpn.includes("h2")) return;
  for (const name of poolNames(subject, listener, "h2")) {
    const tls = ["pools", name, "tls"];
    const alpn = subject.isSound([...tls, "alpn"]) && subject.isWhole(tls) ? (pools.get(name)?.tls?.alpn ?? []) : [];
    if (alpn.length === 0 || alpn.includes("h2")) continue;
    report(
      path,
      `has "h2", and ${formatPath([...tls, "alpn"])} does not: clients will use h2 with backends that may not support it`,
    );
  }
}

/** The pools that a listener can route to; with `alpn` only those for connections that may have negotiated it. */
function poolNames({ isWhole, isSound }: Subject, listener: FileListener, alpn?: string): Set<string> {
  const { name, pool, routes } = listener;
  const names = new Set<string>();
  if (isWhole(["listeners", name, "pool"]) && pool !== null) names.add(pool);
  if (!isWhole(["listeners", name, "routes"])) return names;
  for (const [index, route] of routes.entries()) {
    const at = ["listeners", name, "routes", index];
    if (!isWhole([...at, "pool"]) || !isSound([...at, "alpn"])) continue;
    if (alpn === undefined || route.alpn.length === 0 || route.alpn.includes(alpn)) names.add(route.pool);
  }
  return names;
}

/** Whether a connect to `to` reaches the listener on `bind`, as far as this machine's addresses are known: its loopback. */
function reaches(to: Endpoint, bind: Endpoint): boolean {
  if (!("port" in to) || !("port" in bind)) return formatEndpoint(to) === formatEndpoint(bind);
  if (to.port !== bind.port) return false;
  if (to.kind === "name") return to.host === "localhost" && (isWildcard(bind) || isOnLoopback(bind));
  if (bind.kind === "any") return isOnLoopback(to);
  if (to.kind !== "ip" || bind.kind !== "ip" || isV4(to.address) !== isV4(bind.address)) return false;
  return isWildcard(bind) ? isOnLoopback(to) : formatEndpoint(to) === formatEndpoint(bind);
}

function isOnLoopback(endpoint: Endpoint): boolean {
  return endpoint.kind === "ip" && isLoopback(endpoint.address);
}
