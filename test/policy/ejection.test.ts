import { describe, expect, test } from "vitest";
import {
  eject,
  EJECT_MS_MAX,
  ejectedMax,
  endEjection,
  neverEjected,
  noteFailures,
  type EjectionRules,
} from "../../src/policy/ejection.ts";
import { forSeeds } from "../support/random.ts";

const RULES: EjectionRules = { failures: 3, windowMs: 1000, ejectForMs: 10_000 };
const connect = (count: number) => ({ connect: count, earlyReset: 0 });

describe("failures", () => {
  test("eject when there are enough within the window, from any worker", () => {
    const ejection = neverEjected();
    expect(noteFailures(ejection, connect(1), RULES, 0)).toBe(false);
    expect(noteFailures(ejection, { connect: 0, earlyReset: 1 }, RULES, 500)).toBe(false);
    expect(noteFailures(ejection, connect(1), RULES, 999)).toBe(true);
    expect(noteFailures(neverEjected(), connect(3), RULES, 0)).toBe(true);
  });

  test("that are older than the window do not count", () => {
    const ejection = neverEjected();
    noteFailures(ejection, connect(2), RULES, 0);
    expect(noteFailures(ejection, connect(1), RULES, 1000)).toBe(false);
    expect(noteFailures(ejection, connect(2), RULES, 1999)).toBe(true);
  });

  test("are counted exactly, and no more are kept than can matter", () => {
    forSeeds(300, (random) => {
      const rules = { failures: random.between(1, 6), windowMs: random.between(1, 50), ejectForMs: 1 };
      const ejection = neverEjected();
      const all: { atMs: number; count: number }[] = [];
      let nowMs = 0;
      for (let i = 0; i < 100; i++) {
        nowMs += random.below(20);
        const count = random.between(1, 3);
        all.push({ atMs: nowMs, count });
        const within = all.filter(({ atMs }) => atMs > nowMs - rules.windowMs).reduce((sum, one) => sum + one.count, 0);
        expect(noteFailures(ejection, connect(count), rules, nowMs)).toBe(within >= rules.failures);
        expect(ejection.recent.length).toBeLessThanOrEqual(rules.failures);
      }
    });
  });
});

describe("an ejection", () => {
  /** Ejects at `nowMs` for the whole duration; returns its end. */
  const serve = (ejection: ReturnType<typeof neverEjected>, nowMs: number): number => {
    noteFailures(ejection, connect(3), RULES, nowMs);
    eject(ejection, RULES, nowMs);
    const untilMs = ejection.untilMs!;
    endEjection(ejection, untilMs);
    return untilMs;
  };

  test("lasts twice as long as the one before in a row, up to five minutes", () => {
    const ejection = neverEjected();
    const lasted: number[] = [];
    let nowMs = 0;
    for (let i = 0; i < 8; i++) {
      nowMs = serve(ejection, nowMs + 10);
      lasted.push(ejection.lastMs);
    }
    expect(lasted).toEqual([10, 20, 40, 80, 160, 300, 300, 300].map((s) => s * 1000));
    expect(ejection.lastMs).toBe(EJECT_MS_MAX);
    expect(ejection.inARow).toBe(8);
    expect(ejection.count).toEqual({ connect: 8, earlyReset: 0 });
  });

  test("is the first again when the backend has been back for as long as it was ejected, plus the window", () => {
    const ejection = neverEjected();
    const endedMs = serve(ejection, serve(ejection, 0));
    expect(ejection.lastMs).toBe(20_000);
    const other = { ...ejection };
    serve(ejection, endedMs + 20_999);
    expect([ejection.lastMs, ejection.inARow]).toEqual([40_000, 3]);
    serve(other, endedMs + 21_000);
    expect([other.lastMs, other.inARow]).toEqual([10_000, 1]);
  });

  test("is not shortened by the limit if eject_for is longer", () => {
    const ejection = neverEjected();
    eject(ejection, { ...RULES, ejectForMs: 600_000 }, 0);
    endEjection(ejection, 600_000);
    eject(ejection, { ...RULES, ejectForMs: 600_000 }, 600_001);
    expect(ejection.lastMs).toBe(600_000);
  });

  test("forgets the failures that led to it, and knows their kind", () => {
    const ejection = neverEjected();
    noteFailures(ejection, { connect: 1, earlyReset: 2 }, RULES, 0);
    eject(ejection, RULES, 0);
    expect(ejection).toMatchObject({ reason: "earlyReset", causes: { connect: 1, earlyReset: 2 } });
    endEjection(ejection, 10_000);
    expect(noteFailures(ejection, connect(2), RULES, 10_000)).toBe(false);
  });
});

test("the part of a pool that may be ejected is rounded down, but at least one", () => {
  expect([1, 2, 3, 4, 10].map((size) => ejectedMax(size, 50))).toEqual([1, 1, 1, 2, 5]);
  expect([ejectedMax(10, 0), ejectedMax(3, 100), ejectedMax(10, 19)]).toEqual([1, 3, 1]);
});
