// How late the event loop of this worker runs: measured by the ticks of its clock, so it costs no timer of its own, and told
// in the worker's row of counters. The time of the next tick stands there too: a loop that is blocked cannot say so itself,
// but whoever reads the row sees that this time has passed.
import { countTime, LOOP_DELAYS, WORKER } from "../shared/counters.ts";
import { TICK_MS } from "./clock.ts";

const { timeOrigin } = performance;

export class LoopDelay {
  /** The worker's row of WORKER.size cells. */
  readonly #counters: Float64Array;
  #dueMs = 0;

  constructor(counters: Float64Array) {
    this.#counters = counters;
  }

  /** The clock starts at `nowMs` (of performance.now). */
  start(nowMs: number): void {
    this.#dueMs = nowMs + TICK_MS;
    this.#counters[WORKER.tickDueMs] = timeOrigin + this.#dueMs;
  }

  /** A tick runs at `nowMs`. */
  tick(nowMs: number): void {
    // Bun's timers make up for a late tick by an early next one.
    const lateMs = Math.max(0, nowMs - this.#dueMs);
    countTime(this.#counters, LOOP_DELAYS, lateMs);
    this.start(nowMs);
  }

  /** The clock stands still: there is nothing to be late for. */
  stop(): void {
    this.#counters[WORKER.tickDueMs] = 0;
  }
}
