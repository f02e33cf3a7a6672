// The ledger: one row for each connection of one worker, in shared memory, written by that worker alone. It says what the
// connection claims of the caps and what its line in the access log would be, so that the supervisor can give the claims
// back and write the lines when the worker dies. It is also where the worker itself keeps these facts: nothing is stored
// twice.

/**
 * Words (Int32) of a row. `address` is the client's: four words, and `port` follows, as platform's peerAddress writes all
 * five. `peer` is of the same form and counts where `proxied` is 1: the client is not the peer but who a PROXY header said.
 */
export const ROW = {
  claims: 0,
  listener: 1,
  pool: 2,
  backend: 3,
  clientEntry: 4,
  clientFd: 5,
  backendFd: 6,
  retries: 7,
  address: 8,
  port: 12,
  proxied: 13,
  peer: 14,
} as const;

/** Float64 cells of a row; they lie behind the words. `startedMs` is on platform's monotonicMs(). */
export const ROW_FLOAT = { startedMs: 10, bytesIn: 11, bytesOut: 12, id: 13 } as const;

export const ROW_WORDS = 28;
export const ROW_FLOATS = ROW_WORDS / 2;

/** Bits of ROW.claims: what is to be given back. A row without `row` is free. */
export const CLAIM = { row: 1, process: 2, listener: 4, client: 8, backend: 16 } as const;

/** Before the first row: word 0 counts the rows ever used. A whole row, so that the rows stay aligned. */
const HEADER_ROWS = 1;

/** Memory for the ledger of one worker. Untouched rows cost nothing. */
export function ledgerMemory(rows: number): SharedArrayBuffer {
  return new SharedArrayBuffer((rows + HEADER_ROWS) * ROW_WORDS * 4);
}

/** A ledger's rows by number. `words[row * ROW_WORDS + ROW.x]` and `floats[row * ROW_FLOATS + ROW_FLOAT.x]` are the cells. */
export class Ledger {
  readonly words: Int32Array;
  readonly floats: Float64Array;
  readonly #lastRow: number;
  #fresh = HEADER_ROWS;
  readonly #free: number[] = [];

  constructor(memory: SharedArrayBuffer) {
    this.words = new Int32Array(memory);
    this.floats = new Float64Array(memory);
    this.#lastRow = this.words.length / ROW_WORDS - 1;
  }

  /**
   * A free row, marked as taken and zeroed but for the address. There always is one: the supervisor allows no more
   * connections than there are rows. Hot path.
   */
  take(): number {
    let row = this.#free.pop();
    if (row === undefined) {
      if (this.#fresh > this.#lastRow) throw new Error("the ledger has no free row");
      row = this.#fresh++;
      this.words[0] = this.#fresh;
    }
    const { words, floats } = this;
    const at = row * ROW_WORDS;
    words[at] = CLAIM.row;
    words[at + ROW.pool] = 0;
    words[at + ROW.backend] = 0;
    words[at + ROW.backendFd] = -1;
    words[at + ROW.retries] = 0;
    words[at + ROW.proxied] = 0;
    const floatsAt = row * ROW_FLOATS;
    floats[floatsAt + ROW_FLOAT.bytesIn] = 0;
    floats[floatsAt + ROW_FLOAT.bytesOut] = 0;
    return row;
  }

  /** The row is free again; its claims must have been given back. Hot path. */
  release(row: number): void {
    this.words[row * ROW_WORDS] = 0;
    this.#free.push(row);
  }

  /** Rows in use, for the reader of another thread: the supervisor after the worker's death, or the status. */
  *rowsInUse(): Generator<number> {
    const end = this.words[0] ?? 0;
    for (let row = HEADER_ROWS; row < end; row++) {
      if (this.words[row * ROW_WORDS] !== 0) yield row;
    }
  }
}
