// Figures that views compute from the snapshot. Pure; the browser uses them too.
import { UNSERVED } from "../core/ends.ts";
import type { ConnectionStatus } from "./live.ts";
import type { BackendStatus, ListenerStatus, Snapshot } from "./snapshot.ts";

/** Duration of the process-wide history. */
export const HISTORY_SECONDS = 600;

/** Two snapshots of the same process and the seconds between them. */
export interface Pair {
  now: Snapshot;
  /** null if there is none, or if it is from another process. */
  before: Snapshot | null;
  seconds: number;
}

export function pairOf(now: Snapshot, before: Snapshot | null): Pair {
  const same = before !== null && before.pid === now.pid && before.started_at === now.started_at;
  const seconds = same ? now.uptime_seconds - before.uptime_seconds : 0;
  return { now, before: same && seconds > 0 ? before : null, seconds };
}

/** Growth of a counter per second; 0 if there was no value before. */
export function rateOf(pair: Pair, now: number, before: number | undefined): number {
  return pair.before === null || before === undefined || now < before ? 0 : (now - before) / pair.seconds;
}

/** Growth per second of a counter, over all listeners. */
export function totalRate(pair: Pair, figure: (listener: ListenerStatus) => number): number {
  return rateOf(pair, sum(pair.now.listeners, figure), pair.before?.listeners && sum(pair.before.listeners, figure));
}

/** CPU time of all threads in percent of one core, since the earlier snapshot; "-" if there is none. */
export function cpuPercent({ now, before, seconds }: Pair): string {
  return before === null ? "-" : (((now.process.cpu_seconds - before.process.cpu_seconds) * 100) / seconds).toFixed(0);
}

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
export function backendState({ state, up, ejected_until, ramp_percent, health }: BackendStatus): {
  word: string;
  tone: Tone;
} {
  if (state !== "ready") return { word: state, tone: "warn" };
  if (!up) return { word: "down", tone: "bad" };
  if (health.agent !== null && health.agent.state !== "ready")
    return { word: `agent: ${health.agent.state}`, tone: "warn" };
  if (ejected_until !== null) return { word: "ejected", tone: "warn" };
  return { word: ramp_percent < 100 ? `up ${ramp_percent} %` : "up", tone: "good" };
}

/** Why a backend gets no connections, as its checks and real traffic say; "" = there is no reason. */
export function troubleOf({ health, ejection_reason }: BackendStatus): string {
  return health.last_error ?? ejection_reason ?? "";
}

export function listenerState({ state, ready }: ListenerStatus): { word: string; tone: Tone } {
  if (state !== "ready") return { word: state, tone: "warn" };
  return ready ? { word: "ready", tone: "good" } : { word: "no backend", tone: "bad" };
}

/** "3", or "3/100" with a cap. */
export function openText({ open, max_connections: max }: BackendStatus): string {
  return max === 0 ? String(open) : `${open}/${max}`;
}

/** The destination of a connection: "web/10.0.0.1:80", "web" until a backend is picked, "-" before that. */
export function destination({ pool, backend }: Pick<ConnectionStatus, "pool" | "backend">): string {
  return backend === null ? (pool ?? "-") : `${pool}/${backend}`;
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
