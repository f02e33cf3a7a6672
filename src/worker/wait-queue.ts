// The connections of one worker that wait for a place in a pool, and whose turn it is among all workers. The worker with the oldest waiter
// of all claims a free place. A worker that releases a place, or leaves one to others, wakes that worker.
import { countTime, QUEUE_TIMES } from "../shared/counters.ts";
import { NOBODY, type SharedQueue } from "../shared/queue.ts";

/** The source of places. */
export interface Places<W, P> {
  /** Claims a place for a waiter; null = there is none. */
  acquire(waiter: W): P | null;
  /**
   * Claims a place at a backend that has failed for the waiter, if others were served there since; with `regardless`, also if not. null =
   * there is none.
   */
  acquireAgain(waiter: W, regardless: boolean): P | null;
  /** Whether `acquire` would find a place now. */
  readonly hasPlace: boolean;
}

export interface Waiter<P> {
  /** A place is claimed for the waiter. It leaves the queue. */
  placed(place: P): void;
}

/** Number of ticks for which a free place may stay unused by the waiter that has the turn, before it loses the turn. */
export const UNUSED_TICKS = 4;
/** Minimum time between two waiters that claim a place at a backend that has failed for them, although it may fail again. */
export const TRY_AGAIN_MS = 1000;

/** One waiter in the list of its worker. */
interface Wait<W> {
  readonly waiter: W;
  readonly ticket: number;
  readonly sinceMs: number;
  before: Wait<W> | null;
  behind: Wait<W> | null;
}

export class WaitQueue<P, W extends Waiter<P>> {
  readonly #shared: SharedQueue;
  readonly #worker: number;
  readonly #places: Places<W, P>;
  readonly #row: Float64Array;
  // A list in the order of arrival. A Map would be slower: its first entry is found only after all entries that were deleted before it.
  #first: Wait<W> | null = null;
  #last: Wait<W> | null = null;
  readonly #waits = new Map<Waiter<P>, Wait<W>>();
  #isServing = false;
  #willServe = false;
  #isArmed = false;
  /** The oldest ticket at the last tick; 0 = there was none. */
  #unserved = 0;
  /** For how many ticks before it was the oldest while a place was free; -1 = none was free at the last tick. */
  #unservedTicks = -1;
  #triedAgainMs = -Infinity;

  constructor(shared: SharedQueue, worker: number, places: Places<W, P>) {
    this.#shared = shared;
    this.#worker = worker;
    this.#places = places;
    this.#row = shared.row(worker);
  }

  /** Somebody waits, in any worker: a new connection must not overtake. Hot path. */
  get isUsed(): boolean {
    return this.#shared.waiting > 0;
  }

