// Logs which backends of a pool get its connections, when that changes: its primaries, its backups, all of a tier in panic, or none.
import type { Log } from "./log.ts";
import { poolTiers, takesConnections } from "./pool-tiers.ts";
import type { PoolRecord } from "./registry.ts";

/** What was logged last. */
interface Noted {
  /** The priority of the tier in use; null = no backend is usable. */
  inUse: number | null;
  /** The priorities of the tiers in panic mode. */
  panics: readonly number[];
}

export class TierLog {
  readonly #log: Pick<Log, "info" | "warn" | "error">;
  /** By the pool's id. A pool that has not had a usable backend yet is not in it. */
  readonly #noted = new Map<number, Noted>();

  constructor(log: Pick<Log, "info" | "warn" | "error">) {
    this.#log = log;
  }

  note(pool: PoolRecord): void {
    const tiers = poolTiers(pool);
    const inUse = tiers[0]?.priority ?? null;
    const before = this.#noted.get(pool.id);
    if (before === undefined && inUse === null) return;
    const panics = tiers.flatMap(({ priority, panic }) => (panic ? priority : []));
    this.#noted.set(pool.id, { inUse, panics });
    this.#notePanics(pool, before?.panics ?? [], panics);
    if (before !== undefined && before.inUse !== inUse) this.#noteInUse(pool, before.inUse, inUse);
  }

  /** Forgets the pools that a reload has removed. */
  keepOnly(pools: readonly PoolRecord[]): void {
    const ids = new Set(pools.map(({ id }) => id));
    for (const id of this.#noted.keys()) if (!ids.has(id)) this.#noted.delete(id);
  }

  #notePanics(pool: PoolRecord, before: readonly number[], now: readonly number[]): void {
    const { panic_threshold } = pool.config;
    for (const priority of now) {
      if (before.includes(priority)) continue;
      this.#log.warn("pool in panic, health is ignored", { ...tierFields(pool, priority), panic_threshold });
    }
    for (const priority of before)
      if (!now.includes(priority)) this.#log.info("pool no longer in panic", tierFields(pool, priority));
  }

  #noteInUse(pool: PoolRecord, before: number | null, now: number | null): void {
    if (now === null)
      this.#log.error("pool has no usable backend", { pool: pool.name, backends: pool.backends.length });
    else if (now > 0) this.#log.warn("pool uses its backups", tierFields(pool, now));
    else if (before === null) this.#log.info("pool has a usable backend again", tierFields(pool, now));
    else this.#log.info("pool uses its primaries again", tierFields(pool, now));
  }
}

function tierFields(pool: PoolRecord, priority: number): Record<string, string | number> {
  const all = pool.backends.filter(({ config }) => Number(config.backup) === priority);
  return {
    pool: pool.name,
    tier: priority === 0 ? "primaries" : "backups",
    backends_up: all.filter((backend) => takesConnections(pool, backend)).length,
    backends: all.length,
  };
}
