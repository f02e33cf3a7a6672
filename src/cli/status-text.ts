// The status of a running lb as text: a head, then tables of listeners, of pools with their backends, and of workers. Pure.
import { formatBytes, formatCount, formatDuration } from "../core/format.ts";
import { backendState, failedConnects, listenerState, refusals, troubleOf } from "../observe/figures.ts";
import type { BackendStatus, ListenerStatus, PoolStatus, Snapshot, WorkerStatus } from "../observe/snapshot.ts";
import { table, type Column } from "./table.ts";

/** The lines. `nowMs` is Date.now(), because snapshots contain wall-clock times. */
export function statusText(snapshot: Snapshot, nowMs: number): string[] {
  const backends = snapshot.pools.flatMap((pool) =>
    pool.backends.map((backend, i) => ({ pool, backend, first: i === 0 })),
  );
  return [
    ...head(snapshot, nowMs),
    ...snapshot.pools.flatMap(poolNotes),
    "",
    ...table(LISTENERS, snapshot.listeners),
    "",
    ...table(backendColumns(nowMs), backends),
    "",
    ...table(WORKERS, snapshot.workers),
  ];
}

function head(
  { version, pid, uptime_seconds, ready, not_ready, config, connections }: Snapshot,
  nowMs: number,
): string[] {
  const { success, failure } = config.reloads;
  const loaded = formatDuration(nowMs - Date.parse(config.loaded_at));
  return [
    `lb ${version}, process ${pid}, up ${formatDuration(uptime_seconds * 1000)}: ${ready ? "ready" : "not ready"}`,
    ...not_ready.map((reason) => `  ${reason}`),
    `connections  ${connections.open} of at most ${connections.max}`,
    `config       ${config.file}, generation ${config.generation}, loaded ${loaded} ago; reloads: ${success} good, ${failure} failed`,
    ...(config.last_reload_error === null ? [] : [`last reload  failed: ${config.last_reload_error.split("\n")[0]}`]),
  ];
}

/** What the table of backends cannot show: the panic and the queue of a pool. */
function poolNotes({ name, panic, queue }: PoolStatus): string[] {
  return [
    ...(panic ? [`pool ${name} is in panic: health is ignored`] : []),
    ...(queue !== null && queue.waiting > 0
      ? [`pool ${name} has ${queue.waiting} of at most ${queue.size} connections in its queue`]
      : []),
  ];
}

const LISTENERS: readonly Column<ListenerStatus>[] = [
  { title: "LISTENER", cell: ({ name }) => name },
  { title: "BIND", cell: ({ bind }) => bind.join(" ") },
  { title: "POOL", cell: ({ pool }) => pool ?? "-" },
  { title: "STATE", cell: (listener) => listenerState(listener).word },
  { title: "OPEN", align: "right", cell: ({ open }) => String(open) },
  { title: "MAX", align: "right", cell: ({ max_connections }) => capText(max_connections) },
  { title: "ACCEPTED", align: "right", cell: ({ accepted }) => formatCount(accepted) },
  { title: "REFUSED", align: "right", cell: (listener) => zeroAsNothing(refusals(listener)) },
  { title: "IN", align: "right", cell: ({ bytes_in }) => formatBytes(bytes_in) },
  { title: "OUT", align: "right", cell: ({ bytes_out }) => formatBytes(bytes_out) },
];

interface BackendRow {
  pool: PoolStatus;
  backend: BackendStatus;
  /** Whether it is the first of its pool. */
  first: boolean;
}

function backendColumns(nowMs: number): readonly Column<BackendRow>[] {
  return [
    { title: "POOL", cell: ({ pool, first }) => (first ? pool.name : "") },
    { title: "BACKEND", cell: ({ backend }) => backend.name },
    { title: "ADDRESS", cell: ({ backend }) => (backend.address === backend.name ? "" : backend.address) },
    { title: "STATE", cell: ({ backend }) => stateText(backend) },
    { title: "FOR", align: "right", cell: ({ backend }) => formatDuration(nowMs - Date.parse(backend.health.since)) },
    { title: "WEIGHT", align: "right", cell: ({ backend }) => String(backend.weight) },
    { title: "OPEN", align: "right", cell: ({ backend }) => String(backend.open) },
    { title: "MAX", align: "right", cell: ({ backend }) => capText(backend.max_connections) },
    { title: "CONNECTS", align: "right", cell: ({ backend }) => formatCount(backend.connects.succeeded) },
    { title: "FAILED", align: "right", cell: ({ backend }) => zeroAsNothing(failedConnects(backend)) },
    { title: "IN", align: "right", cell: ({ backend }) => formatBytes(backend.bytes_in) },
    { title: "OUT", align: "right", cell: ({ backend }) => formatBytes(backend.bytes_out) },
    { title: "LAST ERROR", cell: ({ backend }) => troubleOf(backend) },
  ];
}

/** The state as new connections see it, and whether it is a backup. */
export function stateText(backend: BackendStatus): string {
  return `${backendState(backend).word}${backend.backup ? " backup" : ""}`;
}

const WORKERS: readonly Column<WorkerStatus>[] = [
  { title: "WORKER", cell: ({ index }) => String(index) },
  { title: "STATE", cell: ({ state }) => state },
  { title: "OPEN", align: "right", cell: ({ open }) => String(open) },
  { title: "ACCEPTED", align: "right", cell: ({ accepted }) => formatCount(accepted) },
  { title: "IN", align: "right", cell: ({ bytes_in }) => formatBytes(bytes_in) },
  { title: "OUT", align: "right", cell: ({ bytes_out }) => formatBytes(bytes_out) },
  { title: "RESTARTS", align: "right", cell: ({ restarts }) => zeroAsNothing(restarts) },
];

/** Exact, as the number of open connections beside it. */
function capText(max: number): string {
  return max === 0 ? "" : String(max);
}

function zeroAsNothing(count: number): string {
  return count === 0 ? "" : formatCount(count);
}
