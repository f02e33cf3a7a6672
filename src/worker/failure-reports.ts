// Failures of backends, for the supervisor, which counts them over all workers and ejects (passive health). Only failures of pools
// with passive health come here, so other connections cost nothing.
import type { BackendFailures, FromWorker, PassivePlan } from "../messages.ts";

/** Failures of so long a time are one message: a backend that is gone fails thousands of connections in a second. */
const REPORT_EVERY_MS = 10;

/** One for each worker. */
export class FailureReports {
  readonly #post: (message: FromWorker) => void;
  /** Not reported yet, by the backend's id. */
  readonly #counts = new Map<number, BackendFailures>();

  constructor(post: (message: FromWorker) => void) {
    this.#post = post;
  }

  of(backend: number): BackendFailures {
    let counts = this.#counts.get(backend);
    if (counts !== undefined) return counts;
    if (this.#counts.size === 0) setTimeout(() => this.#report(), REPORT_EVERY_MS);
    counts = { backend, connect: 0, earlyReset: 0 };
    this.#counts.set(backend, counts);
    return counts;
  }

  #report(): void {
    this.#post({ kind: "failures", failures: [...this.#counts.values()] });
    this.#counts.clear();
  }
}

/** What one pool wants to be counted. */
export class PassiveHealth {
  readonly #plan: PassivePlan;
  readonly #reports: FailureReports;

  constructor(plan: PassivePlan, reports: FailureReports) {
    this.#plan = plan;
    this.#reports = reports;
  }

  connectFailed(backend: number): void {
    if (this.#plan.connect) this.#reports.of(backend).connect++;
  }

  /** The backend has reset a connection before the first byte of its answer. */
  resetEarly(backend: number): void {
    if (this.#plan.earlyReset) this.#reports.of(backend).earlyReset++;
  }
}
