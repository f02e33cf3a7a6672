// The snapshot: the state of the running process at one moment, as plain data. /api/status returns it as JSON, so its keys are a
// public interface. The Prometheus text is made from it.
import type { End, EndedBy } from "../core/ends.ts";
import type { TlsFailure } from "../shared/counters.ts";

export interface Snapshot {
  version: string;
  pid: number;
  /** RFC 3339. */
  started_at: string;
  uptime_seconds: number;
  /** Whether the process accepts connections on every listener. */
  ready: boolean;
  /** Why not, one sentence each; empty when ready. */
  not_ready: string[];
  config: ConfigStatus;
  connections: {
    open: number;
    /** The cap of the whole process, and the open-files limit that it comes from. */
    max: number;
    open_files_limit: number;
  };
  process: {
    /** Of all threads, user and system. */
    cpu_seconds: number;
    resident_bytes: number;
    /** null where the system does not report it. */
    open_files: number | null;
  };
  /** Access log lines lost because the disk or the reader of a pipe was too slow. */
  access_log_lines_lost: number;
  workers: WorkerStatus[];
  listeners: ListenerStatus[];
  pools: PoolStatus[];
}

export interface ConfigStatus {
  file: string;
  generation: number;
  /** When the active generation was loaded, RFC 3339. */
  loaded_at: string;
  reloads: { success: number; failure: number };
  /** Whether the last attempt to load succeeded, and if not, what was wrong. */
  last_reload_ok: boolean;
  last_reload_error: string | null;
}

export interface WorkerStatus {
  index: number;
  state: "starting" | "running" | "retiring";
  /** Number of restarts of this worker. */
  restarts: number;
  accepted: number;
  open: number;
  bytes_in: number;
  bytes_out: number;
  log_lines_lost: number;
  /** For how long the event loop has not run though a timer was due; 0 while it runs on time. */
  loop_blocked_ms: number;
  /** How late the timers of its clock ran: buckets by upper bound (LOOP_BUCKETS_MS), not cumulated. */
  loop_delay_ms: { sum: number; buckets: number[] };
}

export interface ListenerStatus {
  name: string;
  bind: string[];
  pool: string | null;
  /** Whether a pool that the listener can route to has a backend up. */
  ready: boolean;
  /** The pools that have none, one sentence each. */
  not_ready: string[];
  open: number;
  /** 0 = no cap of its own. */
  max_connections: number;
  accepted: number;
  bytes_in: number;
  bytes_out: number;
  /** null where TLS is not terminated here. */
  tls: TlsStatus | null;
  /** Ended connections; combinations that never occurred are left out. */
  ends: { end: End; end_by: EndedBy; count: number }[];
}

export interface TlsStatus {
  certificates: { cert: string; names: string[]; not_after: string; days_left: number }[];
  /** Handshakes that succeeded. */
  handshakes: { version: "TLSv1.2" | "TLSv1.3"; resumed: boolean; count: number }[];
  failures: { reason: TlsFailure; count: number }[];
  /** Clients that sent their FIN without a close_notify before it. */
  truncated: number;
  /** Successful handshakes, from accept on: buckets by upper bound (HANDSHAKE_BUCKETS_MS), not cumulated. */
  handshake_ms: { sum: number; buckets: number[] };
}

export interface PoolStatus {
  name: string;
  balance: string;
  /** Names of backends that have had no address yet. */
  unresolved: string[];
  /** With source_hash: equal on machines that send every client to the same backend; else null. */
  hash_table_fingerprint: number | null;
  backends: BackendStatus[];
}

export interface BackendStatus {
  name: string;
  address: string;
  /** The state set by an operator. */
  state: "ready";
  up: boolean;
  weight: number;
  backup: boolean;
  /** 0 = no cap. */
  max_connections: number;
  open: number;
  /** Connection attempts by result. */
  connects: {
    attempted: number;
    succeeded: number;
    refused: number;
    timed_out: number;
    failed: number;
    tls_failed: number;
    retried_away: number;
  };
  /** Successful connects: their times, in buckets by upper bound (CONNECT_BUCKETS_MS, the last one infinite), not cumulated. */
  connect_ms: { sum: number; buckets: number[] };
  bytes_in: number;
  bytes_out: number;
  ended: number;
  /** Connections that the backend ended with FIN and without a close_notify, where it speaks TLS. */
  tls_truncated: number;
  health: {
    up: boolean;
    check: string;
    /** When it came up or went down last, RFC 3339. */
    since: string;
    checks: { success: number; failure: number };
    /** What the last failed check said; null after a success. */
    last_error: string | null;
    /** What its agent says, and why it could not be asked the last time; null = it has none. */
    agent: { up: boolean; state: "ready" | "drain" | "maint"; percent: number; last_error: string | null } | null;
  };
}
