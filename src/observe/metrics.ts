// Every metric with its name, kind, labels, documentation, and how its samples come from the snapshot. docs/metrics.md is tested against
// this table; the Prometheus text and the export by OpenTelemetry are made from it. Nothing is counted here.
import { ENDS, type End, type EndedBy } from "../core/ends.ts";
import {
  CONNECT_BUCKETS_MS,
  FIRST_BYTE_BUCKETS_MS,
  HANDSHAKE_BUCKETS_MS,
  LIFE_BUCKETS_MS,
  LOOP_BUCKETS_MS,
  QUEUE_BUCKETS_MS,
} from "../shared/counters.ts";
import type { BackendStatus, ListenerStatus, QueueStatus, Snapshot, TlsStatus, WorkerStatus } from "./snapshot.ts";

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

const LISTENER_LABELS = ["listener"];
// A host name can resolve to several addresses, so only name and address together identify a backend.
const BACKEND_LABELS = ["pool", "backend", "address"];
const WORKER_LABELS = ["worker"];

export const METRICS: readonly Metric[] = [
  whole("lb_build_info", "gauge", "Version of the running lb; always 1.", () => 1, {
    labels: ["version"],
    values: ({ version }) => [version],
  }),
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
  {
    name: "process_open_fds",
    type: "gauge",
    labels: [],
    help: "Open file descriptors of the process.",
    samples: ({ process: { open_files } }) => (open_files === null ? [] : [{ labels: [], value: open_files }]),
  },
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
  {
    name: "lb_config_reloads_total",
    type: "counter",
    labels: ["result"],
    help: "Config reloads; result is success or failure.",
    samples: ({ config: { reloads } }) => [
      { labels: ["success"], value: reloads.success },
      { labels: ["failure"], value: reloads.failure },
    ],
  },
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
  {
    name: "lb_listener_connections_ended_total",
    type: "counter",
    labels: ["listener", "end", "end_by"],
    help: "Connections ended, by end (as in the access log) and by side: client, backend or lb.",
    samples: ({ listeners }) => listeners.flatMap(endsOf),
  },
  {
    name: "lb_dry_run_total",
    type: "counter",
    labels: ["listener", "limit"],
    help: "Connections that a limit in dry_run would have refused or delayed.",
    samples: ({ listeners }) =>
      listeners.flatMap(({ name, dry_run }) =>
        dry_run.map(({ limit, count }) => ({ labels: [name, limit], value: count })),
      ),
  },
  {
    name: "lb_tls_handshakes_total",
    type: "counter",
    labels: ["listener", "version", "resumed"],
    help: "Successful TLS handshakes with clients; resumed is true or false.",
    samples: (snapshot) =>
      eachTls(snapshot, (listener, { handshakes }) =>
        handshakes.map(({ version, resumed, count }) => ({
          labels: [listener, version, String(resumed)],
          value: count,
        })),
      ),
  },
  {
    name: "lb_tls_handshake_failures_total",
    type: "counter",
    labels: ["listener", "reason"],
    help: "Failed TLS handshakes with clients.",
    samples: (snapshot) =>
      eachTls(snapshot, (listener, { failures }) =>
        failures.map(({ reason, count }) => ({ labels: [listener, reason], value: count })),
      ),
  },
  ofListenerTimes(
    "lb_connection_duration_seconds",
    "Time from accept to the end, of connections that reached a backend.",
    ({ duration_ms }) => ({ ...duration_ms, boundsMs: LIFE_BUCKETS_MS }),
  ),
  ofListenerTimes(
    "lb_first_byte_seconds",
    "Time from accept to the backend's first byte for the client.",
    ({ first_byte_ms }) => ({ ...first_byte_ms, boundsMs: FIRST_BYTE_BUCKETS_MS }),
  ),
  {
    name: "lb_tls_handshake_duration_seconds",
    type: "histogram",
    labels: LISTENER_LABELS,
    help: "Time from accept to the end of successful TLS handshakes.",
    samples: (snapshot) =>
      eachTls(snapshot, (listener, { handshake_ms: { sum, buckets } }) => [
        { labels: [listener], value: { sumSeconds: sum / 1000, buckets, boundsMs: HANDSHAKE_BUCKETS_MS } },
      ]),
  },
  {
    name: "lb_tls_truncated_total",
    type: "counter",
    labels: LISTENER_LABELS,
    help: "Clients that ended TLS with FIN but without close_notify, if the listener can detect it.",
    samples: (snapshot) => eachTls(snapshot, (listener, { truncated }) => [{ labels: [listener], value: truncated }]),
  },
  {
    name: "lb_tls_certificate_expiry_timestamp_seconds",
    type: "gauge",
    labels: ["listener", "cert"],
    help: "Expiry time of the certificate, seconds since the epoch.",
    samples: (snapshot) =>
      eachTls(snapshot, (listener, { certificates }) =>
        certificates.map(({ cert, not_after }) => ({ labels: [listener, cert], value: seconds(not_after) })),
      ),
  },
  {
    name: "lb_admin_certificate_expiry_timestamp_seconds",
    type: "gauge",
    labels: ["cert"],
    help: "When the certificate of the admin endpoint expires, seconds since the epoch.",
    samples: ({ admin: { certificate } }) =>
      certificate === null ? [] : [{ labels: [certificate.cert], value: seconds(certificate.not_after) }],
  },

  {
    name: "lb_pool_hash_table_fingerprint",
    type: "gauge",
    labels: ["pool"],
    help: "Fingerprint of the source_hash table: equal on machines that send every client to the same backend.",
    samples: ({ pools }) =>
      pools.flatMap(({ name, hash_table_fingerprint: value }) => (value === null ? [] : [{ labels: [name], value }])),
  },

  {
    name: "lb_pool_panic",
    type: "gauge",
    labels: ["pool"],
    help: "1 while fewer backends than panic_threshold are up and health is ignored, else 0.",
    samples: ({ pools }) => pools.map(({ name, panic }) => ({ labels: [name], value: panic ? 1 : 0 })),
  },
  ofQueue("lb_pool_queue_connections", "Connections waiting in the queue of the pool now.", (q) => q.waiting),
  ofQueue(
    "lb_pool_queue_connections_limit",
    "Maximum number of waiting connections: queue.size of the pool.",
    (q) => q.size,
  ),
  {
    name: "lb_pool_queue_wait_seconds",
    type: "histogram",
    labels: ["pool"],
    help: "Time that connections waited in the queue of the pool, served or not.",
    samples: (snapshot) =>
      eachQueue(snapshot, ({ wait_ms: { sum, buckets } }) => ({
        sumSeconds: sum / 1000,
        buckets,
        boundsMs: QUEUE_BUCKETS_MS,
      })),
  },

  ofBackend("lb_backend_up", "gauge", "1 while the backend is up, else 0.", (b) => (b.up ? 1 : 0)),
  {
    name: "lb_backend_last_change_timestamp_seconds",
    type: "gauge",
    labels: BACKEND_LABELS,
    help: "Time of the last change between up and down by health checks, seconds since the epoch.",
    samples: (snapshot) =>
      eachBackend(snapshot, (labels, { health: { check, since } }) =>
        check === "off" ? [] : [{ labels, value: seconds(since) }],
      ),
  },
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
    "1 while an operator has the backend in drain or maintenance, else 0.",
    (b) => (b.state === "ready" ? 0 : 1),
  ),
  ofBackend("lb_backend_ejected", "gauge", "1 while passive health has ejected the backend, else 0.", (b) =>
    b.ejected_until === null ? 0 : 1,
  ),
  {
    name: "lb_backend_ejections_total",
    type: "counter",
    labels: [...BACKEND_LABELS, "reason"],
    help: "Ejections by passive health; reason is connect or early_reset.",
    samples: (snapshot) =>
      eachBackend(snapshot, (labels, { ejections }) =>
        ejections.map(({ reason, count }) => ({ labels: [...labels, reason], value: count })),
      ),
  },
  ofBackend("lb_backend_connections_open", "gauge", "Connections open or being established now.", (b) => b.open),
  ofBackend(
    "lb_backend_connections_limit",
    "gauge",
    "Maximum number of open connections: max_connections of the backend; 0 = no limit.",
    (b) => b.max_connections,
  ),
  ofBackend("lb_backend_connections_ended_total", "counter", "Connections to the backend that ended.", (b) => b.ended),
  ofBackend("lb_backend_connect_attempts_total", "counter", "Connect attempts.", (b) => b.connects.attempted),
  {
    name: "lb_backend_connect_failures_total",
    type: "counter",
    labels: [...BACKEND_LABELS, "reason"],
    help: "Failed connect attempts; reason is refused, timeout, tls or failed.",
    samples: (snapshot) =>
      eachBackend(snapshot, (labels, { connects }) => [
        { labels: [...labels, "refused"], value: connects.refused },
        { labels: [...labels, "timeout"], value: connects.timed_out },
        { labels: [...labels, "tls"], value: connects.tls_failed },
        { labels: [...labels, "failed"], value: connects.failed },
      ]),
  },
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
  {
    name: "lb_backend_connect_duration_seconds",
    type: "histogram",
    labels: BACKEND_LABELS,
    help: "Duration of successful connects.",
    samples: (snapshot) =>
      eachBackend(snapshot, (labels, { connect_ms }) => [
        {
          labels,
          value: { sumSeconds: connect_ms.sum / 1000, buckets: connect_ms.buckets, boundsMs: CONNECT_BUCKETS_MS },
        },
      ]),
  },
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
  {
    name: "lb_backend_health_checks_total",
    type: "counter",
    labels: [...BACKEND_LABELS, "result"],
    help: "Active health checks; result is success or failure.",
    samples: (snapshot) =>
      eachBackend(snapshot, (labels, { health }) => [
        { labels: [...labels, "success"], value: health.checks.success },
        { labels: [...labels, "failure"], value: health.checks.failure },
      ]),
  },

  ofWorker("lb_worker_connections_total", "counter", "Connections accepted.", (w) => w.accepted),
  ofWorker("lb_worker_connections_open", "gauge", "Connections open now.", (w) => w.open),
  ofWorker("lb_worker_received_bytes_total", "counter", "Bytes received from clients.", (w) => w.bytes_in),
  ofWorker("lb_worker_sent_bytes_total", "counter", "Bytes sent to clients.", (w) => w.bytes_out),
  ofWorker("lb_worker_restarts_total", "counter", "Restarts of the worker.", (w) => w.restarts),
  {
    name: "lb_worker_event_loop_delay_seconds",
    type: "histogram",
    labels: WORKER_LABELS,
    help: "Delay of the worker's timers, measured every 50 ms while it has connections.",
    samples: ({ workers }) =>
      workers.map(({ index, loop_delay_ms: { sum, buckets } }) => ({
        labels: [String(index)],
        value: { sumSeconds: sum / 1000, buckets, boundsMs: LOOP_BUCKETS_MS },
      })),
  },
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
  {
    name: "lb_otel_exports_total",
    type: "counter",
    labels: ["signal", "result"],
    help: "Requests to the OpenTelemetry receiver; signal is metrics or logs, result is success or failure.",
    samples: ({ otel }) =>
      (otel?.exports ?? []).flatMap(({ signal, success, failure }) => [
        { labels: [signal, "success"], value: success },
        { labels: [signal, "failure"], value: failure },
      ]),
  },
  {
    name: "lb_otel_log_records_lost_total",
    type: "counter",
    labels: [],
    help: "Access lines that the OpenTelemetry receiver did not get.",
    samples: ({ otel }) => (otel === null ? [] : [{ labels: [], value: otel.log_records_lost }]),
  },
  ofWorker(
    "lb_worker_log_lines_lost_total",
    "counter",
    "Access log lines that the worker dropped because the supervisor could not keep up.",
    (w) => w.log_lines_lost,
  ),
];

