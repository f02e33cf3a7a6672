// Cells in shared memory: how they are allocated, and the claims on them. A claim is one atomic operation that never waits. It is
// released by its holder, or by the supervisor if the holder's worker has died (see ledger.ts).

const CHUNK_BYTES = 4 * 1024 * 1024;
const CHUNK_CELLS_LOG2 = Math.log2(CHUNK_BYTES / 4);
const LINE_BYTES = 64;

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
  readonly #freeCells: number[] = [];

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

  /**
   * Allocates one Int32 cell, zero, and returns its address. It shares a cache line with other such cells: it is for cells that all
   * workers write, which a line of their own would not keep in a worker's cache. A pick looks at many of them.
   */
  takeCell(): number {
    const again = this.#freeCells.pop();
    if (again !== undefined) return again;
    const line = this.take(LINE_BYTES);
    // The next ones follow this one, in order.
    for (let at = LINE_BYTES - 4; at > 0; at -= 4) this.#freeCells.push(line + at);
    return line;
  }

  /** Frees a cell of takeCell, under the same condition as `free`. */
  freeCell(address: number): void {
    int32At(this.memory, address, 1)[0] = 0;
    this.#freeCells.push(address);
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
  return Math.ceil(bytes / LINE_BYTES) * LINE_BYTES;
}

/**
 * A view of each piece of an arena's memory, made when it is first needed. With it a cell is an index: a view of its own would cost more
 * memory than the cell, and one more cache line at each use.
 */
export class Pieces {
  readonly int32: Int32Array[] = [];
  readonly float64: Float64Array[] = [];
  readonly #memory: readonly SharedArrayBuffer[];

  constructor(memory: readonly SharedArrayBuffer[]) {
    this.#memory = memory;
  }

  int32With(address: number): Int32Array {
    return (this.int32[Math.floor(address / CHUNK_BYTES)] ??= new Int32Array(pieceOf(this.#memory, address)));
  }

  float64With(address: number): Float64Array {
    return (this.float64[Math.floor(address / CHUNK_BYTES)] ??= new Float64Array(pieceOf(this.#memory, address)));
  }
}

/** The index of the cell at this address in the view of its piece. */
export function int32Index(address: number): number {
  return (address & (CHUNK_BYTES - 1)) >> 2;
}

export function float64Index(address: number): number {
  return (address & (CHUNK_BYTES - 1)) >> 3;
}

/** The open connections and the caps of backends, by number. It reads the backends' cells alone. */
export class OpenCells {
  readonly #pieces: readonly Int32Array[];
  /** In cells from the beginning of the memory. */
  readonly #at: Int32Array;
  /** 0 = no cap. */
  readonly #caps: Int32Array;

  constructor(pieces: Pieces, backends: readonly { openAt: number; maxConnections: number }[]) {
    for (const { openAt } of backends) pieces.int32With(openAt);
    this.#pieces = pieces.int32;
    this.#at = Int32Array.from(backends, ({ openAt }) => openAt / 4);
    this.#caps = Int32Array.from(backends, ({ maxConnections }) => maxConnections);
  }

  openCount(index: number): number {
    const at = this.#at[index]!;
    return claimedAt(this.#pieces[at >> CHUNK_CELLS_LOG2]!, at & ((1 << CHUNK_CELLS_LOG2) - 1));
  }

  full(index: number): boolean {
    const cap = this.#caps[index]!;
    return cap > 0 && this.openCount(index) >= cap;
  }
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
    this.openAt = arena.takeCell();
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
    this.#arena.freeCell(this.openAt);
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
  return claimAt(cell, 0, max);
}

/** The same for one of many cells in a view. */
export function claimAt(cells: Int32Array, at: number, max: number): boolean {
  if (max === 0) {
    Atomics.add(cells, at, 1);
    return true;
  }
  for (let held = Atomics.load(cells, at); held < max;) {
    const seen = Atomics.compareExchange(cells, at, held, held + 1);
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
  giveBackAt(cell, 0);
}

export function giveBackAt(cells: Int32Array, at: number): void {
  if (Atomics.sub(cells, at, 1) > 0) return;
  Atomics.add(cells, at, 1);
  throw new Error("a place was given back twice");
}

/** Number of claimed places. */
export function claimed(cell: Int32Array): number {
  return Atomics.load(cell, 0);
}

export function claimedAt(cells: Int32Array, at: number): number {
  return Atomics.load(cells, at);
}

/** Adds to a cell that is a sum, not a cap; `by` may be negative. */
export function add(cell: Int32Array, by: number): void {
  Atomics.add(cell, 0, by);
}
