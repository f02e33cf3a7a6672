// Decides which backends of a pool may be picked, and in which order: the tiers that the supervisor computes and within which every worker
// picks. Pure.

/** Effective weights are in thousandths of the config's, so that a weight of 1 can ramp. */
export const WEIGHT_UNIT = 1000;

/** The facts of a backend that decide its place. */
export interface TierInput {
  readonly id: number;
  /** The state by its health checks. */
  readonly healthUp: boolean;
  /** Ejected for its failures with real traffic. */
  readonly ejected: boolean;
  /** Its operator or its agent allows no new connections. */
  readonly drained: boolean;
  /** 0..256, times the agent's percentage; 0 = no new connections. */
  readonly weight: number;
  /** 0 = the primaries, 1 = the backups; the lowest tier with a usable backend is used. */
  readonly priority: number;
  /** The fraction of its weight that a backend has shortly after it came up; greater than 0, at most 1. */
  readonly ramp: number;
}

/** A backend that may be picked. */
export interface TierEntry {
  readonly id: number;
  /** In units of 1 / WEIGHT_UNIT; greater than 0. */
  readonly effectiveWeight: number;
}

/** Backends among which connections are balanced. */
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
 * The tiers of a pool, the preferred one first. A tier without a usable backend is omitted: a worker uses the first tier, so it falls back
 * to the next one only when that tier is empty. Keeps the order of the config within a tier.
 * If less than `panicThreshold` percent of a tier are usable, all of it is used regardless of health and ejection, because the few usable
 * ones would be overloaded. Backends of weight 0 and drained ones neither count nor are used. A tier without any usable backend panics only
 * if no other tier has one: a healthy backup is better for the connections.
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

// Drained backends and those of weight 0 take no connections even in panic mode.
function isOffered({ weight, drained }: TierInput): boolean {
  return weight > 0 && !drained;
}

function entryOf({ id, weight, ramp }: TierInput): TierEntry {
  return { id, effectiveWeight: Math.max(1, Math.round(weight * ramp * WEIGHT_UNIT)) };
}
