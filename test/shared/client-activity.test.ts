// The most active clients of a worker: exact for few clients, bounded for many, and only of the last minute.
import { describe, expect, test, vi } from "vitest";
import { formatAddress, addressAt } from "../../src/core/address.ts";
import {
  ACTIVITY,
  type Activity,
  activityMemory,
  ClientActivity,
  SETS,
  WAYS,
  WINDOW_MS,
  windowsBeginMs,
  WINDOWS,
} from "../../src/shared/client-activity.ts";
import { Random } from "../support/random.ts";

const WEB = 1;
const NOW = 1000 * WINDOW_MS + 5000;

function client(number: number): { w0: number; w1: number; w2: number; w3: number } {
  return { w0: 0, w1: 0, w2: 0xffff, w3: number | 0 };
}

/** Counts by "listener address": the count and its possible error, summed over the windows. */
function read(activity: ClientActivity, which: Activity, nowMs = NOW): Map<string, { count: number; error: number }> {
  const counts = new Map<string, { count: number; error: number }>();
  activity.each(which, nowMs, (listener, words, count, error) => {
    const key = `${listener} ${formatAddress(...addressAt(words, 0))}`;
    const before = counts.get(key) ?? { count: 0, error: 0 };
    counts.set(key, { count: before.count + count, error: before.error + error });
  });
  return counts;
}

describe("few clients", () => {
  test("are counted exactly, each activity and each listener for itself", () => {
    const activity = new ClientActivity(activityMemory());
    for (let i = 0; i < 5; i++) activity.add(ACTIVITY.connections, 1, NOW, WEB, client(1));
    activity.add(ACTIVITY.connections, 1, NOW, 2, client(1));
    activity.add(ACTIVITY.bytesIn, 1500, NOW, WEB, client(1));
    activity.add(ACTIVITY.refusals, 1, NOW, WEB, client(-1));
    expect(read(activity, ACTIVITY.connections)).toEqual(
      new Map([
        ["1 0.0.0.1", { count: 5, error: 0 }],
        ["2 0.0.0.1", { count: 1, error: 0 }],
      ]),
    );
    expect(read(activity, ACTIVITY.bytesIn)).toEqual(new Map([["1 0.0.0.1", { count: 1500, error: 0 }]]));
    expect(read(activity, ACTIVITY.refusals)).toEqual(new Map([["1 255.255.255.255", { count: 1, error: 0 }]]));
  });

  test("are seen by another who reads the same memory", () => {
    const memory = activityMemory();
    new ClientActivity(memory).add(ACTIVITY.refusals, 1, NOW, WEB, client(7));
    expect(read(new ClientActivity(memory), ACTIVITY.refusals).get("1 0.0.0.7")).toEqual({ count: 1, error: 0 });
  });
});

test("a reader takes no count of a client whose entry was replaced during the read", () => {
  const activity = new ClientActivity(activityMemory());
  activity.add(ACTIVITY.connections, 1, NOW, WEB, client(1));
  // After the reader has copied the address.
  const set = vi.spyOn(Int32Array.prototype, "set").mockImplementationOnce(function (this: Int32Array, words) {
    for (let i = 0; i < words.length; i++) this[i] = words[i]!;
    for (let other = 2; other < 5000; other++) activity.add(ACTIVITY.connections, 1, NOW, WEB, client(other));
  });
  const counts = read(activity, ACTIVITY.connections);
  expect(set).toHaveBeenCalled();
  set.mockRestore();
  expect(counts.has("1 0.0.0.1")).toBe(false);
  // Those of its own set at least; it may be the last one that is read.
  expect(counts.size).toBeGreaterThanOrEqual(WAYS - 1);
});

describe("a flood of addresses", () => {
  const FLOOD = 100_000;
  const HEAVY = 2000;

  test("drives no heavy client out, and a count is off by no more than its error", () => {
    const activity = new ClientActivity(activityMemory());
    const random = new Random(7);
    const truth = new Map<string, number>();
    const add = (address: { w0: number; w1: number; w2: number; w3: number }): void => {
      activity.add(ACTIVITY.connections, 1, NOW, WEB, address);
      const key = `1 ${formatAddress(0, 0, 0xffff, address.w3 >>> 0)}`;
      truth.set(key, (truth.get(key) ?? 0) + 1);
    };
    for (let i = 0; i < FLOOD; i++) {
      add(client(random.word()));
      if (i % (FLOOD / HEAVY) === 0) for (let heavy = 1; heavy <= 5; heavy++) add(client(heavy));
    }
    const counts = read(activity, ACTIVITY.connections);
    expect(counts.size).toBeLessThanOrEqual(SETS * WAYS);
    for (let heavy = 1; heavy <= 5; heavy++) expect(counts.get(`1 0.0.0.${heavy}`)).toBeDefined();
    for (const [key, { count, error }] of counts) {
      expect(count).toBeGreaterThanOrEqual(truth.get(key)!);
      expect(count - error).toBeLessThanOrEqual(truth.get(key)!);
    }
  });
});

describe("time", () => {
  test("drops counts that are older than a minute, and keeps those that began within it", () => {
    const activity = new ClientActivity(activityMemory());
    activity.add(ACTIVITY.connections, 1, NOW - WINDOWS * WINDOW_MS, WEB, client(1));
    activity.add(ACTIVITY.connections, 1, NOW - (WINDOWS - 1) * WINDOW_MS, WEB, client(2));
    activity.add(ACTIVITY.connections, 1, NOW, WEB, client(3));
    expect([...read(activity, ACTIVITY.connections).keys()]).toEqual(["1 0.0.0.2", "1 0.0.0.3"]);
    expect([...read(activity, ACTIVITY.connections, NOW + WINDOW_MS).keys()]).toEqual(["1 0.0.0.3"]);
    expect(read(activity, ACTIVITY.connections, NOW + WINDOWS * WINDOW_MS).size).toBe(0);
    expect(NOW - windowsBeginMs(NOW)).toBe((WINDOWS - 1) * WINDOW_MS + 5000);
  });

  test("starts a window with empty tables, and does not count in a past one", () => {
    const activity = new ClientActivity(activityMemory());
    // Enough clients to use every entry.
    for (let i = 0; i < 2000; i++) activity.add(ACTIVITY.connections, 4, NOW, WEB, client(1000 + i));
    // The same slot of the ring, and then an earlier time again.
    const later = NOW + (WINDOWS + 1) * WINDOW_MS;
    activity.add(ACTIVITY.connections, 1, later, WEB, client(2));
    activity.add(ACTIVITY.connections, 1, NOW, WEB, client(1));
    expect(read(activity, ACTIVITY.connections, later)).toEqual(new Map([["1 0.0.0.2", { count: 1, error: 0 }]]));
  });

  test("adds up a client's windows", () => {
    const activity = new ClientActivity(activityMemory());
    for (let i = 0; i < WINDOWS; i++) activity.add(ACTIVITY.bytesIn, 10, NOW - i * WINDOW_MS, WEB, client(1));
    expect(read(activity, ACTIVITY.bytesIn).get("1 0.0.0.1")).toEqual({ count: 60, error: 0 });
  });
});
