import { expect, test } from "vitest";
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
  expect([one.toBackend, one.toClient, other.toBackend].map(({ wakeAtMs }) => wakeAtMs)).toEqual(
    Array<number>(3).fill(Infinity),
  );
});

test("forgets who has ended, and wakes the others", async () => {
  const wakes = new Wakes();
  const [gone, here] = [new Waiting(), new Waiting()];
  gone.at(wakes, gone.toBackend, 0);
  here.at(wakes, here.toBackend, 1);
  wakes.forget(gone);
  await eventually("the other is woken", () => here.woken.length === 1);
  expect(gone.woken).toEqual([]);
});
