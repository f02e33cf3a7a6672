import { describe, expect, test } from "vitest";
import { budget, kept, shares, tooFewFiles } from "../../src/supervisor/budget.ts";

const LIMITS = [80, 256, 1024, 4096, 65_536, 1_048_576];

describe("the descriptor budget", () => {
  test("never allots more than the limit", () => {
    for (const limit of LIMITS) {
      for (const workers of [1, 2, 8, 64]) {
        for (const sockets of [1, 4, 100]) {
          const needs = { workers, sockets };
          if (tooFewFiles(needs, limit) !== null) continue;
          const { max } = budget("auto", needs, limit);
          expect(max).toBeGreaterThanOrEqual(1);
          expect(2 * max + kept(needs, limit)).toBeLessThanOrEqual(limit);
        }
      }
    }
  });

  test("keeps 124 of 1,024 descriptors for the process, five for each worker, and two for each address of a worker", () => {
    expect(kept({ workers: 0, sockets: 0 }, 1024)).toBe(124);
    expect(kept({ workers: 1, sockets: 0 }, 1024)).toBe(124 + 5);
    expect(kept({ workers: 3, sockets: 4 }, 1024)).toBe(124 + 3 * (5 + 2 * 4));
  });

  test("has a share for each purpose, which does not shrink when the limit grows", () => {
    LIMITS.reduce((lower, limit) => {
      const [before, now] = [shares(lower), shares(limit)];
      for (const purpose of Object.keys(now) as (keyof typeof now)[]) {
        expect(now[purpose]).toBeGreaterThanOrEqual(before[purpose]);
        expect(before[purpose]).toBeGreaterThan(0);
      }
      return limit;
    });
  });

  test("leaves at least four fifths of a usual limit for connections", () => {
    for (const limit of LIMITS.filter((each) => each >= 1024)) {
      expect(2 * budget("auto", { workers: 2, sockets: 2 }, limit).max).toBeGreaterThan(0.8 * limit);
    }
  });

  test("names the limit that a config needs if it cannot run, and how to set it", () => {
    const needs = { workers: 64, sockets: 1 };
    const reason = tooFewFiles(needs, 256)!;
    expect(reason).toMatch(
      /^workers = 64 with 1 listening address needs an open-files limit of at least \d+, and it is 256: /,
    );
    expect(reason).toContain("ulimit -n");
    const least = Number(/at least (\d+)/.exec(reason)![1]);
    expect(tooFewFiles(needs, least)).toBeNull();
    expect(tooFewFiles(needs, least - 1)).not.toBeNull();
  });

  test("says which limit max_connections would need", () => {
    const { max, warning } = budget(1000, { workers: 2, sockets: 1 }, 1024);
    expect(max).toBeLessThan(500);
    const needed = Number(/limit of (\d+)/.exec(warning!)![1]);
    expect(budget(1000, { workers: 2, sockets: 1 }, needed).warning).toBeNull();
    expect(budget(1000, { workers: 2, sockets: 1 }, needed - 1).warning).not.toBeNull();
  });
});
