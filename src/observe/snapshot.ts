// The snapshot: the state of the running process at one moment, as plain data. /api/status returns it as JSON, so its keys are a
// public interface. The Prometheus text is made from it. The types and the OpenAPI document come from the schemas below.
import * as v from "valibot";
import { CHECK_FAILURES } from "../core/check-failures.ts";
import { DRY_RUN_LIMITS } from "../core/dry-run.ts";
import { END_NAMES, ENDED_BY } from "../core/ends.ts";
import { TLS_FAILURES } from "../shared/counters.ts";
import { said } from "./said.ts";

const count = v.number;

/** `bounds` says where the upper bounds are. */
function times(what: string, bounds: string) {
  return said(
    v.object({ sum: v.number(), buckets: v.array(count()) }),
    `${what}, in milliseconds: their sum, and how many by upper bound (${bounds}), not cumulated.`,
  );
}

const worker = v.object({
  index: v.number(),
  state: v.picklist(["starting", "running", "retiring"]),
  restarts: said(count(), "Number of restarts of this worker."),
  accepted: count(),
  open: count(),
  bytes_in: count(),
  bytes_out: count(),
  log_lines_lost: count(),
  loop_blocked_ms: said(
    v.number(),
    "For how long the event loop has not run though a timer was due; 0 while it runs on time.",
  ),
  loop_delay_ms: times("How late the timers of its clock ran", "LOOP_BUCKETS_MS"),
});

const certificate = v.object({
  cert: v.string(),
  names: v.array(v.string()),
  not_after: v.string(),
  days_left: v.number(),
});

const tls = v.object({
  certificates: v.array(certificate),
  handshakes: said(
    v.array(v.object({ version: v.picklist(["TLSv1.2", "TLSv1.3"]), resumed: v.boolean(), count: count() })),
    "Handshakes that succeeded.",
  ),
  failures: v.array(v.object({ reason: v.picklist(TLS_FAILURES), count: count() })),
  truncated: said(count(), "Clients that sent their FIN without a close_notify before it."),
  handshake_ms: times("Successful handshakes, from accept on", "HANDSHAKE_BUCKETS_MS"),
});

const listener = v.object({
  name: v.string(),
  bind: v.array(v.string()),
  pool: v.nullable(v.string()),
  state: said(v.picklist(["ready", "drain"]), "drain: an operator has it accept no new connections."),
  changes: said(v.array(v.string()), "What operators have changed at run time."),
  ready: said(v.boolean(), "Whether a pool that the listener can route to has a backend up."),
  not_ready: said(v.array(v.string()), "The pools that have none, one sentence each."),
  open: count(),
  max_connections: said(v.number(), "0 = no cap of its own."),
  accepted: count(),
  bytes_in: count(),
  bytes_out: count(),
  duration_ms: times("From accept to the end, of connections that came to a backend", "LIFE_BUCKETS_MS"),
  first_byte_ms: times("From accept to the first byte of the backend for the client", "FIRST_BYTE_BUCKETS_MS"),
  tls: said(v.nullable(tls), "null where TLS is not terminated here."),
  ends: said(
    v.array(v.object({ end: v.picklist(END_NAMES), end_by: v.picklist(ENDED_BY), count: count() })),
    "Ended connections; combinations that never occurred are left out.",
  ),
  dry_run: said(
    v.array(v.object({ limit: v.picklist(DRY_RUN_LIMITS), count: count() })),
    "Connections on which limits in `dry_run` would have acted.",
  ),
});

const agent = v.object({
  up: v.boolean(),
  state: v.picklist(["ready", "drain", "maint"]),
  percent: v.number(),
  last_error: v.nullable(v.string()),
});

