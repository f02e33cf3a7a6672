// A thread of pool.test.ts: picks from a pool repeatedly, holds two places at a time, and counts what it sees.
import type { PoolPlan } from "../../src/messages.ts";
import { Pool, type Backend } from "../../src/worker/pool.ts";
import { serveJob } from "../support/threads.ts";

interface Job {
  plan: PoolPlan;
  inside: Int32Array;
  times: number;
  worker: number;
}

serveJob<Job>(({ plan, inside, times, worker }, meet) => {
  const pool = new Pool(plan, null, worker);
  const max = plan.backends[0]!.maxConnections;
  const result = { picked: 0, refused: 0, broken: 0 };
  const held: Backend[] = [];
  const giveBack = (): void => {
    Atomics.sub(inside, 0, 1);
    pool.release(held.shift()!);
  };
  meet();
  for (let i = 0; i < times; i++) {
    const backend = pool.acquire({ tried: null, hashKey: () => 0 });
    if (backend === null) {
      result.refused++;
    } else {
      result.picked++;
      held.push(backend);
      if (Atomics.add(inside, 0, 1) >= max) result.broken++;
    }
    if (held.length === 2) giveBack();
  }
  while (held.length > 0) giveBack();
  return result;
});
