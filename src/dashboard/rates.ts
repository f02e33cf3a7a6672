// Rates and shares computed from snapshots: figures of the page that lb does not report itself. Pure.
import {
  HISTORY_SECONDS,
  failedConnects,
  meanConnectMs,
  rateOf,
  refusals,
  sum,
  totalRate,
  type Pair,
} from "../observe/figures.ts";
import type { Point } from "../observe/history.ts";
import type { BackendStatus, PoolStatus } from "../observe/snapshot.ts";

export function pointOf(pair: Pair, at: number): Point {
  return {
    at,
    open: pair.now.connections.open,
    accepted: totalRate(pair, ({ accepted }) => accepted),
    refused: totalRate(pair, refusals),
    bytes_in: totalRate(pair, ({ bytes_in }) => bytes_in),
    bytes_out: totalRate(pair, ({ bytes_out }) => bytes_out),
  };
}

/** The points of the last HISTORY_SECONDS, with a new one added. */
export function withPoint(points: readonly Point[], point: Point): Point[] {
  return [...points.filter(({ at }) => at > point.at - HISTORY_SECONDS && at < point.at), point];
}

/** A backend with the figures that the page shows for it. */
export interface BackendFigures {
  pool: PoolStatus;
  backend: BackendStatus;
  /** Unique on the page. */
  key: string;
  connects: number;
  failures: number;
  bytesIn: number;
  bytesOut: number;
  /** Mean of the last second with connects; NaN if there were none. */
  connectMs: number;
  /** Share of the pool's open connections, 0..1. */
  share: number;
}

export function backendFigures(pair: Pair): BackendFigures[] {
  const old = new Map<string, BackendStatus>();
  for (const pool of pair.before?.pools ?? []) {
    for (const backend of pool.backends) old.set(keyOf(pool, backend), backend);
  }
  return pair.now.pools.flatMap((pool) => {
    const open = sum(pool.backends, (backend) => backend.open);
    return pool.backends.map((backend) => figuresOf(pair, { pool, backend, open, was: old.get(keyOf(pool, backend)) }));
  });
}

function figuresOf(
  pair: Pair,
  what: { pool: PoolStatus; backend: BackendStatus; open: number; was: BackendStatus | undefined },
): BackendFigures {
  const { pool, backend, open, was } = what;
  return {
    pool,
    backend,
    key: keyOf(pool, backend),
    connects: rateOf(pair, backend.connects.succeeded, was?.connects.succeeded),
    failures: rateOf(pair, failedConnects(backend), was && failedConnects(was)),
    bytesIn: rateOf(pair, backend.bytes_in, was?.bytes_in),
    bytesOut: rateOf(pair, backend.bytes_out, was?.bytes_out),
    connectMs: meanConnectMs(backend, was),
    share: open === 0 ? 0 : backend.open / open,
  };
}

function keyOf(pool: PoolStatus, backend: BackendStatus): string {
  return `${pool.name} ${backend.name} ${backend.address}`;
}

/** The number of connections per end, over all listeners, the most frequent first. */
export function endsOf({ now, before }: Pair): { end: string; by: string; count: number; recent: number }[] {
  const counts = new Map<string, { end: string; by: string; count: number; recent: number }>();
  for (const [snapshot, sign] of [
    [now, 1],
    [before, -1],
  ] as const) {
    for (const { ends } of snapshot?.listeners ?? []) {
      for (const { end, end_by, count } of ends) {
        const key = `${end} ${end_by}`;
        const entry = counts.get(key) ?? { end, by: end_by, count: 0, recent: 0 };
        if (sign === 1) entry.count += count;
        entry.recent += sign * count;
        counts.set(key, entry);
      }
    }
  }
  return [...counts.values()].sort((a, b) => b.count - a.count);
}

/** The upper bound of the bucket that contains a quantile, such as 0.99; Infinity = above the last bound. */
export function quantile(buckets: readonly number[], bounds: readonly number[], part: number): number {
  const total = sum(buckets, (count) => count);
  if (total === 0) return 0;
  let below = 0;
  for (let i = 0; i < buckets.length; i++) {
    below += buckets[i] ?? 0;
    if (below >= total * part) return bounds[i] ?? Infinity;
  }
  return Infinity;
}
