// A broken invariant in a real worker thread: the thread reports it, resets its connections and ends.
import { afterEach, expect, test } from "vitest";
import type { FromWorker } from "../../src/messages.ts";
import { closeDescriptor } from "../../src/platform/sockets.ts";
import { claimed } from "../../src/shared/cells.ts";
import { CLAIM, Ledger, ROW_WORDS } from "../../src/shared/ledger.ts";
import { echo } from "../support/backends.ts";
import { connect } from "../support/client.ts";
import { listenAt } from "../support/endpoints.ts";
import { eventually } from "../support/eventually.ts";
import { freePort } from "../support/lb.ts";
import { backendPlan, listenerPlan, plan, poolPlan, workerStart } from "../support/plans.ts";

const threads: Worker[] = [];
afterEach(() => {
  for (const thread of threads.splice(0)) thread.terminate();
});

test("releasing a place twice ends the worker, and no other connection gets the place", async () => {
  using backend = await echo();
  const port = await freePort();
  const at = `127.0.0.1:${port}`;
  const pool = poolPlan({ backends: [backendPlan({ address: backend.address })] });
  const listener = listenerPlan({ pool: pool.id, maxConnections: 10 });
  const fd = listenAt(at, 64);
  const socket = { key: at, index: 0, listener: listener.id, fd, hostname: "", port, backlog: 64 };
  const start = workerStart(plan({ listeners: [listener], pools: [pool], sockets: [socket], maxConnections: 10 }));

  const thread = new Worker(new URL("../../src/worker.ts", import.meta.url).href);
  threads.push(thread);
  const heard: FromWorker[] = [];
  const gone = Promise.withResolvers<void>();
  thread.addEventListener("message", (event) => heard.push(event.data as FromWorker));
  thread.addEventListener("close", () => gone.resolve());
  thread.postMessage(start);
  await eventually("the worker serves", () => heard.some(({ kind }) => kind === "applied"));

  using bystander = await connect(port);
  using client = await connect(port);
  expect([await bystander.echoes(), await client.echoes()]).toEqual([true, true]);
  expect(claimed(listener.open)).toBe(2);
  // As if both had released their places already.
  Atomics.store(listener.open, 0, 0);
  client.finish();

  await gone.promise;
  expect(heard.filter(({ kind }) => kind === "crashed")).toEqual([
    { kind: "crashed", reason: expect.stringContaining("a place was given back twice") as string },
  ]);
  expect(await bystander.ended).toBe("reset");
  expect(claimed(listener.open)).toBe(0);
  // Remaining claims stay in the ledger; the released place is not among them.
  const { words } = new Ledger(start.ledger);
  const claims = [1, 2].map((row) => words[row * ROW_WORDS]!);
  expect(claims.filter((bits) => bits & CLAIM.process)).toHaveLength(2);
  expect(claims.filter((bits) => bits & CLAIM.listener)).toHaveLength(1);
  closeDescriptor(fd);
});
