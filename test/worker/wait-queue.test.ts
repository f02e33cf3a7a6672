import { describe, expect, test, vi } from "vitest";
import { Arena, claim, claimed, giveBack } from "../../src/shared/cells.ts";
import { QUEUE } from "../../src/shared/counters.ts";
import { NOBODY, queueMemory, SharedQueue } from "../../src/shared/queue.ts";
import { TRY_AGAIN_MS, UNUSED_TICKS, WaitQueue, type Places, type Waiter } from "../../src/worker/wait-queue.ts";
import { forSeedsAsync, type Random } from "../support/random.ts";
import { runThreads } from "../support/threads.ts";
import type { QueueJob, QueueResult } from "./queueing-thread.ts";

/** A place of one cap, which is all that these pools have. */
type Place = "place";

class Cap {
  readonly cell = new Arena().int32(1);
  max: number;

  constructor(max: number) {
    this.max = max;
  }

  acquire(): Place | null {
    return claim(this.cell, this.max) ? "place" : null;
  }

  get hasPlace(): boolean {
    return claimed(this.cell) < this.max;
  }
}

/** Wake-ups arrive when the test delivers them. */
class HeldQueue extends SharedQueue {
  readonly woken = new Set<number>();
  readonly #sleepers = new Map<number, () => void>();

  override wake(worker: number): void {
    this.woken.add(worker);
  }

  override awaitWake(worker: number, woken: () => void): void {
    this.#sleepers.set(worker, woken);
  }

  override forget(worker: number): void {
    this.woken.delete(worker);
    this.#sleepers.delete(worker);
    super.forget(worker);
  }

  arrive(worker: number): void {
    const wake = this.#sleepers.get(worker);
    if (wake === undefined || !this.woken.delete(worker)) return;
    this.#sleepers.delete(worker);
    wake();
  }
}

/** One worker's connections. */
class Worker implements Places<Waiting, Place> {
  readonly queue: WaitQueue<Place, Waiting>;
  readonly waiting = new Set<Waiting>();
  holding = 0;
  /** Its pending action has no effect. */
  isDead = false;
  readonly index: number;
  readonly #cap: Cap;

  constructor(index: number, shared: SharedQueue, cap: Cap) {
    this.index = index;
    this.#cap = cap;
    this.queue = new WaitQueue<Place, Waiting>(shared, index, this);
  }

  /** Numbers of waiters that can use no place. */
  readonly picky = new Set<number>();

  acquire({ number }: Pick<Waiting, "number"> = { number: 0 }): Place | null {
    return this.isDead || this.picky.has(number) ? null : this.#cap.acquire();
  }

  /** The places at which all have failed have proven good since. */
  isBack = false;

  acquireAgain({ number }: Pick<Waiting, "number">, regardless: boolean): Place | null {
    if (!regardless && !this.isBack) return null;
    this.picky.delete(number);
    return this.acquire({ number });
  }

  get hasPlace(): boolean {
    return !this.isDead && this.#cap.hasPlace;
  }
}

class Waiting implements Waiter<Place> {
  readonly number: number;
  readonly #onPlaced: (waiting: Waiting) => void;

  constructor(number: number, onPlaced: (waiting: Waiting) => void) {
    this.number = number;
    this.#onPlaced = onPlaced;
  }

  placed(): void {
    this.#onPlaced(this);
  }
}

/** Several workers in one thread. No clock ticks: only wake-ups serve. */
class Model {
  readonly shared = new HeldQueue(queueMemory());
  readonly cap: Cap;
  readonly size: number;
  readonly workers: Worker[];
  arrived = 0;
  /** Numbers in the order of service, and those that were served before an older one. */
  readonly served: number[] = [];
  readonly overtook: number[] = [];

  constructor(workers: number, cap: number, size: number) {
    this.cap = new Cap(cap);
    this.size = size;
    this.workers = Array.from({ length: workers }, (_, index) => new Worker(index, this.shared, this.cap));
  }

