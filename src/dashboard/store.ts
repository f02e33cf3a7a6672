// The state of the page. One object, replaced as a whole by `update`, which draws the page again.
import type { Pair } from "../observe/figures.ts";
import type { Point } from "../observe/history.ts";
import type { ClientStatus, ConnectionList } from "../observe/live.ts";

/** A message of the log. */
export interface ChangeNote {
  at: number;
  level: string;
  text: string;
}

export interface PageState {
  link: { is: "connecting" } | { is: "live" } | { is: "paused" } | { is: "lost"; why: string };
  /** Whether lb requires a token that this tab does not have. */
  needsToken: boolean;
  tokenError: string;
  pair: Pair | null;
  points: readonly Point[];
  connections: ConnectionList | null;
  clients: readonly ClientStatus[] | null;
  changes: readonly ChangeNote[];
  dialog: Dialog | null;
}

/** A change that waits for confirmation. */
export type Dialog =
  | { is: "backend"; pool: string; backend: string; state: string; weight: number }
  | { is: "kill"; path: string; what: string };

let state: PageState = {
  link: { is: "connecting" },
  needsToken: false,
  tokenError: "",
  pair: null,
  points: [],
  connections: null,
  clients: null,
  changes: [],
  dialog: null,
};
let listener: (state: PageState) => void = () => undefined;

export function current(): PageState {
  return state;
}

export function update(change: Partial<PageState>): void {
  state = { ...state, ...change };
  listener(state);
}

/** Calls `draw` now and after each update. */
export function onUpdate(draw: (state: PageState) => void): void {
  listener = draw;
  draw(state);
}
