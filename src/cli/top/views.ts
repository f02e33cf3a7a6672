// The views of `lb top`: the columns and rows that each shows from the latest answers of a running lb. Pure.
import {
  formatByteRate,
  formatBytes,
  formatCount,
  formatDuration,
  formatLatency,
  formatRate,
} from "../../core/format.ts";
import { backendState, failedConnects, listenerState, meanConnectMs, refusals, sum } from "../../observe/figures.ts";
import type { ClientStatus, ConnectionList, ConnectionStatus } from "../../observe/live.ts";
import type { BackendStatus, ListenerStatus, PoolStatus, Snapshot } from "../../observe/snapshot.ts";
import { wayOf } from "../connections.ts";
import { stateText } from "../status-text.ts";

/** What is known of the running lb. Rates are computed from two snapshots. */
export interface TopData {
  snapshot: Snapshot | null;
  before: Snapshot | null;
  /** The time between the two. */
  elapsedMs: number;
  connections: ConnectionList | null;
  clients: readonly ClientStatus[] | null;
  /** Date.now() of the latest answer. */
  answeredAtMs: number;
  /** Why the latest request failed, or null. */
  error: string | null;
}

export const NO_DATA: TopData = {
  snapshot: null,
  before: null,
  elapsedMs: 0,
  connections: null,
  clients: null,
  answeredAtMs: 0,
  error: null,
};

export const VIEW_NAMES = ["listeners", "pools", "backends", "clients", "connections", "workers"] as const;
export type ViewName = (typeof VIEW_NAMES)[number];

/** How a cell is shown; text always says the same, for terminals without colours. */
export type Tone = "plain" | "good" | "bad" | "warn" | "dim";

export interface ViewColumn {
  title: string;
  align: "left" | "right";
  /** On narrow terminals, columns with the highest number are dropped first; 0 = never. */
  drop: number;
}

export interface Cell {
  text: string;
  /** The sort key of the row. */
  value: number | string;
  tone: Tone;
}

export interface Row {
  /** Stays the same while the object exists, so that the selection stays on it. */
  key: string;
  cells: Cell[];
  /** The actions on it. */
  target: Target | null;
}

export type Target =
  | { kind: "backend"; pool: string; backend: string; state: string; weight: number }
  | { kind: "connection"; id: number; client: string }
  | { kind: "client"; client: string; open: number };

export interface View {
  columns: readonly ViewColumn[];
  rows: Row[];
  /** Shown below the rows if some are missing. */
  note: string;
}

/** The columns and rows of a view, in the order of the config or of the answer. Computed once for the same data: a key changes only the selection. */
export function viewOf(name: ViewName, data: TopData): View {
  const { snapshot } = data;
  if (snapshot === null) return { columns: [], rows: [], note: "" };
  let made = viewsOf.get(data);
  if (made === undefined) viewsOf.set(data, (made = new Map()));
  let view = made.get(name);
  if (view === undefined) made.set(name, (view = VIEWS[name](data, snapshot)));
  return view;
}

const viewsOf = new WeakMap<TopData, Map<ViewName, View>>();

