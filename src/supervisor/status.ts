// Takes the snapshot: sums of the workers' rows of counters, and the supervisor's own state.
import { resolve } from "node:path";
import { formatEndpoint } from "../core/address.ts";
import type { CertificateConfig, ListenerTlsConfig } from "../config/schema.ts";
import { CHECK_FAILURES } from "../core/check-failures.ts";
import { DRY_RUN_LIMITS } from "../core/dry-run.ts";
import { END_NAMES, ENDED_BY } from "../core/ends.ts";
import type {
  BackendStatus,
  CertificateStatus,
  ListenerStatus,
  PoolStatus,
  QueueStatus,
  Snapshot,
  TlsStatus,
  WorkerStatus,
} from "../observe/snapshot.ts";
import { monotonicMs } from "../platform/clock.ts";
import { processFigures } from "../platform/process.ts";
import { openFilesLimit } from "../platform/sockets.ts";
import { claimed } from "../shared/cells.ts";
import {
  BACKEND,
  CONNECT_TIMES,
  endCell,
  HANDSHAKE_TIMES,
  LISTENER,
  LOOP_DELAYS,
  QUEUE_TIMES,
  readTimes,
  TLS_FAILURES,
  tlsFailureCell,
  WORKER,
  FIRST_BYTE_TIMES,
  LIFE_TIMES,
} from "../shared/counters.ts";
import { SharedQueue } from "../shared/queue.ts";
import type { WorkerSlot } from "./worker-slot.ts";
import type { HealthChecks } from "./health.ts";
import { listenerReadiness, processNotReady, type Phase, type Unresolved } from "./readiness.ts";
import { hashTable } from "./plans.ts";
import { orderOf, poolTiers, ramps } from "./pool-tiers.ts";
import { describeOrder } from "./runtime-changes.ts";
import { drainedReason } from "../admin/operations.ts";
import { ejectionReason, healthReason } from "./reasons.ts";
import type { BackendRecord, ListenerRecord, PoolRecord, Registry } from "./registry.ts";

/** What the status shows of one worker. */
export type WorkerFacts = Pick<WorkerSlot, "index" | "state" | "restarts" | "counters" | "downMs">;

export interface StatusSources {
  version: string;
  file: string;
  startedAtMs: number;
  loadedAtMs: number;
  generation: number;
  reloads: { success: number; failure: number; lastError: string | null };
  /** The certificate of the admin endpoint; null = plain HTTP. */
  adminCertificate: CertificateConfig | null;
  phase: Phase;
  open: number;
  maxConnections: number;
  logLinesLost: number;
  otel: Snapshot["otel"];
  registry: Registry;
  fleet: { slots: readonly WorkerFacts[]; retiring: readonly WorkerFacts[] };
  health: Pick<HealthChecks, "facts" | "agent">;
  /** The names of a pool that have never resolved. */
  unresolved: Unresolved;
}

export function takeSnapshot(sources: StatusSources): Snapshot {
  const { registry, fleet, health, unresolved, reloads } = sources;
  const drained = registry.listeners.filter(({ name }) => registry.changes.isDrained(name));
  const notReady = [...processNotReady(sources.phase, fleet.slots), ...drained.map(({ name }) => drainedReason(name))];
  return {
    version: sources.version,
    pid: process.pid,
    started_at: new Date(sources.startedAtMs).toISOString(),
    uptime_seconds: (Date.now() - sources.startedAtMs) / 1000,
    ready: notReady.length === 0,
    not_ready: notReady,
    config: {
      file: resolve(sources.file),
      generation: sources.generation,
      loaded_at: new Date(sources.loadedAtMs).toISOString(),
      reloads: { success: reloads.success, failure: reloads.failure },
      last_reload_ok: reloads.lastError === null,
      last_reload_error: reloads.lastError,
    },
    admin: { certificate: sources.adminCertificate && certificateStatus(sources.adminCertificate) },
    connections: { open: sources.open, max: sources.maxConnections, open_files_limit: openFilesLimit() },
    process: processFigures(),
    access_log_lines_lost: sources.logLinesLost,
    otel: sources.otel,
    workers: [...fleet.slots, ...fleet.retiring].map(workerStatus),
    listeners: registry.listeners.map((listener) => listenerStatus(listener, sources)),
    pools: registry.pools.map((pool) => poolStatus(pool, health, unresolved(pool.config))),
  };
}

