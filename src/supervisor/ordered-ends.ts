// Ends connections on request from outside their workers: finds them in the ledgers and asks the workers, which compare the ids.
import type { OrderedEnd } from "../messages.ts";
import type { Ledger } from "../shared/ledger.ts";
import { eachMatch, type RowMatch } from "./row-match.ts";

/** The part of a worker slot that is needed here. */
export interface EndingWorker {
  readonly ledger: Ledger;
  /** null = it has not answered in time; it ends them when it runs again. */
  endConnections(end: OrderedEnd, rows: Uint32Array, ids: Float64Array): Promise<number | null>;
}

/** Maximum number of connections that a worker ends in one turn of its loop: each takes about 20 us and delays the others. */
export const END_BATCH = 64;
/** Interval of the steps when ends are spread over a window. */
const STEP_MS = 50;

/**
 * Ends all matching connections evenly over the next `overMs`, so that their clients do not all reconnect at once. Resolves with their
 * number, without those of workers that do not answer in time.
 */
export async function endMatching(
  workers: readonly EndingWorker[],
  match: RowMatch,
  end: OrderedEnd,
  overMs = 0,
): Promise<number> {
  const counts = await Promise.all(workers.map((worker) => endRows(worker, rowsOf(worker, match), { end, overMs })));
  return counts.reduce((sum, count) => sum + count, 0);
}

interface FoundRow {
  readonly row: number;
  readonly id: number;
}

function rowsOf({ ledger }: EndingWorker, match: RowMatch): FoundRow[] {
  const found: FoundRow[] = [];
  eachMatch(ledger, match, (row, id) => found.push({ row, id }));
  return found;
}

async function endRows(
  worker: EndingWorker,
  found: readonly FoundRow[],
  { end, overMs }: { end: OrderedEnd; overMs: number },
): Promise<number> {
  const eachMs = overMs / Math.max(1, found.length);
  const batch = Math.min(END_BATCH, eachMs === 0 ? END_BATCH : Math.ceil(STEP_MS / eachMs));
  const beginMs = performance.now();
  let ended = 0;
  let answers = true;
  for (let from = 0; from < found.length; from += batch) {
    const waitMs = beginMs + from * eachMs - performance.now();
    if (waitMs > 0) await Bun.sleep(waitMs);
    const some = found.slice(from, from + batch);
    const rows = Uint32Array.from(some, ({ row }) => row);
    const asked = worker.endConnections(
      end,
      rows,
      Float64Array.from(some, ({ id }) => id),
    );
    // A hanging worker gets the request when it runs again.
    const count: number | null = answers ? await asked : null;
    answers = count !== null;
    ended += count ?? 0;
  }
  return ended;
}
