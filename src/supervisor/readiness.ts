// Whether this process should get new clients: /ready reports on the process, /ready/LISTENER on the pools behind one listener. A pool
// without an available backend makes its listeners not ready, but not the process: other listeners still serve.
import type { PoolConfig } from "../config/schema.ts";
import { takesConnections } from "./pool-tiers.ts";
import type { ListenerRecord, PoolRecord } from "./registry.ts";

/** Workers restart within milliseconds, and connections wait in the accept queue meanwhile. */
export const WORKER_DOWN_MS = 1000;

/** starting, running, leaving (told to stop, still accepting for shutdown_delay), stopping. */
export type Phase = "starting" | "running" | "leaving" | "stopping";

/** Why the process does not accept connections on every listener, one sentence each; empty when it does. */
export function processNotReady(phase: Phase, workers: readonly { index: number; downMs: number }[]): string[] {
  if (phase === "starting") return ["the process is starting"];
  if (phase !== "running") return ["the process is stopping"];
  return workers
    .filter(({ downMs }) => downMs >= WORKER_DOWN_MS)
    .map(({ index }) => `worker ${index} is not running: its share of new connections waits in the accept queue`);
}

export interface ListenerReadiness {
  /** A pool that the listener can route to has a backend that takes new connections. */
  ready: boolean;
  /** The pools without one, one sentence each; may not be empty even when ready. */
  not_ready: string[];
}

/** The names of a pool that have never resolved. */
export type Unresolved = (pool: PoolConfig) => string[];

/** The state of a pool that a listener can route to. */
export function listenerReadiness(
  { config }: Pick<ListenerRecord, "config">,
  pools: readonly PoolRecord[],
  unresolved: Unresolved,
): ListenerReadiness {
  const names = new Set(config.routes.map(({ pool }) => pool));
  if (config.pool !== null) names.add(config.pool);
  if (names.size === 0) return { ready: false, not_ready: ["the listener has no pool and no routes"] };
  const reached = pools.filter(({ name }) => names.has(name));
  const without = reached.filter((pool) => !pool.backends.some((backend) => takesConnections(pool, backend)));
  return {
    ready: without.length < reached.length,
    not_ready: without.map(({ name, config: pool }) => {
      const names = unresolved(pool);
      const waiting = names.length === 0 ? "" : `, and waits for the address of ${names.join(", ")}`;
      return `pool ${name} has no backend up${waiting}`;
    }),
  };
}
