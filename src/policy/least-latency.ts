// least_latency: of two backends drawn at random, the one that connects faster, where each open connection adds to the latency. It compares
// two backends and not all, so that the workers do not flood a backend that was fast once.
import type { Balancer, Beginning, Candidate, Sources } from "./candidate.ts";
import { TwoChoices } from "./two-choices.ts";

/**
 * Lower latencies compare as equal: the noise of schedulers would decide, and the slowest by a hair would get nothing. Also stands for a
 * latency that is unknown or has decayed: such a backend is tried soon, but not flooded.
 */
const LATENCY_MIN_MS = 0.5;

/** See BalancerMaker. */
export function createLeastLatency<C extends Candidate>(
  candidates: readonly C[],
  { sources }: Beginning<C>,
): Balancer<C> {
  return new LeastLatency(candidates, sources);
}

class LeastLatency<C extends Candidate> extends TwoChoices<C> {
  readonly #meanWeight: number;

  constructor(candidates: readonly C[], sources: Sources) {
    super(candidates, sources);
    this.#meanWeight = candidates.reduce((sum, { weight }) => sum + weight, 0) / candidates.length;
  }

  // The draw is weighted already, so only the number of connections is divided by the weight.
  protected prefers(b: C, a: C, nowMs: number): boolean {
    return this.#costOf(b, nowMs) < this.#costOf(a, nowMs);
  }

  #costOf(candidate: C, nowMs: number): number {
    const load = 1 + (candidate.openCount() * this.#meanWeight) / candidate.weight;
    return Math.max(LATENCY_MIN_MS, candidate.latencyMs(nowMs)) * load;
  }
}
