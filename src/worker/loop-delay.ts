// Measures how late the event loop of this worker runs, by the ticks of its clock, so it needs no timer of its own. The result is in the
// worker's row of counters. So is the time of the next tick: a blocked loop cannot report itself, but readers of the row see that this
// time has passed.
import { monotonicMsOf } from "../platform/clock.ts";
import { countTime, LOOP_DELAYS, WORKER } from "../shared/counters.ts";
import { TICK_MS } from "./clock.ts";

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
    this.#counters[WORKER.tickDueMs] = monotonicMsOf(this.#dueMs);
  }

  /** A tick runs at `nowMs`. Returns how late it is, in milliseconds. */
  tick(nowMs: number): number {
    // After a late tick, Bun's timers run the next one early.
    const lateMs = Math.max(0, nowMs - this.#dueMs);
    countTime(this.#counters, LOOP_DELAYS, lateMs);
    this.start(nowMs);
    return lateMs;
  }

  /** The clock is stopped: there is nothing to be late for. */
  stop(): void {
    this.#counters[WORKER.tickDueMs] = 0;
  }
}
