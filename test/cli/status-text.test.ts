import { expect, test } from "vitest";
import { stateText, statusText } from "../../src/cli/status-text.ts";
import type { PoolStatus } from "../../src/observe/snapshot.ts";
import { refusals } from "../../src/observe/figures.ts";
import { filledSnapshot } from "../support/snapshot.ts";

const nowMs = Date.parse("2026-01-02T03:14:06.000Z");

test("shows the process, each listener, each backend with its state and since when, each worker", () => {
  const lines = statusText(filledSnapshot(), nowMs);
  const text = lines.join("\n");
  expect(lines[0]).toBe("lb 1.2.3, process 4711, up 1m: ready");
  expect(text).toMatch(/^config .*\/etc\/lb\/lb.toml, generation 3, loaded 9m 6s ago; reloads: 2 good, 1 failed$/m);
  expect(text).toMatch(/^last reload +failed: lb.toml:3:1: no$/m);
  expect(text).toMatch(/^web +0\.0\.0\.0:8080 +app +ready +7 +42 +1\.0 kB +2\.0 kB$/m);
  expect(text).toMatch(/^app +app\.example:80@10\.0\.0\.1:80 +10\.0\.0\.1:80 +up 55 % +10m +3 +2 +500 +10 +11 /m);
  expect(text).toMatch(/^ +big +unix:\/run\/app\.sock +down /m);
  expect(text).toMatch(/^0 +running +4 +30 +1\.0 kB +2\.0 kB +1$/m);
  for (const line of lines) expect(line).toBe(line.trimEnd());
});

test("shows the panic and the queue of a pool", () => {
  const snapshot = filledSnapshot();
  const [pool] = snapshot.pools;
  const notes = (changed: Partial<PoolStatus>): string[] =>
    statusText({ ...snapshot, pools: [{ ...pool!, ...changed }] }, nowMs).filter((line) => line.startsWith("pool "));
  const queue = { ...pool!.queue!, size: 5, waiting: 4 };
  expect(notes({ panic: true, queue })).toEqual([
    "pool app is in panic: health is ignored",
    "pool app has 4 of at most 5 connections in its queue",
  ]);
  expect(notes({ panic: false, queue: { ...queue, waiting: 0 } })).toEqual([]);
  expect(notes({ panic: false, queue: null })).toEqual([]);
});

test("says why the process is not ready", () => {
  const snapshot = { ...filledSnapshot(), ready: false, not_ready: ["worker 1 is being started"] };
  expect(statusText(snapshot, nowMs).slice(0, 2)).toEqual([
    "lb 1.2.3, process 4711, up 1m: not ready",
    "  worker 1 is being started",
  ]);
});

test("counts connections that ended before a backend was chosen as refused", () => {
  const [listener] = filledSnapshot().listeners;
  const ends = [
    { end: "eof", end_by: "client", count: 5 },
    { end: "rate_limited", end_by: "lb", count: 2 },
    { end: "no_backend", end_by: "lb", count: 1 },
  ] as const;
  expect(refusals({ ...listener!, ends: [...ends] })).toBe(3);
});

test("a backend's state names what an operator set, and whether it is a backup", () => {
  const backend = filledSnapshot().pools[0]!.backends[0]!;
  expect(stateText(backend)).toBe("up 55 %");
  expect(stateText({ ...backend, up: false, backup: true })).toBe("down backup");
});
