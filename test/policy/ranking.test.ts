// The order that round_robin, least_connections and first keep, compared with a look at every candidate.
import { describe, expect, test } from "vitest";
import type { Balance } from "../../src/core/balance.ts";
import type { Balancer } from "../../src/policy/candidate.ts";
import { REREAD, REREAD_ALL_MAX } from "../../src/policy/ranking.ts";
import { balancerOf, context, FakeBackend } from "../support/picks.ts";
import { forSeeds, Random } from "../support/random.ts";

const free = (backend: FakeBackend, tried: readonly number[]) => !backend.full() && !tried.includes(backend.id);
const load = ({ open, weight }: FakeBackend) => open / weight;
const many = (count: number, weights = 1) =>
  Array.from({ length: count }, (_, i) => new FakeBackend(i, 1 + (i % weights)));

/** One worker's connections: it picks, and reports the places that it releases. */
class Connections {
  readonly #random: Random;
  readonly #balancer: Balancer<FakeBackend>;
  readonly #open: FakeBackend[] = [];

  constructor(random: Random, balancer: Balancer<FakeBackend>) {
    this.#random = random;
    this.#balancer = balancer;
  }

  begin(tried: readonly number[] | null = null): FakeBackend | null {
    const picked = this.#balancer.pick(context(tried));
    if (picked !== null) {
      picked.open++;
      this.#open.push(picked);
    }
    return picked;
  }

  endOne(): void {
    const at = this.#random.below(this.#open.length);
    const [ended] = this.#open.splice(at, 1);
    if (ended === undefined) return;
    ended.open--;
    this.#balancer.released(ended);
  }
}

describe.each<[Balance, (a: FakeBackend, b: FakeBackend) => number]>([
  ["least_connections", (a, b) => load(a) - load(b)],
  ["first", (a, b) => a.id - b.id],
])("%s over many backends", (balance, order) => {
  test("picks the same as a look at every candidate, if only one worker changes counts", () => {
    forSeeds(15, (random) => {
      const all = many(random.between(REREAD_ALL_MAX + 1, 300), random.between(1, 4));
      for (const backend of all) if (random.oneIn(2)) backend.cap = random.below(5);
      const connections = new Connections(random, balancerOf(balance, all, { random }));
      for (let step = 0; step < 1500; step++) {
        if (random.oneIn(3)) {
          connections.endOne();
          continue;
        }
        const tried = random.oneIn(4) ? [random.below(all.length), random.below(all.length)] : [];
        const best = all.filter((backend) => free(backend, tried)).toSorted(order)[0];
        const before = all.map(load);
        const picked = connections.begin(tried.length > 0 ? tried : null);
        if (best === undefined || picked === null) {
          expect(picked).toBe(best ?? null);
        } else if (balance === "first") {
          expect(picked.id).toBe(best.id);
        } else {
          expect(before[picked.id]).toBe(before[best.id]);
          expect(tried).not.toContain(picked.id);
        }
      }
    });
  });
});

describe("least_connections over several workers", () => {
  /** The largest difference between the loads of two backends after `count` changes, with a balancer per worker. */
  function spreadOf(balancers: readonly Balancer<FakeBackend>[], all: readonly FakeBackend[], random: Random): number {
    const workers = balancers.map((balancer) => new Connections(random, balancer));
    for (let i = 0; i < 10 * all.length; i++) random.pick(workers).begin();
    let most = 0;
    for (let i = 0; i < 20_000; i++) {
      random.pick(workers).endOne();
      random.pick(workers).begin();
      if (i % 1000 === 0) {
        const loads = all.map(load);
        most = Math.max(most, Math.max(...loads) - Math.min(...loads));
      }
    }
    return most;
  }

  test("sees the changes of other workers exactly with few backends", () => {
    const all = many(REREAD_ALL_MAX);
    const balancer = balancerOf("least_connections", all);
    const random = new Random(3);
    for (let i = 0; i < 3000; i++) {
      // Others open and end connections without notice.
      for (let change = 0; change < 20; change++) random.pick(all).open = random.below(9);
      const least = Math.min(...all.map(load));
      expect(load(balancer.pick(context())!)).toBe(least);
    }
  });

  test("keeps the loads of a thousand backends nearly as close as one worker would", () => {
    const withWorkers = (count: number) => {
      const all = many(1000);
      const random = new Random(5);
      return spreadOf(
        Array.from({ length: count }, (_, startAt) => balancerOf("least_connections", all, { startAt })),
        all,
        random,
      );
    };
    const alone = withWorkers(1);
    const spreads = [2, 4, 16].map(withWorkers);
    for (const spread of spreads) expect(spread).toBeLessThanOrEqual(alone + 3);
  });

  test("never takes one for free that another worker has filled", () => {
    const all = many(300, 2);
    for (const backend of all) backend.cap = 2;
    const random = new Random(9);
    const workers = [0, 1, 2].map((startAt) => balancerOf("least_connections", all, { startAt }));
    let places = all.length * 2;
    for (let i = 0; i < 5000; i++) {
      const picked = random.pick(workers).pick(context());
      expect(picked === null).toBe(places === 0);
      if (picked !== null) {
        expect(picked.full()).toBe(false);
        picked.open++;
        places--;
      }
      const ended = random.pick(all);
      if (ended.open > 0 && random.oneIn(2)) {
        ended.open--;
        places++;
      }
    }
  });
});

