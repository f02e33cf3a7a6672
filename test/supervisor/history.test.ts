import { expect, test } from "vitest";
import { HISTORY_SECONDS } from "../../src/observe/figures.ts";
import { Arena, Cells } from "../../src/shared/cells.ts";
import { endCell, LISTENER } from "../../src/shared/counters.ts";
import { History } from "../../src/supervisor/history.ts";

function listener() {
  const cells = new Cells(new Arena(), 1, LISTENER.size);
  return { cells, count: (cell: number, by: number) => void (cells.counters[cell]! += by) };
}

test("a point is the growth in the previous second, over all listeners", () => {
  const [a, b] = [listener(), listener()];
  const history = new History();
  history.add(10_000, 3, [a, b]);
  expect(history.points).toEqual([]);
  a.count(LISTENER.accepted, 20);
  b.count(LISTENER.accepted, 10);
  b.count(endCell("rate_limited", "lb"), 4);
  a.count(LISTENER.bytesIn, 1000);
  history.add(12_000, 5, [a, b]);
  expect(history.points).toEqual([{ at: 12, open: 5, accepted: 15, refused: 2, bytes_in: 500, bytes_out: 0 }]);
});

test("no rate is negative when a removed listener's counts disappear", () => {
  const [a, b] = [listener(), listener()];
  a.count(LISTENER.accepted, 100);
  const history = new History();
  history.add(1000, 0, [a, b]);
  history.add(2000, 0, [b]);
  expect(history.points[0]!.accepted).toBe(0);
});

test("a clock that was set back makes no point, and ten minutes are kept", () => {
  const history = new History();
  history.add(1000, 0, []);
  history.add(500, 0, []);
  expect(history.points).toEqual([]);
  for (let i = 1; i <= HISTORY_SECONDS + 5; i++) history.add(1000 * i, i, []);
  expect(history.points).toHaveLength(HISTORY_SECONDS);
  expect(history.points.at(-1)!.open).toBe(HISTORY_SECONDS + 5);
});
