// Two hashes. `hashText` is for names, and gives the same on every machine. `hashWords` is keyed, for tables whose keys are chosen by
// untrusted clients: HalfSipHash-2-4 with 64 bits of output, the 32-bit variant of SipHash (Aumasson and Bernstein, "SipHash: a fast
// short-input PRF", INDOCRYPT 2012; reference implementation https://github.com/veorq/SipHash, halfsiphash.c). Without the key nobody
// can find colliding keys.

/** Two words of key, chosen at random once per process; all threads that share a table need the same key. */
export type HashKey = Int32Array;

/** The message: five words, the length in the top byte of the last block, and zeros for the two finalization rounds. */
const blocks = new Int32Array(8);
blocks[5] = 20 << 24;

/**
 * Hashes five 32-bit words (a scope, such as a listener's id, and an address), each as four little-endian bytes. Writes the low word to
 * out[0] and the high word to out[1], both signed. Allocates nothing.
 */
export function hashWords(
  key: HashKey,
  scope: number,
  w0: number,
  w1: number,
  w2: number,
  w3: number,
  out: Int32Array,
): void {
  blocks[0] = scope;
  blocks[1] = w0;
  blocks[2] = w1;
  blocks[3] = w2;
  blocks[4] = w3;
  const k0 = key[0] as number;
  const k1 = key[1] as number;
  let v0 = k0;
  let v1 = k1 ^ 0xee;
  let v2 = 0x6c796765 ^ k0;
  let v3 = 0x74656462 ^ k1;
  for (let step = 0; step < 8; step++) {
    const block = blocks[step] as number;
    v3 ^= block;
    for (let round = step < 6 ? 2 : 4; round > 0; round--) {
      v0 = (v0 + v1) | 0;
      v1 = ((v1 << 5) | (v1 >>> 27)) ^ v0;
      v0 = (v0 << 16) | (v0 >>> 16);
      v2 = (v2 + v3) | 0;
      v3 = ((v3 << 8) | (v3 >>> 24)) ^ v2;
      v0 = (v0 + v3) | 0;
      v3 = ((v3 << 7) | (v3 >>> 25)) ^ v0;
      v2 = (v2 + v1) | 0;
      v1 = ((v1 << 13) | (v1 >>> 19)) ^ v2;
      v2 = (v2 << 16) | (v2 >>> 16);
    }
    v0 ^= block;
    if (step === 5) v2 ^= 0xee;
    if (step === 6) {
      out[0] = v1 ^ v3;
      v1 ^= 0xdd;
    }
  }
  out[1] = v1 ^ v3;
}

/**
 * Hash of a text's UTF-16 code units, an unsigned 32-bit number; each `seed` gives another hash. FNV-1a (RFC 9923), and
 * MurmurHash3's finalizer (Austin Appleby, public domain), since FNV alone leaves the high bits of short texts alike.
 */
export function hashText(text: string, seed: number): number {
  let hash = 0x811c9dc5 ^ Math.imul(seed, 0x9e3779b1);
  for (let i = 0; i < text.length; i++) {
    const unit = text.charCodeAt(i);
    hash = Math.imul(hash ^ (unit & 0xff), 0x01000193);
    hash = Math.imul(hash ^ (unit >>> 8), 0x01000193);
  }
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}
