// The ledger: one row for each connection of one worker, in shared memory, written by that worker alone. A row has the claims of the
// connection and the data of its access log line, so that the supervisor can release the claims and write the lines when the worker dies.
// The worker itself keeps these facts only here.

/**
 * Words (Int32) of a row. `address` is the client's: four words followed by `port`, in the order of platform's peerAddress. `peer` has the
 * same form and is valid if `proxied` is PROXIED.yes: in that case the client's address comes from the PROXY header and is not the peer's.
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
  /** After the floats. Time in the queue of the pool, in milliseconds, rounded up; 0 = it has not waited, or still waits. */
  queueMs: 30,
  /** Limits that would have acted on the connection (core/dry-run.ts). */
  dryRun: 31,
} as const;

/** Values of `proxied`: where the address of a row comes from. It changes at most once in the life of a connection. */
export const PROXIED = { no: 0, yes: 1, changing: 2 } as const;

/** Float64 cells of a row, in the words from 22 on. `startedMs` is on platform's monotonicMs(). */
export const ROW_FLOAT = { startedMs: 11, bytesIn: 12, bytesOut: 13, id: 14 } as const;

export const ROW_WORDS = 32;
export const ROW_FLOATS = ROW_WORDS / 2;

/**
 * The phases of a connection in the order of its life; `phase` of a row is the index here. `reading`: the PROXY header or the
 * ClientHello. `handshaking`: TLS with the client. `queued`: waiting for a place in the pool. `dialing`: connecting to a backend,
 * TLS with it included.
 */
export const PHASES = ["accepted", "reading", "handshaking", "queued", "dialing", "relaying", "closed"] as const;
export type PhaseName = (typeof PHASES)[number];

/** `firstEnd` of a row. */
export const FIRST_END = { none: 0, client: 1, backend: 2 } as const;

/** Maximum length of a server name in a ClientHello that a ledger stores (RFC 1035 section 2.3.4). */
export const SNI_BYTES_MAX = 255;
/** Names are stored after all rows, so that connections without one need no memory for it. */
const SNI_BYTES = 256;

/** Bits of ROW.claims: what must be released. A row without the bit `row` is free. */
export const CLAIM = { row: 1, process: 2, listener: 4, client: 8, backend: 16, queue: 32 } as const;

/** Before the first row: word 0 counts the rows that were ever used. A whole row, so that the rows stay aligned. */
const HEADER_ROWS = 1;

/** Memory for the ledger of one worker. Rows that were never used cost nothing. */
export function ledgerMemory(rows: number): SharedArrayBuffer {
  return new SharedArrayBuffer((rows + HEADER_ROWS) * (ROW_WORDS * 4 + SNI_BYTES));
}

/** The rows of a ledger by number. `words[row * ROW_WORDS + ROW.x]` and `floats[row * ROW_FLOATS + ROW_FLOAT.x]` are the cells. */
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
   * Takes a free row: marked as used, and zeroed except for the address. There always is one: the supervisor allows no more
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
    // Before anything else changes: see isStill. The atomic store keeps the order.
    floats[floatsAt + ROW_FLOAT.id] = 0;
    Atomics.store(words, at, CLAIM.row);
    words[at + ROW.pool] = 0;
    words[at + ROW.backend] = 0;
    words[at + ROW.backendFd] = -1;
    words[at + ROW.retries] = 0;
    words[at + ROW.proxied] = 0;
    words[at + ROW.phase] = 0;
    words[at + ROW.sniLength] = 0;
    words[at + ROW.firstEnd] = FIRST_END.none;
    words[at + ROW.queueMs] = 0;
    words[at + ROW.dryRun] = 0;
    floats[floatsAt + ROW_FLOAT.bytesIn] = 0;
    floats[floatsAt + ROW_FLOAT.bytesOut] = 0;
    return row;
  }

  /** Frees the row; its claims must have been released. Hot path. */
  release(row: number): void {
    this.words[row * ROW_WORDS] = 0;
    this.#free.push(row);
  }

  /**
   * Sets the client of a row to the address in a PROXY header and keeps the peer beside it. Atomic stores keep the order for readers in
   * other threads.
   */
  replaceAddress(row: number, address: readonly [number, number, number, number], port: number): void {
    const { words } = this;
    const at = row * ROW_WORDS;
    Atomics.store(words, at + ROW.proxied, PROXIED.changing);
    words.copyWithin(at + ROW.peer, at + ROW.address, at + ROW.address + 5);
    words.set(address, at + ROW.address);
    words[at + ROW.port] = port;
    Atomics.store(words, at + ROW.proxied, PROXIED.yes);
  }

  /** Stores the server name that the client sent: ASCII, truncated to SNI_BYTES_MAX. */
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
   * A reader in another thread calls this before it reads a row. Returns the id of the row's connection, negative if the client's address
   * comes from a PROXY header; 0 if there is no connection, or its address is being written. After the read, `isStill` says whether the
   * values belong together.
   * A worker sets the id to 0 before it gives a row to another connection, and writes the new id after the address. While it replaces the
   * address, `proxied` is PROXIED.changing, and then PROXIED.yes. So `proxied` is read between two reads of the id, which both belong to
   * one connection then. Byte counts and the backend may change at any time.
   */
  stamp(row: number): number {
    const id = this.floats[row * ROW_FLOATS + ROW_FLOAT.id]!;
    return stampOf(id, this.#proxied(row));
  }

  /** See `stamp`. */
  isStill(row: number, stamp: number): boolean {
    const proxied = this.#proxied(row);
    return stampOf(this.floats[row * ROW_FLOATS + ROW_FLOAT.id]!, proxied) === stamp;
  }

  // Atomic, because otherwise the compiler may use earlier reads of the cells.
  #proxied(row: number): number {
    return Atomics.load(this.words, row * ROW_WORDS + ROW.proxied);
  }

  /** One more than the highest row that was ever used, for a reader in another thread. */
  get rowsUsed(): number {
    return this.words[0]!;
  }

  /** The rows in use, for a reader in another thread: the supervisor after the worker's death, or the status. */
  *rowsInUse(direction: "forward" | "backward" = "forward"): Generator<number> {
    const end = this.words[0] ?? 0;
    for (let i = HEADER_ROWS; i < end; i++) {
      const row = direction === "forward" ? i : end + HEADER_ROWS - 1 - i;
      if (this.words[row * ROW_WORDS] !== 0) yield row;
    }
  }
}

function stampOf(id: number, proxied: number): number {
  if (proxied === PROXIED.changing) return 0;
  return proxied === PROXIED.yes ? -id : id;
}