const VIEWS: Record<ViewName, (data: TopData, snapshot: Snapshot) => View> = {
  listeners: (data, { listeners }) => ({
    columns: columns("LISTENER", "BIND:3", "POOL:5", "STATE", ">OPEN", ">NEW/S", ">REFUSED/S:2", ">IN:1", ">OUT:1"),
    rows: listeners.map((listener) => listenerRow(listener, data)),
    note: "",
  }),
  pools: (data, { pools }) => ({
    columns: columns(
      "POOL",
      "BALANCE:3",
      "STATE",
      ">UP",
      ">BACKENDS:4",
      ">OPEN",
      ">QUEUE:6",
      ">CONNECTS/S",
      ">FAILED/S:2",
      ">IN:1",
      ">OUT:1",
    ),
    rows: pools.map((pool) => poolRow(pool, data)),
    note: "",
  }),
  backends: (data, { pools }) => ({
    columns: columns(
      "POOL",
      "BACKEND",
      "STATE",
      ">FOR:4",
      ">WEIGHT:6",
      ">OPEN",
      ">CONN/S",
      ">FAIL/S:5",
      ">CONNECT:7",
      ">IN:2",
      ">OUT:2",
      "LAST ERROR:1",
    ),
    rows: pools.flatMap((pool) => {
      const before = data.before?.pools.find(({ name }) => name === pool.name)?.backends;
      const was = new Map(before?.map((backend) => [backend.name, backend]));
      return pool.backends.map((backend) => backendRow({ pool, backend, was: was.get(backend.name), data }));
    }),
    note: "",
  }),
  clients: ({ clients }) => ({
    columns: columns("CLIENT", ">OPEN", ">NEW/MIN", ">REFUSED/MIN:1", ">IN/MIN:2", ">OUT/MIN:2"),
    rows: (clients ?? []).map(clientRow),
    note: "",
  }),
  connections: ({ connections }) => ({
    columns: columns(
      ">ID:6",
      "CLIENT",
      "LISTENER:3",
      "BACKEND",
      "SNI:7",
      "PHASE:5",
      ">AGE",
      ">IN:4",
      ">OUT:4",
      ">RATE IN:1",
      ">RATE OUT:1",
    ),
    rows: (connections?.connections ?? []).map(connectionRow),
    note:
      connections !== null && connections.total > connections.connections.length
        ? `the ${connections.connections.length} with the most traffic of ${connections.total}`
        : "",
  }),
  workers: (data, { workers }) => ({
    columns: columns("WORKER", "STATE", ">OPEN", ">NEW/S", ">IN:1", ">OUT:1", ">BLOCKED:2", ">RESTARTS:3"),
    rows: workers.map((worker) => {
      const was = data.before?.workers.find(({ index }) => index === worker.index);
      const rate = rater(data);
      return {
        key: String(worker.index),
        target: null,
        cells: [
          number(worker.index, String),
          text(worker.state, worker.state === "running" ? "good" : "warn"),
          number(worker.open, String),
          number(rate(worker.accepted, was?.accepted), formatRate),
          number(rate(worker.bytes_in, was?.bytes_in), formatByteRate),
          number(rate(worker.bytes_out, was?.bytes_out), formatByteRate),
          number(worker.loop_blocked_ms, (ms) => (ms < 1 ? "-" : formatLatency(ms)), worker.loop_blocked_ms > 100),
          number(worker.restarts, String, worker.restarts > 0),
        ],
      };
    }),
    note: "",
  }),
};

function listenerRow(listener: ListenerStatus, data: TopData): Row {
  const was = data.before?.listeners.find(({ name }) => name === listener.name);
  const rate = rater(data);
  const refusedRate = rate(refusals(listener), was && refusals(was));
  const state = listenerState(listener);
  return {
    key: listener.name,
    target: null,
    cells: [
      text(listener.name),
      text(listener.bind.join(" ")),
      text(listener.pool ?? "-"),
      text(state.word, state.tone),
      number(listener.open, String),
      number(rate(listener.accepted, was?.accepted), formatRate),
      number(refusedRate, formatRate, refusedRate > 0),
      number(rate(listener.bytes_in, was?.bytes_in), formatByteRate),
      number(rate(listener.bytes_out, was?.bytes_out), formatByteRate),
    ],
  };
}

function poolRow(pool: PoolStatus, data: TopData): Row {
  const was = data.before?.pools.find(({ name }) => name === pool.name)?.backends;
  const rate = rater(data);
  const { backends, queue } = pool;
  const isWaiting = queue !== null && queue.waiting > 0;
  const up = backends.filter((backend) => backend.up).length;
  const of = (figure: (backend: BackendStatus) => number): number =>
    rate(sum(backends, figure), was && sum(was, figure));
  const failed = of(failedConnects);
  const state = up === backends.length ? "up" : up === 0 ? "down" : "degraded";
  return {
    key: pool.name,
    target: null,
    cells: [
      text(pool.name),
      text(pool.balance),
      text(state, up === backends.length ? "good" : up === 0 ? "bad" : "warn"),
      number(up, String),
      number(backends.length, String),
      number(
        sum(backends, ({ open }) => open),
        String,
      ),
      number(queue?.waiting ?? 0, (waiting) => (queue === null ? "" : `${waiting}/${queue.size}`), isWaiting),
      number(
        of(({ connects }) => connects.succeeded),
        formatRate,
      ),
      number(failed, formatRate, failed > 0),
      number(
        of(({ bytes_in }) => bytes_in),
        formatByteRate,
      ),
      number(
        of(({ bytes_out }) => bytes_out),
        formatByteRate,
      ),
    ],
  };
}

