// least_connections: the backend with the fewest connections per weight; equal ones, as in an idle pool, take turns.
import type { Balancer, Beginning, Candidate } from "./candidate.ts";
import { Ranking } from "./ranking.ts";

/** See BalancerMaker. */
export function createLeastConnections<C extends Candidate>(
  candidates: readonly C[],
  beginning: Beginning<C>,
): Balancer<C> {
  return new LeastConnections(candidates, beginning, true);
}

class LeastConnections<C extends Candidate> extends Ranking<C> {
  protected beats(b: number, a: number): boolean {
    const { load } = this;
    const difference = (load[b] as number) - (load[a] as number);
    if (difference !== 0) return difference < 0;
    const { at } = this.turns;
    return (at[b] as number) < (at[a] as number);
  }
}
