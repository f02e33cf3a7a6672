// How much of a core the admin endpoint may take from the workers beside it: requests wait when those before them have used it up. A
// token bucket over the time that requests have cost, kept as one number (GCRA, as in policy/token-bucket.ts). Pure.

/** What a request costs beside its own work: the accept, the parsing, the writes. Measured: 0.1 to 0.2 ms. */
const REQUEST_MS = 0.2;
/** No request waits longer, so that probes are answered in time whatever others do. */
const WAIT_MS_MAX = 500;

export interface BudgetOptions {
  /** Part of one core, such as 0.1. */
  share: number;
  /** Milliseconds of work that may be done at once after a quiet time. */
  burstMs: number;
}

export class RequestBudget {
  readonly #share: number;
  /** By how much the time below may lie back. */
  readonly #savedMs: number;
  /** When everything done so far is paid for. */
  #paidMs = -Infinity;

  constructor({ share, burstMs }: BudgetOptions) {
    this.#share = share;
    this.#savedMs = burstMs / share;
  }

  /** How long a request that comes now has to wait. `nowMs` here and below: on any one clock that does not go back. */
  waitMs(nowMs: number): number {
    return Math.min(WAIT_MS_MAX, Math.max(0, this.#paidMs - nowMs));
  }

  /** A request has been answered, with so much work. */
  spend(workMs: number, nowMs: number): void {
    const from = Math.max(this.#paidMs, nowMs - this.#savedMs);
    // A debt beyond the longest wait is never waited for.
    this.#paidMs = Math.min(from + (REQUEST_MS + workMs) / this.#share, nowMs + WAIT_MS_MAX / this.#share);
  }
}
