import { describe, expect, test } from "vitest";
import { hashWords } from "../../src/core/hash.ts";

type Five = [number, number, number, number, number];

function hash(key: [number, number], words: Five): [number, number] {
  const out = new Int32Array(2);
  hashWords(Int32Array.from(key), ...words, out);
  return [out[0]! >>> 0, out[1]! >>> 0];
}

describe("hashWords", () => {
  test("gives the reference implementation's vector for the bytes 0 to 19 under the key 0 to 7", () => {
    const words: Five = [0x03020100, 0x07060504, 0x0b0a0908, 0x0f0e0d0c, 0x13121110];
    // vectors_hsip64[20] = 1b f5 2b 0a 6f ee a7 db
    expect(hash([0x03020100, 0x07060504], words)).toEqual([0x0a2bf51b, 0xdba7ee6f]);
  });

  // Made by a second implementation (in Python, from the paper), which gives the reference's vectors for other lengths.
  test.each<[[number, number], Five, [number, number]]>([
    [
      [0, 0],
      [0, 0, 0, 0, 0],
      [0xa4f01e25, 0x1e90156f],
    ],
    [
      [0xffffffff, 0x80000000],
      [1, 0, 0, 0xffff, 0x0a000001],
      [0xefc30eb6, 0xfef51865],
    ],
    [
      [0xdeadbeef, 0x12345678],
      [7, 0x20010db8, 0, 0, 0xffffffff],
      [0x917a9524, 0x62353e74],
    ],
    [
      [0x01020304, 0xa5a5a5a5],
      [0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff],
      [0x29be2561, 0x9a22016c],
    ],
  ])("agrees with an independent implementation under the key %j", (key, words, expected) => {
    expect(hash(key, words)).toEqual(expected);
  });

  test("flips about half of its bits for each bit of the message and of the key", () => {
    const base: Five = [3, 0x20010db8, 0, 0xffff, 0x0a000001];
    const plain = hash([1, 2], base);
    for (let bit = 0; bit < 7 * 32; bit++) {
      const all = [1, 2, ...base];
      all[bit >> 5]! ^= 1 << (bit & 31);
      const other = hash([all[0]!, all[1]!], all.slice(2) as Five);
      const flipped = bitCount(plain[0] ^ other[0]) + bitCount(plain[1] ^ other[1]);
      expect(flipped, `bit ${bit}`).toBeGreaterThan(12);
      expect(flipped, `bit ${bit}`).toBeLessThan(52);
    }
  });

  test("spreads neighbouring addresses evenly over a table, by either word", () => {
    const buckets = [new Uint32Array(256), new Uint32Array(256)];
    const n = 65_536;
    for (let i = 0; i < n; i++) {
      const [low, high] = hash([5, 6], [0, 0, 0, 0xffff, 0x0a000000 + i]);
      buckets[0]![low & 255]!++;
      buckets[1]![high & 255]!++;
    }
    for (const counts of buckets) {
      const expected = n / 256;
      const chiSquare = counts.reduce((sum, count) => sum + (count - expected) ** 2 / expected, 0);
      // 255 degrees of freedom: the mean is 255, the standard deviation 22.6. Too even would be as wrong as too uneven.
      expect(chiSquare).toBeGreaterThan(255 - 5 * 22.6);
      expect(chiSquare).toBeLessThan(255 + 5 * 22.6);
    }
  });
});

function bitCount(word: number): number {
  let count = 0;
  for (let rest = word >>> 0; rest > 0; rest >>>= 1) count += rest & 1;
  return count;
}
