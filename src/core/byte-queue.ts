// The bytes that wait, in order, until a socket takes them. The queue owns their memory and keeps it in proportion to the number of
// bytes, whatever the chunks are: small chunks are copied together, and a view on a much larger buffer is copied out of it. The memory
// of large chunks is freed as soon as their bytes are written.

/** The result of writing a queue: it is empty, the writer is full, or the writer is closed. */
export const DRAINED = 1;
export const BLOCKED = 0;
export const CLOSED = -1;

export type Drain = typeof DRAINED | typeof BLOCKED | typeof CLOSED;

/** The part of a socket that a queue uses. */
interface ByteWriter {
  /** The number of bytes taken; fewer than all, or 0, when full; -1 when closed. */
  write(chunk: Uint8Array): number;
}

/** Chunks of up to this size are copied into a shared block. */
const SMALL_BYTES = 2048;
const FIRST_BLOCK_BYTES = 4096;
const BLOCK_BYTES_MAX = 16384;

/** Smaller buffers are left to the garbage collector. */
export const RELEASE_FROM_BYTES = 16384;

/** A chunk that is queued may leave this much of its buffer unused. */
const WASTE_BYTES_MAX = 4096;

/** Empty slots at the head of the list are removed once there are this many, and as many as filled ones. */
const COMPACT_FROM = 64;

export class ByteQueue {
  /** Number of queued bytes. */
  bytes = 0;

  // In order: #chunks from #head on, then the bytes in #block from #blockStart to #blockEnd.
  #chunks: (Uint8Array | null)[] = [];
  #head = 0;
  #block: Uint8Array | null = null;
  #blockStart = 0;
  #blockEnd = 0;

  /**
   * Appends a chunk. It may be kept without a copy, and the queue owns its buffer from now on: nobody else may use it afterwards.
   * `isWhole`: it is all of its buffer. Then the first chunk is kept as it is, however small; in most connections no other follows
   * before it is written, and a block costs ten times as much.
   */
  push(chunk: Uint8Array, isWhole = false): void {
    const length = chunk.byteLength;
    if (length === 0) return;
    const isFirst = this.bytes === 0;
    this.bytes += length;
    if (isWhole && isFirst) {
      this.#chunks.push(chunk);
      return;
    }
    if (length > SMALL_BYTES) {
      this.#sealBlock();
      this.#chunks.push(fit(chunk));
      return;
    }
    let block = this.#block;
    if (block === null || block.byteLength - this.#blockEnd < length) {
      const size = block === null ? FIRST_BLOCK_BYTES : Math.min(block.byteLength * 2, BLOCK_BYTES_MAX);
      this.#sealBlock();
      block = this.#block = new Uint8Array(size);
    }
    block.set(chunk, this.#blockEnd);
    this.#blockEnd += length;
  }

  /** Writes from the front as long as the writer takes everything. CLOSED leaves the queue empty. */
  drainTo(writer: ByteWriter): Drain {
    while (this.bytes > 0) {
      const chunk = this.#front();
      const { byteLength } = chunk;
      const taken = writer.write(chunk);
      if (!this.#took(taken)) return CLOSED;
      if (taken < byteLength) return BLOCKED;
    }
    return DRAINED;
  }

  /**
   * Writes at most `maxBytes` from the front and returns how many bytes were written, or CLOSED with the queue empty. Fewer than both
   * `maxBytes` and the queued bytes means that the writer is full.
   */
  take(maxBytes: number, writer: ByteWriter): number {
    let written = 0;
    while (this.bytes > 0 && written < maxBytes) {
      const front = this.#front();
      const left = maxBytes - written;
      const chunk = front.byteLength > left ? front.subarray(0, left) : front;
      const { byteLength } = chunk;
      const taken = writer.write(chunk);
      if (!this.#took(taken)) return CLOSED;
      written += taken;
      if (taken < byteLength) break;
    }
    return written;
  }

  /** Drops all bytes and leaves the memory to the garbage collector: a write may be reading it at this moment. */
  clear(): void {
    this.bytes = 0;
    this.#chunks = [];
    this.#head = 0;
    this.#dropBlock();
  }

  #front(): Uint8Array {
    if (this.#head < this.#chunks.length) return this.#chunks[this.#head] as Uint8Array;
    return (this.#block as Uint8Array).subarray(this.#blockStart, this.#blockEnd);
  }

  /** Removes what a write took from the front; false if the writer is closed. */
  #took(taken: number): boolean {
    // A write can run the close handler, which clears the queue: then the queue is empty already.
    if (taken < 0 || this.bytes === 0) {
      this.clear();
      return false;
    }
    if (taken === 0) return true;
    this.bytes -= taken;
    if (this.#head < this.#chunks.length) this.#tookOfChunk(taken);
    else this.#blockStart += taken;
    if (this.bytes === 0) this.#dropBlock();
    return true;
  }

  #tookOfChunk(taken: number): void {
    const chunks = this.#chunks;
    const chunk = chunks[this.#head] as Uint8Array;
    if (taken < chunk.byteLength) {
      chunks[this.#head] = compact(chunk.subarray(taken));
      return;
    }
    // Its buffer is at most twice as large.
    if (chunk.byteLength * 2 >= RELEASE_FROM_BYTES) release(chunk);
    chunks[this.#head++] = null;
    if (this.#head === chunks.length) {
      this.#chunks = [];
      this.#head = 0;
    } else if (this.#head >= COMPACT_FROM && this.#head * 2 >= chunks.length) {
      chunks.splice(0, this.#head);
      this.#head = 0;
    }
  }

  /** What comes next belongs behind the block, so the block is moved to the list and takes no more bytes. */
  #sealBlock(): void {
    if (this.#block === null) return;
    this.#chunks.push(compact(this.#block.subarray(this.#blockStart, this.#blockEnd)));
    this.#dropBlock();
  }

  #dropBlock(): void {
    this.#block = null;
    this.#blockStart = 0;
    this.#blockEnd = 0;
  }
}

/** The same bytes in a buffer of little more than their size: most of a large read may have been written already. */
function fit(chunk: Uint8Array): Uint8Array {
  return chunk.buffer.byteLength - chunk.byteLength > WASTE_BYTES_MAX ? copied(chunk) : compact(chunk);
}

/**
 * The same bytes in a buffer at most twice their size. A chunk that shrinks by partial writes is copied at each halving, which is
 * less than one copy of the whole in total.
 */
function compact(chunk: Uint8Array): Uint8Array {
  return chunk.byteLength * 2 >= chunk.buffer.byteLength ? chunk : copied(chunk);
}

function copied(chunk: Uint8Array): Uint8Array {
  const copy = new Uint8Array(chunk);
  release(chunk);
  return copy;
}

/**
 * Frees the memory of a large chunk now instead of at the next garbage collection: the next read then gets memory that is mapped and in
 * the processor's cache. The chunk, and every other view of its buffer, is empty afterwards.
 */
export function release(chunk: Uint8Array): void {
  const { buffer } = chunk;
  if (buffer.byteLength >= RELEASE_FROM_BYTES && buffer instanceof ArrayBuffer) buffer.transfer(0);
}
