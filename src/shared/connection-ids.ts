// Connection ids: unique over all workers while the process lives, including workers that died. A worker takes a block of ids at a time, so
// that a connection costs no atomic operation.

/** 2^32 blocks of this size last for decades at any connection rate, and all ids are exact in a double. */
export const ID_BLOCK = 65_536;

export class ConnectionIds {
  /** One cell: the number of blocks that were taken. */
  readonly #taken: Int32Array;
  #next = 0;
  #last = -1;

  constructor(taken: Int32Array) {
    this.#taken = taken;
  }

  /** From 1. Hot path. */
  next(): number {
    if (this.#next > this.#last) {
      const block = Atomics.add(this.#taken, 0, 1) >>> 0;
      this.#next = block * ID_BLOCK + 1;
      this.#last = (block + 1) * ID_BLOCK;
    }
    return this.#next++;
  }
}
