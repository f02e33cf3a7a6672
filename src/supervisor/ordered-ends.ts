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
const STEP_MS = 100;

/** Ends all connections that match now. Resolves with how many there were, those of workers that do not answer in time left out. */
export async function endMatching(workers: readonly EndingWorker[], match: RowMatch, end: OrderedEnd): Promise<number> {
  const counts = await Promise.all(workers.map((worker) => endRows(worker, rowsOf(worker, match), end)));
  return counts.reduce((sum, count) => sum + count, 0);
}

/**
 * Ends all connections that match, evenly over the next `windowMs`, those that come to match meanwhile included. `workers` is asked
 * at each step, since workers come and go. The returned function stops it. `done` hears when the window is over and nothing matches.
 */
export function endOverWindow(
  workers: () => readonly EndingWorker[],
  match: RowMatch,
  { end, windowMs, done }: { end: OrderedEnd; windowMs: number; done?: () => void },
): () => void {
  const lastMs = performance.now() + windowMs;
  let timer: ReturnType<typeof setTimeout> | null = null;
  let stopped = false;
  const step = (): void => {
    const leftMs = lastMs - performance.now();
    const stepsLeft = Math.max(1, Math.ceil(leftMs / STEP_MS));
    const asked = workers().map((worker) => {
      const rows = rowsOf(worker, match);
      return endRows(worker, rows.slice(0, Math.ceil(rows.length / stepsLeft)), end);
    });
    // A worker that hangs does not hold up the others.
    if (stepsLeft > 1) timer = setTimeout(step, Math.min(STEP_MS, leftMs));
    else void Promise.all(asked).then(() => (stopped ? undefined : done?.()));
  };
  step();
  return () => {
    stopped = true;
    if (timer !== null) clearTimeout(timer);
  };
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

async function endRows(worker: EndingWorker, found: readonly FoundRow[], end: OrderedEnd): Promise<number> {
  let ended = 0;
  let answers = true;
  for (let from = 0; from < found.length; from += END_BATCH) {
    const batch = found.slice(from, from + END_BATCH);
    const rows = Uint32Array.from(batch, ({ row }) => row);
    const asked = worker.endConnections(
      end,
      rows,
      Float64Array.from(batch, ({ id }) => id),
    );
    // What a worker that hangs is asked for lies ready for when it runs again.
    const count: number | null = answers ? await asked : null;
    answers = count !== null;
    ended += count ?? 0;
  }
  return ended;
}
