// A snapshot in which every field has a value.
import type { BackendStatus, Snapshot } from "../../src/observe/snapshot.ts";
import { CONNECT_BUCKETS_MS, LOOP_BUCKETS_MS, QUEUE_BUCKETS_MS } from "../../src/shared/counters.ts";

export function filledSnapshot(): Snapshot {
  return {
    version: "1.2.3",
    pid: 4711,
    started_at: "2026-01-02T03:04:05.500Z",
    uptime_seconds: 60,
    ready: true,
    not_ready: [],
    config: {
      file: "/etc/lb/lb.toml",
      generation: 3,
      loaded_at: "2026-01-02T03:05:00.000Z",
      reloads: { success: 2, failure: 1 },
      last_reload_ok: false,
      last_reload_error: "lb.toml:3:1: no",
    },
    admin: {
      certificate: { cert: "/etc/lb/admin.pem", names: [], not_after: "2027-01-02T00:00:00.000Z", days_left: 40.5 },
    },
    connections: { open: 7, max: 1000, open_files_limit: 4096 },
    process: { cpu_seconds: 12.5, resident_bytes: 70_000_000, open_files: 33 },
    access_log_lines_lost: 3,
    otel: {
      exports: [
        { signal: "metrics", success: 7, failure: 1 },
        { signal: "logs", success: 5, failure: 2 },
      ],
      log_records_lost: 4,
      last_error: null,
    },
    workers: [
      {
        index: 0,
        state: "running",
        restarts: 1,
        accepted: 30,
        open: 4,
        bytes_in: 1000,
        bytes_out: 2000,
        log_lines_lost: 5,
        loop_blocked_ms: 1500,
        loop_delay_ms: { sum: 260, buckets: [...LOOP_BUCKETS_MS.map(() => 2), 1] },
      },
      {
        index: 1,
        state: "running",
        restarts: 0,
        accepted: 12,
        open: 3,
        bytes_in: 10,
        bytes_out: 20,
        log_lines_lost: 0,
        loop_blocked_ms: 0,
        loop_delay_ms: { sum: 0, buckets: [...LOOP_BUCKETS_MS.map(() => 0), 0] },
      },
    ],
    listeners: [
      {
        name: "web",
        bind: ["0.0.0.0:8080"],
        pool: "app",
        state: "ready",
        changes: [],
        ready: true,
        not_ready: [],
        open: 7,
        max_connections: 0,
        accepted: 42,
        bytes_in: 1010,
        bytes_out: 2020,
        duration_ms: { sum: 900_000, buckets: [1, 2, 3] },
        first_byte_ms: { sum: 400, buckets: [5, 6] },
        tls: {
          certificates: [
            { cert: "/etc/lb/site.pem", names: ["a.example"], not_after: "2027-01-01T00:00:00.000Z", days_left: 39.5 },
          ],
          handshakes: [
            { version: "TLSv1.2", resumed: false, count: 6 },
            { version: "TLSv1.3", resumed: true, count: 7 },
          ],
          failures: [{ reason: "not_tls", count: 8 }],
          truncated: 3,
          handshake_ms: { sum: 1500, buckets: [0, 0, 9, 4] },
        },
        dry_run: [{ limit: "rate_limit", count: 4 }],
        ends: [
          { end: "eof", end_by: "client", count: 30 },
          { end: "connect_refused", end_by: "backend", count: 2 },
          { end: "idle_timeout", end_by: "client", count: 1 },
        ],
      },
    ],
    pools: [
      {
        name: "app",
        balance: "round_robin",
        unresolved: [],
        hash_table_fingerprint: 3189987144,
        changes: [],
        panic: true,
        queue: {
          waiting: 4,
          size: 100,
          wait_ms: { sum: 2500, buckets: QUEUE_BUCKETS_MS.map((_, i) => (i < 3 ? 1 : 0)) },
        },
        backends: [
          filledBackend("app.example:80@10.0.0.1:80", "10.0.0.1:80"),
          filledBackend("app.example:80@10.0.0.2:80", "10.0.0.2:80"),
          { ...filledBackend("big", "unix:/run/app.sock"), up: false },
        ],
      },
      {
        name: "empty",
        balance: "least_connections",
        unresolved: [],
        hash_table_fingerprint: null,
        changes: [],
        panic: false,
        queue: null,
        backends: [],
      },
    ],
  };
}

/** Ten connects: one in each of the first nine buckets, one above the last bound. */
function filledBackend(name: string, address: string): BackendStatus {
  const buckets = [...CONNECT_BUCKETS_MS, Infinity].map((_, i) => (i < 9 || i === CONNECT_BUCKETS_MS.length ? 1 : 0));
  return {
    name,
    address,
    state: "ready",
    changes: [],
    up: true,
    weight: 3,
    file_weight: 1,
    ramp_percent: 55,
    ejected_until: name === "big" ? "2026-01-02T03:05:05.000Z" : null,
    ejection_reason: name === "big" ? "5 failed connects within 10s" : null,
    ejections: [
      { reason: "connect", count: 6 },
      { reason: "early_reset", count: 1 },
    ],
    backup: false,
    max_connections: 500,
    open: 2,
    connects: { attempted: 16, succeeded: 10, refused: 3, timed_out: 2, failed: 1, tls_failed: 5, retried_away: 4 },
    connect_ms: { sum: 6250, buckets },
    bytes_in: 111,
    bytes_out: 222,
    ended: 8,
    tls_truncated: 1,
    health: {
      up: true,
      check: "tcp",
      since: "2026-01-02T03:04:06.000Z",
      checks: { success: 20, failure: 3 },
      failures: [
        { reason: "refused", count: 2 },
        { reason: "timeout", count: 1 },
        { reason: "tls", count: 0 },
        { reason: "answer", count: 0 },
        { reason: "failed", count: 0 },
      ],
      last_error: null,
      agent: null,
    },
  };
}
