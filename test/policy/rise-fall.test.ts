import { describe, expect, test } from "vitest";
import { record, startRiseFall, type CheckResult } from "../../src/policy/rise-fall.ts";

const RESULTS: Record<string, CheckResult> = { "+": "success", "-": "failure", "?": "unknown" };

/** The transitions of a row of results: "+", "-" and "?" for the checks, ".", "U" and "D" for what they lead to. */
function run(rise: number, fall: number, results: string): string {
  const state = startRiseFall(rise, fall);
  return [...results]
    .map((result) => ({ up: "U", down: "D", none: "." })[record(state, RESULTS[result]!) ?? "none"])
    .join("");
}

describe("rise and fall", () => {
  test("starts up", () => {
    expect(startRiseFall(2, 3).up).toBe(true);
    expect(run(2, 3, "+++")).toBe("...");
  });

  test("goes down at the fall-th failure in a row, the first checks included", () => {
    expect(run(2, 3, "---")).toBe("..D");
    expect(run(2, 3, "++---")).toBe("....D");
  });

  test("forgets failures at a success", () => {
    expect(run(2, 3, "--+--+--+---")).toBe("...........D");
  });

  test("comes up at the rise-th success in a row, and forgets successes at a failure", () => {
    expect(run(2, 1, "-++")).toBe("D.U");
    expect(run(3, 1, "-++-++-+++")).toBe("D........U");
  });

  test("tells each change once", () => {
    expect(run(1, 1, "--++--++")).toBe("D.U.D.U.");
  });

  test("learns nothing from an unknown result: a streak neither grows nor ends by it", () => {
    expect(run(2, 3, "??????")).toBe("......");
    expect(run(2, 3, "-?-?-")).toBe("....D");
    expect(run(2, 2, "--+?+")).toBe(".D..U");
  });

  test("needs the whole number again after each change", () => {
    expect(run(2, 2, "--++--++")).toBe(".D.U.D.U");
  });
});
