// Cells in shared memory: where they come from, and the claims on them. A claim is one atomic operation that never waits;
// it ends when whoever holds it gives it back, or when the supervisor does so for a dead worker (see ledger.ts).

const CHUNK_BYTES = 4 * 1024 * 1024;

/**
 * Hands out cells from large pieces of shared memory, so that a thousand counters are not a thousand allocations. Pages
 * that nobody touches cost nothing. Freed cells are zeroed and given out again for the same size.
 */
export class Arena {
  #chunk = new SharedArrayBuffer(CHUNK_BYTES);
  #used = 0;
  readonly #free = new Map<number, { buffer: SharedArrayBuffer; offset: number }[]>();

  int32(length: number): Int32Array<SharedArrayBuffer> {
    const { buffer, offset } = this.#take(roundUp(4 * length));
    return new Int32Array(buffer, offset, length);
  }

  float64(length: number): Float64Array<SharedArrayBuffer> {
    const { buffer, offset } = this.#take(roundUp(8 * length));
    return new Float64Array(buffer, offset, length);
  }

  /** Gives cells back. Nobody may hold on to them: ask for this only when no connection counts there any more. */
  free(cells: Int32Array<SharedArrayBuffer> | Float64Array<SharedArrayBuffer>): void {
    const bytes = roundUp(cells.byteLength);
    cells.fill(0);
    const list = this.#free.get(bytes) ?? [];
    list.push({ buffer: cells.buffer, offset: cells.byteOffset });
    this.#free.set(bytes, list);
  }

  #take(bytes: number): { buffer: SharedArrayBuffer; offset: number } {
    const again = this.#free.get(bytes)?.pop();
    if (again !== undefined) return again;
    if (bytes > CHUNK_BYTES) return { buffer: new SharedArrayBuffer(bytes), offset: 0 };
    if (this.#used + bytes > CHUNK_BYTES) {
      this.#chunk = new SharedArrayBuffer(CHUNK_BYTES);
      this.#used = 0;
    }
    const offset = this.#used;
    this.#used += bytes;
    return { buffer: this.#chunk, offset };
  }
}

// A cache line each: cells that different threads write must not share one.
function roundUp(bytes: number): number {
  return Math.ceil(bytes / 64) * 64;
}

/** Claims one of `max` places (0 = as many as you like) in a cell. Hot path. */
export function claim(cell: Int32Array, max: number): boolean {
  if (max === 0) {
    Atomics.add(cell, 0, 1);
    return true;
  }
  for (let held = Atomics.load(cell, 0); held < max;) {
    const seen = Atomics.compareExchange(cell, 0, held, held + 1);
    if (seen === held) return true;
    held = seen;
  }
  return false;
}

/**
 * Gives one place back. A second time for the same claim throws: the cell would be below what is held, and `claim` would admit
 * too many. Hot path.
 */
export function giveBack(cell: Int32Array): void {
  if (Atomics.sub(cell, 0, 1) > 0) return;
  Atomics.add(cell, 0, 1);
  throw new Error("a place was given back twice");
}

/** How many places are claimed now. */
export function claimed(cell: Int32Array): number {
  return Atomics.load(cell, 0);
}

/** Adds to a cell that is a sum and no cap; `by` may be negative. */
export function add(cell: Int32Array, by: number): void {
  Atomics.add(cell, 0, by);
}
