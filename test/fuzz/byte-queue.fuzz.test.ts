import { expect, test } from "vitest";
import { BLOCKED, ByteQueue, CLOSED, DRAINED } from "../../src/core/byte-queue.ts";
import type { Random } from "../support/random.ts";
import { forSeeds } from "../support/random.ts";

/** Takes as much as it has room for, and records it. */
class Writer {
  readonly #chunks: Uint8Array[] = [];
  room = 0;
  isClosed = false;
  write(chunk: Uint8Array): number {
    expect(chunk.byteLength).toBeGreaterThan(0);
    if (this.isClosed) return -1;
    const taken = Math.min(this.room, chunk.byteLength);
    this.#chunks.push(Uint8Array.prototype.slice.call(chunk, 0, taken));
    this.room -= taken;
    return taken;
  }
  get written(): Buffer {
    return Buffer.concat(this.#chunks);
  }
}

const chunkOf = (random: Random): Uint8Array => {
  const length = random.pick([
    0,
    1,
    random.below(50),
    random.below(2100),
    random.between(2040, 2056),
    random.below(9000),
    random.oneIn(5) ? random.below(40_000) : 0,
  ]);
  const chunk = random.bytes(length + random.pick([0, 0, 20_000])).subarray(0, length);
  return random.oneIn(3) ? Buffer.from(chunk) : chunk;
};

test("a byte queue behaves like a plain list of bytes", () => {
  forSeeds(60, (random) => {
    const queue = new ByteQueue();
    let model: Buffer = Buffer.alloc(0);
    const expectNext = (written: Buffer): void => {
      expect(Buffer.compare(written, model.subarray(0, written.length))).toBe(0);
      model = model.subarray(written.length);
    };
    for (let step = 0; step < 120; step++) {
      const writer = new Writer();
      const action = random.below(20);
      if (action < 11) {
        const chunk = chunkOf(random);
        model = Buffer.concat([model, chunk]);
        queue.push(chunk);
      } else if (action < 15) {
        writer.room = random.below(model.length + 100);
        const outcome = queue.drainTo(writer);
        expect(outcome).toBe(writer.written.length === model.length ? DRAINED : BLOCKED);
        expectNext(writer.written);
        if (outcome === BLOCKED) expect(writer.room).toBe(0);
      } else if (action < 18) {
        writer.room = random.below(model.length + 100);
        const most = random.below(model.length + 100);
        const expected = Math.min(most, writer.room, model.length);
        expect(queue.take(most, writer)).toBe(expected);
        expect(writer.written.length).toBe(expected);
        expectNext(writer.written);
      } else if (action === 18 && random.oneIn(3)) {
        writer.isClosed = true;
        const isEmpty = model.length === 0;
        if (random.oneIn(2)) expect(queue.drainTo(writer)).toBe(isEmpty ? DRAINED : CLOSED);
        else expect(queue.take(9, writer)).toBe(isEmpty ? 0 : CLOSED);
        model = Buffer.alloc(0);
      } else if (random.oneIn(5)) {
        queue.clear();
        model = Buffer.alloc(0);
      }
      expect(queue.bytes).toBe(model.length);
    }
    const last = new Writer();
    last.room = Infinity;
    expect(queue.drainTo(last)).toBe(DRAINED);
    expect(last.written.equals(model)).toBe(true);
  });
});
