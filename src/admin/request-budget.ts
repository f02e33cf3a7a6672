// Limits the CPU time that the admin endpoint takes from the workers: requests wait if earlier ones have used it up. A token bucket over
// the cost of requests, kept as one number (GCRA, as in policy/token-bucket.ts). Pure.

/** The cost of a request besides its own work: the accept, the parsing, the writes. Measured: 0.1 to 0.2 ms. */
const REQUEST_MS = 0.2;
/** No request waits longer, so that probes are answered in time under any load. */
const WAIT_MS_MAX = 500;

export interface BudgetOptions {
  /** Fraction of one core, such as 0.1. */
  share: number;
  /** The burst in milliseconds of work that may be done at once after a quiet time. */
  burstMs: number;
}

export class RequestBudget {
  readonly #share: number;
  /** How far the time below may lie in the past. */
  readonly #savedMs: number;
  /** When everything done so far is paid for. */
  #paidMs = -Infinity;

  constructor({ share, burstMs }: BudgetOptions) {
    this.#share = share;
    this.#savedMs = burstMs / share;
  }

  /** How long a request that arrives now must wait. `nowMs` here and below: on any monotonic clock. */
  waitMs(nowMs: number): number {
    return Math.min(WAIT_MS_MAX, Math.max(0, this.#paidMs - nowMs));
  }

  /** A request was answered, with this much work. */
  spend(workMs: number, nowMs: number): void {
    const from = Math.max(this.#paidMs, nowMs - this.#savedMs);
    // A debt beyond the longest wait is dropped.
    this.#paidMs = Math.min(from + (REQUEST_MS + workMs) / this.#share, nowMs + WAIT_MS_MAX / this.#share);
  }
}
