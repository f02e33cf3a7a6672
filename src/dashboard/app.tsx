// The whole page.
import { formatByteRate, formatCount, formatRate } from "../core/format.ts";
import { Chart, type Series } from "./chart.tsx";
import { DialogOf } from "./dialogs.tsx";
import { Header } from "./header.tsx";
import { Backends, Certificates, Clients, Connections, Ends, Listeners, Workers } from "./sections.tsx";
import type { ChangeNote, PageState } from "./store.ts";

export interface Actions {
  pause: () => void;
  forgetToken: () => void;
  logIn: (token: string) => void;
}

export function App({ state, actions }: { state: PageState; actions: Actions }) {
  if (state.needsToken) return <LogIn error={state.tokenError} onToken={actions.logIn} />;
  const { pair, points } = state;
  return (
    <>
      <Header state={state} onPause={actions.pause} onForget={actions.forgetToken} />
      {pair === null ? (
        <main>
          <p class="empty">{state.link.is === "lost" ? "" : "Asking lb..."}</p>
        </main>
      ) : (
        <main>
          <div class="charts span">
            <Chart title="Open connections" points={points} series={OPEN} format={formatCount} />
            <Chart title="New connections per second" points={points} series={NEW} format={formatRate} />
            <Chart title="Throughput" points={points} series={BYTES} format={formatByteRate} />
          </div>
          <Backends pair={pair} />
          <Listeners pair={pair} />
          <Ends pair={pair} />
          <Clients clients={state.clients ?? []} />
          <Workers pair={pair} />
          <Certificates pair={pair} />
          <Connections list={state.connections} />
          <Changes changes={state.changes} />
        </main>
      )}
      {state.dialog !== null && <DialogOf dialog={state.dialog} />}
    </>
  );
}

const OPEN: readonly Series[] = [{ label: "open", figure: ({ open }) => open, colour: "--series-1" }];
const NEW: readonly Series[] = [
  { label: "accepted", figure: ({ accepted }) => accepted, colour: "--series-1" },
  { label: "refused", figure: ({ refused }) => refused, colour: "--series-3" },
];
const BYTES: readonly Series[] = [
  { label: "in", figure: ({ bytes_in }) => bytes_in, colour: "--series-1" },
  { label: "out", figure: ({ bytes_out }) => bytes_out, colour: "--series-2" },
];

function Changes({ changes }: { changes: readonly ChangeNote[] }) {
  return (
    <section class="panel span">
      <h2>Changes</h2>
      {changes.length === 0 && <p class="empty">none since lb was started</p>}
      <ol class="changes" aria-live="polite" tabIndex={0} aria-label="Changes">
        {changes.map(({ at, level, text }) => (
          <li key={`${at} ${text}`} class={level === "warn" || level === "error" ? "is-bad" : ""}>
            <time>{new Date(at).toLocaleTimeString()}</time> {text}
          </li>
        ))}
      </ol>
    </section>
  );
}

function LogIn({ error, onToken }: { error: string; onToken: (token: string) => void }) {
  return (
    <main class="login">
      <form
        class="panel"
        onSubmit={(event) => {
          event.preventDefault();
          const given = new FormData(event.currentTarget).get("token");
          if (typeof given === "string") onToken(given.trim());
        }}
      >
        <h1>lb</h1>
        <label class="field">
          Token
          <input name="token" type="password" autocomplete="off" required autofocus />
        </label>
        {error !== "" && (
          <p class="alarm" role="alert">
            {error}
          </p>
        )}
        <button type="submit" class="primary">
          Open
        </button>
        <p class="hint">
          The token is what <code>token_file</code> in <code>[admin]</code> holds. This tab forgets it when it is
          closed.
        </p>
      </form>
    </main>
  );
}
