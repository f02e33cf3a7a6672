// Chance that can be repeated: every fuzz test draws from a seed, and a failure names it. FUZZ_SEED=n runs that seed alone.

export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** 0..2^32-1 (mulberry32). */
  word(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return (t ^ (t >>> 14)) >>> 0;
  }

  /** A whole number from 0 up to, and without, `end`. */
  below(end: number): number {
    return Math.floor((this.word() / 2 ** 32) * end);
  }

  /** A whole number from `first` to `last`, both included. */
  between(first: number, last: number): number {
    return first + this.below(last - first + 1);
  }

  /** True once in `n` times. */
  oneIn(n: number): boolean {
    return this.below(n) === 0;
  }

  pick<T>(values: readonly T[]): T {
    return values[this.below(values.length)] as T;
  }

  bytes(length: number): Uint8Array {
    return Uint8Array.from({ length }, () => this.below(256));
  }
}

/** Runs a property with `count` new seeds; what it throws is thrown on with the seed in its message. */
export function forSeeds(count: number, property: (random: Random) => void): void {
  const given = process.env["FUZZ_SEED"];
  const first = given === undefined ? Math.floor(Math.random() * 2 ** 32) : Number(given);
  for (let i = 0; i < (given === undefined ? count : 1); i++) {
    const seed = (first + i) >>> 0;
    try {
      property(new Random(seed));
    } catch (cause) {
      throw new Error(`FUZZ_SEED=${seed}: ${cause instanceof Error ? cause.message : String(cause)}`, { cause });
    }
  }
}
