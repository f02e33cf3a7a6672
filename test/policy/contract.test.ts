// What every balancing algorithm owes, whatever it prefers. A new algorithm is in the registry, and so in this suite.
import { describe, expect, test } from "vitest";
import type { Candidate } from "../../src/policy/balance.ts";
import { BALANCES, createBalancer } from "../../src/policy/balance.ts";
import { forSeeds } from "../support/random.ts";

class Backend implements Candidate {
  readonly id: number;
  readonly weight: number;
  open = 0;
  cap = Infinity;
  picks = 0;
  constructor(id: number, weight = 1) {
    this.id = id;
    this.weight = weight;
  }
  openCount(): number {
    return this.open;
  }
  full(): boolean {
    return this.open >= this.cap;
  }
}

const backends = (...weights: number[]) => weights.map((weight, i) => new Backend(10 + i, weight));
const picksOf = (all: Backend[]) => all.map((backend) => backend.picks);

describe.each(BALANCES)("%s", (kind) => {
  const make = (all: readonly Backend[]) => createBalancer(kind, all, null, 0);

  /** `count` connections, one after the other: each has ended when the next one comes. */
  function serve(balancer: { pick(tried: readonly number[] | null): Backend | null }, count: number): void {
    for (let i = 0; i < count; i++) balancer.pick(null)!.picks++;
  }

  test("spreads connections evenly over equal backends", () => {
    const all = backends(1, 1, 1, 1);
    serve(make(all), 400);
    expect(picksOf(all)).toEqual([100, 100, 100, 100]);
  });

  test("spreads connections by weight", () => {
    const all = backends(5, 1, 2, 0, 8);
    serve(make(all), 1600);
    expect(picksOf(all)).toEqual([500, 100, 200, 0, 800]);
  });

  test("spreads connections that stay open by weight", () => {
    const all = backends(5, 1, 2, 0, 8);
    const balancer = make(all);
    for (let i = 0; i < 1600; i++) balancer.pick(null)!.open++;
    const shares = [500, 100, 200, 0, 800];
    all.forEach((backend, i) => expect(Math.abs(backend.open - shares[i]!)).toBeLessThanOrEqual(1));
  });

  test("never picks a backend of weight 0, and nobody if there is no other", () => {
    expect(make(backends(0, 0)).pick(null)).toBeNull();
  });

  test("picks nobody from nobody", () => {
    const balancer = make([]);
    expect(balancer.pick(null)).toBeNull();
    expect(balancer.pick([1])).toBeNull();
  });

  test("picks the only one each time", () => {
    const all = backends(3);
    const balancer = make(all);
    serve(balancer, 5);
    expect(picksOf(all)).toEqual([5]);
    expect(balancer.pick([10])).toBeNull();
  });

  test.each([[[1, 1, 1]], [[3, 2, 1]]])("never picks what was tried (weights %j)", (weights) => {
    const balancer = make(backends(...weights));
    for (let i = 0; i < 50; i++) {
      const tried: number[] = [];
      for (let attempt = 0; attempt < 3; attempt++) {
        const picked = balancer.pick(tried)!;
        expect(tried).not.toContain(picked.id);
        tried.push(picked.id);
      }
      expect(balancer.pick(tried)).toBeNull();
    }
  });

  test.each([[[1, 1, 1]], [[3, 2, 1]]])("never picks what is full (weights %j)", (weights) => {
    const all = backends(...weights);
    all[0]!.cap = 0;
    all[2]!.cap = 4;
    const balancer = make(all);
    for (let i = 0; i < 60; i++) {
      const picked = balancer.pick(null)!;
      expect(picked.full()).toBe(false);
      picked.open++;
    }
    expect(all.map((backend) => backend.open)).toEqual([0, 56, 4]);
    all[1]!.cap = 0;
    expect(balancer.pick(null)).toBeNull();
  });

  test.each([[[1, 1, 1, 1]], [[4, 4, 2, 2]]])(
    "does not give a full one's turns to one neighbour (weights %j)",
    (weights) => {
      const all = backends(...weights);
      all[1]!.cap = 0;
      serve(make(all), 300);
      const sum = weights[0]! + weights[2]! + weights[3]!;
      const shares = weights.map((weight, i) => (i === 1 ? 0 : (300 * weight) / sum));
      all.forEach((backend, i) => expect(Math.abs(backend.picks - shares[i]!)).toBeLessThanOrEqual(1));
    },
  );

  test.each([[[1, 1, 1, 1]], [[4, 4, 2, 2]]])(
    "starves nobody while one backend refuses every connect (weights %j)",
    (weights) => {
      const all = backends(...weights);
      const balancer = make(all);
      for (let i = 0; i < 900; i++) {
        let picked = balancer.pick(null)!;
        if (picked === all[0]) picked = balancer.pick([picked.id])!;
        picked.picks++;
      }
      const sum = weights[1]! + weights[2]! + weights[3]!;
      for (const backend of all.slice(1)) {
        const share = (900 * backend.weight) / sum;
        expect(backend.picks).toBeGreaterThan(share * 0.85);
        expect(backend.picks).toBeLessThan(share * 1.15);
      }
      expect(all[0]!.picks).toBe(0);
    },
  );

  test("goes on fairly when a backend goes away and comes back, again and again", () => {
    for (const weights of [
      [1, 1, 1, 1],
      [5, 1, 1, 3],
    ]) {
      const all = backends(...weights);
      let balancer = make(all);
      // Short stints, so that a balancer that began anew each time would favour the first.
      for (let round = 0; round < 600; round++) {
        balancer = createBalancer(kind, round % 2 ? all : all.slice(0, 3), balancer, 0);
        serve(balancer, 3);
      }
      const lasting = weights[0]! + weights[1]! + weights[2]!;
      for (const [i, backend] of all.slice(0, 3).entries()) {
        const share = 900 * (weights[i]! / lasting + weights[i]! / (lasting + weights[3]!));
        expect(backend.picks, `weight ${weights[i]} of ${weights}`).toBeGreaterThan(share * 0.8);
        expect(backend.picks, `weight ${weights[i]} of ${weights}`).toBeLessThan(share * 1.25);
      }
      expect(all[3]!.picks).toBeGreaterThan(0);
    }
  });

  test("goes on with the rotation when nothing but the balancer changes", () => {
    for (const weights of [
      [1, 1, 1],
      [7, 2, 1],
    ]) {
      const all = backends(...weights);
      let balancer = make(all);
      const sum = weights.reduce((a, b) => a + b);
      for (let i = 0; i < 10 * sum; i++) {
        balancer = createBalancer(kind, all, balancer, 0);
        serve(balancer, 1);
      }
      expect(picksOf(all)).toEqual(weights.map((weight) => 10 * weight));
    }
  });

  test("neither floods nor starves a newcomer", () => {
    const all = backends(4, 3, 2, 1);
    let balancer = make(all.slice(0, 3));
    serve(balancer, 1003);
    balancer = createBalancer(kind, all, balancer, 0);
    for (const backend of all) backend.picks = 0;
    serve(balancer, 20);
    const shares = [8, 6, 4, 2];
    all.forEach((backend, i) => expect(Math.abs(backend.picks - shares[i]!)).toBeLessThanOrEqual(2));
  });

  test("takes over from every other algorithm, and from other weights", () => {
    for (const other of BALANCES) {
      const before = backends(256, 1, 100);
      const previous = createBalancer(other, before, null, 0);
      serve(previous, 200);
      const all = backends(1, 2, 1);
      serve(createBalancer(kind, all, previous, 0), 40);
      [10, 20, 10].forEach((share, i) => expect(Math.abs(all[i]!.picks - share)).toBeLessThanOrEqual(2));
    }
  });

  test("begins elsewhere for each worker", () => {
    for (const weights of [
      [1, 1, 1, 1],
      [2, 1, 1, 1],
    ]) {
      const all = backends(...weights);
      const firsts = [0, 1, 2, 3].map((worker) => createBalancer(kind, all, null, worker).pick(null)!.id);
      expect(new Set(firsts).size).toBeGreaterThanOrEqual(weights[0] === 1 ? 4 : 3);
    }
  });

  test.each([1, 2])("serves a thousand backends (weights 1 to %i)", (weights) => {
    const all = Array.from({ length: 1000 }, (_, i) => new Backend(i, 1 + (i % weights)));
    const total = all.reduce((sum, backend) => sum + backend.weight, 0);
    serve(make(all), total * 2);
    for (const backend of all) expect(backend.picks).toBe(2 * backend.weight);
  });

  test("keeps every promise at once under random loads", () => {
    forSeeds(40, (random) => {
      const all = Array.from({ length: random.between(1, 8) }, (_, i) => new Backend(i, random.below(5)));
      for (const backend of all) if (random.oneIn(3)) backend.cap = random.below(4);
      let balancer = make(all);
      for (let step = 0; step < 300; step++) {
        if (random.oneIn(10)) {
          const healthy = all.filter(() => !random.oneIn(3));
          balancer = createBalancer(kind, healthy, balancer, 0);
        }
        const tried = all.filter(() => random.oneIn(4)).map((backend) => backend.id);
        const picked = balancer.pick(tried.length > 0 ? tried : null);
        if (picked) {
          expect(tried).not.toContain(picked.id);
          expect(picked.weight).toBeGreaterThan(0);
          expect(picked.full()).toBe(false);
          picked.open++;
        }
        const ended = random.pick(all);
        if (ended.open > 0) ended.open--;
      }
      for (const behind of balancer.arrears().values()) expect(Math.abs(behind)).toBeLessThan(8);
    });
  });
});
