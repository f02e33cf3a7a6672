// A thread of wait-queue.test.ts: connections that come, wait for a place, hold it for a moment and release it.
import { add, claim, claimed, giveBack } from "../../src/shared/cells.ts";
import { SharedQueue } from "../../src/shared/queue.ts";
import { WaitQueue, type Waiter } from "../../src/worker/wait-queue.ts";
import { Random } from "../support/random.ts";
import { serveJob } from "../support/threads.ts";

export interface QueueJob {
  memory: SharedArrayBuffer;
  /** The cap's cell. `inside` counts the holders of a place separately. */
  open: Int32Array;
  inside: Int32Array;
  worker: number;
  max: number;
  /** Connections of this thread, and the maximum at once. */
  times: number;
  atOnce: number;
  seed: number;
}

export interface QueueResult {
  /** Number of times that more than the cap were inside. */
  broken: number;
  /** On a clock that all threads share. */
  waits: { arrivedMs: number; servedMs: number }[];
}

const SIZE = 1000;
const nowMs = (): number => performance.timeOrigin + performance.now();

serveJob<QueueJob>(async ({ memory, open, inside, worker, max, times, atOnce, seed }, meet): Promise<QueueResult> => {
  const random = new Random(seed);
  const waits: QueueResult["waits"] = [];
  let broken = 0;
  let left = times;
  const places = {
    acquire: () => (claim(open, max) ? ("place" as const) : null),
    acquireAgain: () => null,
    get hasPlace() {
      return claimed(open) < max;
    },
  };
  const queue = new WaitQueue<"place", Waiter<"place">>(new SharedQueue(memory), worker, places);

  const place = async (): Promise<void> => {
    if (!queue.isUsed && places.acquire() !== null) return;
    if (!queue.enter(SIZE)) throw new Error("the queue is full");
    const arrivedMs = nowMs();
    const { promise, resolve } = Promise.withResolvers<void>();
    const waiter: Waiter<"place"> = {
      placed() {
        queue.leave(waiter);
        waits.push({ arrivedMs, servedMs: nowMs() });
        resolve();
      },
    };
    queue.join(waiter);
    await promise;
  };

  const connections = async (): Promise<void> => {
    while (left-- > 0) {
      await place();
      add(inside, 1);
      if (claimed(inside) > max) broken++;
      if (random.between(0, 3) > 0) await new Promise((resolve) => void setImmediate(resolve));
      add(inside, -1);
      giveBack(open);
      queue.placeFreed();
    }
  };

  meet();
  await Promise.all(Array.from({ length: atOnce }, connections));
  return { broken, waits };
});
