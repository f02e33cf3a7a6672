// Live connections and clients as plain data: the answers of /api/connections, /api/clients and /api/explain, so their keys are a public
// interface, and the queries. The types and the OpenAPI document come from the schemas below.
import * as v from "valibot";
import type { Address, Cidr } from "../core/address.ts";
import { END_NAMES } from "../core/ends.ts";
import { PHASES } from "../shared/ledger.ts";
import { said } from "./said.ts";

const connection = v.object({
  id: said(v.number(), "As in the access log; never used again while the process lives."),
  listener: v.string(),
  client: said(v.string(), "Address and port, from a trusted PROXY header if there is one; unix for a unix socket."),
  peer: said(v.nullable(v.string()), "The address that connected to lb, if that is a proxy and not the client."),
  sni: said(v.nullable(v.string()), "The server name that the client sent."),
  pool: said(v.nullable(v.string()), "null if the listener has none and no route is chosen yet."),
  backend: said(v.nullable(v.string()), "null before one is picked."),
  phase: v.picklist(PHASES),
  age_ms: v.number(),
  bytes_in: said(v.number(), "From the client."),
  bytes_out: said(v.number(), "To the client."),
  rate_in: said(
    v.number(),
    "Bytes per second since an earlier request, 1 s to 30 s before; the average over the life of the connection if there was none.",
  ),
  rate_out: v.number(),
  worker: v.number(),
});
export type ConnectionStatus = v.InferOutput<typeof connection>;

export const connectionList = v.object({
  total: said(v.number(), "Connections that match; `connections` has the first `limit` of them."),
  connections: v.array(connection),
});
export type ConnectionList = v.InferOutput<typeof connectionList>;

/** Sort keys of connections: the largest first, or with a leading "-" the smallest first. */
const SORTS = ["age_ms", "bytes_in", "bytes_out", "rate_in", "rate_out", "id"] as const;
export type ConnectionSort = (typeof SORTS)[number];
export type SignedSort = ConnectionSort | `-${ConnectionSort}`;
export const CONNECTION_SORTS: readonly SignedSort[] = SORTS.flatMap((sort) => [sort, `-${sort}` as const]);

/** Number of connections in one answer, by default and at most. */
export const CONNECTIONS_DEFAULT = 10_000;
export const CONNECTIONS_MAX = 100_000;

/** Conditions, all of which must hold; undefined = none. */
export interface ConnectionFilter {
  client?: Cidr | undefined;
  listener?: string | undefined;
  pool?: string | undefined;
  /** The name of a backend, its address, or `name@address`. */
  backend?: string | undefined;
}

export interface ConnectionQuery extends ConnectionFilter {
  limit?: number;
  sort?: SignedSort;
}

const client = v.object({
  client: said(v.string(), "An address, or a CIDR by the `client_prefix` of the listener; unix for unix sockets."),
  open: said(v.number(), "Connections that are open now."),
  new_connections: said(v.number(), "Connections admitted in the last minute."),
  bytes_in: said(
    v.number(),
    "Bytes of the last minute. Of a connection that is older than that, what its rate makes of a minute.",
  ),
  bytes_out: v.number(),
  refusals: said(v.number(), "Connections in the last minute that a limit, `allow` or `deny` has refused."),
  error: said(
    v.object({ new_connections: v.number(), bytes_in: v.number(), bytes_out: v.number(), refusals: v.number() }),
    "By how much each count may be too high, because other clients were counted in the same place before.",
  ),
});
export type ClientStatus = v.InferOutput<typeof client>;

export const clientList = v.object({
  total: said(v.number(), "Clients that are known; `clients` has the first `limit` of them."),
  period_ms: said(v.number(), "How much of the last minute the counts cover, 50 s to 60 s."),
  clients: v.array(client),
});
export type ClientList = v.InferOutput<typeof clientList>;

/** `bytes` counts both directions. */
export const CLIENT_SORTS = ["open", "new_connections", "bytes", "bytes_in", "bytes_out", "refusals"] as const;
export type ClientSort = (typeof CLIENT_SORTS)[number];

/** Number of clients in one answer, by default and at most. */
export const CLIENTS_DEFAULT = 20;
export const CLIENTS_MAX = 1000;

export interface ClientQuery extends Pick<ConnectionFilter, "client" | "listener"> {
  limit?: number;
  sort?: ClientSort;
}

const limit = v.object({
  limit: said(v.string(), "The option that sets it, or what else is asked of a client."),
  verdict: v.picklist(["passes", "refuses", "would refuse"]),
  end: said(v.nullable(v.picklist(END_NAMES)), "How the connection would end if the limit refuses it."),
  current: said(v.nullable(v.number()), "What is in use now; of rate_limit the tokens that are left."),
  max: v.nullable(v.number()),
  detail: v.string(),
});
export type ExplainedLimit = v.InferOutput<typeof limit>;

const candidate = v.object({
  backend: v.string(),
  usable: said(v.boolean(), "Whether the connection could go there now."),
  reason: v.string(),
});
export type ExplainedCandidate = v.InferOutput<typeof candidate>;

export const explanation = v.object({
  outcome: said(v.string(), "What would become of the connection, in a sentence."),
  end: said(v.nullable(v.picklist(END_NAMES)), "How it would end before it reaches a backend; null = it would not."),
  limits: said(v.array(limit), "In the order in which they are asked."),
  route: said(v.nullable(v.string()), "The first route that takes it, with its conditions; null = none."),
  pool: v.nullable(v.string()),
  backend: said(
    v.nullable(v.string()),
    "The backend, if that is certain: with source_hash and first, and if there is only one candidate.",
  ),
  candidates: said(v.array(candidate), "All backends of the pool."),
});
export type Explanation = v.InferOutput<typeof explanation>;

export interface ExplainQuery {
  listener: string;
  client: Address;
  /** In lower case; null = no server name. */
  sni: string | null;
  /** The protocols that the client offers. */
  alpn: readonly string[];
}