// ---------------------------------------------------------------------- rows of the table

type Simple = "counter" | "gauge";

function whole(
  name: string,
  type: Simple,
  help: string,
  value: (snapshot: Snapshot) => number,
  labelled: { labels: string[]; values: (snapshot: Snapshot) => string[] } = { labels: [], values: () => [] },
): Metric {
  const { labels, values } = labelled;
  return { name, type, labels, help, samples: (s) => [{ labels: values(s), value: value(s) }] };
}

function ofListener(name: string, type: Simple, help: string, value: (listener: ListenerStatus) => number): Metric {
  const samples = ({ listeners }: Snapshot) => listeners.map((l) => ({ labels: [l.name], value: value(l) }));
  return { name, type, labels: LISTENER_LABELS, help, samples };
}

function ofListenerTimes(
  name: string,
  help: string,
  times: (listener: ListenerStatus) => { sum: number; buckets: number[]; boundsMs: readonly number[] },
): Metric {
  const samples = ({ listeners }: Snapshot) =>
    listeners.map((listener) => {
      const { sum, buckets, boundsMs } = times(listener);
      return { labels: [listener.name], value: { sumSeconds: sum / 1000, buckets, boundsMs } };
    });
  return { name, type: "histogram", labels: LISTENER_LABELS, help, samples };
}

