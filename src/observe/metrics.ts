// Every metric with its name, kind, labels, documentation, and how its samples come from the snapshot. docs/metrics.md is tested against
// this table; the Prometheus text and the export by OpenTelemetry are made from it. Nothing is counted here.
import { nameInConfig } from "../core/backend-name.ts";
import { ENDS, type End, type EndedBy } from "../core/ends.ts";
import {
  CONNECT_BUCKETS_MS,
  FIRST_BYTE_BUCKETS_MS,
  HANDSHAKE_BUCKETS_MS,
  LIFE_BUCKETS_MS,
  LOOP_BUCKETS_MS,
  QUEUE_BUCKETS_MS,
} from "../shared/counters.ts";
import type { CertificateStatus, ListenerStatus, Snapshot } from "./snapshot.ts";

export interface Metric {
  name: string;
  type: "counter" | "gauge" | "histogram";
  labels: readonly string[];
  help: string;
  samples: (snapshot: Snapshot) => Sample[];
}

/** Values of the labels, in the order of the metric's `labels`. A histogram's value is its buckets, not cumulative. */
export interface Sample {
  labels: readonly string[];
  value: number | { sumSeconds: number; buckets: readonly number[]; boundsMs: readonly number[] };
}

/**
 * The ends and sides that can occur together. Each is shown as 0 before its first occurrence, because rate() and increase()
 * miss the first one otherwise. Any other combination is shown once it has occurred.
 */
const POSSIBLE_ENDS: Record<End, readonly EndedBy[]> = {
  ...(Object.fromEntries(Object.keys(ENDS).map((end) => [end, ["lb"]])) as unknown as Record<End, readonly EndedBy[]>),
  eof: ["client", "backend"],
  reset: ["client", "backend"],
  proxy_header_bad: ["client"],
  handshake_failed: ["client", "backend"],
  connect_refused: ["backend"],
  connect_timeout: ["backend"],
  connect_failed: ["backend"],
};

/**
 * A function that makes the rows of one kind of things, which `all` lists with their labels. The value of a row is null if the thing has
 * none, or samples if the row has `more` labels.
 */
function rowsOf<T>(names: readonly string[], all: (snapshot: Snapshot) => { labels: string[]; thing: T }[]) {
  return (
    name: string,
    type: Metric["type"],
    help: string,
    value: (thing: T) => Sample["value"] | Sample[] | null,
    more: readonly string[] = [],
  ): Metric => ({
    name,
    type,
    labels: [...names, ...more],
    help,
    samples: (snapshot) =>
      all(snapshot).flatMap(({ labels, thing }): Sample | Sample[] => {
        const found = value(thing);
        if (found === null) return [];
        if (!Array.isArray(found)) return { labels, value: found };
        return found.map((sample) => ({ labels: [...labels, ...sample.labels], value: sample.value }));
      }),
  });
}

const whole = rowsOf([], (snapshot) => [{ labels: [], thing: snapshot }]);
const ofListener = rowsOf(["listener"], (s) => s.listeners.map((thing) => ({ labels: [thing.name], thing })));
const ofTls = rowsOf(["listener"], (s) =>
  s.listeners.flatMap(({ name, tls }) => (tls === null ? [] : { labels: [name], thing: tls })),
);
const ofPool = rowsOf(["pool"], (s) => s.pools.map((thing) => ({ labels: [thing.name], thing })));
const ofQueue = rowsOf(["pool"], (s) =>
  s.pools.flatMap(({ name, queue }) => (queue === null ? [] : { labels: [name], thing: queue })),
);
// A host name can resolve to several addresses, so only name and address together identify a backend.
const ofBackend = rowsOf(["pool", "backend", "address"], (s) =>
  s.pools.flatMap((pool) =>
    // The name in the config: it stays when a host name gets a second address.
    pool.backends.map((thing) => ({ labels: [pool.name, nameInConfig(thing), thing.address], thing })),
  ),
);
const ofWorker = rowsOf(["worker"], (s) => s.workers.map((thing) => ({ labels: [String(thing.index)], thing })));

