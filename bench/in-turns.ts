// CPU time per connection of several processes beside each other: all run at once, and each gets a few connections in turn, repeatedly.
import { quantile } from "./statistics.ts";
import type { Load } from "./load.ts";

/** In each turn every entrant gets some connections, so that a disturbance of the machine affects all of them. */
export const turns = 60;
/** Until the runtime has optimized the code of a connection. */
const warmTurns = 400;
export const connectionsPerTurn = 96;
export const atOnce = 16;
/** A disturbed turn costs more, so the cheaper turns show the true cost: this quantile of them. */
const undisturbed = 0.2;

export interface Entrant {
  key: string;
  load: Load;
  /** The kind of the load's steps. */
  step?: string;
  /** Of the process that is measured. */
  cpuNanoseconds(): number;
}

/** CPU nanoseconds per connection, by key; NaN for a key that is not there. `warm` turns come before those that are measured. */
export async function costsInTurns(
  entrants: readonly Entrant[],
  { warm = warmTurns, measured = turns } = {},
): Promise<(key: string) => number> {
  const costs = new Map<string, number[]>(entrants.map(({ key }) => [key, []]));
  for (let turn = 0; turn < warm + measured; turn++) {
    for (const { key, load, step, cpuNanoseconds } of shuffled(entrants)) {
      const before = cpuNanoseconds();
      const { exchanges } = await load.step<{ exchanges: number }>(step);
      if (turn >= warm) costs.get(key)?.push((cpuNanoseconds() - before) / exchanges);
    }
  }
  return (key) => {
    const sorted = costs.get(key)?.toSorted((a, b) => a - b) ?? [];
    return sorted.length === 0 ? NaN : quantile(sorted, undisturbed);
  };
}

/** So that no entrant always follows the same one. */
function shuffled<T>(items: readonly T[]): T[] {
  return items
    .map((item) => ({ item, at: Math.random() }))
    .toSorted((a, b) => a.at - b.at)
    .map(({ item }) => item);
}
