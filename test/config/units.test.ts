import { describe, expect, it } from "vitest";
import {
  formatDuration,
  parseBandwidth,
  parseDuration,
  parseRate,
  parseSize,
  patterns,
} from "../../src/config/units.ts";

const value = (quantity: ReturnType<typeof parseDuration>) => (quantity.is === "number" ? quantity.value : quantity);

describe("a duration", () => {
  it.each([
    ["250ms", 250],
    ["3s", 3000],
    ["1.5s", 1500],
    ["10m", 600_000],
    ["1h", 3_600_000],
    ["1d", 86_400_000],
    ["0s", 0],
    ["0.25s", 250],
  ])("%s is %i milliseconds", (text, ms) => {
    expect(value(parseDuration(text))).toBe(ms);
    expect(text).toMatch(patterns.duration);
  });

  it.each([
    "",
    "s",
    "-1s",
    "+1s",
    "1",
    "1 s",
    "1h30m",
    "1e3s",
    ".5s",
    "5.s",
    "1w",
    "٣s",
    "0.1ms",
    "1s\n",
    "99999999999999999999s",
  ])("%j is refused", (text) => {
    expect(parseDuration(text).is).toBe("bad");
  });

  it("suggests the unit that differs only by case or by a space", () => {
    expect(parseDuration("5 MS")).toMatchObject({ is: "bad", meant: "5ms" });
    expect(parseDuration("5M")).toMatchObject({ is: "bad", meant: "5m" });
  });

  it("is written in the largest unit that fits", () => {
    expect([0, 10, 90_000, 3_600_000, 86_400_000, 1500].map(formatDuration)).toEqual([
      "0s",
      "10ms",
      "90s",
      "1h",
      "1d",
      "1500ms",
    ]);
  });
});

describe("a size", () => {
  it.each([
    ["1B", 1],
    ["64KiB", 65_536],
    ["10MB", 10_000_000],
    ["1.5GiB", 1_610_612_736],
    ["500Kbit", 62_500],
    ["8bit", 1],
    ["1Gbit", 125_000_000],
  ])("%s is %i bytes", (text, bytes) => {
    expect(value(parseSize(text))).toBe(bytes);
    expect(text).toMatch(patterns.size);
  });

  it.each(["10", "10 MB", "10mb", "MB", "-1MB", "10TB", "1kbit"])("%j is refused", (text) => {
    expect(parseSize(text).is).toBe("bad");
  });
});

describe("a bandwidth", () => {
  it.each([
    ["10MB/s", 10_000_000],
    ["500Kbit/s", 62_500],
    ["64KiB/s", 65_536],
  ])("%s is %i bytes per second", (text, bytes) => {
    expect(value(parseBandwidth(text))).toBe(bytes);
    expect(text).toMatch(patterns.bandwidth);
  });

  it("is only per second, and suggests the missing part", () => {
    expect(parseBandwidth("10MB")).toMatchObject({ is: "bad", meant: "10MB/s" });
    expect(parseBandwidth("10MB/m").is).toBe("bad");
    expect(parseBandwidth("10mb/s")).toMatchObject({ is: "bad", meant: "10MB/s" });
  });
});

describe("a rate", () => {
  it.each([
    ["100/s", 100],
    ["600/m", 10],
    ["1800/h", 0.5],
    ["0.5/s", 0.5],
  ])("%s is %d per second", (text, perSecond) => {
    expect(value(parseRate(text))).toBe(perSecond);
    expect(text).toMatch(patterns.rate);
  });

  it.each(["100", "/s", "100/", "100/d", "-1/s", "1 /s", "1/s/s", "ten/s"])("%j is refused", (text) => {
    expect(parseRate(text).is).toBe("bad");
  });
});
