import { describe, expect, test } from "vitest";
import { backendFigures, endsOf, pointOf, quantile, withPoint } from "../../src/dashboard/rates.ts";
import { HISTORY_SECONDS, pairOf, rateOf } from "../../src/observe/figures.ts";
import type { Snapshot } from "../../src/observe/snapshot.ts";
import { filledSnapshot } from "../support/snapshot.ts";

function later(seconds: number, change: (snapshot: Snapshot) => void = () => undefined): Snapshot {
  const snapshot = filledSnapshot();
  snapshot.uptime_seconds += seconds;
  change(snapshot);
  return snapshot;
}

describe("rates", () => {
  test("are the growth divided by the time between two snapshots of the process", () => {
    const pair = pairOf(
      later(2, ({ listeners }) => (listeners[0]!.accepted += 50)),
      filledSnapshot(),
    );
    expect(pair.seconds).toBe(2);
    expect(pointOf(pair, 1000)).toMatchObject({ at: 1000, open: 7, accepted: 25, refused: 0, bytes_in: 0 });
  });

  test("are 0 across two processes, and for a counter that decreased or is new", () => {
    const other = { ...filledSnapshot(), pid: 1 };
    expect(pairOf(later(2), other).before).toBeNull();
    const pair = pairOf(later(1), filledSnapshot());
    expect(rateOf(pair, 5, 10)).toBe(0);
    expect(rateOf(pair, 5, undefined)).toBe(0);
    expect(rateOf(pair, 15, 10)).toBe(5);
  });
});

test("the history keeps ten minutes, and no point twice", () => {
  const point = { open: 0, accepted: 0, refused: 0, bytes_in: 0, bytes_out: 0 };
  let points = Array.from({ length: HISTORY_SECONDS }, (_, i) => ({ ...point, at: i }));
  points = withPoint(points, { ...point, at: HISTORY_SECONDS + 10 });
  expect([points[0]!.at, points.at(-1)!.at]).toEqual([11, HISTORY_SECONDS + 10]);
  expect(withPoint(points, { ...point, at: HISTORY_SECONDS + 10 })).toHaveLength(points.length);
});

test("a backend's share is of the open connections of its pool", () => {
  const snapshot = filledSnapshot();
  [6, 2, 0].forEach((open, i) => (snapshot.pools[0]!.backends[i]!.open = open));
  const figures = backendFigures(pairOf(snapshot, null));
  expect(figures.map(({ share }) => share)).toEqual([0.75, 0.25, 0]);
  expect(new Set(figures.map(({ key }) => key)).size).toBe(figures.length);
});

test("ends are summed over listeners, with the number since the previous snapshot", () => {
  const pair = pairOf(
    later(1, ({ listeners }) => (listeners[0]!.ends[0]!.count += 4)),
    filledSnapshot(),
  );
  expect(endsOf(pair)[0]).toEqual({ end: "eof", by: "client", count: 34, recent: 4 });
});

test("a quantile is the bound of its bucket", () => {
  const bounds = [1, 5, 10];
  expect(quantile([98, 1, 1, 0], bounds, 0.99)).toBe(5);
  expect(quantile([0, 0, 0, 1], bounds, 0.99)).toBe(Infinity);
  expect(quantile([0, 0, 0, 0], bounds, 0.99)).toBe(0);
});
