import { describe, expect, test } from "vitest";
import {
  BandwidthRate,
  OwnBandwidth,
  PEAK,
  SAVED_MS_MAX,
  SAVED_MS_MAX_FAST,
  type Bandwidth,
} from "../../src/policy/bandwidth.ts";
import { bandwidthMemory, SharedBandwidth } from "../../src/shared/bandwidth.ts";
import { TimeCells } from "../../src/shared/time-cells.ts";
import { Pace } from "../../src/worker/pace.ts";
import { Random } from "../support/random.ts";

const own = (bytesPerSecond: number, nowMs = 0): Pace =>
  new Pace(new OwnBandwidth(new BandwidthRate(bytesPerSecond), nowMs));

describe("a limit of one sender", () => {
  /** Sends all that may be sent at `now`, and returns when to come back. */
  function turn(pace: Pace, now: number): { bytes: number; nextMs: number } {
    const bytes = pace.allowance(now, Infinity);
    pace.spend(bytes);
    return { bytes, nextMs: pace.nextMs(now, Infinity) };
  }

  /** The bytes in `ms` of a sender that comes back when told, later by `lateMs` of the turn. */
  function sent(bytesPerSecond: number, ms: number, lateMs: (turn: number) => number): number {
    const pace = own(bytesPerSecond);
    let total = 0;
    for (let i = 1, now = 0; now <= ms; i++) {
      const { bytes, nextMs } = turn(pace, now);
      total += bytes;
      now = Math.max(nextMs, now + 0.1) + lateMs(i);
    }
    return total;
  }

  test.each([1, 12_345, 1_000_000, 12_500_000, 125_000_000, 1_250_000_000])(
    "of %d bytes per second is reached exactly, with wake-ups up to 2 ms late",
    (rate) => {
      const random = new Random(1);
      const total = sent(rate, 10_000, () => random.below(2000) / 1000);
      expect(total).toBeGreaterThan(rate * 9.9 - 1);
      expect(total).toBeLessThanOrEqual(rate * 10 + 1);
    },
  );

  test.each([1_000_000, 125_000_000])("of %d loses nothing to some wake-ups that are 40 ms late", (rate) => {
    const total = sent(rate, 10_000, (i) => (i % 1000 === 0 ? 40 : 0.5));
    expect(total).toBeGreaterThan(rate * 9.8);
    expect(total).toBeLessThanOrEqual(rate * 10);
  });

  test("lets through less than 20 ms' worth in any 10 ms above 100 Mbit/s, whatever it has to make up for", () => {
    const rate = 125_000_000;
    const random = new Random(2);
    const pace = own(rate);
    const moved: { now: number; bytes: number }[] = [];
    for (let i = 0, now = 0; now < 5000; i++) {
      const { bytes, nextMs } = turn(pace, now);
      moved.push({ now, bytes });
      now = Math.max(nextMs, now + 0.1) + (random.oneIn(50) ? random.below(60) : random.below(2000) / 1000);
    }
    let most = 0;
    for (const [i, { now }] of moved.entries()) {
      let bytes = 0;
      for (let j = i; j < moved.length && moved[j]!.now < now + 10; j++) bytes += moved[j]!.bytes;
      most = Math.max(most, bytes);
    }
    expect((most / rate) * 1000).toBeLessThanOrEqual(10 * PEAK + SAVED_MS_MAX_FAST + 2.5);
    // And it did have to.
    expect((most / rate) * 1000).toBeGreaterThan(12);
  });

  test("begins with nothing saved", () => {
    expect(own(1_000_000, 5).allowance(5, Infinity)).toBe(0);
  });

  test("saves a tenth of a second's worth in a pause at most, and 4 ms' worth above 100 Mbit/s", () => {
    expect(own(1_000_000).allowance(60_000, Infinity)).toBe(SAVED_MS_MAX * 1000);
    const fast = own(100_000_000);
    expect(fast.allowance(60_000, Infinity)).toBe(SAVED_MS_MAX_FAST * 100_000);
    fast.spend(SAVED_MS_MAX_FAST * 100_000);
    // Nothing is owed for the pause.
    expect(fast.nextMs(60_000, Infinity)).toBe(60_002);
  });

  test.each([
    [30, 120, 126],
    [100, 100, 105],
  ])(
    "of a sender that had nothing for %d ms lets %d to %d ms' worth through in the next 100 ms",
    (pauseMs, least, most) => {
      const rate = 125_000_000;
      const pace = own(rate);
      turn(pace, 10);
      pace.giveBack(10);
      let total = 0;
      for (let now = 10 + pauseMs; now < 110 + pauseMs; now += 2) total += turn(pace, now).bytes;
      expect((total / rate) * 1000).toBeGreaterThan(least);
      expect((total / rate) * 1000).toBeLessThan(most);
    },
  );

  test("makes a waiting sender come back for a portion: 50 ms' worth, or 64 KiB if that is less, or 2 ms' worth if that is more", () => {
    expect(own(1_000_000).nextMs(0, Infinity)).toBe(50);
    expect(own(6_553_600).nextMs(0, Infinity)).toBe(10);
    expect(own(65_536_000).nextMs(0, Infinity)).toBe(2);
  });

  test("does not wait for a whole portion if fewer bytes wait", () => {
    const pace = own(1_000_000);
    expect(pace.nextMs(0, 2000)).toBe(2);
    expect(pace.allowance(1, 2000)).toBe(0);
    expect(pace.allowance(2, 2000)).toBe(2000);
  });

  test("moves at a byte a second too", () => {
    const pace = own(1);
    expect(pace.nextMs(0, Infinity)).toBe(1000);
    expect(pace.allowance(999, Infinity)).toBe(0);
    expect(pace.allowance(1000, Infinity)).toBe(1);
  });

  test("keeps the credit that the receiver did not use, and saves no more while it takes nothing", () => {
    const pace = own(1_000_000);
    let now = 0;
    for (; now < 10_000; now += 10) pace.allowance(now, Infinity);
    const held = pace.allowance(now, Infinity);
    expect(held).toBeGreaterThanOrEqual(50_000);
    expect(held).toBeLessThanOrEqual(200_000);
  });

  test("is rested once the sender has had nothing for as long as bandwidth is saved", () => {
    const pace = own(1_000_000);
    pace.allowance(500, Infinity);
    pace.spend(1000);
    pace.giveBack(500);
    pace.giveBack(550);
    expect([pace.rested(599), pace.rested(600)]).toEqual([false, true]);
    pace.allowance(610, Infinity);
    pace.spend(1);
    expect(pace.rested(2000)).toBe(false);
  });
});

