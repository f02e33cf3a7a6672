import { describe, expect, test } from "vitest";
import { isChanging, record, startRiseFall, type CheckResult } from "../../src/policy/rise-fall.ts";

const RESULTS: Record<string, CheckResult> = { "+": "success", "-": "failure", "?": "unknown" };

/** The transitions for a row of results: "+", "-" and "?" for the checks, ".", "U" and "D" for their effects. */
function run(rise: number, fall: number, results: string, up = true): string {
  const state = startRiseFall(rise, fall, up);
  return [...results]
    .map((result) => ({ up: "U", down: "D", none: "." })[record(state, RESULTS[result]!) ?? "none"])
    .join("");
}

describe("rise and fall", () => {
  test("begins with the given state", () => {
    expect(startRiseFall(2, 3, true).up).toBe(true);
    expect(startRiseFall(2, 3, false).up).toBe(false);
    expect(run(2, 3, "+++")).toBe("...");
    expect(run(2, 3, "---", false)).toBe("...");
  });

  test("lets only the first result decide by itself", () => {
    expect(run(3, 3, "-")).toBe("D");
    expect(run(3, 3, "+", false)).toBe("U");
    expect(run(3, 3, "++--")).toBe("....");
    expect(run(3, 3, "--++", false)).toBe("....");
    expect(run(3, 3, "+---", false)).toBe("U..D");
    expect(run(3, 3, "??-")).toBe("..D");
  });

  test("goes down at the fall-th failure in a row", () => {
    expect(run(2, 3, "+---")).toBe("...D");
    expect(run(2, 3, "++---")).toBe("....D");
  });

  test("forgets failures at a success", () => {
    expect(run(2, 3, "+--+--+--+---")).toBe("............D");
  });

  test("comes up at the rise-th success in a row, and forgets successes at a failure", () => {
    expect(run(2, 1, "-++")).toBe("D.U");
    expect(run(3, 1, "-++-++-+++")).toBe("D........U");
  });

  test("reports each change once", () => {
    expect(run(1, 1, "--++--++")).toBe("D.U.D.U.");
  });

  test("ignores an unknown result: a streak neither grows nor ends by it", () => {
    expect(run(2, 3, "??????")).toBe("......");
    expect(run(2, 3, "+-?-?-")).toBe(".....D");
    expect(run(2, 2, "+--+?+")).toBe("..D..U");
  });

  test("needs the full number again after each change", () => {
    expect(run(2, 2, "+--++--++")).toBe("..D.U.D.U");
  });

  test("is changing from the first contradicting result until it has changed, or a result confirms it", () => {
    const state = startRiseFall(2, 3, true);
    const after = (results: string) => [...results].map((r) => (record(state, RESULTS[r]!), isChanging(state)));
    expect(after("+-?-+")).toEqual([false, true, true, true, false]);
    expect(after("---")).toEqual([true, true, false]);
    expect(after("+-++")).toEqual([true, false, true, false]);
  });
});
