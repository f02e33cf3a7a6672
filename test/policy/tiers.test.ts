import { describe, expect, test } from "vitest";
import { isUsable, tiersOf, WEIGHT_UNIT, type TierInput } from "../../src/policy/tiers.ts";
import { forSeeds } from "../support/random.ts";

const backend = (id: number, given: Partial<TierInput> = {}): TierInput => ({
  id,
  healthUp: true,
  ejected: false,
  drained: false,
  weight: 1,
  priority: 0,
  ramp: 1,
  ...given,
});

const idsOf = (backends: readonly TierInput[], panicThreshold = 0): number[][] =>
  tiersOf(backends, panicThreshold).map(({ entries }) => entries.map(({ id }) => id));

describe("tiersOf", () => {
  const pool = [
    backend(1),
    backend(2),
    backend(3, { weight: 0 }),
    backend(4, { priority: 1 }),
    backend(5, { weight: 0, priority: 1 }),
  ];
  const withUp = (up: number[]) => idsOf(pool.map((each) => ({ ...each, healthUp: up.includes(each.id) })));

  test("has the primaries that are up, in their order, and the backups behind them", () => {
    expect(withUp([5, 4, 3, 2, 1])).toEqual([[1, 2], [4]]);
    expect(withUp([2, 4])).toEqual([[2], [4]]);
    expect(withUp([2])).toEqual([[2]]);
  });

  test("has the backups first when no primary is up", () => {
    expect(withUp([4, 5])).toEqual([[4]]);
  });

  test("does not count a primary of weight 0 as up", () => {
    expect(withUp([3, 4])).toEqual([[4]]);
  });

  test("is empty when no backend is up", () => {
    expect(withUp([])).toEqual([]);
    expect(withUp([5, 99])).toEqual([]);
  });

  test("leaves out the ejected and the drained", () => {
    expect(idsOf([backend(1, { ejected: true }), backend(2, { drained: true }), backend(3)])).toEqual([[3]]);
    expect(idsOf([backend(1, { ejected: true }), backend(2, { priority: 1 })])).toEqual([[2]]);
  });

  test("has as many tiers as there are priorities, the lowest first", () => {
    expect(idsOf([backend(1, { priority: 7 }), backend(2, { priority: 0 }), backend(3, { priority: 2 })])).toEqual([
      [2],
      [3],
      [1],
    ]);
  });

  test("counts weights in thousandths, so that a weight of 1 is ramped too", () => {
    const weights = (given: Partial<TierInput>) => tiersOf([backend(1, given)], 0)[0]!.entries[0]!.effectiveWeight;
    expect(weights({ weight: 3 })).toBe(3000);
    expect(weights({ ramp: 0.1 })).toBe(100);
    expect(weights({ ramp: 0.155 })).toBe(155);
    expect(weights({ weight: 0.01, ramp: 0.01 })).toBe(1);
  });
});

describe("a panic", () => {
  const four = (up: number, given: Partial<TierInput> = {}) =>
    [1, 2, 3, 4].map((id) => backend(id, { healthUp: id <= up, ...given }));

  test("begins below the threshold, not at it", () => {
    expect(idsOf(four(2), 50)).toEqual([[1, 2]]);
    expect(idsOf(four(1), 50)).toEqual([[1, 2, 3, 4]]);
    expect(tiersOf(four(1), 50)[0]!.panic).toBe(true);
    expect(tiersOf(four(2), 50)[0]!.panic).toBe(false);
    expect(idsOf(four(3), 100)).toEqual([[1, 2, 3, 4]]);
    expect(tiersOf(four(4), 100)[0]!.panic).toBe(false);
  });

  test("never begins with a threshold of 0", () => {
    expect(idsOf(four(1), 0)).toEqual([[1]]);
    expect(idsOf(four(0), 0)).toEqual([]);
  });

  test("ignores ejection as it ignores health, and neither weight 0 nor a drain", () => {
    const pool = [
      ...[1, 2].map((id) => backend(id, { ejected: true })),
      backend(3, { healthUp: false }),
      backend(4, { weight: 0 }),
      backend(5, { drained: true }),
    ];
    expect(idsOf(pool, 1)).toEqual([[1, 2, 3]]);
  });

  test("does not begin because backends are drained or have weight 0: these do not count", () => {
    const pool = [backend(1), backend(2, { drained: true }), backend(3, { weight: 0 }), backend(4, { drained: true })];
    expect(idsOf(pool, 50)).toEqual([[1]]);
    expect(tiersOf(pool, 50)[0]!.panic).toBe(false);
  });

  test("concerns one tier: the backups are counted separately", () => {
    expect(idsOf([...four(1), backend(5, { priority: 1 })], 50)).toEqual([[1, 2, 3, 4], [5]]);
  });

  test("does not keep connections from a healthy backup when no primary is left", () => {
    expect(idsOf([...four(0), backend(5, { priority: 1 })], 50)).toEqual([[5]]);
  });

  test("uses all backends if none is usable in any tier, the primaries first", () => {
    expect(idsOf([...four(0), backend(5, { priority: 1, healthUp: false })], 50)).toEqual([[1, 2, 3, 4], [5]]);
  });
});

test("every random pool follows these rules", () => {
  forSeeds(2000, (random) => {
    const pool = Array.from({ length: random.below(8) }, (_, id) =>
      backend(id, {
        healthUp: !random.oneIn(3),
        ejected: random.oneIn(5),
        drained: random.oneIn(5),
        weight: random.below(4),
        priority: random.below(3),
        ramp: (1 + random.below(10)) / 10,
      }),
    );
    const threshold = random.below(101);
    const byId = new Map(pool.map((each) => [each.id, each]));
    const tiers = tiersOf(pool, threshold);
    // Every usable backend is in the tier of its priority.
    for (const each of pool.filter(isUsable))
      expect(tiers.find(({ priority }) => priority === each.priority)?.entries.map(({ id }) => id)).toContain(each.id);
    expect(tiers.map(({ priority }) => priority)).toEqual(
      tiers.map(({ priority }) => priority).toSorted((a, b) => a - b),
    );
    for (const { priority, entries, panic } of tiers) {
      expect(entries.length).toBeGreaterThan(0);
      for (const { id, effectiveWeight } of entries) {
        const { weight, ramp, drained, priority: own } = byId.get(id)!;
        expect([drained, own]).toEqual([false, priority]);
        expect(weight).toBeGreaterThan(0);
        expect(effectiveWeight).toBe(Math.round(weight * ramp * WEIGHT_UNIT));
        if (!panic) expect(isUsable(byId.get(id)!)).toBe(true);
      }
      if (!panic) continue;
      expect(threshold).toBeGreaterThan(0);
      const usable = entries.filter(({ id }) => isUsable(byId.get(id)!)).length;
      expect(usable / entries.length).toBeLessThan(threshold / 100);
    }
    // No connection is refused while a backend is usable, or could be in panic mode.
    const offered = pool.some(({ weight, drained }) => weight > 0 && !drained);
    if (offered && threshold > 0) expect(tiers.length).toBeGreaterThan(0);
  });
});
