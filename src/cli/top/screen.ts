// The screen of `lb top`: exactly as many lines as the terminal has, and none wider. Pure.
import { formatByteRate, formatBytes, formatDuration, formatRate } from "../../core/format.ts";
import { cpuPercent, totalRate, type Pair } from "../../observe/figures.ts";
import { padded, printable, width } from "../table.ts";
import { selectedIndex, shownRows, type TopState } from "./state.ts";
import {
  VIEW_NAMES,
  viewOf,
  type Cell,
  type Row,
  type Tone,
  type TopData,
  type View,
  type ViewColumn,
} from "./views.ts";

export interface Screen {
  columns: number;
  rows: number;
  colour: boolean;
  /** The endpoint's name, for messages. */
  endpoint: string;
  nowMs: number;
}

/** Number of lines above and below the rows of a view. */
const HEAD_LINES = 5;
const FOOT_LINES = 2;
const GAP = 2;

/** The number of rows of a view that fit. */
export function pageOf(rows: number): number {
  return Math.max(1, rows - HEAD_LINES - FOOT_LINES);
}

/** The lines of the whole screen. */
export function draw(state: TopState, data: TopData, screen: Screen): string[] {
  const body = state.mode.is === "help" ? HELP : drawView(state, data, screen);
  const head = [...drawHead(data, screen), drawTabs(state, screen)];
  const room = screen.rows - head.length - 1;
  const lines = [...head, ...filled(body.slice(0, Math.max(0, room)), room), drawFoot(state, screen)];
  return lines.slice(0, screen.rows).map((line) => clipped(line, screen.columns));
}

function filled(lines: string[], count: number): string[] {
  return [...lines, ...Array.from({ length: Math.max(0, count - lines.length) }, () => "")];
}

// ---------------------------------------------------------------------- head

function drawHead(data: TopData, screen: Screen): string[] {
  const { pair, error, answeredAtMs } = data;
  if (pair === null) {
    return [error === null ? `lb top: asking ${screen.endpoint}` : styled(error, "bad", screen), "", ""];
  }
  const { version, uptime_seconds, ready, not_ready, connections, config, process, workers } = pair.now;
  const accepted = totalRate(pair, (listener) => listener.accepted);
  const bytesIn = totalRate(pair, (listener) => listener.bytes_in);
  const bytesOut = totalRate(pair, (listener) => listener.bytes_out);
  const lost =
    error === null
      ? ""
      : ` ${styled(`no answer for ${formatDuration(screen.nowMs - answeredAtMs)}: ${error}`, "bad", screen)}`;
  const readiness = ready ? styled("ready", "good", screen) : styled(`not ready: ${not_ready[0] ?? ""}`, "bad", screen);
  const up = formatDuration(uptime_seconds * 1000);
  const reload =
    config.last_reload_error === null
      ? `config generation ${config.generation}`
      : styled(`last reload failed: ${config.last_reload_error.split("\n")[0] ?? ""}`, "bad", screen);
  return [
    lost === "" ? `${bold(`lb ${version}`)}  up ${up}  ${readiness}  ${reload}` : `${bold(`lb ${version}`)} ${lost}`,
    `${connections.open} of ${connections.max} connections  ${formatRate(accepted)} new/s  in ${formatByteRate(bytesIn)}  out ${formatByteRate(bytesOut)}`,
    `${backendsUp(pair, screen)}  memory ${formatBytes(process.resident_bytes)}  CPU ${cpuPercent(pair)} %  ${workers.length} workers`,
  ];
}

function backendsUp({ now }: Pair, screen: Screen): string {
  const backends = now.pools.flatMap((pool) => pool.backends);
  const down = backends.filter(({ up }) => !up).length;
  const text = `${backends.length - down} of ${backends.length} backends up`;
  return down > 0 ? styled(text, "bad", screen) : text;
}

function drawTabs(state: TopState, screen: Screen): string {
  const tabs = VIEW_NAMES.map((name, i) => {
    const tab = screen.columns < 76 ? name : `${i + 1} ${name}`;
    return name === state.view ? inverse(` ${tab} `) : ` ${tab} `;
  });
  return tabs.join(screen.columns < 76 ? "" : " ");
}