  arrive(worker: Worker): void {
    const waiting = new Waiting(++this.arrived, (placed) => this.#placed(worker, placed));
    if (!worker.queue.isUsed && this.cap.acquire() !== null) {
      worker.holding++;
      return;
    }
    if (!worker.queue.enter(this.size)) return;
    worker.waiting.add(waiting);
    worker.queue.join(waiting);
  }

  #placed(worker: Worker, waiting: Waiting): void {
    const numbers = this.workers.flatMap((other) => [...other.waiting].map(({ number }) => number));
    if (waiting.number !== Math.min(...numbers)) this.overtook.push(waiting.number);
    worker.queue.leave(waiting);
    worker.waiting.delete(waiting);
    worker.holding++;
    this.served.push(waiting.number);
  }

  free(worker: Worker): void {
    if (worker.holding === 0) return;
    worker.holding--;
    giveBack(this.cap.cell);
    worker.queue.placeFreed();
  }

  leave(worker: Worker, random: Random): void {
    if (worker.waiting.size === 0) return;
    const waiting = random.pick([...worker.waiting]);
    worker.waiting.delete(waiting);
    worker.queue.leave(waiting);
  }

  /** Like the supervisor for a dead worker, which is replaced. */
  die(worker: Worker): void {
    const { index, waiting, holding } = worker;
    worker.isDead = true;
    for (let i = 0; i < holding; i++) giveBack(this.cap.cell);
    for (let i = 0; i < waiting.size; i++) this.shared.leave();
    this.workers[index] = new Worker(index, this.shared, this.cap);
    this.shared.forget(index);
  }

  /** All wake-ups arrive. */
  async settle(): Promise<void> {
    for (let turns = 0; turns < 3;) {
      await Promise.resolve();
      const { woken } = this.shared;
      turns = woken.size === 0 ? turns + 1 : 0;
      for (const worker of [...woken]) {
        this.shared.arrive(worker);
        // A worker that was not asleep has died or has no waiter.
        if (this.workers[worker]!.waiting.size === 0) woken.delete(worker);
      }
    }
  }

  get waiting(): number {
    return this.workers.reduce((sum, { waiting }) => sum + waiting.size, 0);
  }

  expectCaps(): void {
    const holding = this.workers.reduce((sum, worker) => sum + worker.holding, 0);
    expect(claimed(this.cap.cell)).toBe(holding);
    expect(this.shared.waiting).toBe(this.waiting);
    expect(this.waiting).toBeLessThanOrEqual(this.size);
    expect(this.overtook).toEqual([]);
  }
}