export const METRICS: readonly Metric[] = [
  whole(
    "lb_build_info",
    "gauge",
    "Version of the running lb; always 1.",
    ({ version }) => [{ labels: [version], value: 1 }],
    ["version"],
  ),
  whole(
    "process_start_time_seconds",
    "gauge",
    "Start time of the process, seconds since the epoch.",
    ({ started_at }) => seconds(started_at),
  ),
  whole(
    "process_cpu_seconds_total",
    "counter",
    "CPU time of all threads, user and system, in seconds.",
    (s) => s.process.cpu_seconds,
  ),
  whole(
    "process_resident_memory_bytes",
    "gauge",
    "Resident memory of the process in bytes.",
    (s) => s.process.resident_bytes,
  ),
  whole("process_open_fds", "gauge", "Open file descriptors of the process.", (s) => s.process.open_files),
  whole(
    "process_max_fds",
    "gauge",
    "Maximum number of open file descriptors of the process.",
    (s) => s.connections.open_files_limit,
  ),
  whole("lb_ready", "gauge", "1 while connections are accepted on every listener, as /ready reports, else 0.", (s) =>
    s.ready ? 1 : 0,
  ),
  whole(
    "lb_config_generation",
    "gauge",
    "Generation of the active config; rises by one with each reload.",
    (s) => s.config.generation,
  ),
  whole(
    "lb_config_last_reload_successful",
    "gauge",
    "1 if the last attempt to load the config succeeded, else 0.",
    (s) => (s.config.last_reload_ok ? 1 : 0),
  ),
  whole(
    "lb_config_last_reload_success_timestamp_seconds",
    "gauge",
    "Time at which the active config was loaded, in seconds since the epoch.",
    (s) => seconds(s.config.loaded_at),
  ),
  whole(
    "lb_config_reloads_total",
    "counter",
    "Config reloads; result is success or failure.",
    (s) => results(s.config.reloads),
    ["result"],
  ),
  whole("lb_connections_open", "gauge", "Proxied connections open now.", (s) => s.connections.open),
  whole(
    "lb_connections_limit",
    "gauge",
    "Maximum number of open proxied connections: max_connections.",
    (s) => s.connections.max,
  ),

  ofListener(
    "lb_listener_ready",
    "gauge",
    "1 while a pool that the listener can route to has a backend up, else 0.",
    (l) => (l.ready ? 1 : 0),
  ),
  ofListener("lb_listener_connections_total", "counter", "Connections accepted.", (l) => l.accepted),
  ofListener("lb_listener_connections_open", "gauge", "Connections open now.", (l) => l.open),
  ofListener(
    "lb_listener_connections_limit",
    "gauge",
    "Maximum number of open connections: max_connections of the listener; 0 = no limit of its own.",
    (l) => l.max_connections,
  ),
  ofListener("lb_listener_received_bytes_total", "counter", "Bytes received from clients.", (l) => l.bytes_in),
  ofListener("lb_listener_sent_bytes_total", "counter", "Bytes sent to clients.", (l) => l.bytes_out),
  ofListener(
    "lb_listener_connections_ended_total",
    "counter",
    "Connections ended, by end (as in the access log) and by side: client, backend or lb.",
    endsOf,
    ["end", "end_by"],
  ),
  ofListener(
    "lb_dry_run_total",
    "counter",
    "Connections that a limit in dry_run would have refused or delayed.",
    (l) => l.dry_run.map(({ limit, count }) => ({ labels: [limit], value: count })),
    ["limit"],
  ),
  ofTls(
    "lb_tls_handshakes_total",
    "counter",
    "Successful TLS handshakes with clients; resumed is true or false.",
    ({ handshakes }) =>
      handshakes.map(({ version, resumed, count }) => ({ labels: [version, String(resumed)], value: count })),
    ["version", "resumed"],
  ),
  ofTls(
    "lb_tls_handshake_failures_total",
    "counter",
    "Failed TLS handshakes with clients.",
    ({ failures }) => failures.map(({ reason, count }) => ({ labels: [reason], value: count })),
    ["reason"],
  ),
  ofListener(
    "lb_connection_duration_seconds",
    "histogram",
    "Time from accept to the end, of connections that reached a backend.",
    (l) => histogram(l.duration_ms, LIFE_BUCKETS_MS),
  ),
  ofListener(
    "lb_first_byte_seconds",
    "histogram",
    "Time from accept to the backend's first byte for the client.",
    (l) => histogram(l.first_byte_ms, FIRST_BYTE_BUCKETS_MS),
  ),
  ofTls(
    "lb_tls_handshake_duration_seconds",
    "histogram",
    "Time from accept to the end of successful TLS handshakes.",
    (t) => histogram(t.handshake_ms, HANDSHAKE_BUCKETS_MS),
  ),
  ofTls(
    "lb_tls_truncated_total",
    "counter",
    "Clients that ended TLS with FIN but without close_notify, if the listener can detect it.",
    (t) => t.truncated,
  ),
  ofTls(
    "lb_tls_certificate_expiry_timestamp_seconds",
    "gauge",
    "Expiry time of the certificate, seconds since the epoch.",
    ({ certificates }) => certificates.map(expiry),
    ["cert"],
  ),
  whole(
    "lb_admin_certificate_expiry_timestamp_seconds",
    "gauge",
    "When the certificate of the admin endpoint expires, seconds since the epoch.",
    ({ admin: { certificate } }) => (certificate === null ? null : [expiry(certificate)]),
    ["cert"],
  ),

  ofPool(
    "lb_pool_hash_table_fingerprint",
    "gauge",
    "Fingerprint of the source_hash table: equal on machines that send every client to the same backend.",
    (p) => p.hash_table_fingerprint,
  ),
  ofPool(
    "lb_pool_panic",
    "gauge",
    "1 while fewer backends than panic_threshold are up and health is ignored, else 0.",
    (p) => (p.panic ? 1 : 0),
  ),
  ofQueue("lb_pool_queue_connections", "gauge", "Connections waiting in the queue of the pool now.", (q) => q.waiting),
  ofQueue(
    "lb_pool_queue_connections_limit",
    "gauge",
    "Maximum number of waiting connections: queue.size of the pool.",
    (q) => q.size,
  ),
  ofQueue(
    "lb_pool_queue_wait_seconds",
    "histogram",
    "Time that connections waited in the queue of the pool, served or not.",
    (q) => histogram(q.wait_ms, QUEUE_BUCKETS_MS),
  ),

  ofBackend("lb_backend_up", "gauge", "1 while the backend is up, else 0.", (b) => (b.up ? 1 : 0)),
  ofBackend(
    "lb_backend_last_change_timestamp_seconds",
    "gauge",
    "Time of the last change between up and down by health checks, seconds since the epoch.",
    ({ health: { check, since } }) => (check === "off" ? null : seconds(since)),
  ),
  ofBackend("lb_backend_weight", "gauge", "Weight of the backend; 0 takes no new connections.", (b) => b.weight),
  ofBackend(
    "lb_backend_ramp_ratio",
    "gauge",
    "Fraction of its weight that the backend has under slow_start; 1 = all.",
    (b) => b.ramp_percent / 100,
  ),
  ofBackend(
    "lb_backend_drained",
    "gauge",
    "1 while an operator has the backend in drain or maintenance, or its agent reports that, else 0.",
    ({ state, health: { agent } }) => (state === "ready" && (agent?.state ?? "ready") === "ready" ? 0 : 1),
  ),
  ofBackend("lb_backend_ejected", "gauge", "1 while passive health has ejected the backend, else 0.", (b) =>
    b.ejected_until === null ? 0 : 1,
  ),
  ofBackend(
    "lb_backend_ejections_total",
    "counter",
    "Ejections by passive health; reason is connect or early_reset.",
    (b) => b.ejections.map(({ reason, count }) => ({ labels: [reason], value: count })),
    ["reason"],
  ),
  ofBackend("lb_backend_connections_open", "gauge", "Connections open or being established now.", (b) => b.open),
  ofBackend(
    "lb_backend_connections_limit",
    "gauge",
    "Maximum number of open connections: max_connections of the backend; 0 = no limit.",
    (b) => b.max_connections,
  ),
  ofBackend("lb_backend_connections_ended_total", "counter", "Connections to the backend that ended.", (b) => b.ended),
  ofBackend("lb_backend_connect_attempts_total", "counter", "Connect attempts.", (b) => b.connects.attempted),
  ofBackend(
    "lb_backend_connect_failures_total",
    "counter",
    "Failed connect attempts; reason is refused, timeout, tls or failed.",
    ({ connects }) => [
      { labels: ["refused"], value: connects.refused },
      { labels: ["timeout"], value: connects.timed_out },
      { labels: ["tls"], value: connects.tls_failed },
      { labels: ["failed"], value: connects.failed },
    ],
    ["reason"],
  ),
  ofBackend(
    "lb_backend_retries_total",
    "counter",
    "Connections retried on another backend after a failed connect to this one.",
    (b) => b.connects.retried_away,
  ),
  ofBackend(
    "lb_backend_tls_truncated_total",
    "counter",
    "Connections that the backend ended with FIN but without close_notify.",
    (b) => b.tls_truncated,
  ),
  ofBackend("lb_backend_connect_duration_seconds", "histogram", "Duration of successful connects.", (b) =>
    histogram(b.connect_ms, CONNECT_BUCKETS_MS),
  ),
  ofBackend(
    "lb_backend_sent_bytes_total",
    "counter",
    "Bytes passed on from clients to the backend.",
    (b) => b.bytes_in,
  ),
  ofBackend(
    "lb_backend_received_bytes_total",
    "counter",
    "Bytes passed on from the backend to clients.",
    (b) => b.bytes_out,
  ),
  ofBackend(
    "lb_backend_health_checks_total",
    "counter",
    "Active health checks; result is success or failure.",
    (b) => results(b.health.checks),
    ["result"],
  ),
  ofBackend(
    "lb_backend_health_check_failures_total",
    "counter",
    "Failed active health checks; reason is refused, timeout, tls, answer or failed.",
    (b) => b.health.failures.map(({ reason, count }) => ({ labels: [reason], value: count })),
    ["reason"],
  ),

  ofWorker("lb_worker_connections_total", "counter", "Connections accepted.", (w) => w.accepted),
  ofWorker("lb_worker_connections_open", "gauge", "Connections open now.", (w) => w.open),
  ofWorker("lb_worker_received_bytes_total", "counter", "Bytes received from clients.", (w) => w.bytes_in),
  ofWorker("lb_worker_sent_bytes_total", "counter", "Bytes sent to clients.", (w) => w.bytes_out),
  ofWorker("lb_worker_restarts_total", "counter", "Restarts of the worker.", (w) => w.restarts),
  ofWorker(
    "lb_worker_event_loop_delay_seconds",
    "histogram",
    "Delay of the worker's timers, measured every 50 ms while it has connections.",
    (w) => histogram(w.loop_delay_ms, LOOP_BUCKETS_MS),
  ),
  ofWorker(
    "lb_worker_event_loop_blocked_seconds",
    "gauge",
    "Time for which the worker has not run although a timer was due; 0 while it runs on time.",
    (w) => w.loop_blocked_ms / 1000,
  ),
  whole(
    "lb_access_log_lines_lost_total",
    "counter",
    "Access log lines lost because the file, pipe or receiver was too slow or failed.",
    (s) => s.access_log_lines_lost,
  ),
  whole(
    "lb_otel_exports_total",
    "counter",
    "Requests to the OpenTelemetry receiver; signal is metrics or logs, result is success or failure.",
    ({ otel }) =>
      (otel?.exports ?? []).flatMap(({ signal, ...counts }) =>
        results(counts).map(({ labels, value }) => ({ labels: [signal, ...labels], value })),
      ),
    ["signal", "result"],
  ),
  whole(
    "lb_otel_log_records_lost_total",
    "counter",
    "Access lines that the OpenTelemetry receiver did not get.",
    ({ otel }) => otel?.log_records_lost ?? null,
  ),
  ofWorker(
    "lb_worker_log_lines_lost_total",
    "counter",
    "Access log lines that the worker dropped because the supervisor could not keep up.",
    (w) => w.log_lines_lost,
  ),
];

// ---------------------------------------------------------------------- values

function histogram({ sum, buckets }: { sum: number; buckets: number[] }, boundsMs: readonly number[]): Sample["value"] {
  return { sumSeconds: sum / 1000, buckets, boundsMs };
}

function results({ success, failure }: { success: number; failure: number }): Sample[] {
  return [
    { labels: ["success"], value: success },
    { labels: ["failure"], value: failure },
  ];
}

function expiry({ cert, not_after }: CertificateStatus): Sample {
  return { labels: [cert], value: seconds(not_after) };
}

function endsOf(listener: ListenerStatus): Sample[] {
  const counts = new Map<string, number>();
  for (const [end, sides] of Object.entries(POSSIBLE_ENDS)) for (const by of sides) counts.set(`${end} ${by}`, 0);
  for (const { end, end_by, count } of listener.ends) counts.set(`${end} ${end_by}`, count);
  return [...counts].map(([key, value]) => ({ labels: key.split(" "), value }));
}

function seconds(rfc3339: string): number {
  return Date.parse(rfc3339) / 1000;
}
