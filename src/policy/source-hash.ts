// source_hash: a client stays with its backend, by a Maglev table (maglev.ts). If that backend cannot be picked, the client uses its own
// order of the others, so no other client's backend changes.
import { isFree, NO_WAITS, type Balancer, type Beginning, type Candidate, type PickContext } from "./candidate.ts";

/** Number of slots that are tried before every candidate is looked at: with half of the backends down, one client in 2^64 gets that far. */
const PROBES_MAX = 64;

/** See BalancerMaker. The table already contains the weights. */
export function createSourceHash<C extends Candidate>(candidates: readonly C[], { table }: Beginning<C>): Balancer<C> {
  const usable = candidates.filter(({ weight }) => weight > 0);
  if (table === null) throw new Error("source_hash needs a table");
  const byId = new Map(usable.map((candidate) => [candidate.id, candidate]));
  return new SourceHash(
    usable,
    table.ids.map((id) => byId.get(id) ?? null),
    table.slots,
  );
}

class SourceHash<C extends Candidate> implements Balancer<C> {
  readonly #usable: readonly C[];
  /** By number in the table; null = cannot be picked now. */
  readonly #byNumber: readonly (C | null)[];
  readonly #slots: Uint32Array;

  constructor(usable: readonly C[], byNumber: readonly (C | null)[], slots: Uint32Array) {
    this.#usable = usable;
    this.#byNumber = byNumber;
    this.#slots = slots;
  }

  pick(context: PickContext): C | null {
    const slots = this.#slots;
    const size = slots.length;
    const { tried } = context;
    const hash = context.hashKey();
    if (size === 0 || this.#usable.length === 0) return null;
    let slot = hash % size;
    // The number of slots is a prime, so every step size reaches all of them.
    const step = 1 + ((Math.imul(hash ^ (hash >>> 15), 0x9e3779b1) >>> 0) % (size - 1));
    for (let probe = 0; probe < PROBES_MAX; probe++) {
      const candidate = this.#byNumber[slots[slot] as number] as C | null;
      if (candidate !== null && isFree(candidate, tried)) return candidate;
      slot += step;
      if (slot >= size) slot -= size;
    }
    return this.#scan(hash, tried);
  }

  released(): void {}

  waits(): ReadonlyMap<number, number> {
    return NO_WAITS;
  }

  #scan(hash: number, tried: readonly number[] | null): C | null {
    const usable = this.#usable;
    for (let i = 0; i < usable.length; i++) {
      const candidate = usable[(hash + i) % usable.length] as C;
      if (isFree(candidate, tried)) return candidate;
    }
    return null;
  }
}
