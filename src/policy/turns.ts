// Turns in proportion to weight, evenly spread: the state of round_robin, and the tie-breaker of least_connections. Stride scheduling
// (Waldspurger and Weihl, MIT/LCS/TM-528, 1995): a candidate has a turn each 1 / weight of virtual time, and the one with the earliest turn
// is next, so the cost of a turn does not depend on the number of candidates.
import { GOLDEN_RATIO } from "../core/golden-ratio.ts";
import type { Candidate } from "./candidate.ts";

export class Turns {
  /** The virtual time of each candidate's next turn. */
  readonly at: Float64Array;
  /** The initial weights: those of the candidates may change before a successor asks for `waits`. */
  readonly weights: Float64Array;

  readonly #candidates: readonly Candidate[];
  /** In turns: turn k of a candidate is at (offset + k) / weight, so the phases of candidates never drift together. */
  readonly #offsets: Float64Array;
  readonly #counts: Float64Array;
  /** The latest turn that was taken. */
  #now = -Infinity;

  /** All weights are greater than 0. `waits` are the predecessor's, or null at the start. */
  constructor(candidates: readonly Candidate[], waits: ReadonlyMap<number, number> | null) {
    this.#candidates = candidates;
    this.#offsets = waits === null ? phasesOf(candidates, GOLDEN_RATIO) : joined(candidates, waits);
    this.#counts = new Float64Array(candidates.length);
    this.weights = Float64Array.from(candidates, ({ weight }) => weight);
    this.at = this.weights.map((weight, index) => (this.#offsets[index] as number) / weight);
  }

  /** The candidate takes its turn. Hot path. */
  take(index: number): void {
    const at = this.at[index] as number;
    if (at > this.#now) this.#now = at;
    this.#goTo(index, Math.max((this.#counts[index] as number) + 1, this.#countAt(index)));
  }

  /** The candidate could not be picked for a while. It does not get back the turns that it missed. */
  skipMissed(index: number): void {
    if ((this.at[index] as number) < this.#now) this.#goTo(index, this.#countAt(index));
  }

  /** As in Balancer. */
  waits(): Map<number, number> {
    const now = Math.max(0, this.#now);
    return new Map(
      this.#candidates.map(({ id }, index) => {
        this.skipMissed(index);
        return [id, ((this.at[index] as number) - now) * (this.weights[index] as number)];
      }),
    );
  }

  // The number of the candidate's first turn after now.
  #countAt(index: number): number {
    return Math.floor(this.#now * (this.weights[index] as number) - (this.#offsets[index] as number)) + 1;
  }

  #goTo(index: number, count: number): void {
    this.#counts[index] = count;
    this.at[index] = ((this.#offsets[index] as number) + count) / (this.weights[index] as number);
  }
}

/** Candidates of the predecessor continue as they were; others begin in the middle, so they neither wait nor are flooded. */
function joined(candidates: readonly Candidate[], waits: ReadonlyMap<number, number>): Float64Array {
  const phases = phasesOf(
    candidates.filter(({ id }) => !waits.has(id)),
    1 / 2,
  );
  let next = 0;
  return Float64Array.from(candidates, ({ id }) => waits.get(id) ?? (phases[next++] as number));
}

/**
 * For each candidate the fraction of the time between two of its turns that it waits for the first one, 0 to 1. Candidates of similar
 * weight must not all have their turns at the same time, or a heavy one would have many in a row in between. Equal ones begin in their
 * order.
 */
function phasesOf(candidates: readonly Candidate[], first: number): Float64Array {
  const phases = new Float64Array(candidates.length);
  const weightOf = (index: number) => (candidates[index] as Candidate).weight;
  const byWeight = candidates.map((_, index) => index).toSorted((a, b) => weightOf(b) - weightOf(a));
  for (let start = 0; start < byWeight.length;) {
    let end = start + 1;
    while (end < byWeight.length && weightOf(byWeight[end]!) === weightOf(byWeight[start]!)) end++;
    const spread = Float64Array.from(
      { length: end - start },
      (_, i) => (first + (start + i) * GOLDEN_RATIO) % 1,
    ).sort();
    spread.forEach((phase, i) => (phases[byWeight[start + i]!] = phase));
    start = end;
  }
  return phases;
}
