// The routes for live connections.
import * as v from "valibot";
import { choice, cidr, ipAddress, protocolName, serverName, text, whole } from "../config/kinds.ts";
import { absent, oneOrMore, required, row } from "../config/rows.ts";
import {
  CLIENT_SORTS,
  clientList,
  CLIENTS_DEFAULT,
  CLIENTS_MAX,
  CONNECTION_SORTS,
  connectionList,
  CONNECTIONS_DEFAULT,
  CONNECTIONS_MAX,
  explanation,
} from "../observe/live.ts";
import { said } from "../observe/said.ts";
import type { Result } from "./operations.ts";
import { json, route, type Route } from "./route.ts";

/** Conditions on a connection, as rows of a query. */
export const FILTER_ROWS = {
  client: absent(cidr(), undefined, "Address or CIDR of the client, as the access log has it."),
  listener: absent(text("listener's name"), undefined, "Name of the listener."),
  pool: absent(text("pool's name"), undefined, "Name of the pool."),
  backend: absent(
    text("backend's name"),
    undefined,
    "Name of the backend, its address, or `name@address` for one of several addresses of a name.",
  ),
};

export const FILTER_ERRORS = ["no_such_listener", "no_such_pool", "no_such_backend"] as const;

const ended = json(
  "Ended",
  v.object({ ended: said(v.number(), "Connections that were open and were ended.") }),
  "They are ended as `killed`, each with a reset on both sides.",
);

function endedOf(result: Result<number>): Result<{ ended: number }> {
  return result.ok ? { ...result, value: { ended: result.value } } : result;
}

export const LIVE_ROUTES: readonly Route[] = [
  route({
    name: "getConnections",
    method: "GET",
    path: "/api/connections",
    access: "read",
    summary: "The connections that are open now",
    query: {
      ...FILTER_ROWS,
      limit: row(whole(0, CONNECTIONS_MAX), CONNECTIONS_DEFAULT, "Connections in the answer."),
      sort: row(
        choice(CONNECTION_SORTS),
        "age_ms",
        "The sort key: the largest first, or with a leading - the smallest first.",
      ),
    },
    errors: FILTER_ERRORS,
    reply: json("Connections", connectionList, "The connections."),
    handle: (operations, { query }) => operations.connections(query),
  }),
  route({
    name: "endConnections",
    method: "DELETE",
    path: "/api/connections",
    access: "change",
    summary: "End all connections that match; takes at least one condition",
    query: FILTER_ROWS,
    errors: ["no_condition", ...FILTER_ERRORS],
    reply: ended,
    handle: async (operations, { query }) => endedOf(await operations.endConnections(query)),
  }),
  route({
    name: "endConnection",
    method: "DELETE",
    path: "/api/connections/{id}",
    access: "change",
    summary: "End one connection",
    parameters: { id: required(whole(1, Number.MAX_SAFE_INTEGER), "Id of the connection.") },
    errors: ["no_such_connection", "worker_not_running"],
    reply: ended,
    handle: async (operations, { path }) => endedOf(await operations.endConnection(path.id)),
  }),
  route({
    name: "getClients",
    method: "GET",
    path: "/api/clients",
    access: "read",
    summary: "The top clients by open connections, or by new connections, bytes or refusals of the last minute",
    query: {
      client: FILTER_ROWS.client,
      listener: FILTER_ROWS.listener,
      limit: row(whole(0, CLIENTS_MAX), CLIENTS_DEFAULT, "Clients in the answer."),
      sort: row(choice(CLIENT_SORTS), "open", "The sort key, the largest first."),
    },
    errors: ["no_such_listener"],
    reply: json("Clients", clientList, "The clients."),
    handle: (operations, { query }) => operations.clients(query),
  }),
  route({
    name: "explain",
    method: "POST",
    path: "/api/explain",
    access: "read",
    summary: "What would become of a client's connection; nothing is connected",
    body: {
      listener: required(text("listener's name"), "Name of the listener."),
      client: required(ipAddress(), "Address of the client."),
      sni: absent(serverName(), "", "The server name that it asks for."),
      alpn: absent(oneOrMore(protocolName()), [], "The protocols that it offers."),
    },
    errors: ["no_such_listener"],
    reply: json("Explanation", explanation, "Nothing was connected, and no token was taken."),
    handle: (operations, { body }) => operations.explain({ ...body, sni: body.sni === "" ? null : body.sni }),
  }),
];
