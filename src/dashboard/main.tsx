// The dashboard's entry point: follows the events of the lb that served it and draws the page. It makes no requests while it is hidden or
// paused.
import { render } from "preact";
import "uplot/dist/uPlot.min.css";
import { pairOf } from "../observe/figures.ts";
import type { Point } from "../observe/history.ts";
import type { ClientList, ConnectionList } from "../observe/live.ts";
import type { Snapshot } from "../observe/snapshot.ts";
import { App, type Actions } from "./app.tsx";
import type { StreamEvent } from "./event-stream.ts";
import { applyTheme } from "./header.tsx";
import { ask, follow, forgetToken, hasToken, RequestError, setToken } from "./lb-client.ts";
import { pointOf, withPoint } from "./rates.ts";
import { pause } from "./pause.ts";
import { current, onUpdate, update, type ChangeNote } from "./store.ts";
import "./style.css";

const RETRY_MS = 2000;
/** Lists are requested less often than events arrive. */
const LISTS_MS = 2000;
/** Number of connections shown; the search covers only these. */
const CONNECTIONS_SHOWN = 500;
const CLIENTS_SHOWN = 50;
const CHANGES_MAX = 100;
/** Without an event for this long, the page counts as disconnected. */
const SILENCE_MS = 10_000;

/** Stops following events. */
let stop: AbortController | null = null;
let isPaused = false;
let hasHistory = false;

const actions: Actions = {
  pause: () => {
    isPaused = !isPaused;
    attend();
  },
  forgetToken: () => {
    forgetToken();
    location.reload();
  },
  logIn: (token) => {
    setToken(token);
    update({ needsToken: false, tokenError: "" });
    attend();
  },
};

// Follows events while the page is visible and not paused.
function attend(): void {
  stop?.abort();
  stop = null;
  if (isPaused || document.hidden) return update({ link: { is: "paused" } });
  stop = new AbortController();
  update({ link: { is: "connecting" } });
  void followEvents(stop.signal);
  void followLists(stop.signal);
}

async function followEvents(signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    const silence = new AbortController();
    let timer = setTimeout(() => silence.abort(), SILENCE_MS);
    try {
      if (!hasHistory) await loadHistory();
      await follow("/api/events?recent=true", AbortSignal.any([signal, silence.signal]), (event) => {
        clearTimeout(timer);
        timer = setTimeout(() => silence.abort(), SILENCE_MS);
        take(event);
      });
      lost("lb ended the stream", signal);
    } catch (error) {
      if (!(error instanceof RequestError)) throw error;
      if (error.status === 401) return askForToken();
      lost(error.message, signal);
    } finally {
      clearTimeout(timer);
    }
    await pause(RETRY_MS, signal);
  }
}

function lost(why: string, signal: AbortSignal): void {
  if (!signal.aborted) update({ link: { is: "lost", why } });
}

function askForToken(): void {
  stop?.abort();
  update({ needsToken: true, tokenError: hasToken() ? "lb does not accept this token." : "" });
}

async function loadHistory(): Promise<void> {
  const { points } = await ask<{ points: Point[] }>("GET", "/api/history");
  hasHistory = true;
  update({ points });
}

function take({ name, data }: StreamEvent): void {
  const nowMs = Date.now();
  if (name === "snapshot") {
    const snapshot = JSON.parse(data) as Snapshot;
    const before = current().pair?.now ?? null;
    // Another version of lb has been started, and has a page of its own.
    if (before !== null && before.version !== snapshot.version) return location.reload();
    const pair = pairOf(snapshot, before);
    // The first snapshot has no rates.
    const points = pair.before === null ? current().points : withPoint(current().points, pointOf(pair, nowMs / 1000));
    update({ pair, points, link: { is: "live" } });
  } else if (name === "change") {
    const note = noteOf(JSON.parse(data) as LogMessage);
    // After a reconnect lb sends the recent ones again.
    const others = current().changes.filter(({ at, text }) => at !== note.at || text !== note.text);
    update({ changes: [note, ...others].toSorted((a, b) => b.at - a.at).slice(0, CHANGES_MAX) });
  }
}

/** A message of the log of lb, in the form of `log.format = "json"`. */
interface LogMessage {
  time: string;
  level: string;
  event: string;
  [field: string]: string | number | boolean;
}

function noteOf({ time, level, event, ...fields }: LogMessage): ChangeNote {
  const rest = Object.entries(fields).map(([key, value]) => `${key}=${value}`);
  return { at: Date.parse(time), level, text: [event, ...rest].join(" ") };
}

async function followLists(signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    try {
      const [connections, { clients }] = await Promise.all([
        ask<ConnectionList>("GET", `/api/connections?sort=rate_out&limit=${CONNECTIONS_SHOWN}`),
        ask<ClientList>("GET", `/api/clients?limit=${CLIENTS_SHOWN}`),
      ]);
      if (!signal.aborted) update({ connections, clients });
    } catch (error) {
      // The events report the error.
      if (!(error instanceof RequestError)) throw error;
    }
    await pause(LISTS_MS, signal);
  }
}

applyTheme();
document.addEventListener("visibilitychange", attend);
const root = document.getElementById("page");
if (root !== null) onUpdate((state) => render(<App state={state} actions={actions} />, root));
attend();
