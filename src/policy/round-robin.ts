// round_robin: each backend in turn, by weight.
import { isFree, type Balancer, type Beginning, type Candidate, type PickContext } from "./candidate.ts";
import { Rotation } from "./rotation.ts";

/** See BalancerMaker. A pick costs one step if all weights are equal, else one for each candidate. */
export function createRoundRobin<C extends Candidate>(
  candidates: readonly C[],
  { deficits, startAt }: Beginning,
): Balancer<C> {
  return new RoundRobin(new Rotation(candidates, deficits, startAt));
}

class RoundRobin<C extends Candidate> implements Balancer<C> {
  readonly #rotation: Rotation<C>;
  readonly #free: Int32Array;

  constructor(rotation: Rotation<C>) {
    this.#rotation = rotation;
    this.#free = new Int32Array(rotation.candidates.length);
  }

  pick({ tried }: PickContext): C | null {
    return this.#rotation.isEqual ? this.#pickEqual(tried) : this.#pickWeighted(tried);
  }

  deficits(): ReadonlyMap<number, number> {
    return this.#rotation.deficits();
  }

  #pickEqual(tried: readonly number[] | null): C | null {
    const { candidates, cursor } = this.#rotation;
    for (let i = 0; i < candidates.length; i++) {
      const index = cursor + i < candidates.length ? cursor + i : cursor + i - candidates.length;
      if (isFree(candidates[index] as C, tried)) return this.#rotation.take(index);
    }
    return null;
  }

  #pickWeighted(tried: readonly number[] | null): C | null {
    const { candidates } = this.#rotation;
    let count = 0;
    for (let index = 0; index < candidates.length; index++) {
      if (isFree(candidates[index] as C, tried)) this.#free[count++] = index;
    }
    return this.#rotation.pickAmong(this.#free, count);
  }
}
