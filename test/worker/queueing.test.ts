import { expect, test } from "vitest";
import { claim, claimed, giveBack } from "../../src/shared/cells.ts";
import { CLAIM, ROW, ROW_WORDS } from "../../src/shared/ledger.ts";
import { queueMemory, SharedQueue } from "../../src/shared/queue.ts";
import { TICK_MS } from "../../src/worker/clock.ts";
import { attemptFailed } from "../../src/worker/dialing.ts";
import { DIAL_QUEUE_BYTES } from "../../src/worker/flow.ts";
import { backendPlan, openOf } from "../support/plans.ts";
import { encode, listenDuringTests, RESET, SOMEBODY, Stage } from "../support/stage.ts";

listenDuringTests();

/** A connection that waits for the only place of its pool, which another one has. */
function queued() {
  const capped = backendPlan({ address: `unix:@${SOMEBODY}`, maxConnections: 1 });
  const memory = queueMemory();
  const stage = new Stage({ pool: { backends: [capped], queue: { size: 10, timeoutMs: 1000, memory } } });
  claim(openOf(capped), 1);
  stage.dial();
  expect(stage.connection.phase.name).toBe("queued");
  const free = async (): Promise<void> => {
    giveBack(openOf(capped));
    stage.connection.pool!.queue!.placeFreed();
    await Promise.resolve();
    stage.takeOver();
  };
  return { stage, free, capped, shared: new SharedQueue(memory) };
}

test("claims a place in the queue, in the ledger too, until it is served", async () => {
  const { stage, free, shared, capped } = queued();
  const at = stage.connection.row * ROW_WORDS;
  expect([shared.waiting, stage.words[at]! & CLAIM.queue]).toEqual([1, CLAIM.queue]);
  await free();
  expect(stage.connection.phase.name).toBe("dialing");
  expect([shared.waiting, stage.words[at]! & (CLAIM.queue | CLAIM.backend)]).toEqual([0, CLAIM.backend]);
  expect(claimed(openOf(capped))).toBe(1);
  expect(stage.words[at + ROW.queueMs]).toBeGreaterThan(0);
  stage.connection.backendDrained(stage.backend.socket);
  stage.connection.clientClosed(RESET);
  expect(stage.lines[0]).toMatchObject({ end: "reset", queue_ms: stage.words[at + ROW.queueMs] });
  expect(claimed(openOf(capped))).toBe(0);
});

test("holds the client's bytes and its FIN, and pauses a client that sends too much", async () => {
  const { stage, free } = queued();
  const { connection, client, backend } = stage;
  connection.clientData(encode("request"));
  expect(client.paused).toBe(false);
  connection.clientData(new Uint8Array(DIAL_QUEUE_BYTES));
  expect(client.paused).toBe(true);
  connection.clientEnded();
  expect(connection.phase.name).toBe("queued");
  await free();
  connection.backendDrained(backend.socket);
  expect(backend.text.startsWith("request")).toBe(true);
  expect(backend.text.length).toBe(7 + DIAL_QUEUE_BYTES);
  expect(backend.calls).toEqual(["shutdown"]);
});

test.each([
  ["a reset of its client", (stage: Stage) => stage.connection.clientClosed(RESET), "reset client"],
  ["a FIN of a client that has said nothing", (stage: Stage) => stage.connection.clientEnded(), "eof client"],
  ["an operator's order", (stage: Stage) => stage.connection.finish("killed", "lb"), "killed lb"],
  ["its time, not before", (stage: Stage) => waitOut(stage), "queue_timeout lb"],
])("leaves the queue with %s", (_what, end, ended) => {
  const { stage, shared, capped } = queued();
  end(stage);
  expect(stage.ended).toEqual([ended]);
  expect([shared.waiting, shared.oldest()]).toEqual([0, -1]);
  expect(claimed(openOf(capped))).toBe(1);
  // It has waited, so it is logged, even without a byte.
  expect(stage.lines[0]!["queue_ms"]).toBeGreaterThan(0);
});

function waitOut(stage: Stage): void {
  // The time counts from the real clock; the wheel lags behind it.
  stage.pass(Math.max(0, performance.now() - stage.plane.wheel.now) + 1000 - 2 * TICK_MS);
  expect(stage.connection.phase.name).toBe("queued");
  stage.pass(4 * TICK_MS);
}

test("waits again after a failed connect while another backend is full, with the rest of its time", async () => {
  const [first, other] = [1, 2].map(() => backendPlan({ address: `unix:@${SOMEBODY}`, maxConnections: 1 }));
  const queue = { size: 10, timeoutMs: 1000, memory: queueMemory() };
  const stage = new Stage({ pool: { backends: [first!, other!], retries: 1, queue } });
  const { connection } = stage;
  claim(openOf(other!), 1);
  stage.dial();
  expect(connection.backend!.id).toBe(first!.id);
  // As if it had waited before.
  stage.words[connection.row * ROW_WORDS + ROW.queueMs] = 900;
  attemptFailed(connection, "ECONNREFUSED");
  expect([connection.phase.name, connection.backend]).toEqual(["queued", null]);
  expect(connection.timerAt).toBeLessThanOrEqual(Math.ceil(Math.max(stage.plane.wheel.now, performance.now()) + 100));
  expect([first!, other!].map((backend) => claimed(openOf(backend)))).toEqual([0, 1]);
  // The place at a backend that it has tried is not for it.
  await Promise.resolve();
  expect(connection.phase.name).toBe("queued");
  giveBack(openOf(other!));
  connection.pool!.queue!.placeFreed();
  await Promise.resolve();
  expect(connection.backend!.id).toBe(other!.id);
  // No further retry is allowed, and no backend is left.
  attemptFailed(connection, "ECONNREFUSED");
  expect(stage.ended).toEqual(["connect_refused backend"]);
  expect(stage.lines[0]).toMatchObject({ retries: 1, backend: other!.name, end: "connect_refused" });
  expect(new SharedQueue(queue.memory).waiting).toBe(0);
});

test("does not wait after a failure of this machine, although another backend is full", () => {
  const [first, other] = [1, 2].map(() => backendPlan({ address: `unix:@${SOMEBODY}`, maxConnections: 1 }));
  const queue = { size: 10, timeoutMs: 1000, memory: queueMemory() };
  const stage = new Stage({ pool: { backends: [first!, other!], retries: 1, queue } });
  claim(openOf(other!), 1);
  stage.dial();
  attemptFailed(stage.connection, "EMFILE");
  expect(stage.ended).toEqual(["connect_failed lb"]);
  expect(new SharedQueue(queue.memory).waiting).toBe(0);
});

test("is served at once by a reload that raises the cap", async () => {
  const { stage, capped } = queued();
  const { pool } = stage.connection;
  await Promise.resolve();
  pool!.apply({ ...stage.poolPlan, version: 2, backends: [{ ...capped, maxConnections: 2 }] }, null);
  await Promise.resolve();
  stage.takeOver();
  expect(stage.connection.phase.name).toBe("dialing");
});

test("ends with no_backend when no backend may be picked any more", () => {
  const { stage, shared } = queued();
  const pool = stage.connection.pool!;
  pool.update({ kind: "pool", pool: pool.id, version: 1000, tiers: [], down: [], backends: null, memory: [] });
  expect(stage.ended).toEqual(["no_backend lb"]);
  expect(shared.waiting).toBe(0);
});
