// What is connected right now, as plain data: the questions and the answers of /api/connections and /api/clients, so their keys are a
// public interface.
import type { PhaseName } from "../shared/ledger.ts";

/** What connections can be sorted by: the largest first, or with a "-" before it the smallest. */
export const CONNECTION_SORTS = ["age_ms", "bytes_in", "bytes_out", "rate_in", "rate_out", "id"] as const;
export type ConnectionSort = (typeof CONNECTION_SORTS)[number];

/** Connections in one answer, if the request does not say, and at most. */
export const CONNECTIONS_DEFAULT = 10_000;
export const CONNECTIONS_MAX = 100_000;

/** Conditions, all of which must hold. */
export interface ConnectionFilter {
  /** An address or a CIDR. */
  client?: string | undefined;
  listener?: string | undefined;
  pool?: string | undefined;
  /** The name of a backend, its address, or `name@address`. */
  backend?: string | undefined;
}

export interface ConnectionQuery extends ConnectionFilter {
  limit?: number | undefined;
  sort?: ConnectionSort | `-${ConnectionSort}` | undefined;
}

export interface ConnectionList {
  /** Connections that match, of which `connections` has the first `limit`. */
  total: number;
  connections: ConnectionStatus[];
}

export interface ConnectionStatus {
  /** As in the access log; never used again while the process lives. */
  id: number;
  listener: string;
  /** "address:port", from a trusted PROXY header if there is one; "unix" for a unix socket. */
  client: string;
  /** The address that connected to lb, if that is a proxy and not the client. */
  peer: string | null;
  /** The server name that the client sent. */
  sni: string | null;
  /** null where no pool takes it. */
  pool: string | null;
  /** null before one was picked. */
  backend: string | null;
  phase: PhaseName;
  age_ms: number;
  /** From the client, and to it. */
  bytes_in: number;
  bytes_out: number;
  /** Bytes per second since an earlier request, from 1 s to 30 s ago; the average since the begin where there was none. */
  rate_in: number;
  rate_out: number;
  worker: number;
}
