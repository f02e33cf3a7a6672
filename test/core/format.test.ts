import { expect, test } from "vitest";
import { formatByteRate, formatBytes, formatCount, formatDuration, formatLatency } from "../../src/core/format.ts";

test.each([
  [0, "0 B"],
  [999, "999 B"],
  [1000, "1.0 kB"],
  [1536, "1.5 kB"],
  [99_400, "99 kB"],
  [999_400, "999 kB"],
  [999_999, "1.0 MB"],
  [34_000_000, "34 MB"],
  [5e18, "5000 PB"],
  [Number.NaN, "-"],
])("%d bytes are %s", (bytes, text) => {
  expect(formatBytes(bytes)).toBe(text);
});

test("a rate of bytes says so", () => {
  expect(formatByteRate(1_500_000)).toBe("1.5 MB/s");
});

test.each([
  [0, "0"],
  [950, "950"],
  [1234, "1.2k"],
  [34_000_000, "34M"],
])("a count of %d is %s", (count, text) => {
  expect(formatCount(count)).toBe(text);
});

test.each([
  [-5, "0ms"],
  [350, "350ms"],
  [4999, "4s"],
  [200_000, "3m 20s"],
  [180_000, "3m"],
  [18_720_000, "5h 12m"],
  [273_600_000, "3d 4h"],
  [Infinity, "-"],
])("%d ms are %s", (ms, text) => {
  expect(formatDuration(ms)).toBe(text);
});

test.each([
  [0, "0ms"],
  [0.254, "0.25ms"],
  [3.14, "3.1ms"],
  [120.4, "120ms"],
  [1500, "1.5s"],
])("a latency of %d ms is %s", (ms, text) => {
  expect(formatLatency(ms)).toBe(text);
});
