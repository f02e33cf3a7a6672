// Checks that concern several options: references between sections, duplicate addresses, contradictions. They also run on configs
// with faults, so that all problems are reported at once, and then check only the sound parts.
import { formatCidr, formatEndpoint, isIPv4, parseAddress, UNIX_NAME_BYTES_MAX } from "../core/address.ts";
import type { Address, Endpoint } from "../core/address.ts";
import { checkHealth } from "./check-health.ts";
import type { Finding, Subject } from "./finding.ts";
import { notSupportedYet, quote } from "./wording.ts";
import { absoluteEndpoint } from "./paths.ts";
import { formatPath } from "./problem.ts";
import type { KeyPath } from "./problem.ts";
import type { FileConfig, FileListener } from "./schema.ts";
import { closest } from "./suggest.ts";

type Report = (finding: Finding) => void;

/** All problems of the config as a whole. */
export function check(subject: Subject): Finding[] {
  const findings: Finding[] = [];
  const report: Report = (finding) => findings.push(finding);
  checkAdmin(subject, report);
  checkLog(subject, report);
  checkBinds(subject, report);
  checkListeners(subject, report);
  checkProxyProtocol(subject, report);
  checkPools(subject, report);
  if (subject.isWhole(["pools"])) checkHealth(subject, report);
  return findings;
}

function checkAdmin({ config, isSound }: Subject, report: Report): void {
  if (!isSound(["admin"]) || !config.admin.enabled || config.admin.token_file !== "") return;
  const { bind, read_token_file: reading } = config.admin;
  if (reading !== "") {
    const message = "needs token_file: without that token everyone may read and change";
    report({ path: ["admin", "read_token_file"], message });
  }
  if (bind.kind === "unix" || bind.kind === "abstract" || (bind.kind === "ip" && isLoopback(bind.address))) return;
  const message = `admin.token_file is required, because other machines can reach ${formatEndpoint(bind)}; or bind to 127.0.0.1 or a unix socket`;
  report({ path: ["admin", "bind"], message });
}

/** Values of log.access that name no file. */
export const ACCESS_WORDS = ["stdout", "stderr", "syslog", "off"];

function checkLog({ config, isSound, folder }: Subject, report: Report): void {
  if (isSound(["log", "syslog"]))
    checkUnixPath(absoluteEndpoint(folder, config.log.syslog.endpoint), ["log", "syslog"], report);
  if (!isSound(["log", "access"])) return;
  const { access } = config.log;
  if (ACCESS_WORDS.includes(access) || /[./]/.test(access)) return;
  const meant = closest(access, ACCESS_WORDS);
  if (meant === null) return;
  const message = `${quote(access)} is used as the name of a file`;
  report({ path: ["log", "access"], message, hint: `did you mean ${quote(meant)}?`, warning: true });
}

/** An address that something listens on. */
interface Bound {
  path: KeyPath;
  endpoint: Endpoint;
}

function checkBinds(subject: Subject, report: Report): void {
  const { config, isSound, folder } = subject;
  const bounds = subject.isWhole(["listeners"])
    ? config.listeners.flatMap((listener) => [...listenerBinds(subject, listener)])
    : [];
  if (isSound(["admin", "enabled"]) && isSound(["admin", "bind"]) && config.admin.enabled) {
    // First, so that the problem is reported at the listener: the admin endpoint may not be in the file.
    bounds.unshift({ path: ["admin", "bind"], endpoint: absoluteEndpoint(folder, config.admin.bind) });
  }
  const taken = new Map<string, Bound>();
  for (const bound of bounds) {
    checkUnixPath(bound.endpoint, bound.path, report);
    const { endpoint } = bound;
    const other = footprint(endpoint)
      .map((key) => taken.get(key))
      .find((found) => found !== undefined);
    for (const key of footprint(endpoint)) if (!taken.has(key)) taken.set(key, bound);
    if (other !== undefined) {
      const same = formatEndpoint(other.endpoint);
      const what =
        same === formatEndpoint(endpoint) ? same : `${formatEndpoint(endpoint)} overlaps with ${same}, which`;
      report({ path: bound.path, message: `${what} is already taken by ${formatPath(other.path)}` });
    }
  }
  checkAdminOverlap(bounds, report);
}

/** The sound addresses of one listener. */
export function* listenerBinds(subject: Subject, { name, bind }: FileListener): Generator<Bound> {
  const { isSound, isWhole, isArray, folder } = subject;
  const path = ["listeners", name, "bind"];
  if (!isWhole(path)) return;
  for (const [index, endpoint] of bind.entries()) {
    const at = isArray(path) ? [...path, index] : path;
    if (isSound(at)) yield { path: at, endpoint: absoluteEndpoint(folder, endpoint) };
  }
}

