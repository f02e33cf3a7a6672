// The routes that answer with streams: events, and lines of the access log.
import { choice, duration, flag } from "../config/kinds.ts";
import { absent, row } from "../config/rows.ts";
import { END_NAMES } from "../core/ends.ts";
import { FILTER_ERRORS, FILTER_ROWS } from "./live-routes.ts";
import { route, stream, type Route } from "./route.ts";

export const STREAM_ROUTES: readonly Route[] = [
  route({
    name: "getEvents",
    method: "GET",
    path: "/api/events",
    access: "read",
    summary: "The state each second, and changes at once, as server-sent events",
    query: {
      recent: row(flag(), false, "Whether to send the last 100 messages first, after the first snapshot."),
      snapshots: row(flag(), true, "Whether to send a snapshot each second; if not, a comment every 15 s."),
    },
    reply: stream(
      '`event: snapshot` has the JSON of GET /api/status. `event: change` has a message of the log as `log.format = "json"` writes it: time, level, event and the fields of this event. A subscriber that reads too slowly is dropped.',
      "text/event-stream",
    ),
    handle: (operations, { query }) => ({ ok: true, value: operations.events(query) }),
  }),
  route({
    name: "getLogs",
    method: "GET",
    path: "/api/logs",
    access: "read",
    summary: "The lines of the access log from now on, even if the log is off",
    query: {
      ...FILTER_ROWS,
      end: absent(choice(END_NAMES), undefined, "How the connection ended."),
      min_duration: absent(duration(), undefined, "Connections that lived at least so long."),
      format: row(choice(["json", "text"]), "json", "Of the lines, as in the access log."),
    },
    errors: FILTER_ERRORS,
    reply: stream(
      "One line for each connection that ends. Where lines were lost, because the reader was too slow, a line with `lines_lost` says how many.",
      "text/plain; charset=utf-8",
    ),
    handle: (operations, { query }) => operations.accessLines(query),
  }),
];
