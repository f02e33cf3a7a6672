// Cells in shared memory: how they are allocated, and the claims on them. A claim is one atomic operation that never waits. It is
// released by its holder, or by the supervisor if the holder's worker has died (see ledger.ts).

const CHUNK_BYTES = 4 * 1024 * 1024;

/**
 * Allocates cells from large pieces of shared memory, so that a thousand counters are not a thousand allocations. Pages that nobody
 * writes to cost nothing. Freed cells are zeroed and reused for the same size.
 */
export class Arena {
  /**
   * Every piece so far. Addresses count through them: piece i begins at i * CHUNK_BYTES. Sending these and numbers to a thread costs less
   * than sending a view for each of ten thousand cells.
   */
  readonly memory: SharedArrayBuffer[] = [];
  #used = CHUNK_BYTES;
  readonly #free = new Map<number, number[]>();

  int32(length: number): Int32Array<SharedArrayBuffer> {
    return int32At(this.memory, this.take(4 * length), length);
  }

  float64(length: number): Float64Array<SharedArrayBuffer> {
    return float64At(this.memory, this.take(8 * length), length);
  }

  /** Allocates this many bytes, all zero, and returns their address. */
  take(bytes: number): number {
    const size = roundUp(bytes);
    const again = this.#free.get(size)?.pop();
    if (again !== undefined) return again;
    if (this.#used + size > CHUNK_BYTES) {
      this.memory.push(new SharedArrayBuffer(Math.max(CHUNK_BYTES, size)));
      this.#used = 0;
    }
    const address = (this.memory.length - 1) * CHUNK_BYTES + this.#used;
    this.#used += size;
    return address;
  }

  /** Frees cells. Call it only when no connection counts there and no view of them exists any more. */
  free(cells: Int32Array<SharedArrayBuffer> | Float64Array<SharedArrayBuffer>): void {
    // Zeroing bytes that nobody has written would make the kernel allocate memory for them.
    if (cells.some((cell) => cell !== 0)) cells.fill(0);
    const size = roundUp(cells.byteLength);
    const list = this.#free.get(size) ?? [];
    list.push(this.memory.indexOf(cells.buffer) * CHUNK_BYTES + cells.byteOffset);
    this.#free.set(size, list);
  }
}

/** The cells at an address of an arena with this memory, which may be another thread's arena. */
export function int32At(
  memory: readonly SharedArrayBuffer[],
  address: number,
  length: number,
): Int32Array<SharedArrayBuffer> {
  return new Int32Array(pieceOf(memory, address), address % CHUNK_BYTES, length);
}

export function float64At(
  memory: readonly SharedArrayBuffer[],
  address: number,
  length: number,
): Float64Array<SharedArrayBuffer> {
  return new Float64Array(pieceOf(memory, address), address % CHUNK_BYTES, length);
}

function pieceOf(memory: readonly SharedArrayBuffer[], address: number): SharedArrayBuffer {
  const piece = memory[Math.floor(address / CHUNK_BYTES)];
  if (piece === undefined) throw new Error(`no shared memory at ${address}`);
  return piece;
}

// One cache line each: cells that different threads write must not share one.
function roundUp(bytes: number): number {
  return Math.ceil(bytes / 64) * 64;
}

/**
 * The cells of one listener or backend: its open connections over all workers, and a row of counters for each worker. It holds
 * addresses, because there may be many; each view is made when it is first needed.
 */
export class Cells {
  readonly openAt: number;
  readonly #arena: Arena;
  /** Number of cells in a row. */
  readonly #size: number;
  #rows: number;
  #countersAt: number;
  /** Former counters that had too few rows. Workers that know only these keep writing there. */
  #former: { at: number; rows: number }[] | null = null;

  constructor(arena: Arena, rows: number, size: number) {
    this.#arena = arena;
    this.#size = size;
    this.#rows = rows;
    this.openAt = arena.take(4);
    this.#countersAt = arena.take(8 * rows * size);
  }

  /** One cell. */
  get open(): Int32Array<SharedArrayBuffer> {
    return int32At(this.#arena.memory, this.openAt, 1);
  }

  get countersAt(): number {
    return this.#countersAt;
  }

  /** The rows, one after the other by the worker's index. */
  get counters(): Float64Array<SharedArrayBuffer> {
    return this.#view(this.#countersAt, this.#rows);
  }

  /** Gives `counters` this many rows. What was counted before stays in the total. */
  grow(rows: number): void {
    this.#former ??= [];
    this.#former.push({ at: this.#countersAt, rows: this.#rows });
    this.#rows = rows;
    this.#countersAt = this.#arena.take(8 * rows * this.#size);
  }

  /** For each cell of a row, the sum over all workers. */
  totals(): Float64Array {
    const sums = new Float64Array(this.#size);
    for (const rows of this.#views())
      for (let row = 0; row < rows.length; row += sums.length)
        for (let at = 0; at < sums.length; at++) sums[at]! += rows[row + at]!;
    return sums;
  }

  /** Frees all cells; see Arena.free. */
  free(): void {
    this.#arena.free(this.open);
    for (const rows of this.#views()) this.#arena.free(rows);
  }

  #views(): Float64Array<SharedArrayBuffer>[] {
    return [this.counters, ...(this.#former ?? []).map(({ at, rows }) => this.#view(at, rows))];
  }

  #view(at: number, rows: number): Float64Array<SharedArrayBuffer> {
    return float64At(this.#arena.memory, at, rows * this.#size);
  }
}

/** Claims one of `max` places in a cell; 0 = no limit. False = all are taken. Hot path. */
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
 * Gives one place back. A second call for the same claim throws: the cell would be below the number of places held, and `claim` would
 * admit too many. Hot path.
 */
export function giveBack(cell: Int32Array): void {
  if (Atomics.sub(cell, 0, 1) > 0) return;
  Atomics.add(cell, 0, 1);
  throw new Error("a place was given back twice");
}

/** Number of claimed places. */
export function claimed(cell: Int32Array): number {
  return Atomics.load(cell, 0);
}

/** Adds to a cell that is a sum, not a cap; `by` may be negative. */
export function add(cell: Int32Array, by: number): void {
  Atomics.add(cell, 0, by);
}
