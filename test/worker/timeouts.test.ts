import { describe, expect, test } from "vitest";
import { dueEnd, nextDueWheelMs, type Times } from "../../src/worker/timeouts.ts";
import { forSeeds } from "../support/random.ts";

const times = (given: Partial<Times> = {}): Times => ({
  activeWheelMs: 1000,
  lifetimeEndsWheelMs: Infinity,
  stopAtWheelMs: Infinity,
  halfClosed: false,
  ...given,
});
const NEVER = { idle: 0, halfClose: 0 };

describe("a relayed connection is due", () => {
  test("never, without limits", () => {
    expect(nextDueWheelMs(times(), NEVER)).toBe(Infinity);
    expect(nextDueWheelMs(times({ halfClosed: true }), NEVER)).toBe(Infinity);
    expect(dueEnd(times({ halfClosed: true }), NEVER, 1e15)).toBeNull();
  });

  test("when it has been idle, counted from its last byte", () => {
    expect(nextDueWheelMs(times(), { idle: 500, halfClose: 0 })).toBe(1500);
    expect(dueEnd(times(), { idle: 500, halfClose: 0 }, 1499)).toBeNull();
    expect(dueEnd(times(), { idle: 500, halfClose: 0 }, 1500)).toBe("idle_timeout");
    expect(dueEnd(times({ activeWheelMs: 1001 }), { idle: 500, halfClose: 0 }, 1500)).toBeNull();
  });

  test("when one side has ended and the other sends nothing; before that the limit does not apply", () => {
    const limits = { idle: 0, halfClose: 300 };
    expect(nextDueWheelMs(times(), limits)).toBe(Infinity);
    expect(dueEnd(times(), limits, 1e9)).toBeNull();
    expect(nextDueWheelMs(times({ halfClosed: true }), limits)).toBe(1300);
    expect(dueEnd(times({ halfClosed: true }), limits, 1299)).toBeNull();
    expect(dueEnd(times({ halfClosed: true }), limits, 1300)).toBe("half_close_timeout");
  });

  test("at the end of its life, however busy it is", () => {
    expect(nextDueWheelMs(times({ lifetimeEndsWheelMs: 1200 }), { idle: 500, halfClose: 0 })).toBe(1200);
    expect(dueEnd(times({ lifetimeEndsWheelMs: 1200, activeWheelMs: 1200 }), NEVER, 1199)).toBeNull();
    expect(dueEnd(times({ lifetimeEndsWheelMs: 1200, activeWheelMs: 1200 }), NEVER, 1200)).toBe("lifetime");
  });

  test("when the worker's stop ends it", () => {
    expect(nextDueWheelMs(times({ stopAtWheelMs: 1100 }), { idle: 500, halfClose: 0 })).toBe(1100);
    expect(dueEnd(times({ stopAtWheelMs: 1100 }), NEVER, 1100)).toBe("shutdown");
  });

  test("for the most severe of the reasons that are due at once", () => {
    const all = times({ stopAtWheelMs: 1500, lifetimeEndsWheelMs: 1500, halfClosed: true });
    const limits = { idle: 500, halfClose: 500 };
    expect(dueEnd(all, limits, 1500)).toBe("shutdown");
    expect(dueEnd({ ...all, stopAtWheelMs: Infinity }, limits, 1500)).toBe("lifetime");
    expect(dueEnd({ ...all, stopAtWheelMs: Infinity, lifetimeEndsWheelMs: Infinity }, limits, 1500)).toBe(
      "half_close_timeout",
    );
    expect(dueEnd(times(), limits, 1500)).toBe("idle_timeout");
  });

  test("exactly at the scheduled time, and not before", () => {
    forSeeds(500, (random) => {
      const limits = {
        idle: random.oneIn(3) ? 0 : random.between(1, 1000),
        halfClose: random.oneIn(3) ? 0 : random.between(1, 1000),
      };
      const given = times({
        activeWheelMs: random.between(0, 1000),
        lifetimeEndsWheelMs: random.oneIn(3) ? Infinity : random.between(1001, 3000),
        stopAtWheelMs: random.oneIn(3) ? Infinity : random.between(1001, 3000),
        halfClosed: random.oneIn(2),
      });
      const at = nextDueWheelMs(given, limits);
      if (at === Infinity) {
        expect(dueEnd(given, limits, 1e12)).toBeNull();
        return;
      }
      expect(dueEnd(given, limits, at - 1)).toBeNull();
      expect(dueEnd(given, limits, at)).not.toBeNull();
    });
  });
});