// ---------------------------------------------------------------------- rows

function drawView(state: TopState, data: TopData, screen: Screen): string[] {
  const view = viewOf(state.view, data);
  const rows = shownRows(state, view);
  if (data.pair === null) return [];
  const { at, widths } = columnsThatFit(view, rows, screen.columns);
  const page = pageOf(screen.rows);
  const selected = selectedIndex(state, rows);
  const from = Math.max(0, Math.min(selected - Math.floor(page / 2), rows.length - page));
  const { column, descending } = state.sort[state.view];
  const titles = at.map((i, n) => {
    const { title, align } = view.columns[i] ?? NO_COLUMN;
    const sign = i === column ? (descending ? "-" : "+") : "";
    // The sort mark is in the gap between columns, so that nothing moves when the order changes.
    const [room, before] = [widths[n] ?? 0, align === "right" ? padded(title, widths[n] ?? 0, align) : title];
    return padded(before + sign, room + GAP, "left");
  });
  const body = rows.slice(from, from + page).map((row, n) => {
    const line = drawRow({ row, view, at, widths, screen, plain: from + n === selected });
    return from + n === selected ? inverse(padded(line, screen.columns, "left")) : line;
  });
  const empty = rows.length === 0 ? [dim(emptyText(state, view))] : [];
  const note = [
    view.note,
    rows.length > page ? `rows ${from + 1} to ${Math.min(from + page, rows.length)} of ${rows.length}` : "",
  ];
  const notes = note.filter(Boolean).join("; ");
  const lines = [bold(titles.join("").trimEnd()), ...body, ...empty];
  return notes === "" ? lines : [...filled(lines, page + 1), dim(notes)];
}

const NO_COLUMN: ViewColumn = { title: "", align: "left", drop: 0 };
const NO_CELL: Cell = { text: "", value: "", tone: "plain" };

function emptyText(state: TopState, view: View): string {
  return view.rows.length > 0 ? `nothing matches "${state.filter}"` : `no ${state.view}`;
}

function drawRow(what: {
  row: Row;
  view: View;
  at: readonly number[];
  widths: readonly number[];
  screen: Screen;
  plain: boolean;
}): string {
  const { row, view, at, widths, screen, plain } = what;
  const cells = at.map((i, n) => {
    const { text, tone } = row.cells[i] ?? NO_CELL;
    const shown = shortened(printable(text), widths[n] ?? 0);
    const cell = padded(shown, widths[n] ?? 0, view.columns[i]?.align ?? "left");
    return plain ? cell : styled(cell, tone, screen);
  });
  return cells.join(" ".repeat(GAP));
}

/** Longer texts are cut: an IPv6 address with its port fits. */
const CELL_COLUMNS_MAX = 48;
/** On narrow terminals texts are cut to this part of the width before columns are dropped. */
const CELL_PART_MIN = 1 / 5;

function columnsThatFit(view: View, rows: readonly Row[], columns: number): { at: number[]; widths: number[] } {
  const full = view.columns.map(({ title }, i) => {
    let widest = width(title);
    for (const { cells } of rows) widest = Math.max(widest, width(cells[i]?.text ?? ""));
    return widest;
  });
  const cut = (i: number, max: number): number => {
    const { title, align } = view.columns[i] ?? NO_COLUMN;
    return align === "right" ? full[i]! : Math.min(full[i]!, Math.max(max, width(title)));
  };
  const total = (at: readonly number[], max: number): number => at.reduce((sum, i) => sum + cut(i, max) + GAP, -GAP);
  const min = Math.floor(columns * CELL_PART_MIN);
  // A column without any content is omitted.
  let at = view.columns
    .map((_, i) => i)
    .filter((i) => rows.length === 0 || rows.some(({ cells }) => cells[i]?.text !== ""));
  for (;;) {
    const first = at.reduce((most, i) => Math.max(most, view.columns[i]?.drop ?? 0), 0);
    if (first === 0 || total(at, min) <= columns) break;
    at = at.filter((i) => view.columns[i]?.drop !== first);
  }
  let max = CELL_COLUMNS_MAX;
  while (max > min && total(at, max) > columns) max--;
  return { at, widths: at.map((i) => cut(i, max)) };
}

