// Times in shared memory that all threads exchange, in nanoseconds. A time needs 64 bits, but atomics on 64 bits need BigInts, which cost ten
// times as much as atomics on 32 bits. So a time is two words, upper * 2^32 + lower, both signed, and while the upper word stays, which is
// 4.3 s for a time that advances with the clock, an exchange is one of the lower word alone.
//
// A change of the upper word is an exchange of both, and changes the lower word as well, so an exchange of the lower word that was read
// before fails. The exception: other threads change the time by exactly a multiple of 2^32 ns between two instructions of this one. A thread
// that is stopped for so long meets it with a probability of 2^-32. Then the time is wrong by that multiple.

/** What the upper word counts. */
const UPPER = 2 ** 32;

export const TIME_BYTES = 8;

export class TimeCells {
  readonly #words: Int32Array;
  /** The same words in pairs. */
  readonly #pairs: BigInt64Array;

  /** The times in a part of the memory, all by default; it is zero at first. */
  constructor(memory: SharedArrayBuffer, byteOffset = 0, times = memory.byteLength / TIME_BYTES) {
    this.#words = new Int32Array(memory, byteOffset, times * 2);
    this.#pairs = new BigInt64Array(memory, byteOffset, times);
  }

  load(cell: number): number {
    const words = this.#words;
    const at = cell * 2;
    for (;;) {
      const lower = Atomics.load(words, at);
      const upper = Atomics.load(words, at + 1);
      if (Atomics.load(words, at) === lower) return upper * UPPER + lower;
    }
  }

  /** Replaces the time `seen`, as it was loaded, by `next` without its fraction. False = another thread has changed it. */
  exchange(cell: number, seen: number, next: number): boolean {
    const upper = upperOf(seen);
    const lower = seen - upper * UPPER;
    const nextLower = next - upper * UPPER;
    if (nextLower < -UPPER / 2 || nextLower >= UPPER / 2) return this.#exchangeBoth(cell, seen, next);
    return Atomics.compareExchange(this.#words, cell * 2, lower | 0, nextLower | 0) === lower;
  }

  /**
   * Sets a time that no other thread may change, while others may still try: each `exchange` of a time that was loaded before fails, because
   * the lower word changes in any case.
   */
  reset(cell: number, ns: number): void {
    const words = this.#words;
    const at = cell * 2;
    const upper = upperOf(ns);
    const lower = (ns - upper * UPPER) | 0;
    Atomics.store(words, at, lower === words[at] ? lower - 1 : lower);
    Atomics.store(words, at + 1, upper);
  }

  #exchangeBoth(cell: number, seen: number, next: number): boolean {
    fromTo[1] = upperOf(seen);
    fromTo[0] = seen - fromTo[1] * UPPER;
    fromTo[3] = upperOf(next);
    fromTo[2] = next - fromTo[3] * UPPER;
    return Atomics.compareExchange(this.#pairs, cell, fromToPairs[0]!, fromToPairs[1]!) === fromToPairs[0];
  }
}

const fromTo = new Int32Array(4);
const fromToPairs = new BigInt64Array(fromTo.buffer);

function upperOf(ns: number): number {
  return Math.round(ns / UPPER);
}
