// least_connections: the backend with the fewest connections for its weight; among equals, as in an idle pool, in turn.
import { isFree, type Balancer, type Beginning, type Candidate, type PickContext } from "./candidate.ts";
import { Rotation } from "./rotation.ts";

/** See BalancerMaker. A pick looks at each candidate once. */
export function createLeastConnections<C extends Candidate>(
  candidates: readonly C[],
  { deficits, startAt }: Beginning,
): Balancer<C> {
  return new LeastConnections(new Rotation(candidates, deficits, startAt));
}

class LeastConnections<C extends Candidate> implements Balancer<C> {
  readonly #rotation: Rotation<C>;
  readonly #least: Int32Array;

  constructor(rotation: Rotation<C>) {
    this.#rotation = rotation;
    this.#least = new Int32Array(rotation.candidates.length);
  }

  pick({ tried }: PickContext): C | null {
    const { candidates } = this.#rotation;
    let count = 0;
    let leastOpen = 0;
    let leastWeight = 1;
    for (let index = 0; index < candidates.length; index++) {
      const candidate = candidates[index] as C;
      if (!isFree(candidate, tried)) continue;
      const open = candidate.openCount();
      // open / weight < leastOpen / leastWeight, without the rounding of a division.
      const difference = count === 0 ? -1 : open * leastWeight - leastOpen * candidate.weight;
      if (difference > 0) continue;
      if (difference < 0) {
        count = 0;
        leastOpen = open;
        leastWeight = candidate.weight;
      }
      this.#least[count++] = index;
    }
    return this.#rotation.pickAmong(this.#least, count);
  }

  deficits(): ReadonlyMap<number, number> {
    return this.#rotation.deficits();
  }
}
