import { expect, test, vi } from "vitest";
import { Flow } from "../../src/worker/flow.ts";
import { Wakes, type Sleeper } from "../../src/worker/wakes.ts";
import { eventually } from "../support/eventually.ts";

class Waiting implements Sleeper {
  readonly toBackend = new Flow();
  readonly toClient = new Flow();
  readonly woken: { flow: Flow; lateMs: number }[] = [];
  #dueMs = new Map<Flow, number>();

  at(wakes: Wakes, flow: Flow, inMs: number): void {
    this.#dueMs.set(flow, performance.now() + inMs);
    wakes.at(this, flow, inMs);
  }

  wake(flow: Flow): void {
    this.woken.push({ flow, lateMs: performance.now() - this.#dueMs.get(flow)! });
  }
}

test("wakes each flow once, in the order of their times and none before its time", async () => {
  const wakes = new Wakes();
  const [one, other] = [new Waiting(), new Waiting()];
  one.at(wakes, one.toClient, 30);
  one.at(wakes, one.toBackend, 5);
  other.at(wakes, other.toBackend, 15);
  await eventually("all are woken", () => one.woken.length + other.woken.length === 3);
  expect(one.woken.map(({ flow }) => flow)).toEqual([one.toBackend, one.toClient]);
  expect([...one.woken, ...other.woken].every(({ lateMs }) => lateMs > -1)).toBe(true);
  expect([one.toBackend, one.toClient, other.toBackend].map(({ pump }) => pump?.wakeAtMs)).toEqual(
    Array<number>(3).fill(Infinity),
  );
});

test("does not wake connections that have ended, and wakes the others", async () => {
  const wakes = new Wakes();
  const [gone, here] = [new Waiting(), new Waiting()];
  gone.at(wakes, gone.toBackend, 0);
  here.at(wakes, here.toBackend, 1);
  wakes.forget(gone);
  await eventually("the other is woken", () => here.woken.length === 1);
  expect(gone.woken).toEqual([]);
});

test("counts the last time that was set for a flow, earlier or later, and wakes it once", async () => {
  const wakes = new Wakes();
  const [later, earlier, end] = [new Waiting(), new Waiting(), new Waiting()];
  later.at(wakes, later.toBackend, 2);
  later.at(wakes, later.toBackend, 40);
  earlier.at(wakes, earlier.toBackend, 60);
  earlier.at(wakes, earlier.toBackend, 5);
  end.at(wakes, end.toBackend, 100);
  await eventually("the last is woken", () => end.woken.length === 1);
  for (const { woken } of [later, earlier]) {
    expect(woken).toHaveLength(1);
    expect(woken[0]!.lateMs).toBeGreaterThan(-1);
  }
});

test("wakes a thousand flows in the order of their times", async () => {
  const wakes = new Wakes();
  const order: number[] = [];
  for (let i = 0; i < 1000; i++) {
    const one = new Waiting();
    wakes.at(one, one.toClient, 1 + ((i * 7919) % 1000) / 20);
    const { wakeAtMs } = one.toClient.ensurePump();
    one.wake = () => void order.push(wakeAtMs);
  }
  await eventually("all are woken", () => order.length === 1000);
  expect(order).toEqual(order.toSorted((a, b) => a - b));
});

test("does not turn the loop while it waits for less than a millisecond", async () => {
  const immediate = vi.spyOn(globalThis, "setImmediate");
  try {
    const one = new Waiting();
    one.at(new Wakes(), one.toBackend, 0.4);
    await eventually("it is woken", () => one.woken.length === 1);
    expect(one.woken[0]!.lateMs).toBeGreaterThanOrEqual(0);
    expect(immediate).not.toHaveBeenCalled();
  } finally {
    immediate.mockRestore();
  }
});
