// One direction of a relayed connection: bytes from one socket into the other, a queue for what the receiver does not take,
// two watermarks that stop and start the sender, and the FIN that follows the last byte. Knows nothing of backends, limits
// or logs; the connection (connection.ts) decides when it begins and what its end means.
import type { Socket } from "bun";
import { BLOCKED, ByteQueue, CLOSED, release, RELEASE_FROM_BYTES } from "../core/byte-queue.ts";
import type { Pace } from "./pace.ts";

/** Bytes waiting for the receiver from which on the sender is paused, so that the kernel slows its peer. */
export const QUEUE_HIGH_BYTES = 128 * 1024;
/** Bytes still waiting from which down the sender may go on. */
export const QUEUE_LOW_BYTES = 32 * 1024;

/** `open`: bytes flow. `ending`: the sender's FIN was seen, the queue is not empty yet. `done`: the FIN was passed on. */
export type FlowState = "open" | "ending" | "done";

export class Flow {
  state: FlowState = "open";
  /** Who sends; null once its socket is closed. */
  from: Socket<unknown> | null = null;
  /** Who receives; null before it is connected. */
  to: Socket<unknown> | null = null;
  queue: ByteQueue | null = null;
  paused = false;
  /** The bandwidth limit of this direction, or null. */
  pace: Pace | null = null;

  /**
   * Bytes of the sender, in a buffer that is the flow's from now on. False = the receiver is gone, and the bytes with it. Hot
   * path.
   */
  forward(chunk: Uint8Array): boolean {
    if (this.queue === null && this.to !== null && this.pace === null) {
      const taken = this.to.write(chunk);
      if (taken === chunk.length) {
        if (taken >= RELEASE_FROM_BYTES) release(chunk);
        return true;
      }
      if (taken < 0) return false;
      if (taken > 0) chunk = chunk.subarray(taken);
    }
    this.queue ??= new ByteQueue();
    this.queue.push(chunk);
    if (this.queue.bytes >= QUEUE_HIGH_BYTES && !this.paused && this.from !== null) {
      this.paused = true;
      this.from.pause();
    }
    return true;
  }

  /** The receiver takes bytes again, or is connected now. False = it is gone. Hot path. */
  flush(): boolean {
    const { queue, to } = this;
    if (queue === null || to === null || this.pace !== null) return true;
    const outcome = queue.drainTo(to);
    if (outcome === CLOSED) return false;
    if (outcome !== BLOCKED) this.queue = null;
    this.#resumeBelow();
    return true;
  }

  /** Sends what the bandwidth limit allows at this tick. False = the receiver is gone. */
  flushPaced(elapsedMs: number): boolean {
    const { queue, to, pace } = this;
    if (queue === null || to === null || pace === null) return true;
    const taken = queue.take(pace.allowance(elapsedMs), to);
    if (taken < 0) return false;
    pace.spend(taken);
    if (queue.bytes === 0) this.queue = null;
    this.#resumeBelow();
    return true;
  }

  /** Bytes that wait for the receiver. */
  get waiting(): number {
    return this.queue === null ? 0 : this.queue.bytes;
  }

  /** Nothing waits, and the receiver is there to be told of an end. */
  get drained(): boolean {
    return this.queue === null && this.to !== null;
  }

  /** Forgets everything: no socket is used and no buffer held from now on. */
  clear(): void {
    this.queue?.clear();
    this.queue = null;
    this.from = null;
    this.to = null;
    this.pace = null;
  }

  #resumeBelow(): void {
    if (!this.paused || (this.queue !== null && this.queue.bytes > QUEUE_LOW_BYTES)) return;
    this.paused = false;
    this.from?.resume();
  }
}
