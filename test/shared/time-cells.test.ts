import { expect, test } from "vitest";
import { TimeCells } from "../../src/shared/time-cells.ts";
import { interruptions } from "../support/interruptions.ts";

const UPPER = 2 ** 32;

function cells(): TimeCells {
  return new TimeCells(new SharedArrayBuffer(16));
}

function add(times: TimeCells, ns: number): void {
  for (;;) {
    const seen = times.load(1);
    if (times.exchange(1, seen, seen + ns)) return;
  }
}

test("a time is what it was set to, however long the machine has been up", () => {
  const times = cells();
  let seen = 0;
  for (const next of [
    1,
    UPPER / 2 - 1,
    UPPER / 2,
    UPPER,
    1.5 * UPPER,
    -1,
    -UPPER / 2,
    -UPPER / 2 - 1,
    2 ** 53 - 1,
    2 ** 60,
  ]) {
    expect(times.exchange(1, seen, next)).toBe(true);
    expect(times.load(1)).toBe(next);
    expect(times.exchange(1, seen, 5)).toBe(false);
    seen = next;
  }
  expect(times.load(0)).toBe(0);
});

test.each([
  ["in the same period of the upper word", 1000, 10],
  ["that begins another period", UPPER / 2 - 1, 1],
  ["that begins another period and ends with the same lower word", 1000, UPPER + 1],
])("a change by another thread %s is not lost, wherever it comes in between", (_, from, ns) => {
  for (const interrupt of interruptions()) {
    const times = cells();
    times.exchange(1, 0, from);
    interrupt(
      () => add(times, 7),
      () => add(times, ns),
    );
    expect(times.load(1)).toBe(from + 7 + ns);
  }
});

test("a time is not read as halves of two times", () => {
  const [before, after] = [UPPER / 2 - 1, UPPER / 2];
  for (const interrupt of interruptions()) {
    const times = cells();
    times.exchange(1, 0, before);
    const seen = interrupt(
      () => times.load(1),
      () => void times.exchange(1, before, after),
    );
    expect([before, after]).toContain(seen);
  }
});

test("a fraction of a nanosecond is dropped, at either end of a period of the upper word too", () => {
  for (const whole of [1, UPPER / 2 - 1, UPPER / 2, 3 * UPPER]) {
    const times = cells();
    expect(times.exchange(1, 0, whole + 0.5)).toBe(true);
    expect(Math.abs(times.load(1) - whole)).toBeLessThanOrEqual(1);
    expect(times.exchange(1, times.load(1), whole + 10)).toBe(true);
  }
});
