import { expect, test } from "vitest";
import { monotonicMsOf } from "../../src/platform/clock.ts";
import { LOOP_BUCKETS_MS, WORKER } from "../../src/shared/counters.ts";
import { TICK_MS } from "../../src/worker/clock.ts";
import { LoopDelay } from "../../src/worker/loop-delay.ts";

test("counts the delay of each tick, and reports when the next one is due", () => {
  const counters = new Float64Array(WORKER.size);
  const delay = new LoopDelay(counters);
  const delays = (): Record<string, number> =>
    Object.fromEntries(
      [...LOOP_BUCKETS_MS, Infinity].map((bound, i) => [String(bound), counters[WORKER.loopDelayBuckets + i]!]),
    );
  const dueMs = (): number => counters[WORKER.tickDueMs]! - monotonicMsOf(0);
  delay.start(1000);
  expect(dueMs()).toBeCloseTo(1000 + TICK_MS);
  delay.tick(1000 + TICK_MS);
  delay.tick(1000 + 2 * TICK_MS + 1);
  delay.tick(1000 + 3 * TICK_MS + 1 + 60);
  // Early, because the one before was late.
  delay.tick(1000 + 4 * TICK_MS);
  expect(delay.tick(1000 + 5 * TICK_MS + 3000)).toBe(3000);
  expect(dueMs()).toBeCloseTo(1000 + 6 * TICK_MS + 3000);
  expect(delays()).toMatchObject({ "1": 3, "2.5": 0, "50": 0, "100": 1, "2500": 0, Infinity: 1 });
  expect(counters[WORKER.loopDelaySumMs]).toBeCloseTo(1 + 60 + 3000);
  delay.stop();
  expect(counters[WORKER.tickDueMs]).toBe(0);
});
