// The layout of the rows of counters. Only one worker writes a row, with plain stores; readers add up the rows. Rows are Float64 in shared
// memory, so that the counts of a dead worker are not lost.
import { DRY_RUN_LIMITS } from "../core/dry-run.ts";
import { END_CODES, END_NAMES, ENDED_BY, ENDED_BY_CODES, type End, type EndedBy } from "../core/ends.ts";

/** Upper bounds, in milliseconds, of the buckets of the connect-time histogram; one more bucket counts larger values. */
export const CONNECT_BUCKETS_MS = [0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000] as const;

const ENDS_CELLS = END_NAMES.length * ENDED_BY.length;

/** Upper bounds, in milliseconds, of the buckets of the TLS handshake histogram; one more bucket counts larger values. */
export const HANDSHAKE_BUCKETS_MS = [1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000] as const;

/** Why TLS handshakes with clients fail. */
export const TLS_FAILURES = [
  "not_tls",
  "bad_hello",
  "unknown_sni",
  "protocol_version",
  "no_shared_cipher",
  "no_shared_alpn",
  "certificate_missing",
  "certificate_bad",
  "alert",
  "closed",
  "timeout",
  "other",
] as const;
export type TlsFailure = (typeof TLS_FAILURES)[number];

/** Upper bounds, in milliseconds, of the buckets of the histogram of connection lifetimes; one more bucket counts larger values. */
export const LIFE_BUCKETS_MS = [
  10, 50, 100, 500, 1000, 5000, 10_000, 60_000, 300_000, 1_800_000, 3_600_000, 21_600_000, 86_400_000,
] as const;

/** The same for the time to the first byte for the client. */
export const FIRST_BYTE_BUCKETS_MS = [1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000] as const;

const TLS = 3 + ENDS_CELLS;
const TLS_REST = TLS + 6;
const TIMES = TLS_REST + TLS_FAILURES.length + HANDSHAKE_BUCKETS_MS.length + 1 + DRY_RUN_LIMITS.length;
const LIFE_BUCKETS = TIMES + 2;
const FIRST_BYTE_BUCKETS = LIFE_BUCKETS + LIFE_BUCKETS_MS.length + 1;

/**
 * Cells of a listener's row. Blocks: ends + endCode * 3 + endedBy; tlsFailures + the index in TLS_FAILURES;
 * handshakeBuckets of HANDSHAKE_BUCKETS_MS.length + 1 cells, and the other histograms alike; dryRun + the index in DRY_RUN_LIMITS.
 */
export const LISTENER = {
  accepted: 0,
  bytesIn: 1,
  bytesOut: 2,
  ends: 3,
  tls12: TLS,
  tls12Resumed: TLS + 1,
  tls13: TLS + 2,
  tls13Resumed: TLS + 3,
  handshakeSumMs: TLS + 4,
  /** FINs of clients without a close_notify before them. */
  tlsTruncated: TLS + 5,
  tlsFailures: TLS_REST,
  handshakeBuckets: TLS_REST + TLS_FAILURES.length,
  dryRun: TLS_REST + TLS_FAILURES.length + HANDSHAKE_BUCKETS_MS.length + 1,
  lifeSumMs: TIMES,
  firstByteSumMs: TIMES + 1,
  lifeBuckets: LIFE_BUCKETS,
  firstByteBuckets: FIRST_BYTE_BUCKETS,
  size: wholeLines(FIRST_BYTE_BUCKETS + FIRST_BYTE_BUCKETS_MS.length + 1),
} as const;

/** Rows of different workers follow one another and must not share a cache line of 8 cells. */
function wholeLines(cells: number): number {
  return Math.ceil(cells / 8) * 8;
}

/** The cell of a listener's row that counts this end. */
export function endCell(end: End, by: EndedBy): number {
  return LISTENER.ends + END_CODES[end] * ENDED_BY.length + ENDED_BY_CODES[by];
}

/** The cell of a listener's row that counts this failure. */
export function tlsFailureCell(failure: TlsFailure): number {
  return LISTENER.tlsFailures + TLS_FAILURES.indexOf(failure);
}

/**
 * Cells of a backend's row. `connectBuckets` is a block of CONNECT_BUCKETS_MS.length + 1 cells. A row begins on a cache line, and what a
 * normal connection counts is in the first one, with the buckets of fast connects: of a thousand backends, none is in the cache.
 */
