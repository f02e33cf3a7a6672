// The queue of one pool over all workers, in shared memory: how many connections wait, and for each worker the ticket of its oldest waiter.
// Tickets rise in the order of arrival, so the lowest one has the turn. A free place belongs to no worker until one claims it for its
// waiter, so a worker that dies takes no place with it.
import { claim, claimed, giveBack } from "./cells.ts";
import { QUEUE } from "./counters.ts";

/**
 * Maximum number of workers whose connections can wait. Indices are reused: there are more only while as many retired workers still have
 * connections.
 */
export const QUEUE_WORKERS_MAX = 1024;

/** The result if nobody waits. */
export const NOBODY = -1;

// Int32 words; words that all workers write have a cache line each.
const WAITING = 0;
const TICKETS = 16;
const WORKERS = 32;
const HEADS = 48;
const WAKES = HEADS + QUEUE_WORKERS_MAX;
const ROWS_BYTES = 4 * (WAKES + QUEUE_WORKERS_MAX);

/** Memory for the queue of one pool. Pages that are not used cost nothing. */
export function queueMemory(): SharedArrayBuffer {
  return new SharedArrayBuffer(ROWS_BYTES + 8 * QUEUE_WORKERS_MAX * QUEUE.size);
}

export class SharedQueue {
  readonly #words: Int32Array;
  readonly #waiting: Int32Array;
  readonly #rows: Float64Array;

  constructor(memory: SharedArrayBuffer) {
    this.#words = new Int32Array(memory, 0, ROWS_BYTES / 4);
    this.#waiting = this.#words.subarray(WAITING, WAITING + 1);
    this.#rows = new Float64Array(memory, ROWS_BYTES);
  }

  /** Number of waiters over all workers. Hot path. */
  get waiting(): number {
    return claimed(this.#waiting);
  }

  /** Adds a waiter of a worker; false = `size` wait already. */
  enter(worker: number, size: number): boolean {
    return size > 0 && worker < QUEUE_WORKERS_MAX && claim(this.#waiting, size);
  }

  /** Removes a waiter. */
  leave(): void {
    giveBack(this.#waiting);
  }

  /** The ticket of a new waiter; never 0. */
  takeTicket(): number {
    for (;;) {
      const ticket = (Atomics.add(this.#words, TICKETS, 1) + 1) | 0;
      if (ticket !== 0) return ticket;
    }
  }

  /** The oldest ticket of a worker; 0 = it has no waiter. */
  setHead(worker: number, ticket: number): void {
    const words = this.#words;
    for (let workers = Atomics.load(words, WORKERS); workers <= worker; workers = Atomics.load(words, WORKERS))
      Atomics.compareExchange(words, WORKERS, workers, worker + 1);
    Atomics.store(words, HEADS + worker, ticket);
  }

  head(worker: number): number {
    return Atomics.load(this.#words, HEADS + worker);
  }

  /** The worker with the oldest ticket of all, or NOBODY. */
  oldest(): number {
    const words = this.#words;
    const workers = Atomics.load(words, WORKERS);
    let found = NOBODY;
    let foundTicket = 0;
    for (let worker = 0; worker < workers; worker++) {
      const ticket = Atomics.load(words, HEADS + worker);
      if (ticket === 0) continue;
      // Tickets wrap around.
      if (found !== NOBODY && ((ticket - foundTicket) | 0) > 0) continue;
      found = worker;
      foundTicket = ticket;
    }
    return found;
  }

  // ---------------------------------------------------------------- waking a worker

  /** Makes `awaitWake` of a worker call, now or at its next call. */
  wake(worker: number): void {
    if (Atomics.exchange(this.#words, WAKES + worker, 1) === 0) Atomics.notify(this.#words, WAKES + worker);
  }

  /**
   * Calls `woken` once in this thread when another thread wakes the worker; at once (in a microtask) if that has happened since the last
   * call.
   */
  awaitWake(worker: number, woken: () => void): void {
    const at = WAKES + worker;
    const wait = Atomics.waitAsync(this.#words, at, 0);
    const take = (): void => {
      Atomics.store(this.#words, at, 0);
      woken();
    };
    if (wait.async) void wait.value.then(take);
    else queueMicrotask(take);
  }

  /** Removes the waiters of a dead worker. */
  forget(worker: number): void {
    if (worker >= QUEUE_WORKERS_MAX) return;
    Atomics.store(this.#words, HEADS + worker, 0);
    Atomics.store(this.#words, WAKES + worker, 0);
    this.wakeOldest();
  }

  /** Wakes the worker that has the turn. */
  wakeOldest(): void {
    const oldest = this.oldest();
    if (oldest !== NOBODY) this.wake(oldest);
  }

  // ---------------------------------------------------------------- counters

  /** A worker's row of QUEUE.size cells. */
  row(worker: number): Float64Array {
    return this.#rows.subarray(worker * QUEUE.size, (worker + 1) * QUEUE.size);
  }

  /** The sum of all workers' rows. */
  totals(): Float64Array {
    const sums = new Float64Array(QUEUE.size);
    const end = Atomics.load(this.#words, WORKERS) * QUEUE.size;
    for (let at = 0; at < end; at++) sums[at % QUEUE.size]! += this.#rows[at]!;
    return sums;
  }
}
