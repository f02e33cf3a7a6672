import { describe, expect, test } from "vitest";
import { backendState, listenerState, runtimeChanges } from "../../src/observe/figures.ts";
import { filledSnapshot } from "../support/snapshot.ts";

const [listener] = filledSnapshot().listeners;
const backend = { ...filledSnapshot().pools[0]!.backends[0]!, ejected_until: null };

describe("the state in a word", () => {
  test("of a backend is the operator's, then that of its checks, then that of passive health", () => {
    const ejected_until = "2026-01-02T03:05:05.000Z";
    expect(backendState(backend)).toEqual({ word: "up", tone: "good" });
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