/** The text cut in the middle, since names often differ at the end alone. */
function shortened(text: string, columns: number): string {
  if (width(text) <= columns) return text;
  const tail = Math.floor((columns - 1) / 2);
  const end = tail > 0 ? [...text].slice(-tail).join("") : "";
  return clipped(`${clipped(text, columns - 1 - width(end))}~${end}`, columns);
}

// ---------------------------------------------------------------------- foot

function drawFoot(state: TopState, { columns }: Screen): string {
  const { mode, message } = state;
  if (mode.is === "filter") return `filter: ${state.filter}_   Enter keeps it, Esc removes it`;
  if (mode.is === "confirm") {
    const question = ` ${printable(mode.action.question)}  y = yes, any other key = no `;
    // What the keys do is never cut off.
    const shown = width(question) <= columns ? question : ` [y/n] ${printable(mode.action.question)}`;
    return inverse(padded(shown, columns, "left"));
  }
  if (mode.is === "weight") {
    return `weight of ${mode.target.pool}/${mode.target.backend} (0-256, empty = the config's): ${mode.input}_ ${message}`;
  }
  if (mode.is === "help") return "press any key to go back";
  if (message !== "") return printable(message);
  const filter = state.filter === "" ? "" : `filter: ${state.filter}  `;
  return dim(`${state.paused ? "PAUSED  " : ""}${filter}${KEYS[state.view]}s sort  / filter  ? help  q quit`);
}

const KEYS: Record<TopState["view"], string> = {
  listeners: "",
  pools: "",
  backends: "d drain/ready  m maintenance  w weight  ",
  clients: "x kill  ",
  connections: "x kill  ",
  workers: "",
};

const HELP = [
  "",
  "  1-6, left, right, Tab   view",
  "  up, down, k, j          select a row; PgUp, PgDn, Home, End",
  "  s or >, <               sort by the next or the previous column",
  "  r                       reverse the order",
  "  /                       filter: rows that contain every word; Esc removes it",
  "  p or space              pause",
  "",
  "  d                       drain the selected backend, or make it ready again",
  "  m                       maintenance: drain, and no health checks; again = ready",
  "  w                       weight",
  "  x                       end the selected connection, or all of the selected client",
  "",
  "  q, Ctrl-C               quit",
];

// ---------------------------------------------------------------------- styles

// ECMA-48, select graphic rendition. Bold, dim and inverse are not colours, so they are kept under NO_COLOR (https://no-color.org).
const RESET = "\x1b[0m";
const COLOURS: Record<Tone, string> = {
  plain: "",
  good: "\x1b[32m",
  bad: "\x1b[31m",
  warn: "\x1b[33m",
};

function styled(text: string, tone: Tone, { colour }: Screen): string {
  const clean = printable(text);
  return !colour || COLOURS[tone] === "" ? clean : `${COLOURS[tone]}${clean}${RESET}`;
}

function bold(text: string): string {
  return `\x1b[1m${text}${RESET}`;
}

function dim(text: string): string {
  return `\x1b[2m${text}${RESET}`;
}

function inverse(text: string): string {
  return `\x1b[7m${text}${RESET}`;
}

/** The text cut to this many columns; escape sequences take no columns, and the cut ends with a reset. */
export function clipped(text: string, columns: number): string {
  if (width(text) <= columns) return text;
  let used = 0;
  let out = "";
  // oxlint-disable-next-line no-control-regex -- escape sequences begin with ESC
  for (const part of text.split(/(\x1b\[[0-9;]*m)/)) {
    if (part.startsWith("\x1b[")) {
      out += part;
      continue;
    }
    for (const char of part) {
      const wide = width(char);
      if (used + wide > columns) return text.includes("\x1b") ? out + RESET : out;
      out += char;
      used += wide;
    }
  }
  return out;
}