function ofQueue(name: string, help: string, value: (queue: QueueStatus) => number): Metric {
  return { name, type: "gauge", labels: ["pool"], help, samples: (snapshot) => eachQueue(snapshot, value) };
}

function ofBackend(name: string, type: Simple, help: string, value: (backend: BackendStatus) => number): Metric {
  const samples = (s: Snapshot) => eachBackend(s, (labels, backend) => [{ labels, value: value(backend) }]);
  return { name, type, labels: BACKEND_LABELS, help, samples };
}

function ofWorker(name: string, type: Simple, help: string, value: (worker: WorkerStatus) => number): Metric {
  const samples = ({ workers }: Snapshot) => workers.map((w) => ({ labels: [String(w.index)], value: value(w) }));
  return { name, type, labels: WORKER_LABELS, help, samples };
}

function eachTls(snapshot: Snapshot, each: (listener: string, tls: TlsStatus) => Sample[]): Sample[] {
  return snapshot.listeners.flatMap(({ name, tls }) => (tls === null ? [] : each(name, tls)));
}

function eachQueue(snapshot: Snapshot, value: (queue: QueueStatus) => Sample["value"]): Sample[] {
  return snapshot.pools.flatMap(({ name, queue }) => (queue === null ? [] : [{ labels: [name], value: value(queue) }]));
}

function eachBackend(snapshot: Snapshot, each: (labels: string[], backend: BackendStatus) => Sample[]): Sample[] {
  return snapshot.pools.flatMap((pool) =>
    pool.backends.flatMap((backend) => each([pool.name, backend.name, backend.address], backend)),
  );
}

function endsOf(listener: ListenerStatus): Sample[] {
  const counts = new Map<string, number>();
  for (const [end, sides] of Object.entries(POSSIBLE_ENDS)) for (const by of sides) counts.set(`${end} ${by}`, 0);
  for (const { end, end_by, count } of listener.ends) counts.set(`${end} ${end_by}`, count);
  return [...counts].map(([key, value]) => ({ labels: [listener.name, ...key.split(" ")], value }));
}

function seconds(rfc3339: string): number {
  return Date.parse(rfc3339) / 1000;
}
