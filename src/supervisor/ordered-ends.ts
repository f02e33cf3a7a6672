// Ends connections from outside their workers: reads in the ledgers which ones, and asks the workers, who compare the ids.
import type { OrderedEnd } from "../messages.ts";
import type { Ledger } from "../shared/ledger.ts";
import { eachMatch, type RowMatch } from "./row-match.ts";

/** What this needs of a worker's slot. */
export interface EndingWorker {
  readonly ledger: Ledger;
  /** null = it has not answered in time, and ends them when it runs again. */
  endConnections(end: OrderedEnd, rows: Uint32Array, ids: Float64Array): Promise<number | null>;
}

/** Connections that a worker ends in one turn of its loop: each takes about 20 us, and the others wait for it. */
export const END_BATCH = 64;
/** Between two steps of ends that are spread over a window. */
const STEP_MS = 50;

/**
 * Ends all connections that match now, evenly over the next `overMs`, so that their clients do not all come back at once. Resolves with
 * how many there were, those of workers that do not answer in time left out.
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
    // What a worker that hangs is asked for lies ready for when it runs again.
    const count: number | null = answers ? await asked : null;
    answers = count !== null;
    ended += count ?? 0;
  }
  return ended;
}
