// Repeatable randomness: every fuzz test draws from a seed, and a failure names it. FUZZ_SEED=n runs only that seed.

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

  /** A whole number from 0 to `end` - 1. */
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
    const bytes = new Uint8Array(length);
    for (let i = 0; i < length; i++) bytes[i] = this.below(256);
    return bytes;
  }
}

/** Runs a property with `count` new seeds; rethrows its error with the seed in the message. */
export function forSeeds(count: number, property: (random: Random) => void): void {
  for (const seed of seeds(count)) {
    try {
      property(new Random(seed));
    } catch (cause) {
      throw failed(seed, cause);
    }
  }
}

/** The same for an asynchronous property, one seed after the other. */
export async function forSeedsAsync(count: number, property: (random: Random) => Promise<void>): Promise<void> {
  for (const seed of seeds(count))
    await property(new Random(seed)).catch((cause) => Promise.reject(failed(seed, cause)));
}

function seeds(count: number): number[] {
  const given = process.env["FUZZ_SEED"];
  const first = given === undefined ? Math.floor(Math.random() * 2 ** 32) : Number(given);
  return Array.from({ length: given === undefined ? count : 1 }, (_, i) => (first + i) >>> 0);
}

function failed(seed: number, cause: unknown): Error {
  return new Error(`FUZZ_SEED=${seed}: ${cause instanceof Error ? cause.message : String(cause)}`, { cause });
}
