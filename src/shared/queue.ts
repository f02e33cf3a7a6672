// The queue of one pool over all workers, in shared memory: how many connections wait, and for each worker the ticket of the one
// that has waited longest there. Tickets rise in the order of arrival, so the lowest of them is the one whose turn it is. A place
// that is free is in nobody's hands until a worker claims it for its waiter, so a worker that dies takes none with it.
import { claim, claimed, giveBack } from "./cells.ts";
import { QUEUE } from "./counters.ts";

/** Workers whose connections can wait. Indices are reused: there are more only while as many retired ones still have connections. */
export const QUEUE_WORKERS_MAX = 1024;

/** What has no oldest: nobody waits. */
export const NOBODY = -1;

// Int32 words: those that all workers write have a cache line each.
const WAITING = 0;
const TICKETS = 16;
const WORKERS = 32;
const HEADS = 48;
const WAKES = HEADS + QUEUE_WORKERS_MAX;
const ROWS_BYTES = 4 * (WAKES + QUEUE_WORKERS_MAX);

/** Memory for the queue of one pool. What is not touched costs nothing. */
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

  /** How many wait, over all workers. Hot path. */
  get waiting(): number {
    return claimed(this.#waiting);
  }

  /** One more waits in a worker; false = `size` wait already. */
  enter(worker: number, size: number): boolean {
    return size > 0 && worker < QUEUE_WORKERS_MAX && claim(this.#waiting, size);
  }

  /** One that waited does so no more. */
  leave(): void {
    giveBack(this.#waiting);
  }

  /** The place in the order of arrival of who comes now; never 0. */
  takeTicket(): number {
    for (;;) {
      const ticket = (Atomics.add(this.#words, TICKETS, 1) + 1) | 0;
      if (ticket !== 0) return ticket;
    }
  }

  /** The oldest ticket in a worker; 0 = nobody waits there. */
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

  /** Lets `awaitWake` of a worker call, now or when it is next asked for. */
  wake(worker: number): void {
    if (Atomics.exchange(this.#words, WAKES + worker, 1) === 0) Atomics.notify(this.#words, WAKES + worker);
  }

  /** Calls `woken` once in this thread when another thread wakes the worker; at once (in a microtask) if one has done so since the last call. */
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

  /** A worker is dead: nobody waits there. */
  forget(worker: number): void {
    if (worker >= QUEUE_WORKERS_MAX) return;
    Atomics.store(this.#words, HEADS + worker, 0);
    Atomics.store(this.#words, WAKES + worker, 0);
    this.wakeOldest();
  }

  /** Wakes the worker whose turn it is. */
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
