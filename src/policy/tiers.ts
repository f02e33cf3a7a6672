// Which backends of a pool may be picked, and in which order: the tiers that the supervisor computes and every worker
// chooses within. Pure.

/** Effective weights are in thousandths of the config's, so that a weight of 1 can be ramped. */
export const WEIGHT_UNIT = 1000;

/** What is known of a backend that decides its place. */
export interface TierInput {
  readonly id: number;
  readonly up: boolean;
  /** The config's weight, 0..256, times what its agent makes of it; 0 = no new connections. */
  readonly weight: number;
  readonly backup: boolean;
}

/** A backend that may be picked. */
export interface TierEntry {
  readonly id: number;
  /** In units of 1 / WEIGHT_UNIT; above 0. */
  readonly effectiveWeight: number;
}

/** Backends that may be picked together; all of them usable. */
export interface Tier {
  /** 0 = the primaries, 1 = the backups. */
  readonly priority: number;
  readonly entries: readonly TierEntry[];
}

/**
 * The tiers of a pool, the preferred one first. A tier without a usable backend is left out, so a worker that uses the first tier
 * falls back to the next only when that one is empty. Keeps the order of the config within a tier.
 */
export function tiersOf(backends: readonly TierInput[]): Tier[] {
  const usable = backends.filter(({ up, weight }) => up && weight > 0);
  return [0, 1]
    .map((priority) => ({
      priority,
      entries: usable.filter(({ backup }) => Number(backup) === priority).map(entryOf),
    }))
    .filter(({ entries }) => entries.length > 0);
}

function entryOf({ id, weight }: TierInput): TierEntry {
  return { id, effectiveWeight: Math.max(1, Math.round(weight * WEIGHT_UNIT)) };
}
