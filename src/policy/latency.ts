// The latency of one backend: a moving average of its connect times that decays with time, so that a backend that was slow once is tried
// again.

/** After this time without a sample the average has fallen to 1/e. The weight of old samples decays in the same way. */
export const LATENCY_DECAY_MS = 10_000;
/** Minimum weight of a sample, however short the time since the last one is. */
const SAMPLE_SHARE_MIN = 0.05;

export class Latency {
  #averageMs = 0;
  #sampledMs = 0;
  #isKnown = false;

  /** A connect took `ms`. */
  add(ms: number, nowMs: number): void {
    if (!this.#isKnown) {
      this.#averageMs = ms;
    } else {
      const share = Math.max(SAMPLE_SHARE_MIN, 1 - Math.exp((this.#sampledMs - nowMs) / LATENCY_DECAY_MS));
      this.#averageMs += share * (ms - this.#averageMs);
    }
    this.#isKnown = true;
    this.#sampledMs = nowMs;
  }

  /** The average in milliseconds, decayed by the time since the last sample; 0 before the first one. */
  at(nowMs: number): number {
    return this.#isKnown ? this.#averageMs * Math.exp((this.#sampledMs - nowMs) / LATENCY_DECAY_MS) : 0;
  }
}
