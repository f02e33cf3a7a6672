// The descriptor budget: how many connections the open-files limit allows, with enough kept back for everything else, so
// that admin endpoint, health checks and logs work whatever the clients do.
import { openFilesLimit } from "../platform/sockets.ts";
import { CHECKS_AT_ONCE_MAX } from "./health.ts";

/** A proxied connection is one descriptor towards the client and one towards the backend. */
const PER_CONNECTION = 2;
/** Standard streams, the binary, the config's watchers, the supervisor's event loop, the log's files. */
const PROCESS = 16;
/** The event loop of a worker, the ends of its channels, the pipe for splicing, and a client that is being refused. */
const PER_WORKER = 8;
/** Admin connections and name look-ups under way. */
const ADMIN = 8;

/** More connections than any machine of today holds: a bound for tables. */
const CONNECTIONS_MAX = 4_000_000;

/** Connections for which each worker's ledger has rows; the limit of open files does not rise while the process runs. */
export function ledgerRows(): number {
  return Math.min(CONNECTIONS_MAX, Math.ceil(openFilesLimit() / PER_CONNECTION)) + 1;
}

/**
 * The cap on connections of the whole process for `max_connections` of the config, with a warning where that asks for
 * more than the open-files limit allows. `sockets` counts listening addresses; each worker has one of its own.
 */
export function budget(
  wanted: number | "auto",
  workers: number,
  sockets: number,
): { max: number; warning: string | null } {
  const limit = openFilesLimit();
  const kept = PROCESS + ADMIN + CHECKS_AT_ONCE_MAX + workers * (PER_WORKER + 2 * sockets);
  const allowed = Math.max(1, Math.min(CONNECTIONS_MAX, Math.floor((limit - kept) / PER_CONNECTION)));
  if (wanted === "auto") return { max: allowed, warning: null };
  if (wanted <= allowed) return { max: wanted, warning: null };
  return {
    max: allowed,
    warning: `${wanted} connections need an open-files limit of ${wanted * PER_CONNECTION + kept}, and it is ${limit}; the cap is ${allowed}`,
  };
}
