// The unread part of a subscriber's stream, which is bounded so that a slow reader costs a limited amount of memory.

export class Feed {
  readonly stream: ReadableStream<Uint8Array>;
  #controller!: ReadableStreamDefaultController<Uint8Array>;
  readonly #closed: () => void;
  #isOpen = true;

  /** At most `bytesMax` and the part after it are queued. `closed` is called once, when the reader is gone or the feed has ended. */
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

  /** False = the maximum is queued already. */
  push(bytes: Uint8Array): boolean {
    if (!this.#isOpen || (this.#controller.desiredSize ?? 0) <= 0) return false;
    this.#controller.enqueue(bytes);
    return true;
  }

  /** The reader sees a truncated response. */
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
