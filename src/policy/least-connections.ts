// least_connections: the backend with the fewest connections for its weight; among equals, as in an idle pool, in turn.
import type { Balancer, Beginning, Candidate } from "./candidate.ts";
import { Ranking } from "./ranking.ts";

/** See BalancerMaker. */
export function createLeastConnections<C extends Candidate>(
  candidates: readonly C[],
  beginning: Beginning,
): Balancer<C> {
  return new LeastConnections(candidates, beginning, true);
}

class LeastConnections<C extends Candidate> extends Ranking<C> {
  protected beats(b: number, a: number): boolean {
    const { at, weights } = this.turns;
    // open / weight is smaller, without the rounding of a division.
    const difference =
      (this.open[b] as number) * (weights[a] as number) - (this.open[a] as number) * (weights[b] as number);
    if (difference !== 0) return difference < 0;
    return (at[b] as number) < (at[a] as number);
  }
}
