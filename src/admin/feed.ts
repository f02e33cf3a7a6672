// What a subscriber of a stream has not taken yet: bounded, so that a slow reader costs a known amount of memory.

export class Feed {
  readonly stream: ReadableStream<Uint8Array>;
  #controller!: ReadableStreamDefaultController<Uint8Array>;
  readonly #closed: () => void;
  #isOpen = true;

  /**
   * What waits is at most `bytesMax` and the part behind it. `closed` is called once, when the reader is gone or the feed has ended.
   */
  constructor(bytesMax: number, closed: () => void) {
    this.#closed = closed;
    this.stream = new ReadableStream<Uint8Array>(
      {
        start: (controller) => void (this.#controller = controller),
        cancel: () => this.#close(),
      },
      new ByteLengthQueuingStrategy({ highWaterMark: bytesMax }),
    );
  }

  /** False = as much as may wait does already. */
  push(bytes: Uint8Array): boolean {
    if (!this.#isOpen || (this.#controller.desiredSize ?? 0) <= 0) return false;
    this.#controller.enqueue(bytes);
    return true;
  }

  /** The reader sees a response that is cut short. */
  fail(reason: string): void {
    if (!this.#isOpen) return;
    this.#controller.error(new Error(reason));
    this.#close();
  }

  #close(): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    this.#closed();
  }
}
