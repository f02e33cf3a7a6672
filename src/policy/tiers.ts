// Which backends of a pool may be picked, and in which order: the tiers that the supervisor computes and every worker
// chooses within. Pure.

/** Effective weights are in thousandths of the config's, so that a weight of 1 can be ramped. */
export const WEIGHT_UNIT = 1000;

/** What is known of a backend that decides its place. */
export interface TierInput {
  readonly id: number;
  /** What its health checks say. */
  readonly healthUp: boolean;
  /** Ejected for its failures with real traffic. */
  readonly ejected: boolean;
  /** Its operator or its agent has said: no new connections. */
  readonly drained: boolean;
  /** 0..256, times what its agent makes of it; 0 = no new connections. */
  readonly weight: number;
  /** 0 = the primaries, 1 = the backups; the lowest one with a usable backend is used. */
  readonly priority: number;
  /** The part of its weight that a backend has which came up a short time ago; above 0, at most 1. */
  readonly ramp: number;
}

/** A backend that may be picked. */
export interface TierEntry {
  readonly id: number;
  /** In units of 1 / WEIGHT_UNIT; above 0. */
  readonly effectiveWeight: number;
}

/** Backends that may be picked together. */
export interface Tier {
  readonly priority: number;
  readonly entries: readonly TierEntry[];
  /** Too few are usable, so health and ejection are ignored. */
  readonly panic: boolean;
}

/** Whether the backend takes new connections. */
export function isUsable(backend: TierInput): boolean {
  return isOffered(backend) && backend.healthUp && !backend.ejected;
}

/**
 * The tiers of a pool, the preferred one first. A tier without a usable backend is left out, so a worker that uses the first tier
 * falls back to the next only when that one is empty. Keeps the order of the config within a tier.
 *
 * Where less than `panicThreshold` percent of a tier are usable, all of it are, whatever their health and ejection: the few that
 * are left would be overloaded. Those of weight 0 and the drained neither count nor are used. A tier without any usable backend
 * panics only if no other tier has one: connections are better off at a healthy backup.
 */
export function tiersOf(backends: readonly TierInput[], panicThreshold: number): Tier[] {
  const offered = backends.filter(isOffered);
  const isLost = !offered.some(isUsable);
  const priorities = [...new Set(offered.map(({ priority }) => priority))].toSorted((a, b) => a - b);
  return priorities.flatMap((priority) => {
    const all = offered.filter((backend) => backend.priority === priority);
    const usable = all.filter(isUsable);
    const panic = usable.length * 100 < panicThreshold * all.length && (usable.length > 0 || isLost);
    const entries = (panic ? all : usable).map(entryOf);
    return entries.length > 0 ? { priority, entries, panic } : [];
  });
}

// Not even in a panic does a backend take connections that somebody has taken out.
function isOffered({ weight, drained }: TierInput): boolean {
  return weight > 0 && !drained;
}

function entryOf({ id, weight, ramp }: TierInput): TierEntry {
  return { id, effectiveWeight: Math.max(1, Math.round(weight * ramp * WEIGHT_UNIT)) };
}
