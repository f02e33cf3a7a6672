// The power of two choices (Mitzenmacher, IEEE TPDS 12(10), 2001): two backends are drawn at random, by weight, and the better one is
// picked. It needs no state and no scan, and workers that see the same state do not all pick the same backend.
import { GOLDEN_RATIO } from "../core/golden-ratio.ts";
import { isFree, NO_WAITS, type Balancer, type Candidate, type PickContext, type Sources } from "./candidate.ts";

/** Draws for each of the two. If all fail, the first one is searched for, and there is no second one. */
const DRAWS_MAX = 8;

/** The part that algorithms which compare two candidates share; `prefers` is the difference. */
export abstract class TwoChoices<C extends Candidate> implements Balancer<C> {
  readonly #candidates: readonly C[];
  readonly #sources: Sources;
  /** Sums of the weights up to and including each candidate. */
  readonly #sums: Float64Array;
  readonly #step: number;

  constructor(candidates: readonly C[], sources: Sources) {
    this.#candidates = candidates.filter(({ weight }) => weight > 0);
    this.#sources = sources;
    this.#step = stepThrough(this.#candidates.length);
    let sum = 0;
    this.#sums = Float64Array.from(this.#candidates, ({ weight }) => (sum += weight));
  }

  /** Whether `b` is better than `a`, which was drawn first, for the next connection. */
  protected abstract prefers(b: C, a: C, nowMs: number): boolean;

  pick({ tried }: PickContext): C | null {
    const drawn = this.#draw(tried, -1);
    const a = drawn >= 0 ? drawn : this.#next(tried);
    if (a < 0) return null;
    const first = this.#candidates[a] as C;
    const b = this.#draw(tried, a);
    const second = this.#candidates[b];
    return second !== undefined && this.prefers(second, first, this.#sources.nowMs()) ? second : first;
  }

  released(): void {}

  waits(): ReadonlyMap<number, number> {
    return NO_WAITS;
  }

  // The index of a free candidate, drawn by weight among those other than index `not`; -1 if no draw finds one.
  #draw(tried: readonly number[] | null, not: number): number {
    const sums = this.#sums;
    const excludedFrom = not < 0 ? Infinity : not === 0 ? 0 : (sums[not - 1] as number);
    const excluded = not < 0 ? 0 : (sums[not] as number) - excludedFrom;
    const total = sums.length === 0 ? 0 : (sums[sums.length - 1] as number) - excluded;
    if (total <= 0) return -1;
    for (let draw = 0; draw < DRAWS_MAX; draw++) {
      const value = this.#sources.random() * total;
      const index = indexOf(sums, value < excludedFrom ? value : value + excluded);
      if (isFree(this.#candidates[index] as C, tried)) return index;
    }
    return -1;
  }

  // The index of a free candidate, searched in steps that reach each; -1 = there is none. Steps of one would favour a candidate behind a
  // row of full ones.
  #next(tried: readonly number[] | null): number {
    const size = this.#candidates.length;
    let index = Math.floor(this.#sources.random() * size);
    for (let i = 0; i < size; i++) {
      if (isFree(this.#candidates[index] as C, tried)) return index;
      index = (index + this.#step) % size;
    }
    return -1;
  }
}

/** A number without a common divisor with `size`, near its golden section. */
function stepThrough(size: number): number {
  const divisor = (a: number, b: number): number => (b === 0 ? a : divisor(b, a % b));
  let step = Math.max(1, Math.round(size * GOLDEN_RATIO));
  while (divisor(step, size) !== 1) step++;
  return step;
}

// The first index whose sum is above `value`, by binary search.
function indexOf(sums: Float64Array, value: number): number {
  let low = 0;
  let high = sums.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((sums[middle] as number) > value) high = middle;
    else low = middle + 1;
  }
  return low;
}
