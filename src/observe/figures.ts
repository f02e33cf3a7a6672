// Figures that views compute from the snapshot. Pure; the browser uses them too.
import { UNSERVED } from "../core/ends.ts";
import type { BackendStatus, ListenerStatus, Snapshot } from "./snapshot.ts";

/** Duration of the process-wide history. */
export const HISTORY_SECONDS = 600;

/** Number of connections that a listener refused. */
export function refusals({ ends }: ListenerStatus): number {
  return sum(ends, ({ end, count }) => (UNSERVED.has(end) ? count : 0));
}

export function failedConnects({ connects }: BackendStatus): number {
  return connects.refused + connects.timed_out + connects.failed + connects.tls_failed;
}

/** The mean of the connects since an earlier snapshot, or of all connects if there were none since; NaN = there was never one. */
export function meanConnectMs(now: BackendStatus, was: BackendStatus | undefined): number {
  const made = now.connects.succeeded - (was?.connects.succeeded ?? 0);
  if (made > 0) return (now.connect_ms.sum - (was?.connect_ms.sum ?? 0)) / made;
  return now.connects.succeeded === 0 ? Number.NaN : now.connect_ms.sum / now.connects.succeeded;
}

export type Tone = "good" | "warn" | "bad";

/** The state of a backend for new connections, as a word, and how it is shown. */
export function backendState({ state, up, ejected_until, health }: BackendStatus): { word: string; tone: Tone } {
  if (state !== "ready") return { word: state, tone: "warn" };
  if (!up) return { word: "down", tone: "bad" };
  if (health.agent !== null && health.agent.state !== "ready")
    return { word: `agent: ${health.agent.state}`, tone: "warn" };
  return ejected_until === null ? { word: "up", tone: "good" } : { word: "ejected", tone: "warn" };
}

export function listenerState({ state, ready }: ListenerStatus): { word: string; tone: Tone } {
  if (state !== "ready") return { word: state, tone: "warn" };
  return ready ? { word: "ready", tone: "good" } : { word: "no backend", tone: "bad" };
}

/** All run-time changes of operators, one line each: "pools.app.backends.b: weight 3 by API, file says 1". */
export function runtimeChanges({ listeners, pools }: Snapshot): string[] {
  return [
    ...listeners.flatMap(({ name, changes }) => changes.map((what) => `listeners.${name}: ${what}`)),
    ...pools.flatMap((pool) => [
      ...pool.changes.map((what) => `pools.${pool.name}: ${what}`),
      ...pool.backends.flatMap(({ name, changes }) =>
        changes.map((what) => `pools.${pool.name}.backends.${name}: ${what}`),
      ),
    ]),
  ];
}

export function sum<T>(items: readonly T[], figure: (item: T) => number): number {
  return items.reduce((total, item) => total + figure(item), 0);
}
