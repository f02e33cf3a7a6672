import { expect, test } from "vitest";
import { processNotReady, WORKER_DOWN_MS } from "../../src/supervisor/readiness.ts";

const workers = (...down: number[]) => down.map((downMs, index) => ({ index, downMs }));

test("the process is ready while it runs and every worker serves", () => {
  expect(processNotReady("starting", workers(-Infinity))).toEqual(["the process is starting"]);
  expect(processNotReady("running", workers(-Infinity, -Infinity))).toEqual([]);
  expect(processNotReady("leaving", workers(-Infinity))).toEqual(["the process is stopping"]);
  expect(processNotReady("stopping", workers(-Infinity))).toEqual(["the process is stopping"]);
});

test("a worker that restarts at once does not make the process unready, one that stays away does", () => {
  expect(processNotReady("running", workers(-Infinity, WORKER_DOWN_MS - 1))).toEqual([]);
  expect(processNotReady("running", workers(-Infinity, WORKER_DOWN_MS))).toEqual([
    "worker 1 is not running: its share of new connections waits in the accept queue",
  ]);
});