  /** The waiters of this worker, the oldest first. */
  get waiters(): readonly W[] {
    return Array.from(this.#waits.values(), ({ waiter }) => waiter);
  }

  /** Claims one of `size` places in the queue, for `join`; false = it is full. */
  enter(size: number): boolean {
    return this.#shared.enter(this.#worker, size);
  }

  join(waiter: W): void {
    const wait = { waiter, ticket: this.#shared.takeTicket(), sinceMs: performance.now(), before: null, behind: null };
    this.#waits.set(waiter, wait);
    this.#append(wait);
    if (this.#first !== wait) return;
    this.#shared.setHead(this.#worker, wait.ticket);
    this.#arm();
    // A place may have been released before other workers could see this waiter.
    this.serveSoon();
  }

  /** The waiter leaves the queue, for whatever reason. Returns how many milliseconds it has waited. */
  leave(waiter: Waiter<P>): number {
    const wait = this.#waits.get(waiter);
    if (wait === undefined) throw new Error("a connection left a queue that it was not in");
    this.#waits.delete(waiter);
    const wasFirst = this.#first === wait;
    this.#unlink(wait);
    if (wasFirst) this.#publishFirst();
    // The place for which it was woken goes to another waiter.
    if (wasFirst && !this.#isServing) this.serveSoon();
    this.#shared.leave();
    const ms = performance.now() - wait.sinceMs;
    countTime(this.#row, QUEUE_TIMES, ms);
    return ms;
  }

  /** A place is free: the waiter that has the turn gets it. Hot path. */
  placeFreed(): void {
    if (!this.isUsed) return;
    const oldest = this.#shared.oldest();
    if (oldest === this.#worker) this.serveSoon();
    else if (oldest !== NOBODY) this.#shared.wake(oldest);
  }

  /** Deferred until after the current event, which may be the end of a connection that is half done. */
  serveSoon(): void {
    if (this.#willServe || !this.isUsed) return;
    this.#willServe = true;
    queueMicrotask(() => {
      this.#willServe = false;
      this.#serve();
    });
  }

  /**
   * Call it at every tick of the clock: serves waiters that no wake-up has reached. If a free place stays unused for UNUSED_TICKS, any
   * waiter here may take it: the waiter that has the turn is in a blocked worker, or has tried the backends with free places. False =
   * nobody waits here, and no call is needed until the next `join`.
   */
  tick(): boolean {
    if (this.#first === null) {
      // The waiting wake-up would keep this object alive.
      if (this.#isArmed) this.#shared.wake(this.#worker);
      return false;
    }
    if (this.#isUnused()) this.#serveAny();
    else this.#serve();
    return true;
  }

  // Once a waiter has lost its turn it does not get it back while it is the oldest: otherwise, while its worker is blocked, every place that
  // is freed would stay unused as long as the first one.
  #isUnused(): boolean {
    const oldest = this.#shared.oldest();
    const ticket = oldest === NOBODY ? 0 : this.#shared.head(oldest);
    const { hasPlace } = this.#places;
    if (ticket === this.#unserved && hasPlace) this.#unservedTicks++;
    else if (ticket !== this.#unserved || this.#unservedTicks < UNUSED_TICKS) this.#unservedTicks = hasPlace ? 0 : -1;
    this.#unserved = ticket;
    return hasPlace && ticket !== 0 && this.#unservedTicks >= UNUSED_TICKS;
  }

  #serveAny(): void {
    const places = this.#places;
    for (let wait = this.#first; wait !== null;) {
      const { waiter, behind } = wait;
      const place = places.acquire(waiter) ?? places.acquireAgain(waiter, false);
      if (place !== null) waiter.placed(place);
      else if (!places.hasPlace) return;
      wait = behind;
    }
    this.#tryAgain();
  }

  // All waiters here have failed at the backends with free places. Only another attempt shows that a backend is back. The youngest makes
  // it, because a waiter that fails waits behind all others.
  #tryAgain(): void {
    const nowMs = performance.now();
    if (nowMs < this.#triedAgainMs + TRY_AGAIN_MS) return;
    for (let wait = this.#last; wait !== null; wait = wait.before) {
      const place = this.#places.acquireAgain(wait.waiter, true);
      if (place === null) continue;
      this.#triedAgainMs = nowMs;
      return wait.waiter.placed(place);
    }
  }

  // Gives places to the waiters that have the turn, as long as there are any.
  #serve(): void {
    this.#isServing = true;
    try {
      while (this.#first !== null && this.#shared.oldest() === this.#worker) {
        const { waiter } = this.#first;
        const place = this.#places.acquire(waiter);
        if (place === null) return;
        waiter.placed(place);
      }
    } finally {
      this.#isServing = false;
    }
    if (!this.isUsed || !this.#places.hasPlace) return;
    const oldest = this.#shared.oldest();
    if (oldest !== NOBODY && oldest !== this.#worker) this.#shared.wake(oldest);
  }

  // ---------------------------------------------------------------- the list

  #append(wait: Wait<W>): void {
    wait.before = this.#last;
    wait.behind = null;
    if (this.#last === null) this.#first = wait;
    else this.#last.behind = wait;
    this.#last = wait;
  }

  #unlink({ before, behind }: Wait<W>): void {
    if (before === null) this.#first = behind;
    else before.behind = behind;
    if (behind === null) this.#last = before;
    else behind.before = before;
  }

  #publishFirst(): void {
    this.#shared.setHead(this.#worker, this.#first === null ? 0 : this.#first.ticket);
  }

  #arm(): void {
    if (this.#isArmed) return;
    this.#isArmed = true;
    this.#shared.awaitWake(this.#worker, () => {
      this.#isArmed = false;
      if (this.#first === null) return;
      this.#serve();
      this.#arm();
    });
  }
}
