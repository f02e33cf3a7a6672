import { beforeEach, describe, expect, test } from "vitest";
import type { TimerNode } from "../../src/core/timer-wheel.ts";
import { NO_SLOT, TimerWheel } from "../../src/core/timer-wheel.ts";
import { forSeeds } from "../support/random.ts";

class Node implements TimerNode {
  timerNext: TimerNode | null = null;
  timerPrev: TimerNode | null = null;
  timerSlot = NO_SLOT;
  timerAt = 0;
  readonly firedAt: number[] = [];
  readonly #then: (nowMs: number) => void;
  constructor(then: (nowMs: number) => void = () => {}) {
    this.#then = then;
  }
  onTimer(nowMs: number): void {
    this.firedAt.push(nowMs);
    this.#then(nowMs);
  }
}

describe("TimerWheel", () => {
  const TICK = 10;
  let wheel: TimerWheel;
  beforeEach(() => {
    wheel = new TimerWheel(TICK, 8, 1000);
  });

  /** Ticks one by one up to a time. */
  function runTo(toMs: number): void {
    for (let now = wheel.now + TICK; now <= toMs; now += TICK) wheel.advance(now);
  }

  test("calls a node once, at the first tick that is not before its time", () => {
    const [exact, between] = [new Node(), new Node()];
    wheel.schedule(exact, 1030);
    wheel.schedule(between, 1030.001);
    runTo(1100);
    expect(exact.firedAt).toEqual([1030]);
    expect(between.firedAt).toEqual([1040]);
    expect(wheel.size).toBe(0);
  });

  test("keeps a node that is many turns away until it is due", () => {
    const node = new Node();
    wheel.schedule(node, 1000 + 80 * 5 + 30);
    runTo(1420);
    expect(node.firedAt).toEqual([]);
    runTo(1430);
    expect(node.firedAt).toEqual([1430]);
  });

  test("calls nobody when only the time is set; the next advance does", () => {
    const [due, later] = [new Node(), new Node()];
    wheel.schedule(due, 1030);
    wheel.schedule(later, 1220);
    wheel.setTime(1200);
    expect(wheel.now).toBe(1200);
    expect(due.firedAt).toEqual([]);
    wheel.advance(1210);
    expect(due.firedAt).toEqual([1210]);
    wheel.setTime(1100);
    expect(wheel.now).toBe(1210);
    runTo(1220);
    expect(later.firedAt).toEqual([1220]);
  });

  test("treats a time in the past as due at the next tick", () => {
    const node = new Node();
    wheel.schedule(node, 500);
    wheel.advance(1009);
    expect(node.firedAt).toEqual([]);
    wheel.advance(1010);
    expect(node.firedAt).toEqual([1010]);
  });

  test("moves a node that is scheduled again", () => {
    const node = new Node();
    wheel.schedule(node, 1020);
    wheel.schedule(node, 1060);
    expect(wheel.size).toBe(1);
    runTo(1100);
    expect(node.firedAt).toEqual([1060]);
  });

  test("does not call a cancelled node, and cancelling twice is harmless", () => {
    const nodes = [new Node(), new Node(), new Node()];
    for (const node of nodes) wheel.schedule(node, 1020);
    wheel.cancel(nodes[1]!);
    wheel.cancel(nodes[1]!);
    expect(wheel.size).toBe(2);
    runTo(1040);
    expect(nodes.map((node) => node.firedAt.length)).toEqual([1, 0, 1]);
  });

  test("calls everything that is due once after a jump of many turns, and nothing else", () => {
    const nodes = Array.from({ length: 40 }, () => new Node());
    nodes.forEach((node, i) => wheel.schedule(node, 1005 + 7 * i));
    const later = new Node();
    wheel.schedule(later, 9999);
    wheel.advance(9000);
    expect(nodes.map((node) => node.firedAt)).toEqual(nodes.map(() => [9000]));
    expect(later.firedAt).toEqual([]);
    expect(wheel.size).toBe(1);
    runTo(10_000);
    expect(later.firedAt).toEqual([10_000]);
  });

  test("lets a call schedule its own node again, which is not due in the same advance", () => {
    const node: Node = new Node((now) => wheel.schedule(node, now));
    wheel.schedule(node, 1010);
    wheel.advance(1050);
    expect(node.firedAt).toEqual([1050]);
    runTo(1070);
    expect(node.firedAt).toEqual([1050, 1060, 1070]);
  });

  test("lets a call cancel and move nodes that are due in the same advance", () => {
    const [cancelled, moved, last] = [new Node(), new Node(), new Node()];
    const first = new Node(() => {
      wheel.cancel(cancelled);
      wheel.schedule(moved, 1050);
    });
    for (const node of [first, cancelled, moved, last]) wheel.schedule(node, 1020);
    runTo(1030);
    expect([first, cancelled, moved, last].map((node) => node.firedAt)).toEqual([[1020], [], [], [1020]]);
    runTo(1100);
    expect(moved.firedAt).toEqual([1050]);
    expect(wheel.size).toBe(0);
  });

  test("continues with the rest at the next advance when a call throws", () => {
    const bad = new Node(() => {
      throw new Error("no");
    });
    const good = new Node();
    wheel.schedule(bad, 1020);
    wheel.schedule(good, 1020);
    wheel.advance(1010);
    expect(() => wheel.advance(1020)).toThrow("no");
    expect(good.firedAt).toEqual([]);
    wheel.advance(1021);
    expect(good.firedAt).toEqual([1021]);
    expect(bad.firedAt).toEqual([1020]);
    expect(wheel.size).toBe(0);
  });

  test("does not let its clock go back", () => {
    const node = new Node();
    wheel.advance(1055);
    wheel.advance(1000);
    expect(wheel.now).toBe(1055);
    wheel.schedule(node, 1070);
    runTo(1080);
    expect(node.firedAt).toEqual([1075]);
  });

  test("never calls early and never more than a tick late, whatever is scheduled and cancelled", () => {
    forSeeds(10, (random) => {
      const due = new Map<Node, number>();
      const tick = random.between(1, 20);
      const fuzzed = new TimerWheel(tick, random.between(1, 16), random.below(10_000));
      const onTimer = function (this: Node, now: number) {
        const at = due.get(this);
        expect(at).toBeDefined();
        expect(now).toBeGreaterThanOrEqual(at!);
        expect(now).toBeLessThan(at! + 2 * tick);
        due.delete(this);
      };
      const nodes = Array.from({ length: 30 }, () => Object.assign(new Node(), { onTimer }));
      for (let step = 0; step < 500; step++) {
        for (let i = random.below(4); i > 0; i--) {
          const node = random.pick(nodes);
          if (random.oneIn(4)) {
            fuzzed.cancel(node);
            due.delete(node);
          } else {
            const at = fuzzed.now + random.below(400) + random.below(2) / 2;
            fuzzed.schedule(node, at);
            due.set(node, at);
          }
        }
        fuzzed.advance(fuzzed.now + tick);
        expect(fuzzed.size).toBe(due.size);
        for (const at of due.values()) expect(at).toBeGreaterThan(fuzzed.now - tick);
      }
    });
  });
});
