import { expect, test } from "vitest";
import { BLOCKED, ByteQueue, CLOSED, DRAINED } from "../../src/core/byte-queue.ts";
import type { Random } from "../support/random.ts";
import { forSeeds } from "../support/random.ts";

/** Takes as much as it has room for, and records it. */
class Writer {
  readonly written: number[] = [];
  room = 0;
  isClosed = false;
  write(chunk: Uint8Array): number {
    expect(chunk.byteLength).toBeGreaterThan(0);
    if (this.isClosed) return -1;
    const taken = Math.min(this.room, chunk.byteLength);
    for (let i = 0; i < taken; i++) this.written.push(chunk[i]!);
    this.room -= taken;
    return taken;
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
    let model: number[] = [];
    for (let step = 0; step < 120; step++) {
      const writer = new Writer();
      const action = random.below(20);
      if (action < 11) {
        const chunk = chunkOf(random);
        for (const byte of chunk) model.push(byte);
        queue.push(chunk);
      } else if (action < 15) {
        writer.room = random.below(model.length + 100);
        const outcome = queue.drainTo(writer);
        expect(outcome).toBe(writer.written.length === model.length ? DRAINED : BLOCKED);
        expect(Buffer.compare(Buffer.from(writer.written), Buffer.from(model.splice(0, writer.written.length)))).toBe(
          0,
        );
        if (outcome === BLOCKED) expect(writer.room).toBe(0);
      } else if (action < 18) {
        writer.room = random.below(model.length + 100);
        const most = random.below(model.length + 100);
        const expected = Math.min(most, writer.room, model.length);
        expect(queue.take(most, writer)).toBe(expected);
        expect(Buffer.compare(Buffer.from(writer.written), Buffer.from(model.splice(0, expected)))).toBe(0);
      } else if (action === 18 && random.oneIn(3)) {
        writer.isClosed = true;
        const isEmpty = model.length === 0;
        if (random.oneIn(2)) expect(queue.drainTo(writer)).toBe(isEmpty ? DRAINED : CLOSED);
        else expect(queue.take(9, writer)).toBe(isEmpty ? 0 : CLOSED);
        model = [];
      } else if (random.oneIn(5)) {
        queue.clear();
        model = [];
      }
      expect(queue.bytes).toBe(model.length);
    }
    const last = new Writer();
    last.room = Infinity;
    expect(queue.drainTo(last)).toBe(DRAINED);
    expect(last.written).toEqual(model);
  });
});
