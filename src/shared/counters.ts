// The layout of the counters' rows. A row belongs to one worker, who alone writes it with plain stores; whoever wants a
// number adds the rows up. Rows lie in shared memory, as Float64, so that a dead worker's counts are not lost.
import { END_NAMES, ENDED_BY } from "../core/ends.ts";

/** Upper bounds, in milliseconds, of the buckets of the connect-time histogram; one more bucket counts what is above. */
export const CONNECT_BUCKETS_MS = [0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000] as const;

const ENDS_CELLS = END_NAMES.length * ENDED_BY.length;

/** Cells of a listener's row. `ends` is a block: index = ends + endCode * 3 + endedBy. */
export const LISTENER = {
  accepted: 0,
  bytesIn: 1,
  bytesOut: 2,
  ends: 3,
  size: 3 + ENDS_CELLS,
} as const;

/** Cells of a backend's row. `connectBuckets` is a block of CONNECT_BUCKETS_MS.length + 1 cells. */
export const BACKEND = {
  dials: 0,
  connected: 1,
  refused: 2,
  timedOut: 3,
  failed: 4,
  bytesIn: 5,
  bytesOut: 6,
  ended: 7,
  retriedAway: 8,
  connectSumMs: 9,
  connectBuckets: 10,
  size: 10 + CONNECT_BUCKETS_MS.length + 1,
} as const;

/** Cells of a worker's own row. */
export const WORKER = {
  accepted: 0,
  ended: 1,
  bytesIn: 2,
  bytesOut: 3,
  logLinesLost: 4,
  size: 5,
} as const;