describe.each<Balance>(["round_robin", "least_connections", "first"])("%s with a thousand backends", (balance) => {
  test("ignores the release of a backend that only its predecessor had", () => {
    const all = many(1000);
    const former = balancerOf(balance, all).pick(context())!;
    const slot = former.slot;
    const others = all.filter((backend) => backend !== former);
    for (const backend of others) backend.cap = 0;
    const balancer = balancerOf(balance, others);
    expect(balancer.pick(context())).toBeNull();
    // The backend that has the former one's slot is free again, which the balancer has not been told.
    former.slot = slot;
    balancer.released(former);
    others[slot]!.cap = 1;
    expect(balancer.pick(context())).toBe(others[slot]);
    // The predecessor had more backends, and this one was the last of them.
    former.slot = others.length;
    expect(() => balancer.released(former)).not.toThrow();
  });

  test.each([0, 900])("reads a few of them for a pick, also while the first %i are full", (full) => {
    const all = many(1000, 5);
    for (const backend of all.slice(0, full)) backend.cap = 0;
    const connections = new Connections(new Random(1), balancerOf(balance, all));
    // The first pick finds out which are full.
    connections.begin();
    for (const backend of all) backend.checks = backend.reads = 0;
    const picks = 2000;
    for (let i = 0; i < picks; i++) {
      connections.begin();
      if (i % 2 === 0) connections.endOne();
    }
    const looks = all.reduce((sum, { checks, reads }) => sum + checks + reads, 0);
    expect(looks / picks).toBeLessThan(2 * REREAD + 8);
  });

  test("finds the place that another worker has given back while all others are full", () => {
    const all = many(1000);
    for (const backend of all) backend.cap = 0;
    const balancer = balancerOf(balance, all);
    expect(balancer.pick(context())).toBeNull();
    for (const id of [999, 0, 500]) {
      all[id]!.cap = 1;
      expect(balancer.pick(context())?.id).toBe(id);
      expect(balancer.pick(context([id]))).toBeNull();
      all[id]!.cap = 0;
    }
  });
});

describe("round_robin", () => {
  test("gives the turns of full backends to all others alike, and none back afterwards", () => {
    const all = many(500, 4);
    const balancer = balancerOf("round_robin", all);
    const serve = (count: number) => {
      for (const backend of all) backend.picks = 0;
      for (let i = 0; i < count; i++) balancer.pick(context())!.picks++;
    };
    for (const backend of all) if (backend.id % 3 !== 0) backend.cap = 0;
    const rest = all.filter(({ id }) => id % 3 === 0);
    const sum = (backends: FakeBackend[]) => backends.reduce((total, { weight }) => total + weight, 0);
    serve(3 * sum(rest));
    for (const backend of rest) expect(Math.abs(backend.picks - 3 * backend.weight)).toBeLessThanOrEqual(1);
    for (const backend of all) backend.cap = Infinity;
    // Within this many picks all have been read again.
    serve(all.length);
    serve(3 * sum(all));
    for (const backend of all)
      expect(Math.abs(backend.picks - 3 * backend.weight), `${backend.id}`).toBeLessThanOrEqual(1);
  });

  test("lets many that come back at once not go before the others with turns that they missed", () => {
    const all = [new FakeBackend(0, 100), ...Array.from({ length: 100 }, (_, i) => new FakeBackend(1 + i))];
    const balancer = balancerOf("round_robin", all);
    for (const backend of all.slice(1)) backend.cap = 0;
    for (let i = 0; i < 500; i++) balancer.pick(context());
    for (const backend of all) backend.cap = Infinity;
    for (let i = 0; i < 100; i++) balancer.pick(context())!.picks++;
    expect(all[0]!.picks).toBeGreaterThan(40);
  });
});
