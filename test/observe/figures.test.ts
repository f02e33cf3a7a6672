import { describe, expect, test } from "vitest";
import {
  backendState,
  cpuPercent,
  destination,
  listenerState,
  openText,
  pairOf,
  runtimeChanges,
  troubleOf,
} from "../../src/observe/figures.ts";
import { filledSnapshot } from "../support/snapshot.ts";

const [listener] = filledSnapshot().listeners;
const backend = {
  ...filledSnapshot().pools[0]!.backends[0]!,
  ejected_until: null,
  ejection_reason: null,
  ramp_percent: 100,
};

test("the trouble of a backend is what its check says, else why it is ejected", () => {
  const ejection_reason = "5 failed connects within 10s";
  const health = { ...backend.health, last_error: null };
  expect(troubleOf({ ...backend, health })).toBe("");
  expect(troubleOf({ ...backend, health, ejection_reason })).toBe(ejection_reason);
  expect(troubleOf({ ...backend, health: { ...health, last_error: "no answer in time" }, ejection_reason })).toBe(
    "no answer in time",
  );
});

describe("the state in a word", () => {
  test("of a backend is the operator's, then that of its checks, then that of passive health", () => {
    const ejected_until = "2026-01-02T03:05:05.000Z";
    expect(backendState(backend)).toEqual({ word: "up", tone: "good" });
    expect(backendState({ ...backend, ramp_percent: 55 })).toEqual({ word: "up 55 %", tone: "good" });
    expect(backendState({ ...backend, ejected_until })).toEqual({ word: "ejected", tone: "warn" });
    expect(backendState({ ...backend, up: false })).toEqual({ word: "down", tone: "bad" });
    expect(backendState({ ...backend, up: false, state: "drain" })).toEqual({ word: "drain", tone: "warn" });
  });

  test("of a listener says that it is drained, whatever the state of its pools", () => {
    expect(listenerState(listener!)).toEqual({ word: "ready", tone: "good" });
    expect(listenerState({ ...listener!, ready: false })).toEqual({ word: "no backend", tone: "bad" });
    expect(listenerState({ ...listener!, ready: false, state: "drain" })).toEqual({ word: "drain", tone: "warn" });
  });
});

test("the CPU share is of one core, since a snapshot of the same process", () => {
  const before = filledSnapshot();
  const { process, uptime_seconds } = before;
  const now = { ...before, uptime_seconds: uptime_seconds + 2, process: { ...process, cpu_seconds: 15.5 } };
  expect(cpuPercent(pairOf(now, before))).toBe("150");
  expect(cpuPercent(pairOf(now, { ...before, started_at: "2026-01-02T03:04:05.000Z" }))).toBe("-");
});

test("a cap is beside the number of open connections if there is one", () => {
  expect(openText({ ...backend, open: 3, max_connections: 0 })).toBe("3");
  expect(openText({ ...backend, open: 3, max_connections: 100 })).toBe("3/100");
});

test("the destination of a connection is as much of it as is known", () => {
  expect(destination({ pool: null, backend: null })).toBe("-");
  expect(destination({ pool: "web", backend: null })).toBe("web");
  expect(destination({ pool: "web", backend: "10.0.0.1:80" })).toBe("web/10.0.0.1:80");
});

test("run-time changes are listed with their targets", () => {
  const snapshot = filledSnapshot();
  expect(runtimeChanges(snapshot)).toEqual([]);
  snapshot.listeners[0]!.changes = ["drain by API"];
  snapshot.pools[0]!.changes = ["backend old removed by API"];
  snapshot.pools[0]!.backends[2]!.changes = ["added by API", "weight 3 by API"];
  expect(runtimeChanges(snapshot)).toEqual([
    "listeners.web: drain by API",
    "pools.app: backend old removed by API",
    "pools.app.backends.big: added by API",
    "pools.app.backends.big: weight 3 by API",
  ]);
});