/**
 * Connections of several workers that share one limit, on a clock of their own. Each worker runs its own connections when they are due,
 * later by `lateMs`.
 */
class Simulation {
  readonly random: Random;
  readonly #limit: () => Bandwidth;
  readonly #pending: { at: number; run: () => void }[] = [];
  now = 0;
  readonly moved: number[] = [];
  /** Bytes by the millisecond. */
  readonly line = new Map<number, number>();

  constructor(seed: number, bytesPerSecond: number, startMs = 1_000_000) {
    this.random = new Random(seed);
    const times = new TimeCells(bandwidthMemory(1));
    const rate = new BandwidthRate(bytesPerSecond);
    this.now = startMs;
    // Each worker's clock has its own origin; one view per connection, as in a worker.
    this.#limit = () => new SharedBandwidth(times, 0, "download", rate, 0);
  }

  at(at: number, run: () => void): void {
    let i = this.#pending.length;
    while (i > 0 && this.#pending[i - 1]!.at > at) i--;
    this.#pending.splice(i, 0, { at, run });
  }

  run(untilMs: number): void {
    for (let next = this.#pending[0]; next !== undefined && next.at <= untilMs; next = this.#pending[0]) {
      this.#pending.shift();
      this.now = next.at;
      next.run();
    }
    this.now = untilMs;
  }

  /** A connection whose sender always has bytes; returns its number in `moved`. */
  greedy(lateMs: () => number, endMs = Infinity): number {
    const id = this.moved.push(0) - 1;
    const pace = new Pace(this.#limit());
    const turn = (): void => {
      if (this.now >= endMs) return pace.giveBack(this.now);
      const bytes = pace.allowance(this.now, Infinity);
      if (bytes > 0) this.#move(id, pace, bytes);
      this.at(Math.max(pace.nextMs(this.now, Infinity), this.now + 0.05) + lateMs(), turn);
    };
    this.at(this.now + this.random.below(20), turn);
    return id;
  }

  /** A connection that sends `bytes` every `everyMs`, each time as soon as allowed. */
  trickle(bytes: number, everyMs: number, lateMs: () => number): number {
    const id = this.moved.push(0) - 1;
    const pace = new Pace(this.#limit());
    let waiting = 0;
    const turn = (): void => {
      const allowed = Math.min(waiting, pace.allowance(this.now, waiting));
      if (allowed > 0) this.#move(id, pace, allowed);
      waiting -= allowed;
      if (waiting > 0) this.at(pace.nextMs(this.now, waiting) + lateMs(), turn);
      else pace.giveBack(this.now);
    };
    const come = (): void => {
      this.at(this.now + everyMs, come);
      const idle = waiting === 0;
      waiting += bytes;
      if (idle) turn();
    };
    this.at(this.now + this.random.below(20), come);
    return id;
  }

  /** Connections that come every `everyMs`, send `bytes` and end; a third of them ends while waiting. */
  churn(bytes: number, everyMs: number, lateMs: () => number): void {
    const id = this.moved.push(0) - 1;
    const come = (): void => {
      this.at(this.now + everyMs, come);
      const pace = new Pace(this.#limit());
      let waiting = bytes;
      const quits = this.random.oneIn(3);
      const turn = (): void => {
        const allowed = Math.min(waiting, pace.allowance(this.now, waiting));
        if (allowed > 0) this.#move(id, pace, allowed);
        waiting -= allowed;
        if (waiting === 0 || (quits && waiting < bytes)) pace.giveBack(this.now);
        else this.at(pace.nextMs(this.now, waiting) + lateMs(), turn);
      };
      turn();
    };
    this.at(this.now, come);
  }

  /** A greedy connection whose worker dies while it waits. */
  dies(): void {
    const pace = new Pace(this.#limit());
    pace.nextMs(this.now, Infinity);
  }

  #move(id: number, pace: Pace, bytes: number): void {
    pace.spend(bytes);
    this.moved[id]! += bytes;
    const ms = Math.floor(this.now);
    this.line.set(ms, (this.line.get(ms) ?? 0) + bytes);
  }

  total(): number {
    return this.moved.reduce((sum, bytes) => sum + bytes, 0);
  }

  forget(): void {
    this.moved.fill(0);
    this.line.clear();
  }
}

describe("a limit that connections of several workers share", () => {
  const SECONDS = 5;
  const rates = [100_000, 1_000_000, 12_500_000, 25_000_000, 125_000_000, 1_250_000_000];
  /** The lateness of each worker: timers are late, and a busy worker is later. */
  const lates: Record<string, (random: Random) => () => number> = {
    "both on time": (random) => () => random.below(1500) / 1000,
    "one up to 5 ms late": (random) => () => random.below(5000) / 1000,
  };

  for (const [name, late] of Object.entries(lates)) {
    test.each(rates.flatMap((rate) => [1, 2, 10, 100].map((n) => [rate, n] as const)))(
      `of %d is exact and fair for %d connections, a tenth of them in another worker, ${name}`,
      (rate, n) => {
        const run = new Simulation(n, rate);
        const onTime = (): number => run.random.below(1500) / 1000;
        const other = late(run.random);
        for (let i = 0; i < n; i++) run.greedy(i < n / 10 ? other : onTime);
        run.run(run.now + 500);
        run.forget();
        run.run(run.now + SECONDS * 1000);
        const share = run.total() / (rate * SECONDS);
        expect(share).toBeGreaterThan(0.95);
        expect(share).toBeLessThan(1.05);
        expect((Math.min(...run.moved) / (rate * SECONDS)) * n).toBeGreaterThan(0.5);
      },
    );
  }

  test.each([
    [1_000_000, 1000],
    [1_000_000, 5000],
    [125_000_000, 1000],
  ])("of %d is exact and fair for %d connections", (rate, n) => {
    const run = new Simulation(3, rate);
    for (let i = 0; i < n; i++) run.greedy(() => run.random.below(2000) / 1000);
    run.run(run.now + 3000);
    run.forget();
    run.run(run.now + SECONDS * 1000);
    const share = run.total() / (rate * SECONDS);
    expect(share).toBeGreaterThan(0.95);
    expect(share).toBeLessThan(1.05);
    expect((Math.min(...run.moved) / (rate * SECONDS)) * n).toBeGreaterThan(0.5);
  });

  test.each([1_000_000, 50_000_000])(
    "of %d gives those who trickle what they need, and the rest to the greedy ones",
    (rate) => {
      const run = new Simulation(4, rate);
      const late = (): number => run.random.below(2000) / 1000;
      const trickling = Array.from({ length: 20 }, () => run.trickle(rate / 10_000, 50, late));
      const greedy = Array.from({ length: 5 }, () => run.greedy(late));
      run.run(run.now + 500);
      run.forget();
      run.run(run.now + SECONDS * 1000);
      expect(run.total() / (rate * SECONDS)).toBeGreaterThan(0.95);
      expect(run.total() / (rate * SECONDS)).toBeLessThan(1.05);
      for (const id of trickling) expect(run.moved[id]).toBeGreaterThan((rate / 10_000) * 20 * SECONDS * 0.95);
      const left = rate * SECONDS * (1 - 20 * 20 * 1e-4);
      for (const id of greedy) expect(run.moved[id]! / (left / 5)).toBeGreaterThan(0.8);
    },
  );

  test.each([1_000_000, 50_000_000])("of %d stays exact while short connections come and go", (rate) => {
    const run = new Simulation(5, rate);
    const late = (): number => run.random.below(2000) / 1000;
    run.churn(Math.round(rate / 500), 4, late);
    const greedy = [run.greedy(late), run.greedy(late)];
    for (let i = 0; i < 20; i++) run.at(run.now + i * 100, () => run.greedy(late, run.now + 50));
    run.run(run.now + 500);
    run.forget();
    run.run(run.now + SECONDS * 1000);
    expect(run.total() / (rate * SECONDS)).toBeGreaterThan(0.95);
    expect(run.total() / (rate * SECONDS)).toBeLessThan(1.05);
    for (const id of greedy) expect(run.moved[id]).toBeGreaterThan(0);
  });

  test("loses to a worker that dies only its current reservations", () => {
    const rate = 1_000_000;
    const run = new Simulation(6, rate);
    for (let i = 0; i < 10; i++) run.greedy(() => run.random.below(1000) / 1000);
    run.run(run.now + 500);
    for (let i = 0; i < 20; i++) run.dies();
    run.forget();
    run.run(run.now + SECONDS * 1000);
    expect(run.total() / (rate * SECONDS)).toBeGreaterThan(0.95);
  });

  test("lets through less than 20 ms' worth in any 10 ms above 100 Mbit/s", () => {
    const rate = 125_000_000;
    const run = new Simulation(7, rate);
    for (let i = 0; i < 8; i++) run.greedy(() => (run.random.oneIn(50) ? run.random.below(20) : run.random.below(2)));
    run.run(run.now + SECONDS * 1000);
    const times = [...run.line.keys()];
    const most = Math.max(
      ...times.map((from) => {
        let bytes = 0;
        for (let ms = from; ms < from + 10; ms++) bytes += run.line.get(ms) ?? 0;
        return (bytes / rate) * 1000;
      }),
    );
    expect(most).toBeLessThan(20);
  });

  test("holds nothing for an idle connection, and returns unused reservations", () => {
    const times = new TimeCells(bandwidthMemory(1));
    const limit = new SharedBandwidth(times, 0, "upload", new BandwidthRate(1_000_000), 0);
    const [one, other] = [new Pace(limit), new Pace(limit)];
    one.allowance(1000, 100_000);
    one.spend(5000);
    while (one.nextMs(1000, Infinity) <= 1000) one.spend(one.credit);
    const waits = other.nextMs(1000, 1000);
    one.giveBack(1000);
    other.giveBack(1000);
    // Now only sent bytes are before it.
    expect(other.nextMs(1000, 1000)).toBeLessThan(waits);
    expect(other.nextMs(1000, 1000)).toBeCloseTo(1001, 0);
  });

  test("has a limit of its own for each direction and each entry", () => {
    const times = new TimeCells(bandwidthMemory(3));
    const rate = new BandwidthRate(1_000_000);
    new SharedBandwidth(times, 1, "upload", rate, 0).reserve(1_000_000, 1000, false);
    expect(new SharedBandwidth(times, 1, "upload", rate, 0).saved(1000)).toBe(0);
    expect(new SharedBandwidth(times, 1, "download", rate, 0).saved(1000)).toBe(100_000);
    expect(new SharedBandwidth(times, 0, "download", rate, 0).saved(1000)).toBe(100_000);
    expect(new SharedBandwidth(times, 2, "upload", rate, 0).saved(1000)).toBe(100_000);
  });
});

describe("a limit that is not enforced", () => {
  const kinds: Record<string, (rate: BandwidthRate) => Bandwidth> = {
    own: (rate) => new OwnBandwidth(rate, 0),
    shared: (rate) => new SharedBandwidth(new TimeCells(bandwidthMemory(1)), 0, "upload", rate, 0),
  };
  test.each(Object.keys(kinds))("reports what it would have delayed (%s)", (kind) => {
    const limit = kinds[kind]!(new BandwidthRate(1_000_000));
    // A tenth of a second is saved.
    expect(limit.exceededBy(50_000, 1000)).toBe(false);
    expect(limit.exceededBy(50_000, 1000)).toBe(false);
    expect(limit.exceededBy(50_000, 1000)).toBe(true);
    // Bytes over the limit are not carried over: others are delayed only as the limit says.
    expect(limit.exceededBy(10_000, 1010)).toBe(false);
    expect(limit.exceededBy(10_000, 1010)).toBe(true);
    expect(limit.exceededBy(100_000, 2000)).toBe(false);
  });
});
