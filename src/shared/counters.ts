// The layout of the counters' rows. A row belongs to one worker, who alone writes it with plain stores; whoever wants a
// number adds the rows up. Rows lie in shared memory, as Float64, so that a dead worker's counts are not lost.
import { END_NAMES, ENDED_BY } from "../core/ends.ts";

/** Upper bounds, in milliseconds, of the buckets of the connect-time histogram; one more bucket counts what is above. */
export const CONNECT_BUCKETS_MS = [0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000] as const;

const ENDS_CELLS = END_NAMES.length * ENDED_BY.length;

/** Upper bounds, in milliseconds, of the buckets of the histogram of TLS handshakes; one more counts what is above. */
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

const TLS = 3 + ENDS_CELLS;
const TLS_REST = TLS + 6;

/**
 * Cells of a listener's row. Blocks: ends + endCode * 3 + endedBy; tlsFailures + the number in TLS_FAILURES;
 * handshakeBuckets of HANDSHAKE_BUCKETS_MS.length + 1 cells.
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
  /** FINs of clients without a close_notify. */
  tlsTruncated: TLS + 5,
  tlsFailures: TLS_REST,
  handshakeBuckets: TLS_REST + TLS_FAILURES.length,
  size: TLS_REST + TLS_FAILURES.length + HANDSHAKE_BUCKETS_MS.length + 1,
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
  tlsFailed: 9,
  /** FINs of the backend without a close_notify. */
  tlsTruncated: 10,
  connectSumMs: 11,
  connectBuckets: 12,
  size: 12 + CONNECT_BUCKETS_MS.length + 1,
} as const;

/** Upper bounds, in milliseconds, of the buckets of the histogram of event-loop delay; one more counts what is above. */
export const LOOP_BUCKETS_MS = [1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500] as const;

/** Cells of a worker's own row. `loopDelayBuckets` is a block of LOOP_BUCKETS_MS.length + 1 cells. */
export const WORKER = {
  accepted: 0,
  ended: 1,
  bytesIn: 2,
  bytesOut: 3,
  logLinesLost: 4,
  /** No count: the generation in force in the worker, and the sum of the versions of its pools. */
  generation: 5,
  poolVersions: 6,
  /** When the clock ticks next, in milliseconds since 1970; 0 = it stands still. */
  tickDueMs: 7,
  loopDelaySumMs: 8,
  loopDelayBuckets: 9,
  size: 9 + LOOP_BUCKETS_MS.length + 1,
} as const;
