// The clock of a data plane, and its stop: when it ends the connections that are left. connection.test.ts has ends on an operator's order.
import { describe, expect, test, vi } from "vitest";
import { monotonicMs, monotonicMsOf } from "../../src/platform/clock.ts";
import { claim } from "../../src/shared/cells.ts";
import { queueMemory } from "../../src/shared/queue.ts";
import { NO_SLOT, type TimerNode } from "../../src/core/timer-wheel.ts";
import { STALL_MS, TICK_MS } from "../../src/worker/clock.ts";
import { backendPlan, openOf } from "../support/plans.ts";
import { listenDuringTests, SOMEBODY, Stage } from "../support/stage.ts";

listenDuringTests();

const HOUR_MS = 3_600_000;

test("timers run although every tick is late", async () => {
  const stage = new Stage();
  stage.plane.startClock();
  let calls = 0;
  const again = (): TimerNode => ({ timerNext: null, timerPrev: null, timerSlot: NO_SLOT, timerAt: 0, onTimer });
  const onTimer = (): void => {
    calls++;
    stage.plane.wheel.schedule(again(), stage.plane.wheel.now);
  };
  onTimer();
  // Each turn of the event loop takes longer than a stall, so each tick is late.
  for (let turn = 0; turn < 6; turn++) {
    const untilMs = performance.now() + TICK_MS + STALL_MS;
    while (performance.now() < untilMs);
    await new Promise((resolve) => setTimeout(resolve, 0));
  }
  expect(calls).toBeGreaterThan(2);
  stage.plane.stop(Infinity, Infinity);
});

describe("a stop", () => {
  test.each(["queued", "dialing"] as const)("ends a connection in the phase %s at its deadline", (phase) => {
    const capped = backendPlan({ address: `unix:@${SOMEBODY}`, maxConnections: 1 });
    const queue = { size: 1, timeoutMs: HOUR_MS, memory: queueMemory() };
    const stage = new Stage({ pool: { backends: [capped], queue, connectTimeoutMs: HOUR_MS } });
    if (phase === "queued") claim(openOf(capped), 1);
    stage.dial();
    expect(stage.connection.phase.name).toBe(phase);
    const nowMs = monotonicMs();
    stage.plane.stop(nowMs, nowMs + HOUR_MS / 2);
    const leftMs = nowMs + HOUR_MS / 2 - monotonicMsOf(stage.plane.wheel.now);
    stage.pass(leftMs - 2 * TICK_MS);
    expect(stage.ended).toEqual([]);
    stage.pass(4 * TICK_MS);
    expect(stage.ended).toEqual(["shutdown lb"]);
    expect(stage.messages.filter(({ kind }) => kind === "stopped")).toHaveLength(1);
  });

  test("spreads the ends of relayed connections over the time before its deadline", () => {
    const stage = new Stage();
    stage.relay();
    const random = vi.spyOn(Math, "random").mockReturnValue(0.25);
    const nowMs = monotonicMs();
    stage.plane.stop(nowMs + 1000, nowMs + 2000);
    random.mockRestore();
    expect(monotonicMsOf(stage.connection.stopAtWheelMs)).toBeCloseTo(nowMs + 1250, 3);
  });

  test("without a deadline ends no connection, and is complete when the last one has ended", async () => {
    const stage = new Stage();
    stage.relay();
    stage.plane.stop(Infinity, Infinity);
    stage.pass(HOUR_MS / 60);
    expect([stage.ended, stage.connection.stopAtWheelMs]).toEqual([[], Infinity]);
    stage.connection.finish("eof", "client");
    await Promise.resolve();
    expect(stage.messages.filter(({ kind }) => kind === "stopped")).toHaveLength(1);
  });
});
