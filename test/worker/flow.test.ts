import { beforeEach, describe, expect, test } from "vitest";
import { RELEASE_FROM_BYTES } from "../../src/core/byte-queue.ts";
import { Flow, QUEUE_HIGH_BYTES, QUEUE_LOW_BYTES } from "../../src/worker/flow.ts";
import { Pace } from "../../src/worker/pace.ts";
import { FakeSocket } from "../support/fake-socket.ts";
import { forSeeds } from "../support/random.ts";

const bytes = (length: number, first = 0): Uint8Array => Uint8Array.from({ length }, (_, i) => (first + i) & 0xff);

let flow: Flow;
let from: FakeSocket;
let to: FakeSocket;
beforeEach(() => {
  flow = new Flow();
  from = new FakeSocket();
  to = new FakeSocket();
  flow.from = from.socket;
  flow.to = to.socket;
});

describe("a flow", () => {
  test("owns no buffer while the receiver takes everything", () => {
    for (let i = 0; i < 10; i++) expect(flow.forward(bytes(100_000))).toBe(true);
    expect(flow.queue).toBeNull();
    expect(to.written).toHaveLength(1_000_000);
    expect(from.calls).toEqual([]);
  });

  test("gives the memory of a large chunk back that the receiver takes whole", () => {
    const [small, large] = [bytes(RELEASE_FROM_BYTES - 1), bytes(RELEASE_FROM_BYTES)];
    for (const chunk of [small, large]) flow.forward(chunk);
    expect([small.length, large.length]).toEqual([RELEASE_FROM_BYTES - 1, 0]);
  });

  test("keeps what the receiver does not take, and everything after it, in order", () => {
    to.room = 3;
    flow.forward(bytes(10));
    expect([...to.written]).toEqual([0, 1, 2]);
    // There is room again, but what came first goes first.
    to.room = Infinity;
    flow.forward(bytes(10, 10));
    expect(to.written).toHaveLength(3);
    expect(flow.flush()).toBe(true);
    expect(to.written).toEqual([...bytes(20)]);
    expect(flow.queue).toBeNull();
  });

  test("gives its buffer up when the last byte has gone", () => {
    to.room = 0;
    flow.forward(bytes(1000));
    expect(flow.queue?.bytes).toBe(1000);
    to.room = 999;
    flow.flush();
    expect(flow.queue?.bytes).toBe(1);
    to.room = 1;
    flow.flush();
    expect(flow.queue).toBeNull();
  });

  test("pauses the sender at the high mark and not before", () => {
    to.room = 0;
    flow.forward(bytes(QUEUE_HIGH_BYTES - 1));
    expect(from.paused).toBe(false);
    flow.forward(bytes(1));
    expect(from.paused).toBe(true);
    // Some bytes were on their way already.
    flow.forward(bytes(1000));
    expect(from.calls).toEqual(["pause"]);
    expect(flow.queue?.bytes).toBe(QUEUE_HIGH_BYTES + 1000);
  });

  test("lets the sender go on at the low mark and not before", () => {
    to.room = 0;
    flow.forward(bytes(QUEUE_HIGH_BYTES));
    to.room = QUEUE_HIGH_BYTES - QUEUE_LOW_BYTES - 1;
    flow.flush();
    expect(from.paused).toBe(true);
    to.room = 1;
    flow.flush();
    expect(from.paused).toBe(false);
    expect(from.calls).toEqual(["pause", "resume"]);
  });

  test("never lets a paused sender go on who was not paused", () => {
    to.room = 0;
    flow.forward(bytes(QUEUE_LOW_BYTES));
    to.room = Infinity;
    flow.flush();
    expect(from.calls).toEqual([]);
  });

  test("keeps what comes before there is a receiver, pauses the sender, and goes on when there is one", () => {
    flow.to = null;
    flow.forward(bytes(QUEUE_HIGH_BYTES));
    expect(from.paused).toBe(true);
    expect(flow.flush()).toBe(true);
    expect(flow.drained).toBe(false);
    flow.to = to.socket;
    expect(flow.flush()).toBe(true);
    expect(to.written).toHaveLength(QUEUE_HIGH_BYTES);
    expect(from.paused).toBe(false);
    expect(flow.drained).toBe(true);
  });

  test("is drained only with a receiver and without a queue: then a FIN may follow", () => {
    expect(flow.drained).toBe(true);
    to.room = 5;
    flow.forward(bytes(10));
    expect(flow.drained).toBe(false);
    to.room = 5;
    flow.flush();
    expect(flow.drained).toBe(true);
    flow.to = null;
    expect(flow.drained).toBe(false);
  });

  test("says when the receiver is gone, at once or with bytes waiting", () => {
    to.room = 1;
    expect(flow.forward(bytes(2))).toBe(true);
    to.closed = true;
    expect(flow.flush()).toBe(false);
    const other = new Flow();
    other.to = to.socket;
    expect(other.forward(bytes(1))).toBe(false);
  });

  test("goes on draining for a sender that is gone", () => {
    to.room = 0;
    flow.forward(bytes(QUEUE_HIGH_BYTES));
    flow.from = null;
    to.room = Infinity;
    expect(flow.flush()).toBe(true);
    expect(to.written).toHaveLength(QUEUE_HIGH_BYTES);
  });

  test("does not pause a sender that is gone", () => {
    flow.from = null;
    to.room = 0;
    flow.forward(bytes(QUEUE_HIGH_BYTES));
    expect(flow.paused).toBe(false);
  });

  test("holds nothing any more once it is cleared", () => {
    to.room = 0;
    flow.forward(bytes(1000));
    flow.pace = new Pace(1);
    flow.clear();
    expect([flow.queue, flow.from, flow.to, flow.pace]).toEqual([null, null, null, null]);
  });

  test("passes on every byte in order, and no more than one pause ahead, whatever chunks and rooms there are", () => {
    forSeeds(20, (random) => {
      const flow = new Flow();
      const [from, to] = [new FakeSocket(), new FakeSocket()];
      flow.from = from.socket;
      flow.to = to.socket;
      let sent = 0;
      let most = 0;
      const send = (length: number): void => {
        expect(flow.forward(bytes(length, sent))).toBe(true);
        sent += length;
        most = Math.max(most, flow.queue?.bytes ?? 0);
      };
      for (let step = 0; step < 60; step++) {
        to.room = random.oneIn(4) ? random.below(100_000) : random.below(20_000);
        if (random.oneIn(2)) flow.flush();
        if (!from.paused) send(random.between(1, 40_000));
      }
      to.room = Infinity;
      flow.flush();
      expect(to.written).toHaveLength(sent);
      expect(to.written.every((byte, i) => byte === (i & 0xff))).toBe(true);
      expect(most).toBeLessThan(QUEUE_HIGH_BYTES + 40_000);
      expect(from.paused).toBe(false);
    });
  });
});

