import { expect, test } from "vitest";
import { BandwidthRate, SAVED_MS_MAX } from "../../src/policy/bandwidth.ts";
import { bandwidthMemory, SharedBandwidth } from "../../src/shared/bandwidth.ts";
import { TimeCells } from "../../src/shared/time-cells.ts";
import { runThreads } from "../support/threads.ts";
import type { BandwidthJob } from "./claiming-thread.ts";

const thread = new URL("./claiming-thread.ts", import.meta.url);

test("reservations of several threads follow each other, and none is lost", async () => {
  const memory = bandwidthMemory(1);
  const [threads, times, bytes, nowMs] = [4, 5000, 1000, 1_000_000];
  const job: BandwidthJob = { kind: "bandwidth", memory, bytesPerSecond: 1_000_000, bytes, nowMs, times };
  const ends = await runThreads<number[]>(thread, Array<BandwidthJob>(threads).fill(job));
  // A millisecond each, half of which was returned.
  const limit = new SharedBandwidth(new TimeCells(memory), 0, "upload", new BandwidthRate(1_000_000), 0);
  expect(limit.reserve(1, nowMs, false)).toBeCloseTo(nowMs - SAVED_MS_MAX + (threads * times) / 2 + 0.001, 3);
  // The threads did compete: each of them ran during the time of the others.
  const first = ends.map((each) => each[0]!);
  const last = ends.map((each) => each.at(-1)!);
  expect(Math.max(...first)).toBeLessThan(Math.min(...last));
});

test("a new limit has saved as much as there may be, however long the machine has been up", () => {
  for (const nowMs of [200, 1e6, 1e11]) {
    const times = new TimeCells(bandwidthMemory(1));
    const limit = new SharedBandwidth(times, 0, "upload", new BandwidthRate(1_000_000), 0);
    expect(limit.saved(nowMs)).toBe(SAVED_MS_MAX * 1000);
    expect(limit.reserve(SAVED_MS_MAX * 1000, nowMs, false)).toBeCloseTo(nowMs, 3);
    expect(limit.saved(nowMs)).toBe(0);
  }
});

test("threads whose clocks began at different times see one limit", () => {
  const times = new TimeCells(bandwidthMemory(1));
  const rate = new BandwidthRate(1_000_000);
  const early = new SharedBandwidth(times, 0, "upload", rate, 1000);
  const late = new SharedBandwidth(times, 0, "upload", rate, 501_000);
  expect(early.reserve(600_000, 600_000, false)).toBe(600_500);
  // The same moment: 100 s on its clock.
  expect(late.reserve(1000, 100_000, false)).toBe(100_501);
});
