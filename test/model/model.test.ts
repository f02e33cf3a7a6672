// Claims, queues, health, drains, reloads and the death of workers together, in random order, compared with a reference that only counts.
// FUZZ_SEED=n repeats one sequence; a failure names its seed and its last steps.
import { describe, expect, test } from "vitest";
import { forSeedsAsync, Random } from "../support/random.ts";
import { Model } from "./model.ts";
import type { Fault } from "./worker.ts";

const STEPS = 400;

describe("whatever happens in whatever order", () => {
  test("after every step the counts are right, only allowed backends are picked, and no connection waits beside a free place; at rest all counts are zero", async () => {
    await forSeedsAsync(25, (random) => new Model(random).run(STEPS));
  });
});

describe("the model finds", () => {
  // Each fault is put into the worker's side of the model (test/model/worker.ts).
  test.each<[Fault, RegExp]>([
    ["retry keeps its first place", /connections of backend/],
    ["claim is not noted", /connections of backend/],
    ["waiter goes without leaving", /connections in the queue/],
    ["state is lost", /which it must not/],
  ])("a fault that is seeded: %s", async (fault, message) => {
    const runs = Array.from({ length: 10 }, (_, seed) => new Model(new Random(seed + 1), fault).run(STEPS));
    const outcomes = await Promise.allSettled(runs);
    const found = outcomes.flatMap((outcome) => (outcome.status === "rejected" ? String(outcome.reason) : []));
    expect(found.length).toBeGreaterThan(0);
    expect(found[0]).toMatch(message);
    expect(found[0]).toContain("last steps:");
  });
});
