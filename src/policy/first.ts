// first: the first backend of the list that is not full, so that the others stay idle and can be switched off.
import { NO_WAITS, type Balancer, type Beginning, type Candidate } from "./candidate.ts";
import { Ranking } from "./ranking.ts";

/** See BalancerMaker. Weights are ignored, except that 0 is never picked. */
export function createFirst<C extends Candidate>(candidates: readonly C[], beginning: Beginning<C>): Balancer<C> {
  return new First(candidates, beginning, false);
}

class First<C extends Candidate> extends Ranking<C> {
  protected beats(): boolean {
    return false;
  }

  override waits(): ReadonlyMap<number, number> {
    return NO_WAITS;
  }
}
