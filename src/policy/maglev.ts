// Maglev hashing: a table in which each backend has slots according to its weight, and which hardly changes when a backend comes or goes.
// Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016, section 3.4. The same names and weights give
// the same table on every machine, in any order.
import { crc32c } from "../core/crc32c.ts";
import { hashText } from "../core/hash.ts";

/** Number of slots of a table: a prime, the smaller one of the paper. */
export const MAGLEV_SLOTS = 65_537;

export interface MaglevEntry {
  /** Unique in the table. */
  readonly name: string;
  /** Greater than 0. */
  readonly weight: number;
}

/** The number of an entry in each slot. Without entries the table is empty. Takes some milliseconds, so it is not for a hot path. */
export function maglevTable(entries: readonly MaglevEntry[], slots = MAGLEV_SLOTS): Uint32Array<ArrayBuffer> {
  if (entries.length === 0) return new Uint32Array(0);
  const order = entries.map((_, number) => number).toSorted((a, b) => compare(entries[a]!.name, entries[b]!.name));
  const next = new Uint32Array(order.length);
  const skips = new Uint32Array(order.length);
  for (const [i, number] of order.entries()) {
    const { name } = entries[number]!;
    next[i] = hashText(name, 0) % slots;
    skips[i] = 1 + (hashText(name, 1) % (slots - 1));
  }
  const weights = Float64Array.from(order, (number) => entries[number]!.weight);
  const heaviest = weights.reduce((most, weight) => Math.max(most, weight), 0);
  // In each round the heaviest entry takes a slot, and every other one when its accumulated weight reaches the heaviest's.
  const credits = new Float64Array(order.length);
  const table = new Uint32Array(slots).fill(EMPTY);
  for (let filled = 0; ;) {
    for (let i = 0; i < order.length; i++) {
      credits[i]! += weights[i]!;
      if (credits[i]! < heaviest) continue;
      credits[i]! -= heaviest;
      let slot = next[i]!;
      while (table[slot] !== EMPTY) slot = after(slot, skips[i]!, slots);
      table[slot] = order[i]!;
      next[i] = after(slot, skips[i]!, slots);
      if (++filled === slots) return table;
    }
  }
}

/** A number to compare the tables of several machines: equal tables with equal names have the same number. */
export function maglevFingerprint(entries: readonly MaglevEntry[], table: Uint32Array): number {
  const names = Uint32Array.from(entries, ({ name }) => hashText(name, 2));
  return crc32c(new Uint8Array(Uint32Array.from(table, (number) => names[number]!).buffer));
}

const EMPTY = 0xffffffff;

function after(slot: number, skip: number, slots: number): number {
  const next = slot + skip;
  return next < slots ? next : next - slots;
}

// By code units: the same order on every machine, whatever its locale.
function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
