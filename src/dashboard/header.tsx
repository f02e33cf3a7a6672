// The head of the page: the lb, its state, its config, and whether the page is live.
import { formatBytes, formatDuration } from "../core/format.ts";
import { cpuPercent } from "../observe/figures.ts";
import type { PageState } from "./store.ts";

export function Header({ state, onPause, onForget }: { state: PageState; onPause: () => void; onForget: () => void }) {
  const { pair, link } = state;
  const now = pair?.now;
  return (
    <header>
      <h1>
        lb <small>{now?.version}</small>
      </h1>
      {pair !== null && now !== undefined && (
        <>
          <p class={now.ready ? "badge good" : "badge bad"} role="status">
            {now.ready ? "ready" : "not ready"}
          </p>
          <dl class="facts">
            <dt>up</dt>
            <dd>{formatDuration(now.uptime_seconds * 1000)}</dd>
            <dt>config</dt>
            <dd title={now.config.file}>
              generation {now.config.generation}, loaded {formatDuration(Date.now() - Date.parse(now.config.loaded_at))}{" "}
              ago
            </dd>
            <dt>process</dt>
            <dd>{now.pid}</dd>
            <dt>memory</dt>
            <dd>{formatBytes(now.process.resident_bytes)}</dd>
            <dt>CPU</dt>
            <dd>{cpuPercent(pair)} %</dd>
          </dl>
        </>
      )}
      <div class="buttons">
        <span class={`link ${link.is}`} role="status">
          {LINK_WORDS[link.is]}
        </span>
        <button type="button" onClick={onPause} aria-pressed={link.is === "paused"}>
          {link.is === "paused" ? "Resume" : "Pause"}
        </button>
        <button type="button" onClick={switchTheme}>
          Theme
        </button>
        {state.needsToken || <ForgetButton onForget={onForget} />}
      </div>
      {link.is === "lost" && (
        <p class="alarm" role="alert">
          No answer from lb: {link.why}. The figures below are the last ones; the page tries again.
        </p>
      )}
      {now?.not_ready.map((reason) => (
        <p class="alarm" role="alert" key={reason}>
          Not ready: {reason}
        </p>
      ))}
      {now !== undefined && now.config.last_reload_error !== null && (
        <p class="alarm" role="alert">
          The last reload failed, the config before it is active: <code>{now.config.last_reload_error}</code>
        </p>
      )}
    </header>
  );
}

const LINK_WORDS = { connecting: "connecting", live: "live", paused: "paused", lost: "no connection" };

function ForgetButton({ onForget }: { onForget: () => void }) {
  if (sessionStorage.getItem("lb-token") === null) return null;
  return (
    <button type="button" onClick={onForget}>
      Forget token
    </button>
  );
}

const THEMES = ["auto", "light", "dark"];

/** Cycles from the system's theme to light to dark. */
function switchTheme(): void {
  const next = THEMES[(THEMES.indexOf(localStorage.getItem("lb-theme") ?? "auto") + 1) % THEMES.length] ?? "auto";
  localStorage.setItem("lb-theme", next);
  applyTheme();
}

export function applyTheme(): void {
  const theme = localStorage.getItem("lb-theme") ?? "auto";
  if (theme === "auto") delete document.documentElement.dataset["theme"];
  else document.documentElement.dataset["theme"] = theme;
  dispatchEvent(new Event("themechange"));
}
