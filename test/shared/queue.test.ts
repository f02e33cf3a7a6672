import { expect, test } from "vitest";
import { NOBODY, QUEUE_WORKERS_MAX, queueMemory, SharedQueue } from "../../src/shared/queue.ts";

test("takes `size` waiters, none with size 0, for workers within its range", () => {
  const queue = new SharedQueue(queueMemory());
  expect([queue.enter(0, 0), queue.enter(0, 2), queue.enter(1, 2), queue.enter(2, 2)]).toEqual([
    false,
    true,
    true,
    false,
  ]);
  queue.leave();
  expect(queue.enter(QUEUE_WORKERS_MAX, 2)).toBe(false);
  expect(queue.enter(QUEUE_WORKERS_MAX - 1, 2)).toBe(true);
  queue.leave();
  queue.leave();
  expect(() => queue.leave()).toThrow("a place was given back twice");
});

test("the oldest ticket is the one that was taken first, also when the numbers wrap around", () => {
  const memory = queueMemory();
  const queue = new SharedQueue(memory);
  expect(queue.oldest()).toBe(NOBODY);
  // Just before the end of the numbers. The word of the tickets is in the second cache line.
  new Int32Array(memory)[16] = 2 ** 31 - 2;
  const tickets = [0, 1, 2].map(() => queue.takeTicket());
  expect(tickets[0]! > tickets[1]!).toBe(true);
  for (const [i, worker] of [7, 3, 5].entries()) queue.setHead(worker, tickets[i]!);
  expect(queue.oldest()).toBe(7);
  queue.setHead(7, 0);
  queue.setHead(3, 0);
  expect(queue.oldest()).toBe(5);
  queue.setHead(5, 0);
  expect(queue.oldest()).toBe(NOBODY);
});

test("no ticket is 0, which means none", () => {
  const memory = queueMemory();
  new Int32Array(memory)[16] = -2;
  const queue = new SharedQueue(memory);
  expect([queue.takeTicket(), queue.takeTicket()]).toEqual([-1, 1]);
});

test("a wake-up that comes before it is waited for is not lost, and wakes once", async () => {
  const queue = new SharedQueue(queueMemory());
  queue.wake(4);
  let woken = 0;
  const wait = (): Promise<void> => {
    const { promise, resolve } = Promise.withResolvers<void>();
    queue.awaitWake(4, () => {
      woken++;
      resolve();
    });
    return promise;
  };
  await wait();
  const second = wait();
  expect(woken).toBe(1);
  queue.wake(4);
  await second;
  expect(woken).toBe(2);
  queue.wake(4);
  queue.wake(4);
  await wait();
  expect(woken).toBe(3);
});
