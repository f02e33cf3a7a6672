// One check of one backend, repeated: when it is due, its turn, its probe. The task decides what to ask and what the outcome means.
import type { Queued } from "../policy/check-queue.ts";
import { Probe, type Outcome, type ProbeOwner, type ProbeSpec } from "./probe.ts";

/** Jitter: the fraction of the interval by which each interval is longer or shorter at random. */
const JITTER = 0.1;

export interface CheckTask {
  /** Specifies the next check. */
  spec(): ProbeSpec;
  /** From the start of one check to the start of the next, without jitter. */
  intervalMs(): number;
  probed(outcome: Outcome): void;
}

/** Decides whose turn it is. */
export interface Turns {
  due(check: RecurringCheck): void;
  closed(check: RecurringCheck): void;
}

export class RecurringCheck implements ProbeOwner, Queued {
  readonly pool: number;
  silent = false;
  readonly #task: CheckTask;
  readonly #turns: Turns;
  /** Set while the check is neither due nor in flight. */
  #timer: ReturnType<typeof setTimeout> | null = null;
  #probe: Probe | null = null;
  #begunMs = 0;

  /** The first check is due within a fraction of the interval, so that checks do not start together. */
  constructor(pool: number, task: CheckTask, turns: Turns) {
    this.pool = pool;
    this.#task = task;
    this.#turns = turns;
    this.#scheduleFirst();
  }

  /** The settings have changed: a new interval applies at once. */
  reschedule(): void {
    if (this.#timer !== null) this.#scheduleFirst();
  }

  /** The next check asks something else: what a check in flight would still say is not wanted. */
  restart(): void {
    if (this.#probe === null) return this.reschedule();
    this.#probe.cancel();
    this.#probe = null;
    this.#scheduleFirst();
    this.#turns.closed(this);
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
    // The interval runs from start to start, however long a check takes.
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
