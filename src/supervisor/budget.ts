// The descriptor budget: the open-files limit, divided into a share for each purpose. No purpose uses the share of another, so the admin
// endpoint, health checks, lookups, logs and reloads work under any load from clients.
import { openFilesLimit } from "../platform/sockets.ts";

/** A proxied connection is one descriptor towards the client and one towards the backend. */
const PER_CONNECTION = 2;
/** An event loop (epoll and eventfd), the pipe for splicing, and a client that is accepted and refused at once. */
export const PER_WORKER = 5;
/** For each worker, a listening address takes a socket in the supervisor and its duplicate in the worker. */
const PER_SOCKET = 2;
/**
 * What a thread opens before it runs lb's code: its event loop (2), and files that it reads and closes again. Bun 1.4.5 ends the whole
 * process if a thread cannot open them.
 */
export const THREAD_START = 4;

/** Maximum size of tables; a machine cannot have more connections. */
const CONNECTIONS_MAX = 4_000_000;

/** Descriptors by purpose, for the purposes that depend only on the open-files limit. */
export interface Shares {
  /** Standard streams, the supervisor's event loop, the watch of the config, and files that are read and closed at once. */
  process: number;
  /** The access log, the file that replaces it when it is reopened, the connection to a log server. */
  logs: number;
  /** Connections to the admin endpoint. */
  admin: number;
  /** Health checks in flight. */
  healthChecks: number;
  /** Name lookups in flight. */
  lookUps: number;
  /** The start of a worker thread. */
  threadStart: number;
  /** Refused clients whose sockets stay open until they have read the FIN, over all workers. */
  lingering: number;
  /** New listening sockets of a reload while the old ones exist. */
  reload: number;
}

/** The shares of an open-files limit. They grow with the limit, up to a maximum. */
export function shares(limit = openFilesLimit()): Shares {
  return {
    process: 12,
    logs: 4,
    admin: part(limit, 64, 6, 128),
    healthChecks: part(limit, 32, 8, 1024),
    lookUps: part(limit, 128, 2, 64),
    threadStart: THREAD_START,
    lingering: part(limit, 32, 4, 8192),
    reload: part(limit, 64, 4, 1024),
  };
}

function part(limit: number, divisor: number, least: number, most: number): number {
  return Math.min(most, Math.max(least, Math.floor(limit / divisor)));
}

/** Number of connections for which each worker's ledger has rows; the open-files limit does not rise while the process runs. */
export function ledgerRows(): number {
  return Math.min(CONNECTIONS_MAX, Math.ceil(openFilesLimit() / PER_CONNECTION)) + 1;
}

/** What a config needs apart from connections. `sockets` counts listening addresses. */
export interface Needs {
  workers: number;
  sockets: number;
}

/** Descriptors that connections cannot use. */
export function kept({ workers, sockets }: Needs, limit = openFilesLimit()): number {
  const fixed = Object.values(shares(limit)).reduce((sum, share) => sum + share, 0);
  return fixed + workers * (PER_WORKER + PER_SOCKET * sockets);
}

/** The lowest open-files limit for this many connections. The shares grow with it, so it is found in steps. */
function limitFor(connections: number, needs: Needs): number {
  let limit = 0;
  for (;;) {
    const least = kept(needs, limit) + connections * PER_CONNECTION;
    if (least <= limit) return limit;
    limit = least;
  }
}

/** Why the open-files limit is too low for a config, and what to do; null = it is high enough. */
export function tooFewFiles(needs: Needs, limit = openFilesLimit()): string | null {
  const least = limitFor(1, needs);
  if (least <= limit) return null;
  const { workers, sockets } = needs;
  return (
    `workers = ${workers} with ${sockets} listening ${sockets === 1 ? "address needs" : "addresses need"} an open-files limit ` +
    `of at least ${least}, and it is ${limit}: raise it (ulimit -n, LimitNOFILE of systemd), or set fewer workers`
  );
}

/** The cap on connections of the whole process for `max_connections` of the config, with a warning if the open-files limit allows fewer. */
export function budget(
  wanted: number | "auto",
  needs: Needs,
  limit = openFilesLimit(),
): { max: number; warning: string | null } {
  const rest = limit - kept(needs, limit);
  const allowed = Math.max(1, Math.min(CONNECTIONS_MAX, Math.floor(rest / PER_CONNECTION)));
  if (wanted === "auto") return { max: allowed, warning: null };
  if (wanted <= allowed) return { max: wanted, warning: null };
  const needed = limitFor(wanted, needs);
  return {
    max: allowed,
    warning: `${wanted} connections need an open-files limit of ${needed}, and it is ${limit}; the cap is ${allowed}`,
  };
}
