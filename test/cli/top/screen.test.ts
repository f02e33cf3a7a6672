import { describe, expect, test } from "vitest";
import { width } from "../../../src/cli/table.ts";
import { clipped, draw } from "../../../src/cli/top/screen.ts";
import { FIRST_STATE, type TopState } from "../../../src/cli/top/state.ts";
import { NO_DATA, VIEW_NAMES, type TopData } from "../../../src/cli/top/views.ts";
import { pairOf } from "../../../src/observe/figures.ts";
import { CLIENT } from "../../support/live-lists.ts";
import { filledSnapshot } from "../../support/snapshot.ts";

const nowMs = Date.parse("2026-01-02T03:14:06.000Z");

function dataOf(backends: number, name = (i: number): string => `10.0.0.${i}:80`): TopData {
  const before = filledSnapshot();
  const snapshot = filledSnapshot();
  const [pool] = snapshot.pools;
  const [sample] = pool!.backends;
  pool!.backends = Array.from({ length: backends }, (_, i) => ({ ...sample!, name: name(i), address: name(i) }));
  snapshot.listeners[0]!.accepted += 50;
  snapshot.uptime_seconds += 2;
  return { ...NO_DATA, pair: pairOf(snapshot, before), answeredAtMs: nowMs, clients: [CLIENT] };
}

const drawn = (state: Partial<TopState>, data: TopData, [columns, rows] = [80, 24], colour = false): string[] =>
  draw({ ...FIRST_STATE, ...state }, data, {
    columns: columns!,
    rows: rows!,
    colour,
    endpoint: "127.0.0.1:9900",
    nowMs,
  });

const bare = (lines: string[]): string => Bun.stripANSI(lines.join("\n"));

describe("fits the terminal", () => {
  const sizes = [
    [80, 24],
    [40, 10],
    [200, 60],
    [20, 3],
    [1, 1],
  ];
  const hostile = dataOf(100, (i) => `名前\x1b[2J${i}${"x".repeat(300)}`);
  test.each(sizes)("of %d x %d, in every view, with any name", (columns, rows) => {
    for (const view of VIEW_NAMES) {
      for (const data of [NO_DATA, dataOf(3), hostile]) {
        const lines = drawn({ view }, data, [columns, rows], true);
        expect(lines).toHaveLength(rows);
        for (const line of lines) expect(width(line)).toBeLessThanOrEqual(columns);
        expect(lines.join("")).not.toContain("\x1b[2J");
      }
    }
  });

  test("long names leave room for the other columns, and are cut where they are equal", () => {
    const data = dataOf(3, (i) => `backend-with-a-very-long-name-of-the-backend-${i}`);
    data.pair!.now.pools[0]!.name = "p".repeat(64);
    const at80 = bare(drawn({}, data));
    for (const title of ["POOL", "BACKEND", "STATE", "OPEN", "CONN/S"]) expect(at80).toContain(title);
    for (const i of [0, 1, 2]) expect(at80).toMatch(new RegExp(`pp~pp.* backe\\S+~\\S+-${i} `));
    expect(bare(drawn({}, data, [200, 24]))).toContain("backend-with-a-very-long-name-of-the-backend-0");
  });

  test("a question keeps the keys that answer it", () => {
    const action = { question: `drain: ${"x".repeat(100)}?`, request: { method: "PATCH", path: "/" } as const };
    expect(bare(drawn({ mode: { is: "confirm", action } }, dataOf(1)))).toMatch(/^ \[y\/n\] drain: xxx/m);
  });

  test("80 columns show the important columns of a backend, 200 show all", () => {
    const at80 = bare(drawn({}, dataOf(3)));
    for (const title of ["POOL", "BACKEND", "STATE", "OPEN", "CONN/S"]) expect(at80).toContain(title);
    expect(bare(drawn({}, dataOf(3), [200, 24]))).toMatch(/FOR .*WEIGHT .*OPEN .*FAIL\/S .*CONNECT .*IN .*OUT/);
  });
});

test("rates are the growth since the previous snapshot", () => {
  expect(bare(drawn({}, dataOf(3)))).toMatch(/7 of 1000 connections {2}25 new\/s/);
  expect(bare(drawn({ view: "listeners" }, dataOf(3)))).toMatch(/web .* ready .* 25 /);
});

test("the selected row is visible wherever it is in a long list", () => {
  const text = bare(drawn({ selected: "app/10.0.0.77:80" }, dataOf(100)));
  expect(text).toContain("10.0.0.77:80");
  expect(text).toMatch(/rows \d+ to \d+ of 100/);
});

test("without colour there are no colour codes, and states are words", () => {
  const lines = drawn({}, dataOf(3));
  expect(lines.join("")).not.toContain("\x1b[3");
  expect(drawn({}, dataOf(3), [80, 24], true).join("")).toContain("\x1b[32mup");
  expect(bare(lines)).toMatch(/10\.0\.0\.0:80 +up/);
});

test("an lb that no longer answers is reported, and the last figures stay", () => {
  const data = { ...dataOf(3), error: "127.0.0.1:9900 cannot be reached (ECONNREFUSED)", answeredAtMs: nowMs - 5000 };
  const text = bare(drawn({}, data, [120, 24]));
  expect(text).toContain("no answer for 5s: 127.0.0.1:9900 cannot be reached (ECONNREFUSED)");
  expect(text).toContain("10.0.0.1:80");
});

test("a question is in the last line", () => {
  const action = {
    question: "drain: send no new connections to app/b1?",
    request: { method: "GET", path: "/" },
  } as const;
  const last = Bun.stripANSI(drawn({ mode: { is: "confirm", action } }, dataOf(3)).at(-1)!);
  expect(last).toMatch(/^ drain: send no new connections to app\/b1\? {2}y = yes, any other key = no/);
  expect(drawn({ mode: { is: "filter" }, filter: "b2" }, dataOf(3)).at(-1)).toMatch(/^filter: b2_/);
});

test("a failed reload is in the head", () => {
  expect(bare(drawn({}, dataOf(3), [120, 24]))).toContain("last reload failed: lb.toml:3:1: no");
});

test("cutting keeps escape sequences whole and resets their effects", () => {
  expect(clipped("\x1b[31mabcdef\x1b[0m", 3)).toBe("\x1b[31mabc\x1b[0m");
  expect(clipped("数数数", 5)).toBe("数数");
  expect(clipped("abc", 3)).toBe("abc");
});