describe("a queue over several workers", () => {
  test("in any order of events no waiter overtakes, no place stays free while one waits, and every count ends at zero", async () => {
    await forSeedsAsync(200, play);
  });

  async function play(random: Random): Promise<void> {
    const model = new Model(random.between(1, 5), random.between(1, 6), random.between(1, 20));
    for (let step = 0; step < 400; step++) {
      const worker = random.pick(model.workers);
      const what = random.between(0, 99);
      if (what < 40) model.arrive(worker);
      else if (what < 65) model.free(worker);
      else if (what < 75) model.leave(worker, random);
      else if (what < 77) model.die(worker);
      else if (what < 79) {
        // A reload: each worker gets it, like its new plan.
        model.cap.max = random.between(1, 6);
        for (const { queue } of model.workers) queue.serveSoon();
      } else if (what < 90) model.shared.arrive(worker.index);
      else await Promise.resolve();
      if (what > 97) {
        await model.settle();
        model.expectCaps();
        if (model.waiting > 0) expect(model.cap.hasPlace).toBe(false);
      }
    }
    for (let left = 1; left > 0;) {
      await model.settle();
      for (const worker of model.workers) model.free(worker);
      left = model.waiting + model.workers.reduce((sum, { holding }) => sum + holding, 0);
    }
    expect([claimed(model.cap.cell), model.shared.waiting, model.shared.oldest()]).toEqual([0, 0, NOBODY]);
    expect(model.served).toEqual(model.served.toSorted((a, b) => a - b));
  }

  test("overtakes a worker that leaves a free place unused for several ticks, and not sooner", async () => {
    const model = new Model(2, 1, 10);
    const [blocked, other] = model.workers as [Worker, Worker];
    model.arrive(other);
    model.arrive(blocked);
    const waiting = new Waiting(2, () => {
      other.queue.leave(waiting);
      model.served.push(2);
    });
    expect(other.queue.enter(10)).toBe(true);
    other.queue.join(waiting);
    await Promise.resolve();
    // The wake-up never arrives.
    model.free(other);
    for (let tick = 0; tick < UNUSED_TICKS; tick++) {
      expect(other.queue.tick()).toBe(true);
      expect(model.served).toEqual([]);
    }
    other.queue.tick();
    expect(model.served).toEqual([2]);
    expect(other.queue.tick()).toBe(false);
  });

  test("waits only once for a worker that leaves free places unused, and gives it the turn again when it serves", async () => {
    const model = new Model(2, 1, 10);
    const [blocked, other] = model.workers as [Worker, Worker];
    model.arrive(other);
    model.arrive(blocked);
    for (const number of [2, 3, 4]) {
      const waiting = new Waiting(number, () => {
        other.queue.leave(waiting);
        model.served.push(number);
        other.holding++;
      });
      expect(other.queue.enter(10)).toBe(true);
      other.queue.join(waiting);
    }
    await Promise.resolve();
    model.free(other);
    for (let tick = 0; tick <= UNUSED_TICKS; tick++) other.queue.tick();
    expect(model.served).toEqual([2]);
    // All places are in use for a while, then one is free again.
    for (let tick = 0; tick < UNUSED_TICKS; tick++) other.queue.tick();
    model.free(other);
    other.queue.tick();
    expect(model.served).toEqual([2, 3]);
    model.free(other);
    blocked.queue.tick();
    expect(blocked.holding).toBe(1);
    // Its waiter was served, so the next one has the turn.
    expect(model.shared.oldest()).toBe(other.index);
    model.free(blocked);
    other.queue.tick();
    expect(model.served.at(-1)).toBe(4);
  });

  test("lets others overtake one that can use no free place, after several ticks, and serves it when it can", async () => {
    const model = new Model(1, 1, 10);
    const [worker] = model.workers as [Worker];
    for (let i = 0; i < 3; i++) model.arrive(worker);
    worker.picky.add(2);
    model.free(worker);
    await model.settle();
    for (let tick = 0; tick < UNUSED_TICKS; tick++) {
      worker.queue.tick();
      expect(model.served).toEqual([]);
    }
    worker.queue.tick();
    expect(model.served).toEqual([3]);
    worker.picky.clear();
    model.free(worker);
    await model.settle();
    expect(model.served).toEqual([3, 2]);
    expect(model.shared.waiting).toBe(0);
  });

  test("lets the youngest try again where all have failed, one each second, and all once that has proven good", async () => {
    vi.useFakeTimers({ toFake: ["performance"] });
    try {
      const model = new Model(1, 3, 10);
      const [worker] = model.workers as [Worker];
      for (let i = 0; i < 8; i++) model.arrive(worker);
      for (let number = 4; number <= 8; number++) worker.picky.add(number);
      for (let i = 0; i < 3; i++) model.free(worker);
      await model.settle();
      for (let tick = 0; tick <= UNUSED_TICKS; tick++) worker.queue.tick();
      expect(model.served).toEqual([8]);
      vi.advanceTimersByTime(TRY_AGAIN_MS - 1);
      worker.queue.tick();
      expect(model.served).toEqual([8]);
      vi.advanceTimersByTime(1);
      worker.queue.tick();
      expect(model.served).toEqual([8, 7]);
      worker.isBack = true;
      worker.queue.tick();
      expect(model.served).toEqual([8, 7, 4]);
      for (let i = 0; i < 3; i++) model.free(worker);
      await model.settle();
      for (let tick = 0; tick <= UNUSED_TICKS; tick++) worker.queue.tick();
      expect(model.served).toEqual([8, 7, 4, 5, 6]);
      expect(model.shared.waiting).toBe(0);
    } finally {
      vi.useRealTimers();
    }
  });

  test("looks again for a place that was freed before it could be seen to wait", async () => {
    const model = new Model(2, 1, 10);
    const [holder, late] = model.workers as [Worker, Worker];
    model.arrive(holder);
    // Another thread's release comes between the failed claim and `join`.
    const enter = late.queue.enter.bind(late.queue);
    late.queue.enter = (size) => {
      model.free(holder);
      return enter(size);
    };
    model.arrive(late);
    late.queue.enter = enter;
    await model.settle();
    expect(model.served).toEqual([2]);
    expect(late.holding).toBe(1);
  });

  test("serves at a tick a waiter without a wake-up", async () => {
    const model = new Model(1, 1, 10);
    const [worker] = model.workers as [Worker];
    model.arrive(worker);
    model.arrive(worker);
    await Promise.resolve();
    giveBack(model.cap.cell);
    worker.holding--;
    worker.queue.tick();
    expect(model.served).toEqual([2]);
  });

  test("refuses to remove one that does not wait, and counts each wait in its worker's row", async () => {
    const model = new Model(2, 1, 10);
    const [, worker] = model.workers as [Worker, Worker];
    model.arrive(worker);
    model.arrive(worker);
    const [waiting] = worker.waiting;
    worker.queue.leave(waiting!);
    expect(() => worker.queue.leave(waiting!)).toThrow("a connection left a queue that it was not in");
    const counts = (row: Float64Array): number =>
      row.subarray(QUEUE.waitBuckets).reduce((sum, count) => sum + count, 0);
    expect([0, 1].map((index) => counts(model.shared.row(index)))).toEqual([0, 1]);
    expect(counts(model.shared.totals())).toBe(1);
    await Promise.resolve();
  });
});

