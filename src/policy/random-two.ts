// random_two: of two backends drawn at random, the one with fewer connections per weight.
import type { Balancer, Beginning, Candidate } from "./candidate.ts";
import { TwoChoices } from "./two-choices.ts";

/** See BalancerMaker. */
export function createRandomTwo<C extends Candidate>(candidates: readonly C[], { sources }: Beginning<C>): Balancer<C> {
  return new RandomTwo(candidates, sources);
}

class RandomTwo<C extends Candidate> extends TwoChoices<C> {
  protected prefers(b: C, a: C): boolean {
    // Compares open / weight without the rounding of a division.
    return b.openCount() * a.weight < a.openCount() * b.weight;
  }
}
