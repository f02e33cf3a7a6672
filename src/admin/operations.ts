// What a running lb can be asked and told to do. The admin endpoint is the caller: it adds HTTP and access control, and does not
// know how an operation works. A new operation (drain, weights, connections) is a method here and a row of its routes.
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
  /** null = this lb has none. */
  dashboard(): Dashboard | null;
  /** The last ten minutes. */
  history(): { points: Point[] };
  status(): Snapshot;
  /** The active config in the form of the file, with all defaults, without secrets. */
  config(): Record<string, unknown>;
  /** Whether clients should be sent here; with a listener's name, whether to that listener. */
  readiness(listener: string | null): Result<Readiness>;
  /** Loads the config file again. The value is a sentence about the new generation. */
  reload(): Promise<Result<string>>;
  /** Ends a worker and starts it again; its connections are reset. */
  restartWorker(index: number): Result<string>;
  /** Server-sent events from now on: each message of the log, and with `snapshots` one each second. */
  events(options: { snapshots: boolean }): ReadableStream<Uint8Array>;
  /** Lines of the access log from now on. */
  accessLines(query: AccessQuery): Result<ReadableStream<Uint8Array>>;
  /** What is connected right now. */
  connections(query: ConnectionQuery): Result<ConnectionList>;
  /** Ends connections as `killed`. The value is how many there were. */
  endConnections(filter: ConnectionFilter): Promise<Result<number>>;
  endConnection(id: number): Promise<Result<number>>;
  /** The top clients. */
  clients(query: ClientQuery): Result<ClientList>;
  /** What would become of a client's connection. */
  explain(query: ExplainQuery): Result<Explanation>;
  /** Changes a backend at run time. `backend` is a name, which means all its addresses, or "name@address". */
  setBackend(pool: string, backend: string, change: BackendChange): Result<string>;
  addBackend(pool: string, backend: FileBackend): Promise<Result<string>>;
  /** One that is in the file stays away until its entry there changes. */
  removeBackend(pool: string, backend: string): Promise<Result<string>>;
  /** drain: accepts no new connections; those that are open go on. */
  setListener(listener: string, state: "ready" | "drain"): Promise<Result<string>>;
}

export interface BackendChange {
  /** drain: no new connections. maintenance: nor health checks. Left out = not changed. */
  state?: "ready" | "drain" | "maintenance" | undefined;
  /** 0..256; null = the file's. Left out = not changed. */
  weight?: number | null | undefined;
  /** With drain and maintenance: what is still connected then ends as `drain`. Left out = never. */
  timeoutMs?: number | undefined;
}

/** The text of each file of the dashboard. */
export interface Dashboard {
  page: string;
  script: string;
  style: string;
}

/** Conditions on the lines of the access log, all of which must hold. */
export interface AccessQuery extends ConnectionFilter {
  end?: End | undefined;
  /** Milliseconds. */
  min_duration?: number | undefined;
  format: "json" | "text";
}

export interface Readiness {
  ready: boolean;
  /** One sentence each. There may be some even when ready. */
  reasons: string[];
}

/** What became of an operation. It never throws where the caller or the network is at fault. */
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
  /** What is wrong, and how to put it right: one sentence each, for people. */
  detail: string;
  cure: string;
}

export function failure(name: OperationErrorName, detail: string, cure: string): { ok: false; error: OperationError } {
  return { ok: false, error: { name, detail, cure } };
}

/** The answer to `readiness` from a snapshot. The process speaks for all its listeners: one that stops is ready on none. */
export function readinessOf(snapshot: Snapshot, name: string | null): Result<Readiness> {
  if (name === null) return { ok: true, value: { ready: snapshot.ready, reasons: snapshot.not_ready } };
  const listener = snapshot.listeners.find((one) => one.name === name);
  if (listener === undefined) {
    const names = snapshot.listeners.map((one) => one.name).join(", ");
    return failure("no_such_listener", `there is no listener ${JSON.stringify(name)}`, `the listeners are ${names}`);
  }
  // That another listener is drained says nothing of this one.
  const drained = new Set(snapshot.listeners.map((one) => drainedReason(one.name)));
  const ofProcess = snapshot.not_ready.filter((reason) => !drained.has(reason));
  const reasons = [...ofProcess, ...listener.not_ready];
  return { ok: true, value: { ready: ofProcess.length === 0 && listener.ready, reasons } };
}

/** Why a drained listener is not ready. */
export function drainedReason(listener: string): string {
  return `listener ${listener} is drained`;
}
