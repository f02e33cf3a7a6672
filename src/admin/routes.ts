// The routes of the admin endpoint. A row describes a route completely: the schemas, the required access, and the operation.
import * as v from "valibot";
import { whole, text as textKind } from "../config/kinds.ts";
import { required } from "../config/rows.ts";
import { history } from "../observe/history.ts";
import { PROMETHEUS_CONTENT_TYPE, prometheusText } from "../observe/prometheus.ts";
import { snapshot, type Snapshot } from "../observe/snapshot.ts";
import { DASHBOARD_ROUTES } from "./dashboard-routes.ts";
import { CHANGE_ROUTES, done, doneWith } from "./change-routes.ts";
import { LIVE_ROUTES } from "./live-routes.ts";
import { openApi } from "./openapi.ts";
import type { Readiness } from "./operations.ts";
import { json, route, text, type Route } from "./route.ts";
import { STREAM_ROUTES } from "./stream-routes.ts";

const readiness = text<Readiness>(
  { description: "Ready. Each further line is a pool without a backend up.", statuses: { 503: "Not ready, and why." } },
  ({ ready, reasons }) => ({
    status: ready ? 200 : 503,
    content: `${[ready ? "ready" : "not ready", ...reasons].join("\n")}\n`,
  }),
);

const metrics = text<Snapshot>({ description: "All metrics.", contentType: PROMETHEUS_CONTENT_TYPE }, (value) => ({
  status: 200,
  content: prometheusText(value),
}));

export const ROUTES: readonly Route[] = [
  route({
    name: "getLive",
    method: "GET",
    path: "/live",
    access: "open",
    summary: "Whether the process can answer",
    query: "any",
    reply: text<string>({ description: "It can." }, (value) => ({ status: 200, content: value })),
    handle: () => ({ ok: true, value: "ok\n" }),
  }),
  route({
    name: "getReady",
    method: "GET",
    path: "/ready",
    access: "open",
    summary: "Whether the process accepts connections on every listener",
    query: "any",
    reply: readiness,
    handle: (operations) => operations.readiness(null),
  }),
  route({
    name: "getListenerReady",
    method: "GET",
    path: "/ready/{listener}",
    access: "open",
    summary: "Whether a pool that this listener can route to has a backend up",
    parameters: { listener: required(textKind("listener's name"), "Name of the listener.") },
    query: "any",
    errors: ["no_such_listener"],
    reply: readiness,
    handle: (operations, { path }) => operations.readiness(path.listener),
  }),
  route({
    name: "getMetrics",
    method: "GET",
    path: "/metrics",
    access: "read",
    summary: "The metrics in Prometheus' text format",
    query: "any",
    reply: metrics,
    handle: (operations) => ({ ok: true, value: operations.status() }),
  }),
  route({
    name: "getStatus",
    method: "GET",
    path: "/api/status",
    access: "read",
    summary: "The state of the process at this moment",
    query: "any",
    reply: json("Status", snapshot, "The state."),
    handle: (operations) => ({ ok: true, value: operations.status() }),
  }),
  route({
    name: "getHistory",
    method: "GET",
    path: "/api/history",
    access: "read",
    summary: "The last ten minutes of the whole process",
    reply: json("History", history, "A point a second."),
    handle: (operations) => ({ ok: true, value: operations.history() }),
  }),
  route({
    name: "getConfig",
    method: "GET",
    path: "/api/config",
    access: "read",
    summary: "The active config with all defaults",
    reply: json(
      "Config",
      v.record(v.string(), v.unknown()),
      "In the form of the file, as lb.schema.json describes it. Options with free text that come from the environment stand as `${NAME}`; the contents of files (tokens, keys) are not in it.",
    ),
    handle: (operations) => ({ ok: true, value: operations.config() }),
  }),
  route({
    name: "getOpenApi",
    method: "GET",
    path: "/api/openapi.json",
    access: "read",
    summary: "This document",
    reply: json("OpenApi", v.record(v.string(), v.unknown()), "An OpenAPI 3.1 document."),
    handle: () => ({ ok: true, value: openApi(ROUTES) }),
  }),
  route({
    name: "reload",
    method: "POST",
    path: "/api/reload",
    access: "change",
    summary: "Load the config file again",
    errors: ["stopping", "reload_failed"],
    reply: done,
    handle: async (operations) => doneWith(await operations.reload()),
  }),
  route({
    name: "restartWorker",
    method: "POST",
    path: "/api/workers/{worker}/restart",
    access: "change",
    summary: "End a worker and start it again; its connections are reset",
    parameters: { worker: required(whole(0, 9999), "Index of the worker.") },
    errors: ["no_such_worker", "worker_not_running"],
    reply: done,
    handle: (operations, { path }) => doneWith(operations.restartWorker(path.worker)),
  }),
  ...LIVE_ROUTES,
  ...DASHBOARD_ROUTES,
  ...STREAM_ROUTES,
  ...CHANGE_ROUTES,
];