function backendRow(what: {
  pool: PoolStatus;
  backend: BackendStatus;
  was: BackendStatus | undefined;
  data: TopData;
}): Row {
  const { pool, backend, was, data } = what;
  const rate = rater(data);
  const failed = rate(failedConnects(backend), was && failedConnects(was));
  const { name, state, weight } = backend;
  return {
    key: `${pool.name}/${name}`,
    target: { kind: "backend", pool: pool.name, backend: name, state, weight },
    cells: [
      text(pool.name),
      text(name),
      text(stateText(backend), backendState(backend).tone),
      number(data.answeredAtMs - Date.parse(backend.health.since), formatDuration),
      number(weight, String),
      number(backend.open, (open) =>
        backend.max_connections === 0 ? String(open) : `${open}/${backend.max_connections}`,
      ),
      number(rate(backend.connects.succeeded, was?.connects.succeeded), formatRate),
      number(failed, formatRate, failed > 0),
      number(meanConnectMs(backend, was), formatLatency),
      number(rate(backend.bytes_in, was?.bytes_in), formatByteRate),
      number(rate(backend.bytes_out, was?.bytes_out), formatByteRate),
      text(backend.health.last_error ?? "", "bad"),
    ],
  };
}

function clientRow(figures: ClientStatus): Row {
  const { client, open, new_connections, refusals: refused, bytes_in, bytes_out } = figures;
  return {
    key: client,
    target: { kind: "client", client, open },
    cells: [
      text(client),
      number(open, String),
      number(new_connections, formatCount),
      number(refused, formatCount, refused > 0),
      number(bytes_in, formatBytes),
      number(bytes_out, formatBytes),
    ],
  };
}

function connectionRow(connection: ConnectionStatus): Row {
  const { id, client, listener, sni, phase } = connection;
  return {
    key: String(id),
    target: { kind: "connection", id, client },
    cells: [
      number(id, String),
      text(client),
      text(listener),
      text(wayOf(connection)),
      text(sni ?? ""),
      text(phase, phase === "relaying" ? "plain" : "warn"),
      number(connection.age_ms, formatDuration),
      number(connection.bytes_in, formatBytes),
      number(connection.bytes_out, formatBytes),
      number(connection.rate_in, formatByteRate),
      number(connection.rate_out, formatByteRate),
    ],
  };
}

// ---------------------------------------------------------------------- cells

// "NAME:2" is dropped before "NAME:1"; ">" aligns to the right.
function columns(...titles: string[]): ViewColumn[] {
  return titles.map((written) => {
    const [title = "", drop = "0"] = written.replace(/^>/, "").split(":");
    return { title, align: written.startsWith(">") ? "right" : "left", drop: Number(drop) };
  });
}

function text(value: string, tone: Tone = "plain"): Cell {
  return { text: value, value, tone };
}

function number(value: number, format: (value: number) => string, isBad = false): Cell {
  return { text: format(value), value, tone: isBad ? "bad" : "plain" };
}

/** Growth per second; a counter that has decreased is from another run of the process. */
function rater({ elapsedMs }: TopData): (now: number, was: number | undefined) => number {
  return (now, was) => (was === undefined || elapsedMs <= 0 || now < was ? 0 : ((now - was) * 1000) / elapsedMs);
}

/** New connections, bytes in and bytes out per second, over all listeners. */
export function totalRates(data: TopData): { accepted: number; bytesIn: number; bytesOut: number } {
  const { snapshot, before } = data;
  const rate = rater(data);
  const of = (figure: (listener: ListenerStatus) => number): number =>
    snapshot === null ? 0 : rate(sum(snapshot.listeners, figure), before ? sum(before.listeners, figure) : undefined);
  return {
    accepted: of(({ accepted }) => accepted),
    bytesIn: of(({ bytes_in }) => bytes_in),
    bytesOut: of(({ bytes_out }) => bytes_out),
  };
}
