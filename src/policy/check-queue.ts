// Decides which health check runs next when more are due than may run at once. Pools take turns, and two rules keep places free for checks
// that are answered at once:
// - a pool gets another place only while it holds at most twice as many as are free (the dynamic threshold of Choudhury and Hahne, "Dynamic
// queue length thresholds for shared-memory packet switches", 1998), so no pool takes all;
// - backends that did not answer the last time hold at most half of the places together. Their checks take the whole timeout, and those of
// the others a round trip.

/** A check, as far as the queue needs it. */
export interface Queued {
  /** Id of the pool. */
  readonly pool: number;
  /** The last check got no answer in time. */
  readonly silent: boolean;
}

const POOL_FACTOR = 2;
const SILENT_PART = 1 / 2;

/** Due checks by pool, both in the order of their turns. */
interface Lane<T> {
  readonly waiting: Map<number, Set<T>>;
  readonly runningMax: number;
  running: number;
}

export class CheckQueue<T extends Queued> {
  readonly #places: number;
  readonly #answering: Lane<T>;
  readonly #silent: Lane<T>;
  readonly #running = new Map<T, Lane<T>>();
  readonly #runningByPool = new Map<number, number>();
  #turn: Lane<T>;

  /** `places` is the maximum number of running checks, at least 1. */
  constructor(places: number) {
    this.#places = places;
    this.#answering = lane(places);
    this.#silent = lane(Math.max(1, Math.floor(places * SILENT_PART)));
    this.#turn = this.#answering;
  }

  /** The check is due. It must be neither waiting nor running. */
  add(check: T): void {
    const { waiting } = check.silent ? this.#silent : this.#answering;
    const ofPool = waiting.get(check.pool);
    if (ofPool === undefined) waiting.set(check.pool, new Set([check]));
    else ofPool.add(check);
  }

  /** The check whose turn it is now; it holds a place from now on. Null = none may run now. */
  next(): T | null {
    const other = this.#turn === this.#answering ? this.#silent : this.#answering;
    const check = this.#take(this.#turn) ?? this.#take(other);
    if (check !== null) this.#turn = other;
    return check;
  }

  /** The check no longer waits, or it releases its place. */
  remove(check: T): void {
    for (const { waiting } of [this.#answering, this.#silent]) {
      const ofPool = waiting.get(check.pool);
      if (ofPool?.delete(check) && ofPool.size === 0) waiting.delete(check.pool);
    }
    const held = this.#running.get(check);
    if (held === undefined) return;
    this.#running.delete(check);
    held.running--;
    const left = this.#heldBy(check.pool) - 1;
    if (left === 0) this.#runningByPool.delete(check.pool);
    else this.#runningByPool.set(check.pool, left);
  }

  #take(from: Lane<T>): T | null {
    const free = this.#places - this.#running.size;
    if (free === 0 || from.running >= from.runningMax) return null;
    for (const [pool, checks] of from.waiting) {
      const held = this.#heldBy(pool);
      if (held > 0 && held >= POOL_FACTOR * free) continue;
      const [check] = checks;
      if (check === undefined) throw new Error("a pool without a due check is in the queue");
      checks.delete(check);
      // Moves the pool to the end of the order.
      from.waiting.delete(pool);
      if (checks.size > 0) from.waiting.set(pool, checks);
      from.running++;
      this.#running.set(check, from);
      this.#runningByPool.set(pool, held + 1);
      return check;
    }
    return null;
  }

  #heldBy(pool: number): number {
    return this.#runningByPool.get(pool) ?? 0;
  }
}

function lane<T>(runningMax: number): Lane<T> {
  return { waiting: new Map(), runningMax, running: 0 };
}