const backend = v.object({
  name: v.string(),
  address: v.string(),
  state: said(
    v.picklist(["ready", "drain", "maintenance"]),
    "The state set by an operator. drain: no new connections. maintenance: no new connections and no health checks.",
  ),
  changes: said(
    v.array(v.string()),
    'What operators have changed at run time, such as "weight 3 by API, file says 1".',
  ),
  up: v.boolean(),
  weight: said(v.number(), "An operator's, else that of the file."),
  file_weight: said(v.nullable(v.number()), "null = the backend is not in the file."),
  ramp_percent: said(v.number(), "The part of its weight that it has by slow_start; 100 = all."),
  backup: v.boolean(),
  ejected_until: said(
    v.nullable(v.string()),
    "When the ejection ends that passive health has begun, RFC 3339; null = the backend is not ejected.",
  ),
  ejection_reason: said(v.nullable(v.string()), "Why it is ejected; null = it is not."),
  ejections: said(
    v.array(v.object({ reason: v.picklist(["connect", "early_reset"]), count: count() })),
    "Ejections so far, by the kind of most of the failures.",
  ),
  max_connections: said(v.number(), "0 = no cap."),
  open: count(),
  connects: said(
    v.object({
      attempted: count(),
      succeeded: count(),
      refused: count(),
      timed_out: count(),
      failed: count(),
      tls_failed: count(),
      retried_away: count(),
    }),
    "Connection attempts by result.",
  ),
  connect_ms: times("Successful connects", "CONNECT_BUCKETS_MS, the last one infinite"),
  bytes_in: count(),
  bytes_out: count(),
  ended: count(),
  tls_truncated: said(
    count(),
    "Connections that the backend ended with FIN but without close_notify, if TLS is used with it.",
  ),
  health: v.object({
    up: v.boolean(),
    check: v.string(),
    since: said(v.string(), "When it came up or went down last, RFC 3339."),
    checks: v.object({ success: count(), failure: count() }),
    failures: said(
      v.array(v.object({ reason: v.picklist(CHECK_FAILURES), count: count() })),
      "Failed checks by reason. answer: the answer was wrong or incomplete. failed: the connect failed for another reason.",
    ),
    last_error: said(
      v.nullable(v.string()),
      "Why the last check failed, or that its agent says down; null after a success.",
    ),
    agent: said(
      v.nullable(agent),
      "What its agent says, and why it could not be asked the last time; null = it has none.",
    ),
  }),
});

const queue = v.object({
  waiting: said(count(), "Connections that wait now."),
  size: said(v.number(), "Connections that may wait."),
  wait_ms: times(
    "How long connections waited, whether they were served or not",
    "QUEUE_BUCKETS_MS, the last one infinite",
  ),
});

const pool = v.object({
  name: v.string(),
  balance: v.string(),
  unresolved: said(v.array(v.string()), "Names of backends that have had no address yet."),
  hash_table_fingerprint: said(
    v.nullable(v.number()),
    "With source_hash: equal on machines that send every client to the same backend; else null.",
  ),
  changes: said(v.array(v.string()), "What operators have changed at run time: the backends that they removed."),
  panic: said(v.boolean(), "Fewer backends than panic_threshold are up, so health is ignored."),
  queue: said(v.nullable(queue), "null = it has none."),
  backends: v.array(backend),
});

const config = v.object({
  file: v.string(),
  generation: v.number(),
  loaded_at: said(v.string(), "When the active generation was loaded, RFC 3339."),
  reloads: v.object({ success: count(), failure: count() }),
  last_reload_ok: said(v.boolean(), "Whether the last attempt to load succeeded."),
  last_reload_error: said(v.nullable(v.string()), "What was wrong with it, if it failed."),
});

const otel = v.object({
  exports: said(
    v.array(v.object({ signal: v.picklist(["metrics", "logs"]), success: count(), failure: count() })),
    "Requests by result.",
  ),
  log_records_lost: said(count(), "Access lines that the receiver did not get."),
  last_error: said(v.nullable(v.string()), "Why the last request failed; null after a success."),
});

export const snapshot = v.object({
  version: v.string(),
  pid: v.number(),
  started_at: said(v.string(), "RFC 3339."),
  uptime_seconds: v.number(),
  ready: said(v.boolean(), "Whether the process accepts connections on every listener."),
  not_ready: said(v.array(v.string()), "Why not, one sentence each; empty when ready."),
  config,
  admin: v.object({
    certificate: said(v.nullable(certificate), "Of the admin endpoint; null = plain HTTP."),
  }),
  connections: said(
    v.object({ open: count(), max: v.number(), open_files_limit: v.number() }),
    "Open connections, the cap of the whole process, and the open-files limit that it comes from.",
  ),
  process: v.object({
    cpu_seconds: said(v.number(), "Of all threads, user and system."),
    resident_bytes: v.number(),
    open_files: said(v.nullable(v.number()), "null if the system does not report it."),
  }),
  access_log_lines_lost: said(count(), "Access log lines lost because the disk, a reader or a receiver was too slow."),
  otel: said(v.nullable(otel), "The export to OpenTelemetry; null = off."),
  workers: v.array(worker),
  listeners: v.array(listener),
  pools: v.array(pool),
});

export type Snapshot = v.InferOutput<typeof snapshot>;
export type WorkerStatus = v.InferOutput<typeof worker>;
export type ListenerStatus = v.InferOutput<typeof listener>;
export type CertificateStatus = v.InferOutput<typeof certificate>;
export type TlsStatus = v.InferOutput<typeof tls>;
export type PoolStatus = v.InferOutput<typeof pool>;
export type QueueStatus = v.InferOutput<typeof queue>;
export type BackendStatus = v.InferOutput<typeof backend>;
