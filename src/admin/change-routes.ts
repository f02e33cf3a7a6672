// The routes that change backends and listeners at run time.
import * as v from "valibot";
import { choice, duration, text, whole } from "../config/kinds.ts";
import { absent, orNull, required } from "../config/rows.ts";
import { backendRows } from "../config/schema.ts";
import type { Result } from "./operations.ts";
import { json, route, type Route } from "./route.ts";

/** The reply of a change. */
export const done = json(
  "Done",
  v.object({ ok: v.literal(true), message: v.string() }),
  "The change is made; `message` describes it.",
);

/** The message of an operation as that reply. */
export function doneWith(result: Result<string>): Result<{ ok: true; message: string }> {
  return result.ok ? { ...result, value: { ok: true, message: result.value } } : result;
}

const pool = required(text("pool's name"), "Name of the pool.");
const backend = required(
  text("backend's name"),
  "Name of the backend. A name that resolves to several addresses means all of them, `name@address` one.",
);

export const CHANGE_ROUTES: readonly Route[] = [
  route({
    name: "changeBackend",
    method: "PATCH",
    path: "/api/pools/{pool}/backends/{backend}",
    access: "change",
    summary: "Take a backend out, put it back, or change its weight",
    parameters: { pool, backend },
    body: {
      state: absent(
        choice(["ready", "drain", "maintenance"]),
        undefined,
        "drain: no new connections. maintenance: no new connections and no health checks. Default: no change.",
      ),
      weight: absent(orNull(whole(0, 256)), undefined, "null = the file's weight. Default: no change."),
      timeout: absent(
        duration({ zero: "at once" }),
        undefined,
        "With drain or maintenance: connections that are open after this time end as `drain`. Default: never.",
      ),
    },
    errors: ["no_such_pool", "no_such_backend", "bad_change"],
    reply: done,
    handle: async (operations, { path, body: { state, weight, timeout } }) =>
      doneWith(await operations.setBackend(path.pool, path.backend, { state, weight, timeoutMs: timeout })),
  }),
  route({
    name: "addBackend",
    method: "POST",
    path: "/api/pools/{pool}/backends",
    access: "change",
    summary: "Add a backend to a pool",
    parameters: { pool },
    body: backendRows,
    errors: ["no_such_pool", "backend_exists", "change_failed"],
    reply: done,
    handle: async (operations, { path, body }) => doneWith(await operations.addBackend(path.pool, body)),
  }),
  route({
    name: "removeBackend",
    method: "DELETE",
    path: "/api/pools/{pool}/backends/{backend}",
    access: "change",
    summary: "Remove a backend; one of the file stays removed until its entry there changes",
    parameters: { pool, backend },
    errors: ["no_such_pool", "no_such_backend", "bad_change", "change_failed"],
    reply: done,
    handle: async (operations, { path }) => doneWith(await operations.removeBackend(path.pool, path.backend)),
  }),
  route({
    name: "changeListener",
    method: "PATCH",
    path: "/api/listeners/{listener}",
    access: "change",
    summary: "Stop accepting on a listener, or resume; open connections continue",
    parameters: { listener: required(text("listener's name"), "Name of the listener.") },
    body: { state: required(choice(["ready", "drain"]), "drain: new connections are refused.") },
    errors: ["no_such_listener", "change_failed"],
    reply: done,
    handle: async (operations, { path, body }) => doneWith(await operations.setListener(path.listener, body.state)),
  }),
];
