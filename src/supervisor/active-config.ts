// The config in force, under the number of its generation, with what follows from it: the records in the registry, the cap on
// connections, the plan of each worker, the admin endpoint. To put another config in its place is one step, and so is the way
// back; who must hear of it is not known here.
import { availableParallelism } from "node:os";
import type { Config } from "../config/schema.ts";
import type { Plan } from "../messages.ts";
import { ownSockets } from "../platform/sockets.ts";
import type { Admin } from "./admin.ts";
import { budget, shares, type Needs } from "./budget.ts";
import type { Log } from "./log.ts";
import { listenerPlan, poolPlan } from "./plans.ts";
import type { Addresses, Registry } from "./registry.ts";
import type { ListeningSockets } from "./sockets.ts";

export interface ActiveConfigOptions {
  registry: Registry;
  sockets: ListeningSockets;
  addresses: Addresses;
  log: Log;
}

export class ActiveConfig {
  readonly #options: ActiveConfigOptions;
  #config: Config;
  #generation = 0;
  #maxConnections = 0;
  /** Since when every worker goes by it. */
  loadedAtMs = 0;
  admin: Admin | null = null;

  /** `config` is the first to be put in force, and is not yet. */
  constructor(config: Config, options: ActiveConfigOptions) {
    this.#config = config;
    this.#options = options;
  }

  get config(): Config {
    return this.#config;
  }

  get generation(): number {
    return this.#generation;
  }

  /** The cap on connections of the whole process. */
  get maxConnections(): number {
    return this.#maxConnections;
  }

  /** Plans are of this config from now on, and of a new generation; the function that is returned takes that back. */
  put(config: Config): () => void {
    const { registry, addresses } = this.#options;
    const before = registry.hold();
    const [oldConfig, oldGeneration, oldMaxConnections] = [this.#config, this.#generation, this.#maxConnections];
    const maxConnections = this.#connectionsFor(config);
    registry.makeRoom(workerCount(config));
    registry.commit(registry.draft(config, maxConnections, addresses));
    this.#config = config;
    this.#generation++;
    this.#maxConnections = maxConnections;
    return () => {
      this.#config = oldConfig;
      this.#generation = oldGeneration;
      this.#maxConnections = oldMaxConnections;
      registry.commit(before);
    };
  }

  /** The config in force stays, whichever it is. */
  settle(): void {
    this.#options.registry.release();
  }

  /** The plan of the worker at a position, 0 and up. */
  planFor(position: number): Plan {
    const config = this.#config;
    const { registry, sockets } = this.#options;
    const { listeners, pools } = registry;
    const ids = new Map(listeners.map(({ name, id }) => [name, id]));
    return {
      generation: this.#generation,
      listeners: listeners.map((listener) => listenerPlan(listener, pools)),
      pools: pools.map(poolPlan),
      sockets: sockets.planFor(config, position, workerCount(config), ids),
      maxConnections: this.#maxConnections,
      lingeringMax: Math.floor(shares().lingering / workerCount(config)),
      accessLog: config.log.access === "off" ? "off" : config.log.format,
      debug: config.log.level === "debug",
    };
  }

  #connectionsFor(config: Config): number {
    const { max, warning } = budget(config.max_connections, needsOf(config));
    if (warning !== null) this.#options.log.warn("max_connections", { reason: warning });
    return max;
  }
}

/** What a config takes of the open files whatever its connections are. */
export function needsOf(config: Config): Needs {
  return { workers: workerCount(config), sockets: config.listeners.reduce((sum, { bind }) => sum + bind.length, 0) };
}

/** How many workers a config asks for. */
export function workerCount(config: Config): number {
  // Without sockets of our own there is nobody to keep an accept queue alive, so one worker must do.
  if (!ownSockets()) return 1;
  return config.workers === "auto" ? availableParallelism() : config.workers;
}
