import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import type { FromWorker } from "../../src/messages.ts";
import { BACKEND } from "../../src/shared/counters.ts";
import { FailureReports } from "../../src/worker/failure-reports.ts";
import { Pool } from "../../src/worker/pool.ts";
import { context } from "../support/picks.ts";
import { backendPlan, poolPlan } from "../support/plans.ts";

const posted: FromWorker[] = [];
beforeEach(() => {
  posted.length = 0;
  vi.useFakeTimers();
});
afterEach(() => void vi.useRealTimers());

const reports = () => new FailureReports((message) => posted.push(message));

describe("failures of backends", () => {
  test("of ten milliseconds are one message", () => {
    const all = reports();
    all.of(1).connect++;
    all.of(2).earlyReset++;
    all.of(1).connect++;
    expect(posted).toEqual([]);
    vi.advanceTimersByTime(10);
    all.of(1).connect++;
    vi.advanceTimersByTime(100);
    expect(posted).toEqual([
      {
        kind: "failures",
        failures: [
          { backend: 1, connect: 2, earlyReset: 0 },
          { backend: 2, connect: 0, earlyReset: 1 },
        ],
      },
      { kind: "failures", failures: [{ backend: 1, connect: 1, earlyReset: 0 }] },
    ]);
  });

  test.each([
    [null, []],
    [{ connect: true, earlyReset: false }, [2, 0]],
    [{ connect: false, earlyReset: true }, [0, 1]],
    [{ connect: true, earlyReset: true }, [2, 1]],
  ])("are reported as far as the pool counts them: %j", (passive, counts) => {
    const plan = backendPlan();
    const pool = new Pool(poolPlan({ backends: [plan], passive }), null, 0, reports());
    const backend = pool.acquire(context(null))!;
    backend.attemptEnded(BACKEND.connected, 1);
    backend.attemptEnded(BACKEND.refused, 1);
    backend.attemptEnded(BACKEND.tlsFailed, 1);
    backend.passive?.resetEarly(backend.id);
    vi.advanceTimersByTime(10);
    const [connect, earlyReset] = counts;
    const failures = [{ backend: plan.id, connect, earlyReset }];
    expect(posted).toEqual(connect === undefined ? [] : [{ kind: "failures", failures }]);
  });
});
