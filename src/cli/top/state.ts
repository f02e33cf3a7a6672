// The state of `lb top`: the view, the selection, the input and the open question. `press` returns the next state and what to do. Pure.
import { compare, matcherOf } from "../../core/rows.ts";
import type { AdminRequest } from "../admin-client.ts";
import { VIEW_NAMES, viewOf, type Row, type Target, type TopData, type View, type ViewName } from "./views.ts";

/** An action that changes the running lb, and the question to confirm it. */
export interface Action {
  question: string;
  request: AdminRequest;
}

export type Mode =
  | { is: "browse" }
  | { is: "filter" }
  | { is: "help" }
  | { is: "weight"; target: Target & { kind: "backend" }; input: string }
  | { is: "confirm"; action: Action };

export interface TopState {
  view: ViewName;
  mode: Mode;
  /** Words that a row must all contain. */
  filter: string;
  /** By view: the column that the rows are sorted by; -1 = the order of the answer. */
  sort: Record<ViewName, { column: number; descending: boolean }>;
  /** Key of the selected row; "" = the first. */
  selected: string;
  paused: boolean;
  /** The answer to an action, or why it failed. */
  message: string;
}

export const FIRST_STATE: TopState = {
  view: "backends",
  mode: { is: "browse" },
  filter: "",
  sort: {
    listeners: { column: -1, descending: false },
    pools: { column: -1, descending: false },
    backends: { column: -1, descending: false },
    clients: { column: -1, descending: false },
    connections: { column: -1, descending: false },
    workers: { column: -1, descending: false },
  },
  selected: "",
  paused: false,
  message: "",
};

/** A key: a character as it is, or the name of another key. */
export type Key =
  | { char: string }
  | { name: "up" | "down" | "left" | "right" | "pageUp" | "pageDown" | "home" | "end" | "tab" | "backTab" }
  | { name: "enter" | "escape" | "backspace" | "interrupt" | "redraw" | "suspend" };

export interface Outcome {
  state: TopState;
  /** To send now. */
  request?: AdminRequest;
  quit?: true;
}

/** The rows that match the filter, in order. */
export function shownRows(state: TopState, view: View): Row[] {
  const matches = matcherOf(state.filter);
  const rows = view.rows.filter(({ cells }) => matches(cells.map(({ text }) => text).join(" ")));
  const { column, descending } = state.sort[state.view];
  if (column < 0 || column >= view.columns.length) return rows;
  const sign = descending ? -1 : 1;
  return rows.sort((a, b) => sign * compare(a.cells[column]?.value ?? "", b.cells[column]?.value ?? ""));
}

/** The state after a key. `page` is the number of rows that fit on the screen. */
export function press(state: TopState, key: Key, data: TopData, page: number): Outcome {
  if ("name" in key && key.name === "interrupt") return { state, quit: true };
  switch (state.mode.is) {
    case "help":
      return { state: { ...state, mode: BROWSE } };
    case "filter":
      return { state: typeFilter(state, key) };
    case "weight":
      return typeWeight(state, state.mode, key);
    case "confirm":
      return answer(state, state.mode.action, key);
    case "browse":
      return browse({ ...state, message: "" }, key, data, page);
  }
}

const BROWSE: Mode = { is: "browse" };

// ---------------------------------------------------------------------- browsing

function browse(state: TopState, key: Key, data: TopData, page: number): Outcome {
  const view = viewOf(state.view, data);
  const rows = shownRows(state, view);
  if ("name" in key) return { state: moved(state, key.name, { rows, page }) };
  const digit = VIEW_NAMES[Number(key.char) - 1];
  if (digit !== undefined) return { state: show(state, digit) };
  const target = rows[selectedIndex(state, rows)]?.target ?? null;
  switch (key.char) {
    case "q":
      return { state, quit: true };
    case "?":
    case "h":
      return { state: { ...state, mode: { is: "help" } } };
    case "j":
      return { state: moved(state, "down", { rows, page }) };
    case "k":
      return { state: moved(state, "up", { rows, page }) };
    case "/":
      return { state: { ...state, mode: { is: "filter" } } };
    case "<":
      return { state: sortNext(state, view, -1) };
    case ">":
    case "s":
      return { state: sortNext(state, view, 1) };
    case "r":
      return { state: reversed(state) };
    case "p":
    case " ":
      return { state: { ...state, paused: !state.paused } };
    default:
      return { state: change(state, key.char, target) };
  }
}

function moved(state: TopState, name: string, { rows, page }: { rows: readonly Row[]; page: number }): TopState {
  const steps: Record<string, number> = {
    up: -1,
    down: 1,
    pageUp: -page,
    pageDown: page,
    home: -Infinity,
    end: Infinity,
  };
  const step = steps[name];
  if (step !== undefined) {
    const to = Math.max(0, Math.min(rows.length - 1, selectedIndex(state, rows) + step));
    return { ...state, selected: rows[to]?.key ?? "" };
  }
  const at = VIEW_NAMES.indexOf(state.view);
  const last = VIEW_NAMES.length;
  if (name === "right" || name === "tab") return show(state, VIEW_NAMES[(at + 1) % last] ?? state.view);
  if (name === "left" || name === "backTab") return show(state, VIEW_NAMES[(at + last - 1) % last] ?? state.view);
  return name === "escape" ? { ...state, filter: "" } : state;
}