describe("a flow with a bandwidth limit", () => {
  beforeEach(() => {
    flow.pace = new Pace(1000);
  });

  test("sends nothing but what a tick allows", () => {
    flow.forward(bytes(500));
    expect(to.written).toHaveLength(0);
    expect(flow.flush()).toBe(true);
    expect(to.written).toHaveLength(0);
    flow.flushPaced(50);
    expect(to.written).toHaveLength(50);
    flow.flushPaced(100);
    expect(to.written).toEqual([...bytes(150)]);
  });

  test("owns no buffer when everything has gone", () => {
    flow.forward(bytes(60));
    flow.flushPaced(50);
    expect(flow.drained).toBe(false);
    flow.flushPaced(50);
    expect(flow.queue).toBeNull();
    expect(flow.drained).toBe(true);
  });

  test("pauses the sender at the high mark and lets it go on at the low one", () => {
    flow.pace = new Pace(1_000_000);
    flow.forward(bytes(QUEUE_HIGH_BYTES));
    expect(from.paused).toBe(true);
    flow.flushPaced(90);
    expect(from.paused).toBe(true);
    flow.flushPaced(90);
    expect(from.paused).toBe(false);
    expect(to.written).toHaveLength(QUEUE_HIGH_BYTES);
  });

  test("does not count what the receiver did not take", () => {
    flow.forward(bytes(100));
    to.room = 10;
    flow.flushPaced(50);
    expect(to.written).toHaveLength(10);
    to.room = Infinity;
    flow.flushPaced(10);
    expect(to.written).toHaveLength(60);
  });

  test("says when the receiver is gone", () => {
    flow.forward(bytes(100));
    to.closed = true;
    expect(flow.flushPaced(50)).toBe(false);
  });
});
