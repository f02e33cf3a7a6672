// The bytes that a peer has sent so far, up to a limit.

const FIRST_BYTES = 256;

export class Answer {
  readonly bytesMax: number;
  #memory = new Uint8Array(FIRST_BYTES);
  #length = 0;

  constructor(bytesMax: number) {
    this.bytesMax = bytesMax;
  }

  /** A view that is valid until the next `push` or `clear`. */
  get bytes(): Uint8Array {
    return this.#memory.subarray(0, this.#length);
  }

  get length(): number {
    return this.#length;
  }

  get isFull(): boolean {
    return this.#length === this.bytesMax;
  }

  /** Copies the bytes; those beyond the limit are dropped. */
  push(bytes: Uint8Array): void {
    const length = Math.min(this.bytesMax, this.#length + bytes.length);
    if (length > this.#memory.length) {
      const larger = new Uint8Array(Math.min(this.bytesMax, Math.max(length, 2 * this.#memory.length)));
      larger.set(this.bytes);
      this.#memory = larger;
    }
    this.#memory.set(bytes.subarray(0, length - this.#length), this.#length);
    this.#length = length;
  }

  clear(): void {
    this.#length = 0;
  }
}

/** The position of `wanted` in `bytes` at or after `from`; -1 if it is not there. An empty `wanted` is found at `from`. */
export function indexOfBytes(bytes: Uint8Array, wanted: Uint8Array, from = 0): number {
  const [first] = wanted;
  if (first === undefined) return from;
  const last = bytes.length - wanted.length;
  for (let at = bytes.indexOf(first, from); at >= 0 && at <= last; at = bytes.indexOf(first, at + 1)) {
    let same = 1;
    while (same < wanted.length && bytes[at + same] === wanted[same]) same++;
    if (same === wanted.length) return at;
  }
  return -1;
}
