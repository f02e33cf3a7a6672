// Byte rates of live connections. A rate needs byte counts from two moments, but a ledger has only the current ones. So each request takes
// a sample, which later requests use. No timer takes samples, and samples are dropped when no request has come for a while. A sample takes
// 24 bytes per row of a ledger that was ever used, and there are at most two.
import { ROW_FLOAT, ROW_FLOATS, type Ledger } from "../shared/ledger.ts";

/** Minimum time over which a rate is computed. */
const RATE_MS_MIN = 1000;
/** Samples are dropped when no request has come for this long. */
const RATE_MS_MAX = 30_000;

/** Three cells per row: the id of the connection, its bytes in and its bytes out. */
const CELLS = 3;

interface Sample {
  readonly atMs: number;
  readonly byLedger: ReadonlyMap<Ledger, Float64Array>;
}

/** Bytes per second. */
export interface Rates {
  in: number;
  out: number;
}

export class ByteRates {
  /** The sample from which rates are computed: at least RATE_MS_MIN old when it is used. */
  #base: Sample | null = null;
  /** The next base. */
  #next: Sample | null = null;
  #forget: ReturnType<typeof setTimeout> | null = null;

  /** Call it at each request, before `of`. `nowMs` is on monotonicMs(). */
  sample(ledgers: readonly Ledger[], nowMs: number): void {
    if (this.#next === null || nowMs - this.#next.atMs >= RATE_MS_MIN) {
      this.#base = this.#next;
      this.#next = { atMs: nowMs, byLedger: new Map(ledgers.map((ledger) => [ledger, sampleOf(ledger)])) };
    }
    if (this.#forget !== null) clearTimeout(this.#forget);
    this.#forget = setTimeout(() => this.#drop(), RATE_MS_MAX);
    this.#forget.unref();
  }

  /**
   * The rates of the connection with this id in a row. If the base does not contain it, or there is no base, the rate is taken from its
   * start.
   */
  of(ledger: Ledger, row: number, id: number, nowMs: number): Rates {
    const floatsAt = row * ROW_FLOATS;
    const { floats } = ledger;
    const cells = this.#base?.byLedger.get(ledger);
    const known = cells !== undefined && cells[row * CELLS] === id;
    const fromMs = known ? this.#base!.atMs : floats[floatsAt + ROW_FLOAT.startedMs]!;
    const seconds = Math.max(RATE_MS_MIN, nowMs - fromMs) / 1000;
    const since = (cell: number, sampled: number): number =>
      Math.max(0, Math.round((floats[floatsAt + cell]! - (known ? cells[row * CELLS + sampled]! : 0)) / seconds));
    return { in: since(ROW_FLOAT.bytesIn, 1), out: since(ROW_FLOAT.bytesOut, 2) };
  }

  #drop(): void {
    this.#base = null;
    this.#next = null;
  }
}

function sampleOf(ledger: Ledger): Float64Array {
  const { floats } = ledger;
  const cells = new Float64Array(ledger.rowsUsed * CELLS);
  for (const row of ledger.rowsInUse()) {
    const floatsAt = row * ROW_FLOATS;
    // If a new connection takes the row while it is read, its id in the sample matches no request, or it has no bytes yet.
    cells[row * CELLS] = Math.abs(ledger.stamp(row));
    cells[row * CELLS + 1] = floats[floatsAt + ROW_FLOAT.bytesIn]!;
    cells[row * CELLS + 2] = floats[floatsAt + ROW_FLOAT.bytesOut]!;
  }
  return cells;
}
