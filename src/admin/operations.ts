// The operations of a running lb. The admin endpoint calls them: it adds HTTP and access control and does not know how an operation works.
// A new operation is a method here and a row of the routes.
import type {
  ClientList,
  ClientQuery,
  ConnectionFilter,
  ConnectionList,
  ConnectionQuery,
  ExplainQuery,
  Explanation,
} from "../observe/live.ts";
import type { Point } from "../observe/history.ts";
import type { End } from "../core/ends.ts";
import type { FileBackend } from "../config/schema.ts";
import type { Snapshot } from "../observe/snapshot.ts";

export interface Operations {
  /** null = there is none. */
  dashboard(): Dashboard | null;
  /** The last ten minutes. */
  history(): { points: Point[] };
  status(): Snapshot;
  /** The active config in the form of the file, with all defaults, without secrets. */
  config(): Record<string, unknown>;
  /** Whether this process should get new clients; with a listener's name, whether that listener should. */
  readiness(listener: string | null): Result<Readiness>;
  /** Loads the config file again. The value is a sentence about the new generation. */
  reload(): Promise<Result<string>>;
  /** Ends a worker and starts it again; its connections are reset. */
  restartWorker(index: number): Result<string>;
  /** Server-sent events from now on: each message of the log, and a snapshot each second if `snapshots` is true. */
  events(options: { snapshots: boolean; recent: boolean }): ReadableStream<Uint8Array>;
  /** Lines of the access log from now on. */
  accessLines(query: AccessQuery): Result<ReadableStream<Uint8Array>>;
  /** The live connections. */
  connections(query: ConnectionQuery): Result<ConnectionList>;
  /** Ends connections as `killed`. The value is their number. */
  endConnections(filter: ConnectionFilter): Promise<Result<number>>;
  endConnection(id: number): Promise<Result<number>>;
  /** The top clients. */
  clients(query: ClientQuery): Result<ClientList>;
  /** Predicts what would happen to a client's connection. */
  explain(query: ExplainQuery): Result<Explanation>;
  /** Changes a backend at run time. `backend` is a name, for all its addresses, or "name@address". */
  setBackend(pool: string, backend: string, change: BackendChange): Promise<Result<string>>;
  addBackend(pool: string, backend: FileBackend): Promise<Result<string>>;
  /** Removes a backend. One of the file stays removed until its entry in the file changes. */
  removeBackend(pool: string, backend: string): Promise<Result<string>>;
  /** drain: accepts no new connections; open ones continue. */
  setListener(listener: string, state: "ready" | "drain"): Promise<Result<string>>;
}

export interface BackendChange {
  /** drain: no new connections. maintenance: no new connections and no health checks. Default: no change. */
  state?: "ready" | "drain" | "maintenance" | undefined;
  /** 0..256; null = the file's weight. Default: no change. */
  weight?: number | null | undefined;
  /** For drain and maintenance: connections that are open after this time end as `drain`. Default: never. */
  timeoutMs?: number | undefined;
}

/** The text of each file of the dashboard. */
export interface Dashboard {
  page: string;
  script: string;
  style: string;
}

/** Conditions on access log lines, all of which must hold. */
export interface AccessQuery extends ConnectionFilter {
  end?: End | undefined;
  /** Milliseconds. */
  min_duration?: number | undefined;
  format: "json" | "text";
}

export interface Readiness {
  ready: boolean;
  /** One sentence each. May not be empty even when ready. */
  reasons: string[];
}

/** The result of an operation. It never throws for an error of the caller or the network. */
export type Result<T> = { ok: true; value: T; change?: Change } | { ok: false; error: OperationError };

/** What an operation has changed, for the audit line in the log: plain values, such as "drain" or { weight: 3 }. */
export interface Change {
  before: unknown;
  after: unknown;
}

export type OperationErrorName =
  | "no_condition"
  | "no_dashboard"
  | "no_such_listener"
  | "no_such_pool"
  | "no_such_backend"
  | "no_such_connection"
  | "no_such_worker"
  | "backend_exists"
  | "bad_change"
  | "change_failed"
  | "worker_not_running"
  | "stopping"
  | "reload_failed";

export interface OperationError {
  /** For programs. */
  name: OperationErrorName;
  /** What is wrong, and what to do about it: one sentence each, for people. */
  detail: string;
  cure: string;
}

export function failure(name: OperationErrorName, detail: string, cure: string): { ok: false; error: OperationError } {
  return { ok: false, error: { name, detail, cure } };
}

/** The answer to `readiness` from a snapshot. The process state applies to all its listeners: if the process stops, none is ready. */
export function readinessOf(snapshot: Snapshot, name: string | null): Result<Readiness> {
  if (name === null) return { ok: true, value: { ready: snapshot.ready, reasons: snapshot.not_ready } };
  const listener = snapshot.listeners.find((one) => one.name === name);
  if (listener === undefined) {
    const names = snapshot.listeners.map((one) => one.name).join(", ");
    return failure("no_such_listener", `there is no listener ${JSON.stringify(name)}`, `the listeners are ${names}`);
  }
  // A drained listener has no effect on the readiness of others.
  const drained = new Set(snapshot.listeners.map((one) => drainedReason(one.name)));
  const ofProcess = snapshot.not_ready.filter((reason) => !drained.has(reason));
  const reasons = [...ofProcess, ...listener.not_ready];
  return { ok: true, value: { ready: ofProcess.length === 0 && listener.ready, reasons } };
}

/** Why a drained listener is not ready. */
export function drainedReason(listener: string): string {
  return `listener ${listener} is drained`;
}
