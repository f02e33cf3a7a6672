// Figures that views of the snapshot show and that it does not say itself. Pure; the browser uses them too.
import { UNSERVED } from "../core/ends.ts";
import type { BackendStatus, ListenerStatus } from "./snapshot.ts";

/** How far back the history of the whole process goes. */
export const HISTORY_SECONDS = 600;

/** Connections that a listener refused. */
export function refusals({ ends }: ListenerStatus): number {
  return sum(ends, ({ end, count }) => (UNSERVED.has(end) ? count : 0));
}

export function failedConnects({ connects }: BackendStatus): number {
  return connects.refused + connects.timed_out + connects.failed + connects.tls_failed;
}

/** The mean of the connects since an earlier snapshot, or of all where there were none; NaN = there was never one. */
export function meanConnectMs(now: BackendStatus, was: BackendStatus | undefined): number {
  const made = now.connects.succeeded - (was?.connects.succeeded ?? 0);
  if (made > 0) return (now.connect_ms.sum - (was?.connect_ms.sum ?? 0)) / made;
  return now.connects.succeeded === 0 ? Number.NaN : now.connect_ms.sum / now.connects.succeeded;
}

export type Tone = "good" | "warn" | "bad";

/** What a new connection would find, as a word, and how it is shown. */
export function backendState({ state, up }: BackendStatus): { word: string; tone: Tone } {
  if (state !== "ready") return { word: state, tone: "warn" };
  return up ? { word: "up", tone: "good" } : { word: "down", tone: "bad" };
}

export function sum<T>(items: readonly T[], figure: (item: T) => number): number {
  return items.reduce((total, item) => total + figure(item), 0);
}
