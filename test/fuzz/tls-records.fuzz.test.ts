import { describe, expect, test } from "vitest";
import { RecordWalk } from "../../src/wire/tls-records.ts";
import type { Random } from "../support/random.ts";
import { forSeeds } from "../support/random.ts";
import { threadCpuMs } from "../support/proc.ts";

const ALERT = 21;
const DATA = 23;

interface Sealed {
  wire: Uint8Array;
  data: number;
}

function sealed(random: Random, type: number, content: number, added: number, isData: boolean): Sealed {
  const payload = content + added;
  const wire = new Uint8Array(5 + payload);
  wire.set(random.bytes(payload), 5);
  wire.set([type, 3, 3, payload >> 8, payload & 0xff]);
  return { wire, data: isData ? content : 0 };
}

/** Records after a handshake: mostly data, with TLS 1.3 also messages that give no data. No data has an alert's length. */
function recordsOf(random: Random, tls13: boolean, orderly: boolean): Sealed[] {
  const added = tls13 ? 17 : random.pick([16, 24]);
  const records = Array.from({ length: random.below(8) }, () => {
    const content = random.pick([1, 3, 5, random.between(3, 400), random.between(3, 400), 16_384]);
    return tls13 && random.oneIn(5)
      ? sealed(random, DATA, random.pick([5, 36, 52, 219]), added, false)
      : sealed(random, DATA, content, added, true);
  });
  if (orderly) records.push(sealed(random, tls13 ? DATA : ALERT, 2, added, false));
  return records;
}

/** The result of a walk over the records, in chunks of any sizes, cut off `short` bytes before their end. */
function verdict(random: Random, records: readonly Sealed[], short: number): boolean {
  const wire: Uint8Array = Buffer.concat(records.map((one) => one.wire));
  const length = wire.length - short;
  const deliveredBy = (place: number): number => {
    let at = 0;
    return records.reduce((sum, one) => ((at += one.wire.length) <= place ? sum + one.data : sum), 0);
  };
  const walk = new RecordWalk();
  for (let at = 0; at < length;) {
    const end = Math.min(length, at + random.pick([1, random.between(1, 30), random.between(1, 20_000)]));
    walk.push(wire.subarray(at, end), deliveredBy(at));
    at = end;
  }
  return walk.closesOrderly(deliveredBy(length));
}

describe("TLS records, without decryption", () => {
  test("end orderly only with an alert, whatever the chunks are", () => {
    forSeeds(3000, (random) => {
      const tls13 = random.oneIn(2);
      const orderly = random.oneIn(2);
      const records = recordsOf(random, tls13, orderly);
      if (records.length === 0) return;
      expect(verdict(random, records, 0)).toBe(orderly);
      const last = records.at(-1)!.wire.length;
      expect(verdict(random, records, random.between(1, last - 1))).toBe(false);
    });
  });

  test("never throw, and take linear time, whatever the bytes are", () => {
    forSeeds(300, (random) => {
      const walk = new RecordWalk();
      for (let chunks = random.below(20); chunks > 0; chunks--) {
        walk.push(random.bytes(random.below(3000)), random.below(10_000));
        expect(typeof walk.closesOrderly(random.below(10_000))).toBe("boolean");
      }
    });
    // All headers and no payload is the most work per byte.
    const empty = new Uint8Array(5_000_000);
    const walk = new RecordWalk();
    const began = threadCpuMs();
    walk.push(empty, 0);
    expect(threadCpuMs() - began).toBeLessThan(5000);
  });
});
