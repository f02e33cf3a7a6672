// first: the first backend of the list that is not full, so that the others stay idle and can be switched off.
import { isFree, NO_DEFICITS, type Balancer, type Candidate, type PickContext } from "./candidate.ts";

/** See BalancerMaker. Weights do not count, except that 0 is never picked. */
export function createFirst<C extends Candidate>(candidates: readonly C[]): Balancer<C> {
  return new First(candidates.filter(({ weight }) => weight > 0));
}

class First<C extends Candidate> implements Balancer<C> {
  readonly #candidates: readonly C[];

  constructor(candidates: readonly C[]) {
    this.#candidates = candidates;
  }

  pick({ tried }: PickContext): C | null {
    for (const candidate of this.#candidates) if (isFree(candidate, tried)) return candidate;
    return null;
  }

  deficits(): ReadonlyMap<number, number> {
    return NO_DEFICITS;
  }
}
