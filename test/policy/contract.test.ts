// The contract of every balancing algorithm; then that of those that distribute connections by weight, in turn or by chance. A new
// algorithm is a line in the registry and in one of the lists below.
import { describe, expect, test } from "vitest";
import { BALANCES, type Balance } from "../../src/core/balance.ts";
import type { Balancer } from "../../src/policy/candidate.ts";
import { backendsOf, balancerOf, context, FakeBackend } from "../support/picks.ts";
import { forSeeds, Random } from "../support/random.ts";

/** Those with turns: shares are exact. */
const IN_TURN: Balance[] = ["round_robin", "least_connections"];
/** Those that draw by chance, or by a hash of random clients: shares are right on average. */
const BY_CHANCE: Balance[] = ["random_two", "least_latency", "source_hash"];
/** Those that need connections in an order of their own. */
const IN_ORDER: Balance[] = ["first"];

const clients = new Random(7);
const someone = (tried: readonly number[] | null = null) => context(tried, clients.word());
const picksOf = (all: FakeBackend[]) => all.map((backend) => backend.picks);

/** `count` connections, one after the other: each has ended when the next one comes. */
function serve(balancer: Balancer<FakeBackend>, count: number): void {
  for (let i = 0; i < count; i++) balancer.pick(someone())!.picks++;
}

test("every algorithm is in one of the lists", () => {
  expect([...IN_TURN, ...BY_CHANCE, ...IN_ORDER].toSorted()).toEqual([...BALANCES].toSorted());
});

describe.each(BALANCES)("%s, as every algorithm,", (kind) => {
  const make = (all: readonly FakeBackend[]) => balancerOf(kind, all);

  test("never picks a backend of weight 0, and none if there is no other", () => {
    expect(make(backendsOf(0, 0)).pick(someone())).toBeNull();
    const all = backendsOf(0, 1, 0);
    serve(make(all), 50);
    expect(picksOf(all)).toEqual([0, 50, 0]);
  });

  test("picks none of an empty list", () => {
    const balancer = make([]);
    expect(balancer.pick(someone())).toBeNull();
    expect(balancer.pick(someone([1]))).toBeNull();
  });

  test("picks the only one each time", () => {
    const all = backendsOf(3);
    const balancer = make(all);
    serve(balancer, 5);
    expect(picksOf(all)).toEqual([5]);
    expect(balancer.pick(someone([10]))).toBeNull();
  });

  test.each([[[1, 1, 1]], [[3, 2, 1]]])("never picks a tried backend (weights %j)", (weights) => {
    const balancer = make(backendsOf(...weights));
    for (let i = 0; i < 50; i++) {
      const tried: number[] = [];
      for (let attempt = 0; attempt < 3; attempt++) {
        const picked = balancer.pick(someone(tried))!;
        expect(tried).not.toContain(picked.id);
        tried.push(picked.id);
      }
      expect(balancer.pick(someone(tried))).toBeNull();
    }
  });

  test.each([[[1, 1, 1]], [[3, 2, 1]], [[1, 256, 1]]])("never picks a full backend (weights %j)", (weights) => {
    const all = backendsOf(...weights);
    all[0]!.cap = 0;
    all[1]!.cap = 40;
    all[2]!.cap = 20;
    const balancer = make(all);
    for (let i = 0; i < 60; i++) {
      const picked = balancer.pick(someone())!;
      expect(picked.full()).toBe(false);
      picked.open++;
    }
    expect(all.map((backend) => backend.open)).toEqual([0, 40, 20]);
    expect(balancer.pick(someone())).toBeNull();
  });

  test.each([1, 2])("finds the one of a thousand that is not full (weights 1 to %i)", (weights) => {
    const all = Array.from({ length: 1000 }, (_, i) => new FakeBackend(i, 1 + (i % weights)));
    for (const backend of all) backend.cap = 0;
    all[617]!.cap = 1;
    expect(make(all).pick(someone())).toBe(all[617]);
  });

  test("can replace every other algorithm", () => {
    for (const other of BALANCES) {
      const previous = balancerOf(other, backendsOf(256, 1, 100));
      serve(previous, 200);
      const all = backendsOf(1, 2, 1);
      serve(balancerOf(kind, all, { previous }), 40);
      expect(picksOf(all).reduce((sum, picks) => sum + picks)).toBe(40);
    }
  });

  test("keeps every promise at once under random loads", () => {
    forSeeds(40, (random) => {
      const all = Array.from({ length: random.between(1, 8) }, (_, i) => new FakeBackend(i, random.below(5)));
      for (const backend of all) if (random.oneIn(3)) backend.cap = random.below(4);
      let healthy = all;
      let balancer = balancerOf(kind, all, { random });
      for (let step = 0; step < 300; step++) {
        if (random.oneIn(10)) {
          healthy = all.filter(() => !random.oneIn(3));
          balancer = balancerOf(kind, healthy, { all, previous: balancer, random });
        }
        for (const backend of all) backend.latency = random.below(20);
        const tried = all.filter(() => random.oneIn(4)).map((backend) => backend.id);
        const picked = balancer.pick(context(tried.length > 0 ? tried : null, random.word()));
        const free = healthy.filter((backend) => backend.weight > 0 && !tried.includes(backend.id) && !backend.full());
        if (picked === null) {
          expect(free).toEqual([]);
        } else {
          expect(free).toContain(picked);
          picked.open++;
        }
        const ended = random.pick(all);
        if (ended.open > 0) ended.open--;
      }
      for (const wait of balancer.waits().values()) expect(wait >= 0 && wait <= 1 + 1e-9, `${wait}`).toBe(true);
    });
  });
});

