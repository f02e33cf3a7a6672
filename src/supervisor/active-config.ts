// The active config and its generation, with what is derived from it: the records in the registry, the cap on connections, the plan of each
// worker, the admin endpoint. Replacing it is one step, and so is undoing that. The caller tells the workers.
import { availableParallelism } from "node:os";
import type { Config } from "../config/schema.ts";
import type { Follower, Plan } from "../messages.ts";
import { ownSockets } from "../platform/sockets.ts";
import type { Admin } from "../admin/admin.ts";
import { budget, shares, type Needs } from "./budget.ts";
import type { Logger } from "./log.ts";
import { listenerPlan, poolPlan } from "./plans.ts";
import type { Addresses, Registry } from "./registry.ts";
import type { RuntimeChanges } from "./runtime-changes.ts";
import type { ListeningSockets } from "./sockets.ts";

export interface ActiveConfigOptions {
  registry: Registry;
  sockets: ListeningSockets;
  addresses: Addresses;
  log: Logger;
  /** The followers of the access log; the default is none. */
  followers?: () => Follower[];
}

export class ActiveConfig {
  readonly #options: ActiveConfigOptions;
  /** The file's config, and the config in force with the changes of operators. */
  #file: Config;
  #config: Config;
  #generation = 0;
  #maxConnections = 0;
  /** When every worker had it. */
  loadedAtMs = 0;
  admin: Admin | null = null;
  /** The text of the config file. */
  text = "";

  /** `config` is the first one; `put` activates it. */
  constructor(config: Config, options: ActiveConfigOptions) {
    this.#file = config;
    this.#config = options.registry.changes.appliedTo(config);
    this.#options = options;
  }

  /** What operators have changed at run time. */
  get changes(): RuntimeChanges {
    return this.#options.registry.changes;
  }

  /** With the operators' changes. */
  get config(): Config {
    return this.#config;
  }

  /** Without the operators' changes. */
  get file(): Config {
    return this.#file;
  }

  get generation(): number {
    return this.#generation;
  }

  /** The cap on connections of the whole process. */
  get maxConnections(): number {
    return this.#maxConnections;
  }

  /** Makes the file's config the active config, as a new generation. The returned function undoes that. */
  put(file: Config): () => void {
    const { registry, addresses } = this.#options;
    const config = registry.changes.appliedTo(file);
    const before = registry.hold();
    const [oldFile, oldConfig, oldGeneration] = [this.#file, this.#config, this.#generation];
    const oldMaxConnections = this.#maxConnections;
    const maxConnections = this.#connectionsFor(config);
    registry.makeRoom(workerCount(config));
    registry.commit(registry.draft(config, maxConnections, addresses));
    this.#file = file;
    this.#config = config;
    this.#generation++;
    this.#maxConnections = maxConnections;
    return () => {
      this.#file = oldFile;
      this.#config = oldConfig;
      this.#generation = oldGeneration;
      this.#maxConnections = oldMaxConnections;
      registry.commit(before);
    };
  }

  /** Confirms the active config: it cannot be undone any more. */
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
      followers: this.#options.followers?.() ?? [],
      debug: config.log.level === "debug",
    };
  }

  #connectionsFor(config: Config): number {
    const { max, warning } = budget(config.max_connections, needsOf(config));
    if (warning !== null) this.#options.log.warn("max_connections is lowered", { reason: warning });
    return max;
  }
}

/** The open files that a config needs apart from connections. */
export function needsOf(config: Config): Needs {
  return { workers: workerCount(config), sockets: config.listeners.reduce((sum, { bind }) => sum + bind.length, 0) };
}

/** The number of workers that a config asks for. */
export function workerCount(config: Config): number {
  // Without sockets of the supervisor's own, nothing keeps an accept queue open, so there is one worker.
  if (!ownSockets()) return 1;
  return config.workers === "auto" ? availableParallelism() : config.workers;
}
