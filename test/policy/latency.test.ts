import { describe, expect, test } from "vitest";
import { Latency, LATENCY_DECAY_MS } from "../../src/policy/latency.ts";

/** The average after these samples, each [milliseconds, at]. */
function after(...samples: [ms: number, atMs: number][]): Latency {
  const latency = new Latency();
  for (const [ms, atMs] of samples) latency.add(ms, atMs);
  return latency;
}

describe("the latency of a backend", () => {
  test("is 0 without a sample", () => {
    expect(new Latency().at(1e6)).toBe(0);
  });

  test("is the first sample at first, and decays to 1/e in the decay time", () => {
    const latency = after([100, 5000]);
    expect(latency.at(5000)).toBe(100);
    expect(latency.at(5000 + LATENCY_DECAY_MS)).toBeCloseTo(100 / Math.E, 9);
    expect(latency.at(5000 + 20 * LATENCY_DECAY_MS)).toBeLessThan(1e-6);
  });

  test("moves by a twentieth of the difference with a sample at the same time", () => {
    expect(after([100, 0], [200, 0]).at(0)).toBeCloseTo(105, 9);
    expect(after([100, 0], [0, 0]).at(0)).toBeCloseTo(95, 9);
  });

  test("moves more with a sample after a longer time", () => {
    const share = 1 - 1 / Math.E;
    expect(after([100, 0], [200, LATENCY_DECAY_MS]).at(LATENCY_DECAY_MS)).toBeCloseTo(100 + 100 * share, 9);
    expect(after([100, 0], [200, 30 * LATENCY_DECAY_MS]).at(30 * LATENCY_DECAY_MS)).toBeCloseTo(200, 6);
  });

  test("stays at equal samples, however close they are", () => {
    expect(after(...Array.from({ length: 1000 }, (_, i): [number, number] => [7, i])).at(999)).toBeCloseTo(7, 9);
  });
});
