import { beforeEach, describe, expect, test } from "vitest";
import { BLOCKED, ByteQueue, CLOSED, DRAINED, RELEASE_FROM_BYTES } from "../../src/core/byte-queue.ts";
import { threadCpuMs } from "../support/proc.ts";

/** Takes bytes up to its total room, and then is closed if `closes`. */
class Writer {
  written: number[] = [];
  writes = 0;
  room: number;
  readonly #closes: boolean;
  constructor(room: number, closes = false) {
    this.room = room;
    this.#closes = closes;
  }
  write(chunk: Uint8Array): number {
    this.writes++;
    if (this.#closes && this.room === 0) return -1;
    const taken = Math.min(this.room, chunk.byteLength);
    for (const byte of chunk.subarray(0, taken)) this.written.push(byte);
    this.room -= taken;
    return taken;
  }
}

const bytes = (length: number, first = 0) => Uint8Array.from({ length }, (_, i) => first + i);

describe("ByteQueue", () => {
  let queue: ByteQueue;
  beforeEach(() => {
    queue = new ByteQueue();
  });

  test("writes the bytes in the order in which they were pushed, whatever the sizes of the chunks", () => {
    const chunks = [bytes(3), bytes(5000, 7), bytes(1), bytes(2048), bytes(2049, 3), bytes(9)];
    for (const chunk of chunks) queue.push(chunk);
    const writer = new Writer(Infinity);
    expect(queue.bytes).toBe(chunks.reduce((sum, chunk) => sum + chunk.length, 0));
    expect(queue.drainTo(writer)).toBe(DRAINED);
    expect(writer.written).toEqual(chunks.flatMap((chunk) => [...chunk]));
    expect(queue.bytes).toBe(0);
  });

  test("keeps what a full writer did not take", () => {
    queue.push(bytes(10));
    queue.push(bytes(5000));
    expect(queue.drainTo(new Writer(4))).toBe(BLOCKED);
    expect(queue.bytes).toBe(5006);
    expect(queue.drainTo(new Writer(3006))).toBe(BLOCKED);
    expect(queue.bytes).toBe(2000);
    const writer = new Writer(Infinity);
    expect(queue.drainTo(writer)).toBe(DRAINED);
    expect(writer.written).toEqual([...bytes(5000).subarray(3000)]);
  });

  test("does not write again after a partial write", () => {
    queue.push(bytes(3000));
    queue.push(bytes(3000));
    const writer = new Writer(2999);
    expect(queue.drainTo(writer)).toBe(BLOCKED);
    expect(writer.writes).toBe(1);
  });

  test("drops everything when the writer is closed", () => {
    queue.push(bytes(3000));
    queue.push(bytes(3000));
    expect(queue.drainTo(new Writer(3000, true))).toBe(CLOSED);
    expect(queue.bytes).toBe(0);
    expect(queue.drainTo(new Writer(Infinity))).toBe(DRAINED);
  });

  test("is drained at once when it is empty, without a write", () => {
    queue.push(new Uint8Array(0));
    const writer = new Writer(0);
    expect(queue.drainTo(writer)).toBe(DRAINED);
    expect(queue.take(5, writer)).toBe(0);
    expect(writer.writes).toBe(0);
  });

  test("writes many small chunks at once", () => {
    for (let i = 0; i < 4096; i++) queue.push(bytes(1, i % 256));
    const writer = new Writer(Infinity);
    expect(queue.drainTo(writer)).toBe(DRAINED);
    expect(writer.writes).toBe(1);
    expect(writer.written).toEqual(Array.from({ length: 4096 }, (_, i) => i % 256));
  });

  test("writes at most the given number of bytes, across chunks", () => {
    queue.push(bytes(3000));
    queue.push(bytes(3000, 5));
    const writer = new Writer(Infinity);
    expect(queue.take(3001, writer)).toBe(3001);
    expect(writer.written).toEqual([...bytes(3000), 5]);
    expect(queue.bytes).toBe(2999);
    expect(queue.take(0, writer)).toBe(0);
    expect(queue.take(9999, writer)).toBe(2999);
  });

  test("writes less when the writer is full, and nothing more when it is closed", () => {
    queue.push(bytes(3000));
    expect(queue.take(100, new Writer(30))).toBe(30);
    expect(queue.bytes).toBe(2970);
    expect(queue.take(100, new Writer(0, true))).toBe(CLOSED);
    expect(queue.bytes).toBe(0);
  });

  test("stays consistent when a write clears or fills it", () => {
    queue.push(bytes(10));
    expect(queue.drainTo({ write: (chunk) => (queue.clear(), chunk.byteLength) })).toBe(CLOSED);
    expect(queue.bytes).toBe(0);

    queue.push(bytes(10));
    const written: number[] = [];
    const refilling = {
      write(chunk: Uint8Array) {
        if (written.length === 0) queue.push(bytes(3000, 10));
        written.push(...chunk);
        return chunk.byteLength;
      },
    };
    expect(queue.drainTo(refilling)).toBe(DRAINED);
    expect(written).toEqual([...bytes(10), ...bytes(3000, 10)]);
  });

  test("is not affected when the memory of a small chunk is reused", () => {
    const chunk = bytes(3);
    queue.push(chunk);
    chunk.fill(9);
    const writer = new Writer(Infinity);
    queue.drainTo(writer);
    expect(writer.written).toEqual([0, 1, 2]);
  });

  test("copies a small chunk that comes first only if its buffer is larger", () => {
    const written: Uint8Array[] = [];
    const writer = { write: (chunk: Uint8Array) => (written.push(chunk), chunk.byteLength) };
    const whole = bytes(3);
    queue.push(whole, true);
    queue.drainTo(writer);
    const view = new Uint8Array(65_536).subarray(0, 3);
    queue.push(view, false);
    queue.drainTo(writer);
    expect(written[0]).toBe(whole);
    expect(written[1]?.buffer).not.toBe(view.buffer);
  });

  test("writes many small chunks behind the first at once", () => {
    for (let i = 0; i < 100; i++) queue.push(bytes(3, i), true);
    const writer = new Writer(Infinity);
    queue.drainTo(writer);
    expect(writer.writes).toBe(2);
    expect(writer.written).toEqual(Array.from({ length: 100 }, (_, i) => [i, i + 1, i + 2]).flat());
  });

  test.each([
    ["small views on large buffers", () => new Uint8Array(65_536).subarray(0, 3000), 2, 0],
    ["node buffers, whose slice would be a view", () => Buffer.alloc(65_536).subarray(0, 3000), 2, 0],
    ["one-byte chunks", () => new Uint8Array(1), 2, 4096],
    ["chunks of 1 KB and a bit, which fill blocks badly", () => new Uint8Array(1400), 2, 16384],
  ])("holds no more memory than twice the bytes: %s", (_, chunk, factor, extra) => {
    for (let i = 0; i < 500; i++) queue.push(chunk());
    const waiting = queue.bytes;
    expect(retained(queue)).toBeLessThanOrEqual(waiting * factor + extra);
  });

  test("holds no more memory than twice the bytes when small and large chunks take turns", () => {
    for (let i = 0; i < 1000; i++) queue.push(new Uint8Array(i % 2 ? 2049 : 1));
    const waiting = queue.bytes;
    expect(retained(queue)).toBeLessThanOrEqual(waiting * 2 + 16384);
  });

  test("holds no unused part of a large read that was mostly written", () => {
    queue.push(new Uint8Array(100_000).subarray(40_000));
    expect(retained(queue)).toBeLessThanOrEqual(60_000);
  });

  test("frees a large buffer when little of it is left", () => {
    queue.push(new Uint8Array(512 * 1024));
    queue.drainTo(new Writer(512 * 1024 - 10));
    expect(queue.bytes).toBe(10);
    expect(retained(queue)).toBeLessThanOrEqual(20);
  });

  test("holds no buffer while it is empty", () => {
    const queues = Array.from({ length: 500 }, () => new ByteQueue());
    Bun.gc(true);
    const before = process.memoryUsage().arrayBuffers;
    for (const each of queues) {
      each.push(bytes(1));
      each.push(new Uint8Array(20_000));
      each.push(bytes(1));
      each.drainTo(new Writer(Infinity));
    }
    Bun.gc(true);
    // The collector may miss a few; all of them would be 12 MB.
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(1_000_000);
    expect(queues.every((each) => each.bytes === 0)).toBe(true);
  });

  test("frees each chunk as soon as it is written", () => {
    for (let i = 0; i < 60; i++) queue.push(new Uint8Array(100_000));
    Bun.gc(true);
    const before = process.memoryUsage().arrayBuffers;
    queue.drainTo(new Writer(5_950_000));
    Bun.gc(true);
    expect(before - process.memoryUsage().arrayBuffers).toBeGreaterThan(5_000_000);
    expect(queue.bytes).toBe(50_000);
  });

  test("removes a quarter of a million chunks from the front in linear time", () => {
    const chunk = new Uint8Array(2049);
    for (let i = 0; i < 250_000; i++) queue.push(chunk);
    const started = threadCpuMs();
    const writer = { write: (chunk: Uint8Array) => chunk.byteLength };
    while (queue.bytes > 0) queue.take(2049, writer);
    // Array.shift() at each would take many seconds.
    expect(threadCpuMs() - started).toBeLessThan(5000);
  });

  test("frees the memory of a large chunk with its last byte, or when it has copied the rest", () => {
    const whole = bytes(RELEASE_FROM_BYTES);
    const half = bytes(RELEASE_FROM_BYTES);
    const view = bytes(RELEASE_FROM_BYTES).subarray(0, 3000);
    queue.push(whole);
    queue.push(half);
    queue.push(view);
    expect([whole, half, view].map(({ length }) => length)).toEqual([RELEASE_FROM_BYTES, RELEASE_FROM_BYTES, 0]);
    expect(queue.drainTo(new Writer(RELEASE_FROM_BYTES))).toBe(BLOCKED);
    expect([whole.length, half.length]).toEqual([0, RELEASE_FROM_BYTES]);
    expect(queue.drainTo(new Writer(RELEASE_FROM_BYTES / 2 + 1))).toBe(BLOCKED);
    expect(half.length).toBe(0);
    const writer = new Writer(Infinity);
    expect(queue.drainTo(writer)).toBe(DRAINED);
    expect(writer.written).toEqual([...bytes(RELEASE_FROM_BYTES).subarray(RELEASE_FROM_BYTES / 2 + 1), ...bytes(3000)]);
  });

  test("does not free the memory of small chunks, nor of chunks that it drops", () => {
    const small = bytes(RELEASE_FROM_BYTES - 1);
    const forgotten = bytes(RELEASE_FROM_BYTES);
    queue.push(small);
    expect(queue.drainTo(new Writer(Infinity))).toBe(DRAINED);
    queue.push(forgotten);
    queue.clear();
    expect([small.length, forgotten.length]).toEqual([RELEASE_FROM_BYTES - 1, RELEASE_FROM_BYTES]);
  });
});

/** Bytes of all the buffers behind the queue's writes: each write is a view of the buffer that holds it. */
function retained(queue: ByteQueue): number {
  const buffers = new Map<ArrayBufferLike, number>();
  queue.drainTo({ write: (chunk) => (buffers.set(chunk.buffer, chunk.buffer.byteLength), chunk.byteLength) });
  return buffers.values().reduce((sum, length) => sum + length, 0);
}
