// The end of any session: one that is not a TCP connection has everything that the end needs.
import { beforeEach, describe, expect, test } from "vitest";
import { addressAt, formatAddress } from "../../src/core/address.ts";
import { REFUSALS, type End } from "../../src/core/ends.ts";
import type { ListenerPlan, PoolPlan } from "../../src/messages.ts";
import { monotonicMs } from "../../src/platform/clock.ts";
import { claim, claimed } from "../../src/shared/cells.ts";
import { BACKEND, endCell, WORKER } from "../../src/shared/counters.ts";
import { ACTIVITY, type Activity } from "../../src/shared/client-activity.ts";
import { CLAIM, ROW, ROW_FLOAT, ROW_FLOATS, ROW_WORDS } from "../../src/shared/ledger.ts";
import { clientMemory } from "../../src/shared/clients.ts";
import { admitClient, claimPlaces, releaseAll, releaseBackend } from "../../src/worker/admission.ts";
import { conclude } from "../../src/worker/ending.ts";
import { Listener } from "../../src/worker/listener.ts";
import { DataPlane } from "../../src/worker/plane.ts";
import { Pool } from "../../src/worker/pool.ts";
import type { Session } from "../../src/worker/session.ts";
import { countersOf, listenerPlan, openOf, plan, poolPlan, workerStart } from "../support/plans.ts";

let lines: string[];
let host: DataPlane;
let listeners: ListenerPlan;
let pools: PoolPlan;
let listener: Listener;
beforeEach(() => {
  lines = [];
  host = new DataPlane(workerStart(plan()), (message) => message.kind === "access" && lines.push(message.text));
  host.maxConnections = 10;
  pools = poolPlan();
  listeners = listenerPlan({ pool: pools.id, maxConnectionsPerClient: 5, clients: clientMemory(64) });
  listener = new Listener(listeners, new Map([[pools.id, new Pool(pools, null, 0)]]), null, 0);
});

/** A session that has claimed a place of everything. */
function session(): Session {
  const row = host.ledger.take();
  const at = row * ROW_WORDS;
  host.words.set([0, 0, 0xffff, 0x0a000007, 4711], at + ROW.address);
  expect(claimPlaces(host, listener, row)).toBeNull();
  expect(admitClient(host, listener, row, monotonicMs())).toBeNull();
  const { pool } = listener;
  const backend = pool!.acquire({ tried: null, hashKey: () => 0 });
  host.words[at]! |= CLAIM.backend;
  const ignore = (): void => undefined;
  const made = { host, listener, row, pool, backend, facts: null, connectMs: -1 };
  const whole: Session = { ...made, placed: ignore, finish: ignore, stopAt: ignore, abandon: ignore };
  host.remember(whole);
  return whole;
}

const places = (): number[] => [host.open, listeners.open, openOf(pools.backends[0]!)].map(claimed);

test("counts the end, writes one line and releases every place", () => {
  const ended = session();
  expect(places()).toEqual([1, 1, 1]);
  conclude(ended, { end: "lifetime", by: "lb", error: "" });
  host.accessLog.flush();
  expect(places()).toEqual([0, 0, 0]);
  expect(listener.counters[endCell("lifetime", "lb")]).toBe(1);
  expect(host.counters[WORKER.ended]).toBe(1);
  expect(countersOf(pools.backends[0]!)[BACKEND.ended]).toBe(1);
  expect(lines).toEqual([expect.stringContaining('"client":"10.0.0.7:4711"')]);
  expect(host.ledger.take()).toBe(ended.row);
});

test("releases a place only once", () => {
  const ended = session();
  // Another session holds places too.
  for (const cell of [host.open, listeners.open, openOf(pools.backends[0]!)]) claim(cell, 0);
  releaseBackend(ended);
  releaseBackend(ended);
  expect(places()).toEqual([2, 2, 1]);
  releaseAll(ended);
  releaseAll(ended);
  expect(places()).toEqual([1, 1, 1]);
  expect(host.words[ended.row * ROW_WORDS]).toBe(CLAIM.row);
});

describe("the most active clients", () => {
  const counts = (which: Activity): [number, string, number][] => {
    const found: [number, string, number][] = [];
    host.activity.each(which, monotonicMs(), (id, words, count) =>
      found.push([id, formatAddress(...addressAt(words, 0)), count]),
    );
    return found;
  };
  const end = (how: End, { ageMs = 0, bytes = 0 } = {}): void => {
    const ended = session();
    const floatsAt = ended.row * ROW_FLOATS;
    host.floats[floatsAt + ROW_FLOAT.startedMs] = monotonicMs() - ageMs;
    host.floats[floatsAt + ROW_FLOAT.bytesIn] = bytes / 4;
    host.floats[floatsAt + ROW_FLOAT.bytesOut] = (bytes * 3) / 4;
    conclude(ended, { end: how, by: "lb", error: "" });
  };

  test("are counted by client_prefix, with connections and bytes", () => {
    listeners = { ...listeners, clientPrefix: { ipv4: 24, ipv6: 64 } };
    listener = new Listener(listeners, new Map([[pools.id, new Pool(pools, null, 0)]]), null, 0);
    end("eof", { bytes: 4000 });
    end("reset");
    expect(counts(ACTIVITY.connections)).toEqual([[listeners.id, "10.0.0.0", 2]]);
    expect(counts(ACTIVITY.bytesIn)).toEqual([[listeners.id, "10.0.0.0", 1000]]);
    expect(counts(ACTIVITY.bytesOut)).toEqual([[listeners.id, "10.0.0.0", 3000]]);
    expect(counts(ACTIVITY.refusals)).toEqual([]);
  });

  test("count refusals by a limit, and then no connection", () => {
    for (const refusal of REFUSALS) end(refusal);
    expect(counts(ACTIVITY.refusals)).toEqual([[listeners.id, "10.0.0.7", REFUSALS.size]]);
    expect(counts(ACTIVITY.connections)).toEqual([]);
  });

  test("count for an old connection a minute's part of its bytes, and do not count it as new", () => {
    end("eof", { ageMs: 600_000, bytes: 1_000_000 });
    expect(counts(ACTIVITY.connections)).toEqual([]);
    const [[, , bytes]] = counts(ACTIVITY.bytesOut) as [[number, string, number]];
    expect(bytes).toBeGreaterThan(74_000);
    expect(bytes).toBeLessThan(76_000);
  });
});
