// The views of `lb top`: the columns and rows that each shows from the latest answers of a running lb. Pure.
import {
  formatBlocked,
  formatByteRate,
  formatBytes,
  formatCount,
  formatDuration,
  formatLatency,
  formatRate,
} from "../../core/format.ts";
import {
  backendState,
  destination,
  failedConnects,
  listenerState,
  meanConnectMs,
  openText,
  rateOf,
  refusals,
  sum,
  troubleOf,
  type Pair,
  type Tone as FigureTone,
} from "../../observe/figures.ts";
import type { ClientStatus, ConnectionList, ConnectionStatus } from "../../observe/live.ts";
import type { BackendStatus, ListenerStatus, PoolStatus } from "../../observe/snapshot.ts";
import { stateText } from "../status-text.ts";

/** What is known of the running lb. */
export interface TopData {
  pair: Pair | null;
  connections: ConnectionList | null;
  clients: readonly ClientStatus[] | null;
  /** Date.now() of the latest answer. */
  answeredAtMs: number;
  /** Why the latest request failed, or null. */
  error: string | null;
}

export const NO_DATA: TopData = {
  pair: null,
  connections: null,
  clients: null,
  answeredAtMs: 0,
  error: null,
};

export const VIEW_NAMES = ["listeners", "pools", "backends", "clients", "connections", "workers"] as const;
export type ViewName = (typeof VIEW_NAMES)[number];

/** How a cell is shown; text always says the same, for terminals without colours. */
export type Tone = FigureTone | "plain";

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
  const { pair } = data;
  if (pair === null) return { columns: [], rows: [], note: "" };
  let made = viewsOf.get(data);
  if (made === undefined) viewsOf.set(data, (made = new Map()));
  let view = made.get(name);
  if (view === undefined) made.set(name, (view = VIEWS[name](pair, data)));
  return view;
}

const viewsOf = new WeakMap<TopData, Map<ViewName, View>>();

const VIEWS: Record<ViewName, (pair: Pair, data: TopData) => View> = {
  listeners: (pair) => ({
    columns: columns("LISTENER", "BIND:3", "POOL:5", "STATE", ">OPEN", ">NEW/S", ">REFUSED/S:2", ">IN:1", ">OUT:1"),
    rows: pair.now.listeners.map((listener) => listenerRow(listener, pair)),
    note: "",
  }),
  pools: (pair) => ({
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
    rows: pair.now.pools.map((pool) => poolRow(pool, pair)),
    note: "",
  }),
  backends: (pair, { answeredAtMs }) => ({
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
    rows: pair.now.pools.flatMap((pool) => {
      const before = pair.before?.pools.find(({ name }) => name === pool.name)?.backends;
      const was = new Map(before?.map((backend) => [backend.name, backend]));
      return pool.backends.map((backend) =>
        backendRow({ pool, backend, was: was.get(backend.name), pair, answeredAtMs }),
      );
    }),
    note: "",
  }),
  clients: (_, { clients }) => ({
    columns: columns("CLIENT", ">OPEN", ">NEW/MIN", ">REFUSED/MIN:1", ">IN/MIN:2", ">OUT/MIN:2"),
    rows: (clients ?? []).map(clientRow),
    note: "",
  }),
  connections: (_, { connections }) => ({
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
  workers: (pair) => ({
    columns: columns("WORKER", "STATE", ">OPEN", ">NEW/S", ">IN:1", ">OUT:1", ">BLOCKED:2", ">RESTARTS:3"),
    rows: pair.now.workers.map((worker) => {
      const was = pair.before?.workers.find(({ index }) => index === worker.index);
      return {
        key: String(worker.index),
        target: null,
        cells: [
          number(worker.index, String),
          text(worker.state, worker.state === "running" ? "good" : "warn"),
          number(worker.open, String),
          number(rateOf(pair, worker.accepted, was?.accepted), formatRate),
          number(rateOf(pair, worker.bytes_in, was?.bytes_in), formatByteRate),
          number(rateOf(pair, worker.bytes_out, was?.bytes_out), formatByteRate),
          number(worker.loop_blocked_ms, formatBlocked, worker.loop_blocked_ms > 100),
          number(worker.restarts, String, worker.restarts > 0),
        ],
      };
    }),
    note: "",
  }),
};

function listenerRow(listener: ListenerStatus, pair: Pair): Row {
  const was = pair.before?.listeners.find(({ name }) => name === listener.name);
  const refusedRate = rateOf(pair, refusals(listener), was && refusals(was));
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
      number(rateOf(pair, listener.accepted, was?.accepted), formatRate),
      number(refusedRate, formatRate, refusedRate > 0),
      number(rateOf(pair, listener.bytes_in, was?.bytes_in), formatByteRate),
      number(rateOf(pair, listener.bytes_out, was?.bytes_out), formatByteRate),
    ],
  };
}

function poolRow(pool: PoolStatus, pair: Pair): Row {
  const was = pair.before?.pools.find(({ name }) => name === pool.name)?.backends;
  const { backends, queue } = pool;
  const isWaiting = queue !== null && queue.waiting > 0;
  const up = backends.filter((backend) => backend.up).length;
  const of = (figure: (backend: BackendStatus) => number): number =>
    rateOf(pair, sum(backends, figure), was && sum(was, figure));
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
  pair: Pair;
  answeredAtMs: number;
}): Row {
  const { pool, backend, was, pair, answeredAtMs } = what;
  const failed = rateOf(pair, failedConnects(backend), was && failedConnects(was));
  const { name, state, weight } = backend;
  return {
    key: `${pool.name}/${name}`,
    target: { kind: "backend", pool: pool.name, backend: name, state, weight },
    cells: [
      text(pool.name),
      text(name),
      text(stateText(backend), backendState(backend).tone),
      number(answeredAtMs - Date.parse(backend.health.since), formatDuration),
      number(weight, String),
      number(backend.open, () => openText(backend)),
      number(rateOf(pair, backend.connects.succeeded, was?.connects.succeeded), formatRate),
      number(failed, formatRate, failed > 0),
      number(meanConnectMs(backend, was), formatLatency),
      number(rateOf(pair, backend.bytes_in, was?.bytes_in), formatByteRate),
      number(rateOf(pair, backend.bytes_out, was?.bytes_out), formatByteRate),
      text(troubleOf(backend), "bad"),
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
      text(destination(connection)),
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
