import { beforeEach, describe, expect, test } from "vitest";
import { RELEASE_FROM_BYTES } from "../../src/core/byte-queue.ts";
import { DIAL_QUEUE_BYTES, Flow } from "../../src/worker/flow.ts";
import { BandwidthRate, OwnBandwidth } from "../../src/policy/bandwidth.ts";
import { Pace } from "../../src/worker/pace.ts";
import { eventually } from "../support/eventually.ts";
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

  test("frees the memory of a large chunk that the receiver takes completely", () => {
    const [small, large] = [bytes(RELEASE_FROM_BYTES - 1), bytes(RELEASE_FROM_BYTES)];
    for (const chunk of [small, large]) flow.forward(chunk);
    expect([small.length, large.length]).toEqual([RELEASE_FROM_BYTES - 1, 0]);
  });

  test("queues bytes that the receiver does not take, and everything after them, in order", () => {
    to.room = 3;
    flow.forward(bytes(10));
    expect([...to.written]).toEqual([0, 1, 2]);
    // There is room again, but earlier bytes go first.
    to.room = Infinity;
    flow.forward(bytes(10, 10));
    expect(to.written).toHaveLength(3);
    expect(flow.flush()).toBe(true);
    expect(to.written).toEqual([...bytes(20)]);
    expect(flow.queue).toBeNull();
  });

  test("keeps a small chunk as it is, but not the small rest of a large one", () => {
    const writtenOf = (chunk: Uint8Array): Uint8Array[] => {
      const written: Uint8Array[] = [];
      flow.forward(chunk);
      flow.queue?.drainTo({ write: (each) => (written.push(each), each.length) });
      flow.clear();
      return written;
    };
    flow.to = null;
    const [small, rest] = [bytes(10), bytes(100_000).subarray(99_990)];
    expect(writtenOf(small)[0]).toBe(small);
    expect(writtenOf(rest)[0]?.buffer.byteLength).toBeLessThan(5000);
  });

  test("frees its buffer after the last byte", () => {
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

  test("pauses the sender as soon as the receiver does not take everything", () => {
    to.room = 1000;
    flow.forward(bytes(1000));
    expect(from.calls).toEqual([]);
    flow.forward(bytes(1));
    // Some bytes were in flight already.
    flow.forward(bytes(1000));
    expect(from.calls).toEqual(["pause"]);
    expect(flow.queue?.bytes).toBe(1001);
  });

  test("leaves it to the pump when to resume the sender", () => {
    to.room = 0;
    flow.forward(bytes(1000));
    to.room = Infinity;
    flow.flush();
    expect([flow.queue, from.paused]).toEqual([null, true]);
    flow.resume();
    flow.resume();
    expect(from.calls).toEqual(["pause", "resume"]);
  });

  test("queues bytes before there is a receiver, pauses the sender at the limit, and sends when there is one", () => {
    flow.to = null;
    flow.forward(bytes(DIAL_QUEUE_BYTES - 1));
    expect(from.paused).toBe(false);
    flow.forward(bytes(1));
    expect(from.paused).toBe(true);
    expect(flow.flush()).toBe(true);
    expect(flow.drained).toBe(false);
    flow.to = to.socket;
    expect(flow.flush()).toBe(true);
    expect(to.written).toHaveLength(DIAL_QUEUE_BYTES);
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

  test("reports that the receiver is gone, at once or with queued bytes", () => {
    to.room = 1;
    expect(flow.forward(bytes(2))).toBe(true);
    to.closed = true;
    expect(flow.flush()).toBe(false);
    const other = new Flow();
    other.to = to.socket;
    expect(other.forward(bytes(1))).toBe(false);
  });

  test("continues to drain for a sender that is gone", () => {
    to.room = 0;
    flow.forward(bytes(DIAL_QUEUE_BYTES));
    flow.from = null;
    to.room = Infinity;
    expect(flow.flush()).toBe(true);
    expect(to.written).toHaveLength(DIAL_QUEUE_BYTES);
  });

  test("does not pause a sender that is gone", () => {
    flow.from = null;
    to.room = 0;
    flow.forward(bytes(DIAL_QUEUE_BYTES));
    expect(flow.paused).toBe(false);
  });

  test("holds nothing once it is cleared", () => {
    to.room = 0;
    flow.forward(bytes(1000));
    flow.pace = new Pace(new OwnBandwidth(new BandwidthRate(1), 0));
    flow.clear();
    expect([flow.queue, flow.from, flow.to, flow.pace]).toEqual([null, null, null, null]);
  });

  test("passes on every byte in order, and holds no more than one chunk, for random chunks and rooms", () => {
    forSeeds(20, (random) => {
      const flow = new Flow();
      const [from, to] = [new FakeSocket(), new FakeSocket()];
      flow.from = from.socket;
      flow.to = to.socket;
      let sent = 0;
      for (let step = 0; step < 60; step++) {
        to.room = random.oneIn(4) ? random.below(100_000) : random.below(20_000);
        if (random.oneIn(2)) flow.flush();
        if (flow.queue === null) flow.resume();
        if (from.paused) continue;
        const length = random.between(1, 40_000);
        expect(flow.forward(bytes(length, sent))).toBe(true);
        sent += length;
        expect(flow.waiting).toBeLessThanOrEqual(length);
      }
      to.room = Infinity;
      flow.flush();
      expect(to.written).toHaveLength(sent);
      expect(to.written.every((byte, i) => byte === (i & 0xff))).toBe(true);
    });
  });
});

describe("a flow with a bandwidth limit", () => {
  const MB = 1_000_000;
  /** The number of bytes that may be sent at `nowMs`, on the clock that the flow reads. */
  const paced = (allowed: number): Pace => {
    const pace = new Pace(new OwnBandwidth(new BandwidthRate(MB), performance.now()));
    // As if the time for this many bytes had passed: no others are sent within this test.
    pace.spend(-allowed);
    return pace;
  };

  test("sends the allowed bytes at once, and queues the rest with the sender paused", () => {
    flow.pace = paced(50_000);
    flow.forward(bytes(10_000));
    expect(from.calls).toEqual([]);
    expect(to.written).toHaveLength(10_000);
    // More than a burst can save.
    flow.forward(bytes(300_000, 10_000));
    expect(from.calls).toEqual(["pause"]);
    expect(to.written.length).toBeGreaterThanOrEqual(50_000);
    expect(to.written.length).toBeLessThanOrEqual(110_000);
    expect(flow.waiting).toBe(310_000 - to.written.length);
    expect(to.written.every((byte, i) => byte === (i & 0xff))).toBe(true);
  });

  test("sends the rest as time passes, and owns no buffer after the last byte", async () => {
    flow.pace = paced(0);
    flow.forward(bytes(20_000));
    await eventually("the rest", () => flow.flush() && flow.queue === null);
    expect(to.written).toEqual([...bytes(20_000)]);
    expect(flow.drained).toBe(true);
  });

  test("does not count bytes that the receiver did not take", () => {
    flow.pace = paced(50_000);
    to.room = 10;
    flow.forward(bytes(50_000));
    expect(to.written).toHaveLength(10);
    to.room = Infinity;
    flow.flush();
    expect(to.written).toHaveLength(50_000);
  });

  test("reports that the receiver is gone", () => {
    flow.pace = paced(100);
    to.closed = true;
    expect(flow.forward(bytes(100))).toBe(false);
    flow.pace = null;
    to.closed = false;
    to.room = 0;
    flow.forward(bytes(100));
    flow.pace = paced(100);
    to.closed = true;
    expect(flow.flush()).toBe(false);
  });
});