function workerStatus({ index, state, restarts, counters }: WorkerFacts): WorkerStatus {
  const accepted = counters[WORKER.accepted]!;
  const tickDueMs = state === "running" ? counters[WORKER.tickDueMs]! : 0;
  return {
    index,
    state: state === "gone" ? "retiring" : state,
    restarts,
    accepted,
    open: accepted - counters[WORKER.ended]!,
    bytes_in: counters[WORKER.bytesIn]!,
    bytes_out: counters[WORKER.bytesOut]!,
    log_lines_lost: counters[WORKER.logLinesLost]!,
    loop_blocked_ms: tickDueMs === 0 ? 0 : Math.max(0, monotonicMs() - tickDueMs),
    loop_delay_ms: readTimes(LOOP_DELAYS, (cell) => counters[cell]!),
  };
}

/** Made once: 200 listeners have 14,400 of these cells, most of which are 0. */
const END_CELLS = END_NAMES.flatMap((end) => ENDED_BY.map((end_by) => ({ end, end_by, cell: endCell(end, end_by) })));

function listenerStatus(
  listener: ListenerRecord,
  { registry, unresolved }: Pick<StatusSources, "registry" | "unresolved">,
): ListenerStatus {
  const { name, config, cells } = listener;
  const readiness = listenerReadiness(listener, registry.pools, unresolved);
  const isDrained = registry.changes.isDrained(name);
  const totals = cells.totals();
  const sum = (cell: number): number => totals[cell]!;
  return {
    name,
    bind: config.bind.map(formatEndpoint),
    pool: config.pool,
    state: isDrained ? "drain" : "ready",
    changes: isDrained ? ["drain by API"] : [],
    ready: readiness.ready && !isDrained,
    not_ready: [...(isDrained ? [drainedReason(name)] : []), ...readiness.not_ready],
    open: claimed(cells.open),
    max_connections: config.max_connections,
    accepted: sum(LISTENER.accepted),
    bytes_in: sum(LISTENER.bytesIn),
    bytes_out: sum(LISTENER.bytesOut),
    duration_ms: readTimes(LIFE_TIMES, sum),
    first_byte_ms: readTimes(FIRST_BYTE_TIMES, sum),
    tls: config.tls && tlsStatus(config.tls, sum),
    ends: END_CELLS.filter(({ cell }) => totals[cell] !== 0).map(({ end, end_by, cell }) => {
      return { end, end_by, count: sum(cell) };
    }),
    dry_run: DRY_RUN_LIMITS.map((limit, i) => ({ limit, count: sum(LISTENER.dryRun + i) })).filter(
      ({ limit, count }) => count > 0 || config.dry_run.includes(limit),
    ),
  };
}

function certificateStatus({ cert, names, not_after }: CertificateConfig): CertificateStatus {
  return { cert, names, not_after: new Date(not_after).toISOString(), days_left: daysLeft(not_after) };
}

function tlsStatus(tls: ListenerTlsConfig, sum: (cell: number) => number): TlsStatus {
  return {
    certificates: tls.certificates.map(certificateStatus),
    handshakes: [
      { version: "TLSv1.2", resumed: false, count: sum(LISTENER.tls12) },
      { version: "TLSv1.2", resumed: true, count: sum(LISTENER.tls12Resumed) },
      { version: "TLSv1.3", resumed: false, count: sum(LISTENER.tls13) },
      { version: "TLSv1.3", resumed: true, count: sum(LISTENER.tls13Resumed) },
    ],
    failures: TLS_FAILURES.map((reason) => ({ reason, count: sum(tlsFailureCell(reason)) })),
    truncated: sum(LISTENER.tlsTruncated),
    handshake_ms: readTimes(HANDSHAKE_TIMES, sum),
  };
}

