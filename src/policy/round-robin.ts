// round_robin: each backend in turn, by weight. A full backend loses its turns and does not make up for them.
import type { Balancer, Beginning, Candidate } from "./candidate.ts";
import { Ranking } from "./ranking.ts";

/** See BalancerMaker. */
export function createRoundRobin<C extends Candidate>(candidates: readonly C[], beginning: Beginning<C>): Balancer<C> {
  return new RoundRobin(candidates, beginning, false);
}

class RoundRobin<C extends Candidate> extends Ranking<C> {
  protected beats(b: number, a: number): boolean {
    const { at } = this.turns;
    return (at[b] as number) < (at[a] as number);
  }
}