/**
 * The address that a listener occupies. A wildcard and one address of its port do not collide: with SO_REUSEPORT both can be bound, and
 * the kernel prefers the more specific one. ":80" is the wildcard of both families, "[::]:80" that of IPv6 alone.
 */
function footprint(endpoint: Endpoint): string[] {
  return endpoint.kind === "any" ? [`0.0.0.0:${endpoint.port}`, `[::]:${endpoint.port}`] : [formatEndpoint(endpoint)];
}

/** The admin endpoint cannot share a port with a wildcard: its socket is not part of a SO_REUSEPORT group. */
function checkAdminOverlap(bounds: readonly Bound[], report: Report): void {
  const admin = bounds.find((bound) => bound.path[0] === "admin");
  if (admin === undefined || !("port" in admin.endpoint)) return;
  const { port } = admin.endpoint;
  const own = footprint(admin.endpoint);
  for (const { path, endpoint } of bounds) {
    if (path[0] === "admin" || !("port" in endpoint) || endpoint.port !== port) continue;
    const isTold = footprint(endpoint).some((key) => own.includes(key));
    if (isTold || (!isWildcard(endpoint) && !isWildcard(admin.endpoint))) continue;
    const what = `${formatEndpoint(endpoint)} overlaps with ${formatEndpoint(admin.endpoint)}`;
    report({ path, message: `${what}, which is already taken by ${formatPath(admin.path)}` });
  }
}

/** The pool that a transparent listener will have without a definition. */
const ORIGINAL_DESTINATION = "original_destination";

function checkListeners(subject: Subject, report: Report): void {
  const { config, isSound, isWhole } = subject;
  if (!isWhole(["listeners"])) return;
  if (config.listeners.length === 0) {
    const message = 'expected at least one listener, found none: add [listeners.web] with bind = ":8080" and a pool';
    report({ path: ["listeners"], message });
  }
  const pools = isWhole(["pools"]) ? config.pools.map((pool) => pool.name) : null;
  const known = pools && new Set(pools);
  const used = new Set<string>();
  for (const { path, pool } of poolsNamed(subject)) {
    used.add(pool);
    if (pools === null || known?.has(pool) === true) continue;
    if (pool === ORIGINAL_DESTINATION) {
      report({ path, message: `${quote(pool)} is ${notSupportedYet}` });
      continue;
    }
    const meant = closest(pool, pools);
    const have = pools.length === 0 ? "there are no pools" : `there is no pool ${quote(pool)}`;
    const message = `expected the name of a pool, found ${quote(pool)}: ${have}`;
    report({ path, message, ...(meant !== null && { hint: `did you mean ${quote(meant)}?` }) });
  }
  for (const listener of config.listeners) {
    const path = ["listeners", listener.name];
    if (!isSound([...path, "routes"])) continue;
    checkRoutes(listener, report);
    if (isWhole([...path, "pool"]) && listener.pool === null && listener.routes.length === 0)
      report({ path, message: "has no pool and no routes, so its connections are refused", warning: true });
  }
  const isTold = config.listeners.every(
    ({ name }) => isSound(["listeners", name, "pool"]) && isSound(["listeners", name, "routes"]),
  );
  if (pools === null || !isTold) return;
  for (const name of pools) {
    if (!used.has(name)) report({ path: ["pools", name], message: "no listener uses this pool", warning: true });
  }
}

/** Every reference to a pool, in a listener or in one of its routes. */
function* poolsNamed({ config, isSound, isWhole }: Subject): Generator<{ path: KeyPath; pool: string }> {
  for (const { name, pool, routes } of config.listeners) {
    const path = ["listeners", name];
    if (isWhole([...path, "pool"]) && pool !== null) yield { path: [...path, "pool"], pool };
    if (!isWhole([...path, "routes"])) continue;
    for (const [index, route] of routes.entries()) {
      const at = [...path, "routes", index, "pool"];
      if (isSound(at)) yield { path: at, pool: route.pool };
    }
  }
}

/** Routes that no connection reaches, because an earlier route takes it. */
function checkRoutes({ name, pool, routes }: FileListener, report: Report): void {
  const path = ["listeners", name, "routes"];
  const before = new Map<string, number>();
  for (const [index, { sni, alpn, clients }] of routes.entries()) {
    const conditions = JSON.stringify([sni.toSorted(), alpn.toSorted(), clients.map(formatCidr).toSorted()]);
    const everything = before.get(takesEverything);
    const first = everything ?? before.get(conditions);
    if (first !== undefined) {
      const why = everything === undefined ? "has the same conditions" : "matches every connection";
      const message = `is never used: ${formatPath([...path, first])} ${why}`;
      report({ path: [...path, index], message, warning: true });
    } else before.set(conditions, index);
  }
  const everything = before.get(takesEverything);
  if (pool === null || everything === undefined) return;
  const message = `is never used: ${formatPath([...path, everything])} matches every connection`;
  report({ path: ["listeners", name, "pool"], message, warning: true });
}

