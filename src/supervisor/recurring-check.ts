// One check of one backend again and again: when it is due, its turn, its probe. What it asks and what the outcome means is the
// task's.
import type { Queued } from "../policy/check-queue.ts";
import { Probe, type Outcome, type ProbeOwner, type ProbeSpec } from "./probe.ts";

/** Part of the interval by which each is longer or shorter at random. */
const JITTER = 0.1;

export interface CheckTask {
  /** What the next check does. */
  spec(): ProbeSpec;
  /** From the begin of the last check to that of the next, without jitter. */
  intervalMs(): number;
  probed(outcome: Outcome): void;
}

/** Who says whose turn it is. */
export interface Turns {
  due(check: RecurringCheck): void;
  closed(check: RecurringCheck): void;
}

export class RecurringCheck implements ProbeOwner, Queued {
  readonly pool: number;
  silent = false;
  readonly #task: CheckTask;
  readonly #turns: Turns;
  /** Runs while the check is neither due nor under way. */
  #timer: ReturnType<typeof setTimeout> | null = null;
  #probe: Probe | null = null;
  #begunMs = 0;

  /** The first one is due within a part of the interval, so that not all checks begin together. */
  constructor(pool: number, task: CheckTask, turns: Turns) {
    this.pool = pool;
    this.#task = task;
    this.#turns = turns;
    this.#scheduleFirst();
  }

  /** The settings have changed: a new interval holds at once. */
  reschedule(): void {
    if (this.#timer !== null) this.#scheduleFirst();
  }

  stop(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#probe?.cancel();
    this.#turns.closed(this);
  }

  /** Its turn has come. */
  begin(): void {
    this.#begunMs = performance.now();
    this.#probe = new Probe(this.#task.spec(), this);
  }

  probed(outcome: Outcome): void {
    this.silent = outcome.silent;
    this.#task.probed(outcome);
  }

  probeClosed(): void {
    this.#probe = null;
    this.#turns.closed(this);
    // The interval runs from one begin to the next, however long a check takes.
    const nextMs = this.#begunMs + this.#task.intervalMs() * (1 - JITTER + 2 * JITTER * Math.random());
    this.#schedule(nextMs - performance.now());
  }

  #scheduleFirst(): void {
    this.#schedule(Math.random() * JITTER * this.#task.intervalMs());
  }

  #schedule(ms: number): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = setTimeout(
      () => {
        this.#timer = null;
        this.#turns.due(this);
      },
      Math.max(0, ms),
    );
  }
}
