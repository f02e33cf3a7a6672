// Turns in proportion to weight, as evenly spread as possible: the memory of round_robin, and what breaks ties in
// least_connections. A candidate that may not be picked at some pick neither gains nor pays for it.
import type { Candidate } from "./candidate.ts";

export class Rotation<C extends Candidate> {
  /** The candidates of a weight above 0; the indices of `pickAmong` point here. */
  readonly candidates: readonly C[];
  /** All weights are the same, and turns go by the order of `candidates`. */
  readonly isEqual: boolean;

  /** Where weights are equal: the index whose turn is next. */
  #cursor = 0;
  /** Where weights differ: each candidate's deficit times the sum of all weights. */
  readonly #credit: Float64Array;
  readonly #total: number;

  /** `deficits` are the predecessor's, or null at the beginning; then `startAt` turns count as taken. */
  constructor(candidates: readonly C[], deficits: ReadonlyMap<number, number> | null, startAt: number) {
    const usable = candidates.filter((candidate) => candidate.weight > 0);
    const behind = deficits && centred(usable, deficits);
    const behindOf = (candidate: C) => behind?.get(candidate.id) ?? 0;
    this.isEqual = usable.every((candidate) => candidate.weight === usable[0]?.weight);
    this.#total = usable.reduce((sum, candidate) => sum + candidate.weight, 0);
    // The candidates that are behind go first, which also keeps the order of the last round.
    this.candidates = this.isEqual && behind ? usable.toSorted((a, b) => behindOf(b) - behindOf(a)) : usable;
    this.#credit = Float64Array.from(this.isEqual ? [] : usable, (each) => Math.round(behindOf(each) * this.#total));
    if (!behind) this.#skip(startAt);
  }

  /** The candidate whose turn it is among the first `count` of `indices`, which are in rising order; null if 0. */
  pickAmong(indices: Int32Array, count: number): C | null {
    if (count === 0) return null;
    return this.isEqual ? this.#pickNext(indices, count) : this.#pickSmooth(indices, count);
  }

  /** The index whose turn is next if all weights are equal. */
  get cursor(): number {
    return this.#cursor;
  }

  /** Takes the turn of one index, if all weights are equal: the next one is after it. */
  take(index: number): C {
    this.#cursor = index + 1 === this.candidates.length ? 0 : index + 1;
    return this.candidates[index] as C;
  }

  /** As in Balancer. */
  deficits(): Map<number, number> {
    const n = this.candidates.length;
    return new Map(
      this.candidates.map((candidate, index) => {
        // With equal weights the first of a round is as far behind as the last is ahead.
        const place = (index - this.#cursor + n) % n;
        return [
          candidate.id,
          this.isEqual ? (n - 1 - 2 * place) / (2 * n) : (this.#credit[index] as number) / this.#total,
        ];
      }),
    );
  }

  #pickNext(indices: Int32Array, count: number): C {
    for (let i = 0; i < count; i++) {
      const index = indices[i] as number;
      if (index >= this.#cursor) return this.take(index);
    }
    return this.take(indices[0] as number);
  }

  /**
   * Smooth weighted round robin, as in nginx since 1.3.1: at each pick every candidate gains its weight, and the one with the
   * most credit pays the sum. Five turns of weights 3, 1, 1 are A B A C A and not A A A B C.
   */
  #pickSmooth(indices: Int32Array, count: number): C {
    let total = 0;
    let best = -1;
    let most = -Infinity;
    for (let i = 0; i < count; i++) {
      const index = indices[i] as number;
      const weight = (this.candidates[index] as C).weight;
      const credit = (this.#credit[index] as number) + weight;
      this.#credit[index] = credit;
      total += weight;
      if (credit > most) {
        most = credit;
        best = index;
      }
    }
    this.#credit[best] = most - total;
    return this.candidates[best] as C;
  }

  #skip(turns: number): void {
    const n = this.candidates.length;
    if (n === 0) return;
    if (this.isEqual) {
      this.#cursor = turns % n;
      return;
    }
    const all = Int32Array.from(this.candidates, (_, index) => index);
    for (let i = 0; i < turns; i++) this.#pickSmooth(all, n);
  }
}

/**
 * The candidates' deficits, shifted to a mean of 0, which is where new candidates begin: otherwise these would have to wait,
 * or would be flooded. Deficits are counted in picks, so they keep their meaning when weights and numbers change. Null if no
 * candidate is known.
 */
function centred(candidates: readonly Candidate[], deficits: ReadonlyMap<number, number>): Map<number, number> | null {
  const known = candidates.filter(({ id }) => deficits.has(id));
  if (known.length === 0) return null;
  const mean = known.reduce((sum, { id }) => sum + (deficits.get(id) as number), 0) / known.length;
  return new Map(known.map(({ id }) => [id, (deficits.get(id) as number) - mean]));
}