describe.each(IN_TURN)("%s, in turn,", (kind) => {
  const make = (all: readonly FakeBackend[]) => balancerOf(kind, all);

  test("spreads connections evenly over equal backends", () => {
    const all = backendsOf(1, 1, 1, 1);
    serve(make(all), 400);
    expect(picksOf(all)).toEqual([100, 100, 100, 100]);
  });

  test("spreads connections by weight", () => {
    const all = backendsOf(5, 1, 2, 0, 8);
    serve(make(all), 1600);
    expect(picksOf(all)).toEqual([500, 100, 200, 0, 800]);
  });

  test("spreads connections that stay open by weight", () => {
    const all = backendsOf(5, 1, 2, 0, 8);
    const balancer = make(all);
    for (let i = 0; i < 1600; i++) balancer.pick(someone())!.open++;
    const shares = [500, 100, 200, 0, 800];
    all.forEach((backend, i) => expect(Math.abs(backend.open - shares[i]!)).toBeLessThanOrEqual(1));
  });

  test.each([[[1, 1, 1]], [[3, 2, 1]]])("gives everything to the rest when others are full (weights %j)", (weights) => {
    const all = backendsOf(...weights);
    all[0]!.cap = 0;
    all[2]!.cap = 4;
    const balancer = make(all);
    for (let i = 0; i < 60; i++) balancer.pick(someone())!.open++;
    expect(all.map((backend) => backend.open)).toEqual([0, 56, 4]);
    all[1]!.cap = 0;
    expect(balancer.pick(someone())).toBeNull();
  });

  test.each([[[1, 1, 1, 1]], [[4, 4, 2, 2]]])(
    "does not give a full backend's turns to one neighbour (weights %j)",
    (weights) => {
      const all = backendsOf(...weights);
      all[1]!.cap = 0;
      serve(make(all), 300);
      const sum = weights[0]! + weights[2]! + weights[3]!;
      const shares = weights.map((weight, i) => (i === 1 ? 0 : (300 * weight) / sum));
      all.forEach((backend, i) => expect(Math.abs(backend.picks - shares[i]!)).toBeLessThanOrEqual(1));
    },
  );

  test.each([[[1, 1, 1, 1]], [[4, 4, 2, 2]]])(
    "starves no backend while another refuses every connect (weights %j)",
    (weights) => {
      const all = backendsOf(...weights);
      const balancer = make(all);
      for (let i = 0; i < 900; i++) {
        let picked = balancer.pick(someone())!;
        if (picked === all[0]) picked = balancer.pick(someone([picked.id]))!;
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

  test("stays fair when a backend is removed and added repeatedly", () => {
    for (const weights of [
      [1, 1, 1, 1],
      [5, 1, 1, 3],
    ]) {
      const all = backendsOf(...weights);
      let balancer = make(all);
      // Short lives, so that a balancer that started again each time would favour the first.
      for (let round = 0; round < 600; round++) {
        balancer = balancerOf(kind, round % 2 ? all : all.slice(0, 3), { previous: balancer });
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

  test("continues the rotation when only the balancer is replaced", () => {
    for (const weights of [
      [1, 1, 1],
      [7, 2, 1],
    ]) {
      const all = backendsOf(...weights);
      let balancer = make(all);
      const sum = weights.reduce((a, b) => a + b);
      for (let i = 0; i < 10 * sum; i++) {
        balancer = balancerOf(kind, all, { previous: balancer });
        serve(balancer, 1);
      }
      expect(picksOf(all)).toEqual(weights.map((weight) => 10 * weight));
    }
  });

  test("neither floods nor starves a new backend", () => {
    const all = backendsOf(4, 3, 2, 1);
    let balancer = make(all.slice(0, 3));
    serve(balancer, 1003);
    balancer = balancerOf(kind, all, { previous: balancer });
    for (const backend of all) backend.picks = 0;
    serve(balancer, 20);
    const shares = [8, 6, 4, 2];
    all.forEach((backend, i) => expect(Math.abs(backend.picks - shares[i]!)).toBeLessThanOrEqual(2));
  });

  test("replaces every other algorithm, and other weights, fairly", () => {
    for (const other of BALANCES) {
      const previous = balancerOf(other, backendsOf(256, 1, 100));
      serve(previous, 200);
      const all = backendsOf(1, 2, 1);
      serve(balancerOf(kind, all, { previous }), 40);
      [10, 20, 10].forEach((share, i) => expect(Math.abs(all[i]!.picks - share)).toBeLessThanOrEqual(2));
    }
  });

  test("starts at another backend in each worker", () => {
    for (const weights of [
      [1, 1, 1, 1],
      [2, 1, 1, 1],
    ]) {
      const all = backendsOf(...weights);
      const firsts = [0, 1, 2, 3].map((worker) => balancerOf(kind, all, { startAt: worker }).pick(someone())!.id);
      expect(new Set(firsts).size).toBeGreaterThanOrEqual(weights[0] === 1 ? 4 : 3);
    }
  });

  test.each([1, 2])("serves a thousand backends (weights 1 to %i)", (weights) => {
    const all = Array.from({ length: 1000 }, (_, i) => new FakeBackend(i, 1 + (i % weights)));
    const total = all.reduce((sum, backend) => sum + backend.weight, 0);
    serve(make(all), total * 2);
    for (const backend of all) expect(backend.picks).toBe(2 * backend.weight);
  });
});

describe.each(BY_CHANCE)("%s, by chance,", (kind) => {
  const COUNT = 20_000;

  // Six standard deviations of a binomial count; with these seeds the numbers never change.
  const near = (picks: number, share: number) =>
    expect(Math.abs(picks - COUNT * share)).toBeLessThanOrEqual(
      6 * Math.sqrt(COUNT * share * (1 - share)) + 0.01 * COUNT * share,
    );

  test("spreads connections by weight on average", () => {
    const all = backendsOf(5, 1, 2, 0, 8);
    serve(balancerOf(kind, all), COUNT);
    [5, 1, 2, 0, 8].forEach((weight, i) => near(all[i]!.picks, weight / 16));
  });

  test("spreads the share of a full backend over the others", () => {
    const all = backendsOf(1, 1, 1, 1, 1);
    all[3]!.cap = 0;
    serve(balancerOf(kind, all), COUNT);
    [1, 1, 1, 0, 1].forEach((weight, i) => near(all[i]!.picks, weight / 4));
  });
});
