import { describe, expect, test } from "vitest";
import { Turns } from "../../src/policy/turns.ts";
import { backendsOf } from "../support/picks.ts";
import { forSeeds } from "../support/random.ts";

/** The index with the next turn, found by a look at all. */
const nextOf = ({ at }: Turns, has: (index: number) => boolean = () => true): number =>
  at.reduce((best, time, index) => (has(index) && (best < 0 || time < at[best]!) ? index : best), -1);

function take(turns: Turns, has?: (index: number) => boolean): number {
  const index = nextOf(turns, has);
  turns.take(index);
  return index;
}

/** By how many picks a candidate is at most ahead of its share or behind it. */
function lagOf(weights: readonly number[], picks: number, next: () => number): number {
  const total = weights.reduce((a, b) => a + b);
  const counts = weights.map(() => 0);
  let most = 0;
  for (let pick = 1; pick <= picks; pick++) {
    counts[next()]!++;
    weights.forEach((weight, i) => (most = Math.max(most, Math.abs((weight * pick) / total - counts[i]!))));
  }
  return most;
}

/** Smooth weighted round robin as in nginx, the reference: a look at all candidates for each pick. */
function smooth(weights: readonly number[]): () => number {
  const total = weights.reduce((a, b) => a + b);
  const credits = weights.map(() => 0);
  return () => {
    weights.forEach((weight, i) => (credits[i]! += weight));
    const best = credits.indexOf(Math.max(...credits));
    credits[best]! -= total;
    return best;
  };
}

const repeated = (count: number, weight: number) => Array.from({ length: count }, () => weight);

describe("Turns", () => {
  test.each([
    ["few", [5, 1, 1], 1],
    ["one heavy among many light ones", [256, ...repeated(64, 1)], 1.5],
    ["one as heavy as all others together, at the end", [...repeated(150, 1), ...repeated(150, 2), 450], 2],
    ["several classes", repeated(300, 0).map((_, i) => 1 + (i % 5)), 1.5],
    // Turns of different lengths drift against each other, and then many may come together.
    ["one as heavy as many that all differ", [...repeated(200, 0).map((_, i) => 1000 + i), 200_000], 10],
  ])("are spread nearly as evenly as by smooth weighted round robin: %s", (_, weights, most) => {
    const turns = new Turns(backendsOf(...weights), null);
    expect(lagOf(weights, 3000, smooth(weights))).toBeLessThanOrEqual(1);
    expect(lagOf(weights, 3000, () => take(turns))).toBeLessThan(most);
  });

  test("are spread evenly whatever the weights are, and exact after each whole round", () => {
    forSeeds(30, (random) => {
      const weights = Array.from({ length: random.between(2, 40) }, () => random.between(1, 50));
      const turns = new Turns(backendsOf(...weights), null);
      const round = weights.reduce((a, b) => a + b);
      expect(lagOf(weights, round, () => take(turns))).toBeLessThan(2.5);
      const counts = weights.map(() => 0);
      for (let i = 0; i < round; i++) counts[take(turns)]!++;
      expect(counts).toEqual(weights);
    });
  });

  test("that were missed are no claim: who comes back has at most one turn more than its share", () => {
    const weights = [4, ...repeated(40, 1)];
    const turns = new Turns(backendsOf(...weights), null);
    for (let i = 0; i < 10_000; i++) take(turns, (index) => index % 2 === 0);
    weights.forEach((_, index) => turns.skipMissed(index));
    const counts = weights.map(() => 0);
    for (let i = 0; i < 440; i++) counts[take(turns)]!++;
    weights.forEach((weight, i) => expect(Math.abs(counts[i]! - 10 * weight), `index ${i}`).toBeLessThanOrEqual(1));
  });

  test("of many that come back at once are spread, so a heavy one still has its turns in between", () => {
    const weights = [100, ...repeated(100, 1)];
    const turns = new Turns(backendsOf(...weights), null);
    for (let i = 0; i < 500; i++) take(turns, (index) => index === 0);
    weights.forEach((_, index) => turns.skipMissed(index));
    expect(lagOf(weights, 2000, () => take(turns))).toBeLessThan(3);
  });

  test("continue in a successor, also with other weights", () => {
    const all = backendsOf(1, 1, 1);
    const turns = new Turns(all, null);
    expect([take(turns), take(turns)]).toEqual([0, 1]);
    // The weights of the candidates have changed before the successor asks.
    const heavier = all.map((backend, i) => Object.assign(backend, { weight: i === 0 ? 1 : 2 }));
    const successor = new Turns(heavier, turns.waits());
    expect([take(successor), take(successor), take(successor)]).toEqual([2, 1, 0]);
  });

  test("of a new candidate begin in the middle", () => {
    const turns = new Turns(
      backendsOf(1, 1, 1),
      new Map([
        [10, 0.1],
        [12, 0.9],
      ]),
    );
    expect([take(turns), take(turns), take(turns)]).toEqual([0, 1, 2]);
  });
});