function show(state: TopState, view: ViewName): TopState {
  return view === state.view ? state : { ...state, view, selected: "", filter: "" };
}

/** The position of the selected row; 0 if the row is gone. */
export function selectedIndex({ selected }: TopState, rows: readonly Row[]): number {
  return Math.max(
    0,
    rows.findIndex(({ key }) => key === selected),
  );
}

// Numbers are sorted from the largest, names from A.
function sortNext(state: TopState, view: View, step: number): TopState {
  const count = view.columns.length;
  const { column } = state.sort[state.view];
  const next = ((column + 1 + step + count + 1) % (count + 1)) - 1;
  return withSort(state, { column: next, descending: view.columns[next]?.align === "right" });
}

function reversed(state: TopState): TopState {
  const { column, descending } = state.sort[state.view];
  return withSort(state, { column: Math.max(0, column), descending: !descending });
}

function withSort(state: TopState, sort: { column: number; descending: boolean }): TopState {
  return { ...state, sort: { ...state.sort, [state.view]: sort } };
}

// ---------------------------------------------------------------------- changes

function change(state: TopState, char: string, target: Target | null): TopState {
  if (!"dmwx".includes(char)) return state;
  if (target === null) return { ...state, message: "select a backend, a client or a connection first" };
  if (target.kind === "backend") {
    if (char === "w") return { ...state, mode: { is: "weight", target, input: "" } };
    if (char === "d") return confirm(state, stateChange(target, target.state === "ready" ? "drain" : "ready"));
    if (char === "m")
      return confirm(state, stateChange(target, target.state === "maintenance" ? "ready" : "maintenance"));
    return { ...state, message: "connections are ended in the views of clients and connections" };
  }
  return char === "x" ? confirm(state, kill(target)) : { ...state, message: "this is for backends" };
}

function confirm(state: TopState, action: Action): TopState {
  return { ...state, mode: { is: "confirm", action } };
}

const QUESTIONS = {
  drain: "send no new connections to",
  ready: "send connections again to",
  maintenance: "drain, and stop the health checks of,",
};

function stateChange(target: Target & { kind: "backend" }, to: keyof typeof QUESTIONS): Action {
  return {
    question: `${to}: ${QUESTIONS[to]} ${target.pool}/${target.backend}?`,
    request: { method: "PATCH", path: backendPath(target), body: { state: to } },
  };
}

function backendPath({ pool, backend }: Target & { kind: "backend" }): string {
  return `/api/pools/${encodeURIComponent(pool)}/backends/${encodeURIComponent(backend)}`;
}

function kill(target: Target & { kind: "client" | "connection" }): Action {
  if (target.kind === "connection") {
    const request = { method: "DELETE", path: `/api/connections/${target.id}` } as const;
    return { question: `end connection ${target.id} of ${target.client} with a reset?`, request };
  }
  const { client, open } = target;
  return {
    question: `end ${open} connections of ${client} with a reset?`,
    request: { method: "DELETE", path: "/api/connections", query: { client } },
  };
}

function answer(state: TopState, action: Action, key: Key): Outcome {
  const next = { ...state, mode: BROWSE };
  if ("char" in key && key.char.toLowerCase() === "y") return { state: next, request: action.request };
  return { state: { ...next, message: "nothing was changed" } };
}

// ---------------------------------------------------------------------- typing

const FILTER_MAX = 60;

function typeFilter(state: TopState, key: Key): TopState {
  if ("char" in key) return { ...state, filter: (state.filter + key.char).slice(0, FILTER_MAX), selected: "" };
  if (key.name === "backspace") return { ...state, filter: state.filter.slice(0, -1) };
  if (key.name === "enter") return { ...state, mode: BROWSE };
  return key.name === "escape" ? { ...state, mode: BROWSE, filter: "" } : state;
}

function typeWeight(state: TopState, mode: Mode & { is: "weight" }, key: Key): Outcome {
  const { target, input } = mode;
  const typed = (next: string): Outcome => ({ state: { ...state, mode: { ...mode, input: next } } });
  if ("char" in key) return /^[0-9]$/.test(key.char) ? typed((input + key.char).slice(0, 3)) : { state };
  if (key.name === "backspace") return typed(input.slice(0, -1));
  if (key.name === "escape") return { state: { ...state, mode: BROWSE, message: "nothing was changed" } };
  if (key.name !== "enter") return { state };
  if (input !== "" && Number(input) > 256) return { state: { ...state, message: "a weight is 0 to 256" } };
  const weight = input === "" ? null : Number(input);
  const name = `${target.pool}/${target.backend}`;
  const question = weight === null ? `give ${name} the weight of the config file?` : `give ${name} weight ${weight}?`;
  const request = { method: "PATCH", path: backendPath(target), body: { weight } } as const;
  return { state: confirm(state, { question, request }) };
}