describe("threads that share a queue", () => {
  test("never hold more places than there are, serve everybody, and in the order of arrival", async () => {
    const [threads, places, each] = [4, 3, 1500];
    const memory = queueMemory();
    const arena = new Arena();
    const shared = { memory, open: arena.int32(1), inside: arena.int32(1) };
    const jobs = Array.from({ length: threads }, (_, worker): QueueJob => ({
      ...shared,
      worker,
      max: places,
      times: each,
      atOnce: 8,
      seed: 17 * worker + 1,
    }));
    const results = await runThreads<QueueResult>(new URL("./queueing-thread.ts", import.meta.url), jobs);
    expect(results.map(({ broken }) => broken)).toEqual([0, 0, 0, 0]);
    expect(results.map(({ waits }) => waits.length).reduce((a, b) => a + b)).toBeGreaterThan(each);
    expect([claimed(shared.open), new SharedQueue(memory).waiting, new SharedQueue(memory).oldest()]).toEqual([
      0,
      0,
      NOBODY,
    ]);
    // How much earlier an arrival was that is served after the current one.
    const waits = results.flatMap((result) => result.waits).toSorted((a, b) => a.servedMs - b.servedMs);
    let earliestMs = Infinity;
    const late = waits.toReversed().map(({ arrivedMs }) => {
      const overtookMs = Math.max(0, arrivedMs - earliestMs);
      earliestMs = Math.min(earliestMs, arrivedMs);
      return overtookMs;
    });
    late.sort((a, b) => a - b);
    const p99 = late[Math.floor(late.length * 0.99)]!;
    console.log(`overtaken by, of ${late.length} waits: p99 ${p99.toFixed(3)} ms, worst ${late.at(-1)!.toFixed(3)} ms`);
    expect(p99).toBeLessThan(5);
  });
});
