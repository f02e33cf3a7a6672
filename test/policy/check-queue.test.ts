import { describe, expect, test } from "vitest";
import { CheckQueue, type Queued } from "../../src/policy/check-queue.ts";
import { forSeeds } from "../support/random.ts";

interface Item extends Queued {
  name: string;
}

function items(pool: number, count: number, silent = false): Item[] {
  return Array.from({ length: count }, (_, i) => ({ pool, silent, name: `${pool}.${i}` }));
}

/** Takes as many as possible. */
function takeAll(queue: CheckQueue<Item>): string[] {
  const taken: string[] = [];
  for (let item = queue.next(); item !== null; item = queue.next()) taken.push(item.name);
  return taken;
}

function queueOf(places: number, ...all: Item[]): CheckQueue<Item> {
  const queue = new CheckQueue<Item>(places);
  for (const item of all) queue.add(item);
  return queue;
}

describe("turns", () => {
  test("rotate over the pools with due checks, and are in order within a pool", () => {
    const queue = queueOf(100, ...items(1, 3), ...items(2, 1), ...items(3, 2));
    expect(takeAll(queue)).toEqual(["1.0", "2.0", "3.0", "1.1", "3.1", "1.2"]);
  });

  test("a late pool waits for one round of the others, not for all their checks", () => {
    const many = items(1, 50);
    const queue = queueOf(3, ...many);
    const running = [queue.next()!, queue.next()!];
    expect(queue.next()).toBeNull();
    const [late] = items(2, 1) as [Item];
    queue.add(late);
    expect(queue.next()).toBe(late);
    queue.remove(running[0]!);
    expect(queue.next()!.pool).toBe(1);
  });

  test("no check runs while no place is free", () => {
    const queue = queueOf(1, ...items(1, 2));
    const first = queue.next()!;
    expect(queue.next()).toBeNull();
    queue.remove(first);
    expect(queue.next()!.name).toBe("1.1");
  });
});

describe("a pool", () => {
  test("holds at most twice as many places as it leaves free", () => {
    expect(takeAll(queueOf(30, ...items(1, 100))).length).toBe(20);
    // Two such pools leave a fifth.
    expect(takeAll(queueOf(30, ...items(1, 100), ...items(2, 100))).length).toBe(24);
  });

  test("that holds no place gets one as long as one is free", () => {
    const pools = Array.from({ length: 40 }, (_, pool) => items(pool, 1)).flat();
    expect(takeAll(queueOf(30, ...pools)).length).toBe(30);
  });
});

describe("backends that did not answer", () => {
  test("hold at most half of the places, however many pools they are of", () => {
    const silent = Array.from({ length: 40 }, (_, pool) => items(pool, 1, true)).flat();
    const queue = queueOf(30, ...silent);
    expect(takeAll(queue).length).toBe(15);
    for (const item of items(100, 3)) queue.add(item);
    expect(takeAll(queue)).toEqual(["100.0", "100.1", "100.2"]);
  });

  test("get their turn even if others always wait", () => {
    const queue = queueOf(2, ...items(1, 100), ...items(2, 1, true));
    const taken = takeAll(queue);
    expect(taken).toContain("2.0");
  });
});

test("a check that is removed while it waits never runs", () => {
  const [a, b] = items(1, 2) as [Item, Item];
  const queue = queueOf(10, a, b);
  queue.remove(a);
  expect(queue.next()).toBe(b);
  expect(queue.next()).toBeNull();
});

test("whatever happens, no place is lost, none is given twice, and everyone gets a turn", () => {
  forSeeds(200, (random) => {
    const places = random.between(1, 20);
    const queue = new CheckQueue<Item>(places);
    const idle: Item[] = Array.from({ length: 60 }, (_, i) => ({
      pool: random.below(8),
      silent: random.oneIn(3),
      name: String(i),
    }));
    const waiting = new Set<Item>();
    const running = new Set<Item>();
    for (let step = 0; step < 500; step++) {
      if (random.oneIn(2) && idle.length > 0) {
        const item = idle.splice(random.below(idle.length), 1)[0]!;
        queue.add(item);
        waiting.add(item);
      } else if (running.size > 0) {
        const item = random.pick([...running]);
        queue.remove(item);
        running.delete(item);
        idle.push({ ...item, silent: random.oneIn(3) });
      }
      for (let item = queue.next(); item !== null; item = queue.next()) {
        expect(waiting.delete(item)).toBe(true);
        running.add(item);
      }
      expect(running.size).toBeLessThanOrEqual(places);
    }
    // From now on nothing new arrives, and all that wait run in the end.
    for (let rounds = 0; waiting.size > 0 || running.size > 0; rounds++) {
      expect(rounds).toBeLessThan(100);
      for (const item of running) queue.remove(item);
      running.clear();
      for (let item = queue.next(); item !== null; item = queue.next()) {
        expect(waiting.delete(item)).toBe(true);
        running.add(item);
      }
    }
  });
});