export const BACKEND = {
  dials: 0,
  connected: 1,
  bytesIn: 2,
  bytesOut: 3,
  ended: 4,
  connectSumMs: 5,
  connectBuckets: 6,
  refused: 21,
  timedOut: 22,
  failed: 23,
  retriedAway: 24,
  tlsFailed: 25,
  /** FINs of the backend without a close_notify before them. */
  tlsTruncated: 26,
  size: wholeLines(27),
} as const;

/** Upper bounds, in milliseconds, of the buckets of the event-loop delay histogram; one more bucket counts larger values. */
export const LOOP_BUCKETS_MS = [1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500] as const;

/** Upper bounds, in milliseconds, of the buckets of the histogram of time in a pool's queue; one more bucket counts larger values. */
export const QUEUE_BUCKETS_MS = [1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000] as const;

/** Cells of a pool's row. `waitBuckets` is a block of QUEUE_BUCKETS_MS.length + 1 cells. */
export const QUEUE = { waitSumMs: 0, waitBuckets: 1, size: 1 + QUEUE_BUCKETS_MS.length + 1 } as const;

/** Cells of a worker's own row. `loopDelayBuckets` is a block of LOOP_BUCKETS_MS.length + 1 cells. */
export const WORKER = {
  accepted: 0,
  ended: 1,
  bytesIn: 2,
  bytesOut: 3,
  logLinesLost: 4,
  /** Not counters: the generation that the worker has applied, and the sum of the versions of its pools. */
  generation: 5,
  poolVersions: 6,
  /** When the clock ticks next, on platform's monotonicMs(); 0 = it is stopped. */
  tickDueMs: 7,
  loopDelaySumMs: 8,
  loopDelayBuckets: 9,
  size: 9 + LOOP_BUCKETS_MS.length + 1,
} as const;

/** A histogram in a row: the cell of the sum, the first cell of the buckets, and the upper bounds of all buckets except the last. */
interface Histogram {
  readonly sumMs: number;
  readonly buckets: number;
  readonly boundsMs: readonly number[];
}

/** In the rows of a backend, a listener, a worker and a pool. */
export const CONNECT_TIMES: Histogram = {
  sumMs: BACKEND.connectSumMs,
  buckets: BACKEND.connectBuckets,
  boundsMs: CONNECT_BUCKETS_MS,
};
export const HANDSHAKE_TIMES: Histogram = {
  sumMs: LISTENER.handshakeSumMs,
  buckets: LISTENER.handshakeBuckets,
  boundsMs: HANDSHAKE_BUCKETS_MS,
};
/** From accept to the end, of connections that reached a backend. */
export const LIFE_TIMES: Histogram = {
  sumMs: LISTENER.lifeSumMs,
  buckets: LISTENER.lifeBuckets,
  boundsMs: LIFE_BUCKETS_MS,
};
/** From accept to the backend's first byte for the client. */
export const FIRST_BYTE_TIMES: Histogram = {
  sumMs: LISTENER.firstByteSumMs,
  buckets: LISTENER.firstByteBuckets,
  boundsMs: FIRST_BYTE_BUCKETS_MS,
};
export const LOOP_DELAYS: Histogram = {
  sumMs: WORKER.loopDelaySumMs,
  buckets: WORKER.loopDelayBuckets,
  boundsMs: LOOP_BUCKETS_MS,
};

export const QUEUE_TIMES: Histogram = {
  sumMs: QUEUE.waitSumMs,
  buckets: QUEUE.waitBuckets,
  boundsMs: QUEUE_BUCKETS_MS,
};

/** Counts one duration in the row that begins at `row`. Hot path. */
export function countTime(cells: Float64Array, { sumMs, buckets, boundsMs }: Histogram, ms: number, row = 0): void {
  cells[row + sumMs]! += ms;
  let bucket = 0;
  while (bucket < boundsMs.length && ms > boundsMs[bucket]!) bucket++;
  cells[row + buckets + bucket]!++;
}

/** A histogram in the form of the status; `cell` returns the number in a cell. */
export function readTimes(
  { sumMs, buckets, boundsMs }: Histogram,
  cell: (at: number) => number,
): { sum: number; buckets: number[] } {
  return { sum: cell(sumMs), buckets: Array.from({ length: boundsMs.length + 1 }, (_, i) => cell(buckets + i)) };
}
