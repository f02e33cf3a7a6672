import { describe, expect, test } from "vitest";
import { dueEnd, nextDueMs, type Times } from "../../src/worker/timeouts.ts";
import { forSeeds } from "../support/random.ts";

const times = (given: Partial<Times> = {}): Times => ({
  activeMs: 1000,
  lifetimeEndsMs: Infinity,
  stopAtMs: Infinity,
  halfClosed: false,
  ...given,
});
const NEVER = { idle: 0, halfClose: 0 };

describe("a relayed connection is due", () => {
  test("never, without limits", () => {
    expect(nextDueMs(times(), NEVER)).toBe(Infinity);
    expect(nextDueMs(times({ halfClosed: true }), NEVER)).toBe(Infinity);
    expect(dueEnd(times({ halfClosed: true }), NEVER, 1e15)).toBeNull();
  });

  test("when it has been idle, counted from its last byte", () => {
    expect(nextDueMs(times(), { idle: 500, halfClose: 0 })).toBe(1500);
    expect(dueEnd(times(), { idle: 500, halfClose: 0 }, 1499)).toBeNull();
    expect(dueEnd(times(), { idle: 500, halfClose: 0 }, 1500)).toBe("idle_timeout");
    expect(dueEnd(times({ activeMs: 1001 }), { idle: 500, halfClose: 0 }, 1500)).toBeNull();
  });

  test("when one side has ended and the other says nothing; before that the limit has no meaning", () => {
    const limits = { idle: 0, halfClose: 300 };
    expect(nextDueMs(times(), limits)).toBe(Infinity);
    expect(dueEnd(times(), limits, 1e9)).toBeNull();
    expect(nextDueMs(times({ halfClosed: true }), limits)).toBe(1300);
    expect(dueEnd(times({ halfClosed: true }), limits, 1299)).toBeNull();
    expect(dueEnd(times({ halfClosed: true }), limits, 1300)).toBe("half_close_timeout");
  });

  test("at the end of its life, however busy it is", () => {
    expect(nextDueMs(times({ lifetimeEndsMs: 1200 }), { idle: 500, halfClose: 0 })).toBe(1200);
    expect(dueEnd(times({ lifetimeEndsMs: 1200, activeMs: 1200 }), NEVER, 1199)).toBeNull();
    expect(dueEnd(times({ lifetimeEndsMs: 1200, activeMs: 1200 }), NEVER, 1200)).toBe("lifetime");
  });

  test("when the worker's stop ends it", () => {
    expect(nextDueMs(times({ stopAtMs: 1100 }), { idle: 500, halfClose: 0 })).toBe(1100);
    expect(dueEnd(times({ stopAtMs: 1100 }), NEVER, 1100)).toBe("shutdown");
  });

  test("for the gravest of the reasons that have come at once", () => {
    const all = times({ stopAtMs: 1500, lifetimeEndsMs: 1500, halfClosed: true });
    const limits = { idle: 500, halfClose: 500 };
    expect(dueEnd(all, limits, 1500)).toBe("shutdown");
    expect(dueEnd({ ...all, stopAtMs: Infinity }, limits, 1500)).toBe("lifetime");
    expect(dueEnd({ ...all, stopAtMs: Infinity, lifetimeEndsMs: Infinity }, limits, 1500)).toBe("half_close_timeout");
    expect(dueEnd(times(), limits, 1500)).toBe("idle_timeout");
  });

  test("at the very moment that it was to be looked at, and not before", () => {
    forSeeds(500, (random) => {
      const limits = {
        idle: random.oneIn(3) ? 0 : random.between(1, 1000),
        halfClose: random.oneIn(3) ? 0 : random.between(1, 1000),
      };
      const given = times({
        activeMs: random.between(0, 1000),
        lifetimeEndsMs: random.oneIn(3) ? Infinity : random.between(1001, 3000),
        stopAtMs: random.oneIn(3) ? Infinity : random.between(1001, 3000),
        halfClosed: random.oneIn(2),
      });
      const at = nextDueMs(given, limits);
      if (at === Infinity) {
        expect(dueEnd(given, limits, 1e12)).toBeNull();
        return;
      }
      expect(dueEnd(given, limits, at - 1)).toBeNull();
      expect(dueEnd(given, limits, at)).not.toBeNull();
    });
  });
});