/** Days until a moment, with fractions; negative if it has passed. */
export function daysLeft(epochMs: number): number {
  return (epochMs - Date.now()) / 86_400_000;
}

function poolStatus(pool: PoolRecord, health: StatusSources["health"], unresolved: string[]): PoolStatus {
  return {
    name: pool.name,
    balance: pool.config.balance,
    unresolved,
    hash_table_fingerprint: hashTable(pool, 0)?.fingerprint ?? null,
    changes: pool.changes.removed.map((name) => `backend ${name} removed by API`),
    panic: pool.config.panic_threshold > 0 && poolTiers(pool).some(({ panic }) => panic),
    queue: pool.queue && queueStatus(new SharedQueue(pool.queue), pool.config.queue.size),
    backends: pool.backends.map((backend) => backendStatus(backend, pool, health)),
  };
}

function queueStatus(queue: SharedQueue, size: number): QueueStatus {
  const totals = queue.totals();
  return { waiting: queue.waiting, size, wait_ms: readTimes(QUEUE_TIMES, (cell) => totals[cell]!) };
}

function backendStatus(backend: BackendRecord, pool: PoolRecord, health: StatusSources["health"]): BackendStatus {
  const totals = backend.cells.totals();
  const sum = (cell: number): number => totals[cell]!;
  const facts = health.facts(backend.id);
  const agent = health.agent(backend.id);
  const { untilMs, count } = backend.state.ejection;
  const order = orderOf(pool, backend);
  const isAdded = pool.changes.isAdded(backend.config.name);
  const fileWeight = isAdded ? null : backend.config.weight;
  return {
    name: backend.name,
    address: backend.address,
    state: order.state,
    changes: [...(isAdded ? ["added by API"] : []), ...describeOrder(order, fileWeight)],
    up: backend.up,
    weight: order.weight ?? backend.config.weight,
    file_weight: fileWeight,
    ramp_percent: Math.round((ramps(pool.config) ? backend.state.ramp : 1) * 100),
    backup: backend.config.backup,
    ejected_until: untilMs === null ? null : new Date(Date.now() + untilMs - performance.now()).toISOString(),
    ejection_reason: untilMs === null ? null : ejectionReason(pool, backend),
    ejections: [
      { reason: "connect", count: count.connect },
      { reason: "early_reset", count: count.earlyReset },
    ],
    max_connections: backend.config.max_connections,
    open: claimed(backend.cells.open),
    connects: {
      attempted: sum(BACKEND.dials),
      succeeded: sum(BACKEND.connected),
      refused: sum(BACKEND.refused),
      timed_out: sum(BACKEND.timedOut),
      failed: sum(BACKEND.failed),
      tls_failed: sum(BACKEND.tlsFailed),
      retried_away: sum(BACKEND.retriedAway),
    },
    connect_ms: readTimes(CONNECT_TIMES, sum),
    bytes_in: sum(BACKEND.bytesIn),
    bytes_out: sum(BACKEND.bytesOut),
    ended: sum(BACKEND.ended),
    tls_truncated: sum(BACKEND.tlsTruncated),
    health: {
      up: backend.up,
      check: pool.config.health.type,
      since: new Date(facts?.sinceMs ?? backend.state.sinceMs).toISOString(),
      checks: { success: facts?.success ?? 0, failure: facts?.failure ?? 0 },
      failures: CHECK_FAILURES.map((reason) => ({ reason, count: facts?.failures[reason] ?? 0 })),
      last_error: healthReason(health, backend.id),
      agent: agent && { ...agent.report, last_error: agent.lastError },
    },
  };
}
