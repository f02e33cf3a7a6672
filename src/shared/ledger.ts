// The ledger: one row for each connection of one worker, in shared memory, written by that worker alone. It says what the
// connection claims of the caps and what its line in the access log would be, so that the supervisor can give the claims
// back and write the lines when the worker dies. It is also where the worker itself keeps these facts: nothing is stored
// twice.

/**
 * Words (Int32) of a row. `address` is the client's: four words, and `port` follows, as platform's peerAddress writes all
 * five. `peer` is of the same form and counts where `proxied` is PROXIED.yes: the client is not the peer but who a PROXY header said.
 * `firstEnd` says whose FIN came first.
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
  phase: 19,
  sniLength: 20,
  firstEnd: 21,
} as const;

/** What `proxied` of a row says of its address. It changes at most once in the life of a connection. */
export const PROXIED = { no: 0, yes: 1, changing: 2 } as const;

/** Float64 cells of a row; they lie behind the words. `startedMs` is on platform's monotonicMs(). */
export const ROW_FLOAT = { startedMs: 11, bytesIn: 12, bytesOut: 13, id: 14 } as const;

export const ROW_WORDS = 30;
export const ROW_FLOATS = ROW_WORDS / 2;

/**
 * The phases of a connection in the order of its life; `phase` of a row is the number here. `reading`: the PROXY header or the
 * ClientHello. `handshaking`: TLS with the client. `dialing`: connecting to a backend, TLS with it included.
 */
export const PHASES = ["accepted", "reading", "handshaking", "dialing", "relaying", "closed"] as const;
export type PhaseName = (typeof PHASES)[number];

/** `firstEnd` of a row. */
export const FIRST_END = { none: 0, client: 1, backend: 2 } as const;

/** The longest server name that a ClientHello can carry and a ledger holds (RFC 1035 section 2.3.4). */
export const SNI_BYTES_MAX = 255;
/** Names lie behind all rows, so that connections without one need no memory for it. */
const SNI_BYTES = 256;

/** Bits of ROW.claims: what is to be given back. A row without `row` is free. */
export const CLAIM = { row: 1, process: 2, listener: 4, client: 8, backend: 16 } as const;

/** Before the first row: word 0 counts the rows ever used. A whole row, so that the rows stay aligned. */
const HEADER_ROWS = 1;

/** Memory for the ledger of one worker. Untouched rows cost nothing. */
export function ledgerMemory(rows: number): SharedArrayBuffer {
  return new SharedArrayBuffer((rows + HEADER_ROWS) * (ROW_WORDS * 4 + SNI_BYTES));
}

/** A ledger's rows by number. `words[row * ROW_WORDS + ROW.x]` and `floats[row * ROW_FLOATS + ROW_FLOAT.x]` are the cells. */
export class Ledger {
  readonly words: Int32Array;
  readonly floats: Float64Array;
  readonly #sni: Uint8Array;
  readonly #lastRow: number;
  #fresh = HEADER_ROWS;
  readonly #free: number[] = [];

  constructor(memory: SharedArrayBuffer) {
    const rows = memory.byteLength / (ROW_WORDS * 4 + SNI_BYTES);
    this.words = new Int32Array(memory, 0, rows * ROW_WORDS);
    this.floats = new Float64Array(memory, 0, rows * ROW_FLOATS);
    this.#sni = new Uint8Array(memory, rows * ROW_WORDS * 4);
    this.#lastRow = rows - 1;
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
    const floatsAt = row * ROW_FLOATS;
    // Before anything else changes: see isStill.
    floats[floatsAt + ROW_FLOAT.id] = 0;
    words[at] = CLAIM.row;
    words[at + ROW.pool] = 0;
    words[at + ROW.backend] = 0;
    words[at + ROW.backendFd] = -1;
    words[at + ROW.retries] = 0;
    words[at + ROW.proxied] = 0;
    words[at + ROW.phase] = 0;
    words[at + ROW.sniLength] = 0;
    words[at + ROW.firstEnd] = FIRST_END.none;
    floats[floatsAt + ROW_FLOAT.bytesIn] = 0;
    floats[floatsAt + ROW_FLOAT.bytesOut] = 0;
    return row;
  }

  /** The row is free again; its claims must have been given back. Hot path. */
  release(row: number): void {
    this.words[row * ROW_WORDS] = 0;
    this.#free.push(row);
  }

  /** Notes the server name that the client asks for: ASCII; what is longer than SNI_BYTES_MAX is cut off. */
  noteSni(row: number, name: string): void {
    const length = Math.min(name.length, SNI_BYTES_MAX);
    const at = row * SNI_BYTES;
    for (let i = 0; i < length; i++) this.#sni[at + i] = name.charCodeAt(i);
    this.words[row * ROW_WORDS + ROW.sniLength] = length;
  }

  /** The server name of a row, "" = none. */
  sni(row: number): string {
    const length = this.words[row * ROW_WORDS + ROW.sniLength]!;
    return String.fromCharCode(...this.#sni.subarray(row * SNI_BYTES, row * SNI_BYTES + length));
  }

  phase(row: number): PhaseName {
    return PHASES[this.words[row * ROW_WORDS + ROW.phase]!] ?? "accepted";
  }

  /**
   * For a reader in another thread, before it reads a row: the id of the connection in it, or 0 where there is none or its address
   * is just being written.
   */
  idOf(row: number): number {
    if (this.words[row * ROW_WORDS + ROW.proxied] === PROXIED.changing) return 0;
    return this.floats[row * ROW_FLOATS + ROW_FLOAT.id]!;
  }

  /** Whether the client of a row is who a PROXY header said. */
  isProxied(row: number): boolean {
    return this.words[row * ROW_WORDS + ROW.proxied] === PROXIED.yes;
  }

  /**
   * The same after it has read: whether what it read belongs together. A worker sets the id to 0 before it gives a row to another
   * connection, and writes the new id after the address; while it replaces the address by that of a PROXY header, `proxied` is
   * PROXIED.changing, and then PROXIED.yes. The counts of bytes and the backend may change at any time.
   */
  isStill(row: number, id: number, proxied: boolean): boolean {
    return this.idOf(row) === id && this.isProxied(row) === proxied;
  }

  /** One more than the highest row that was ever in use, for a reader in another thread. */
  get rowsUsed(): number {
    return this.words[0]!;
  }

  /** Rows in use, for the reader of another thread: the supervisor after the worker's death, or the status. */
  *rowsInUse(): Generator<number> {
    const end = this.words[0] ?? 0;
    for (let row = HEADER_ROWS; row < end; row++) {
      if (this.words[row * ROW_WORDS] !== 0) yield row;
    }
  }
}