/** The conditions of a route that has none. */
const takesEverything = "[[],[],[]]";

function checkProxyProtocol({ config, isSound, isWhole }: Subject, report: Report): void {
  if (!isWhole(["listeners"])) return;
  for (const { name, bind, proxy_protocol: mode, trusted_proxies: trusted } of config.listeners) {
    const path = ["listeners", name];
    if (!isSound([...path, "proxy_protocol"]) || !isSound([...path, "trusted_proxies"])) continue;
    if (mode === "off" && trusted.length > 0) {
      const message = 'has no effect: proxy_protocol is "off"';
      report({ path: [...path, "trusted_proxies"], message, warning: true });
    }
    if (mode === "off" || trusted.length > 0 || !isSound([...path, "bind"])) continue;
    // The peer on a unix socket has no address; everyone who may open the socket is trusted.
    if (bind.every(({ kind }) => kind === "unix" || kind === "abstract")) continue;
    const message = `${quote(mode)} needs trusted_proxies, the addresses whose PROXY headers are trusted`;
    report({ path: [...path, "proxy_protocol"], message, hint: 'such as trusted_proxies = ["10.0.0.0/8"]' });
  }
}

function checkPools(subject: Subject, report: Report): void {
  const { config, isWhole } = subject;
  if (!isWhole(["pools"])) return;
  for (const pool of config.pools) {
    if (isWhole(["pools", pool.name, "backends"])) checkBackends(subject, pool, report);
  }
}

function checkBackends({ isSound, folder }: Subject, pool: FileConfig["pools"][number], report: Report): void {
  const path = ["pools", pool.name, "backends"];
  const source = isSound(["pools", pool.name, "source_address"]) ? parseAddress(pool.source_address) : null;
  const addresses = new Map<string, number>();
  const names = new Map<string, number>();
  for (const [index, backend] of pool.backends.entries()) {
    if (!isSound([...path, index])) continue;
    const at = [...path, index];
    const endpoint = absoluteEndpoint(folder, backend.address);
    checkUnixPath(endpoint, at, report);
    const address = formatEndpoint(endpoint);
    const sameAddress = addresses.get(address);
    if (sameAddress !== undefined) {
      const message = `${address} is already ${formatPath([...path, sameAddress])}; use weight for a larger share`;
      report({ path: at, message });
      continue;
    }
    addresses.set(address, index);
    const name = backend.name ?? formatEndpoint(backend.address);
    const sameName = names.get(name);
    if (sameName === undefined) names.set(name, index);
    else
      report({
        path: [...at, "name"],
        message: `${quote(name)} is already the name of ${formatPath([...path, sameName])}`,
      });
    if (source !== null && endpoint.kind === "ip" && isV4(source) !== isV4(endpoint.address)) {
      report({
        path: at,
        message: `${address} cannot be reached from source_address ${pool.source_address}: one is IPv4, one IPv6`,
      });
    }
  }
  const idle = pool.backends.length > 0 && pool.backends.every(({ weight }) => weight === 0);
  if (idle && isSound(path))
    report({ path, message: "every weight is 0, so no backend gets connections", warning: true });
}

function checkUnixPath(endpoint: Endpoint, path: KeyPath, report: Report): void {
  if (endpoint.kind !== "unix") return;
  const bytes = new TextEncoder().encode(endpoint.path).byteLength;
  if (bytes <= UNIX_NAME_BYTES_MAX) return;
  const message = `expected the path of a unix socket with at most ${UNIX_NAME_BYTES_MAX} bytes, found ${bytes}: ${quote(endpoint.path)}`;
  report({ path, message });
}

export function isLoopback(address: Address): boolean {
  if (isV4(address)) return address[3] >>> 24 === 127;
  return address[0] === 0 && address[1] === 0 && address[2] === 0 && address[3] === 1;
}

export function isWildcard(endpoint: Endpoint): boolean {
  if (endpoint.kind === "any") return true;
  if (endpoint.kind !== "ip") return false;
  const [w0, w1, , w3] = endpoint.address;
  return w0 === 0 && w1 === 0 && w3 === 0;
}

export function isV4(address: Address): boolean {
  return isIPv4(address[0], address[1], address[2]);
}
