// Implements the operations of a running lb (admin/operations.ts): each calls the part that can do it.
import { dirname } from "node:path";
import { failure, readinessOf, type Dashboard, type Operations, type Result } from "../admin/operations.ts";
import { effectiveConfig } from "../config/effective.ts";
import type { Snapshot } from "../observe/snapshot.ts";
import { claimed } from "../shared/cells.ts";
import type { ActiveConfig } from "./active-config.ts";
import type { Events } from "./events.ts";
import { explain } from "./explain.ts";
import type { Fleet } from "./fleet.ts";
import type { Followers } from "./followers.ts";
import type { HealthChecks } from "./health.ts";
import type { History } from "./history.ts";
import type { LiveConnections } from "./live-connections.ts";
import type { Phase } from "./readiness.ts";
import { healthReason } from "./reasons.ts";
import type { Registry } from "./registry.ts";
import type { Reloads } from "./reload.ts";
import type { RuntimeOperations } from "./runtime-operations.ts";
import type { TopClients } from "./top-clients.ts";

const STOPPING = ["lb is stopping", "start it again: it loads the file then"] as const;
const RELOAD_CURE = "correct what `detail` names and reload again; `lb check FILE` checks the file without a reload";
const WORKER_CURE = "`workers` of GET /api/status lists the workers by index";

export interface OperationParts {
  /** The config file. */
  file: string;
  /** null = it was not built. */
  dashboard: Dashboard | null;
  phase: () => Phase;
  snapshot: () => Snapshot;
  /** Number of proxied connections of the whole process. */
  open: Int32Array<SharedArrayBuffer>;
  registry: Registry;
  active: ActiveConfig;
  reloads: Reloads;
  runtime: RuntimeOperations;
  fleet: Fleet;
  health: HealthChecks;
  history: History;
  events: Events;
  followers: Followers;
  live: LiveConnections;
  topClients: TopClients;
}

export function operationsOf(parts: OperationParts): Operations {
  const { file, dashboard, snapshot, registry, active, runtime, live } = parts;
  return {
    dashboard: () => dashboard,
    history: () => ({ points: [...parts.history.points] }),
    status: snapshot,
    config: () => effectiveConfig(active.text, { folder: dirname(file), env: process.env }),
    readiness: (listener) => readinessOf(snapshot(), listener),
    reload: () => reload(parts),
    restartWorker: (index) => restartWorker(parts, index),
    events: (options) => parts.events.subscribe(options),
    accessLines: ({ format, ...query }) => {
      const filter = live.accessFilter(query);
      return filter.ok ? { ok: true, value: parts.followers.follow(format, filter.value) } : filter;
    },
    connections: (query) => live.list(query),
    endConnections: (filter) => live.end(filter),
    endConnection: (id) => live.endOne(id),
    clients: (query) => parts.topClients.list(query),
    explain: (query) =>
      explain(query, {
        registry,
        open: claimed(parts.open),
        maxConnections: active.maxConnections,
        lastError: (backend) => healthReason(parts.health, backend),
      }),
    setBackend: (pool, backend, change) => runtime.setBackend(pool, backend, change),
    addBackend: (pool, backend) => runtime.addBackend(pool, backend),
    removeBackend: (pool, backend) => runtime.removeBackend(pool, backend),
    setListener: (listener, state) => runtime.setListener(listener, state),
  };
}

async function reload({ phase, active, reloads }: OperationParts): Promise<Result<string>> {
  // A request during the start is handled after it.
  if (phase() !== "starting" && phase() !== "running") return failure("stopping", ...STOPPING);
  const before = active.generation;
  const { ok, message } = await reloads.reload("admin");
  const change = { before: { generation: before }, after: { generation: active.generation } };
  return ok ? { ok, value: message, change } : failure("reload_failed", message, RELOAD_CURE);
}

function restartWorker({ fleet }: OperationParts, index: number): Result<string> {
  const slot = fleet.slots.find((one) => one.index === index);
  if (slot === undefined) return failure("no_such_worker", `there is no worker ${index}`, WORKER_CURE);
  const change = { before: slot.state, after: "starting" };
  if (slot.restart()) return { ok: true, value: `worker ${index} was ended and is started again`, change };
  return failure("worker_not_running", `worker ${index} is being started again already`, "try again in a few seconds");
}
