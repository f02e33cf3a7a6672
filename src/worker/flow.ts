// One direction of a relayed connection: bytes from one socket to the other, a queue for bytes that the receiver does not take, the pause
// of the sender while bytes wait, and the FIN that follows the last byte. Knows nothing of backends, limits or logs. pump.ts moves more
// bytes for a paused flow; the connection (connection.ts) decides when a flow begins and what its end means.
import type { Socket } from "bun";
import { CLOSED, ByteQueue, release, RELEASE_FROM_BYTES } from "../core/byte-queue.ts";
import type { Pace } from "./pace.ts";

/** While the backend is being connected, the sender is paused when this many bytes wait. */
export const DIAL_QUEUE_BYTES = 16 * 1024;

/** `open`: bytes flow. `ending`: the sender's FIN was seen, the queue is not empty yet. `done`: the FIN was passed on. */
type FlowState = "open" | "ending" | "done";

/** State of pump.ts and wakes.ts for a flow that pump.ts has moved bytes of, or that waits for a time. */
class PumpState {
  /** The size of the receiver's send buffer was set; see pump.ts. */
  limited = false;
  /** When to look at the flow again without an event of a socket, on performance.now(); Infinity = never. */
  wakeAtMs = Infinity;
  /** When wakes.ts looks at this flow; Infinity = never. */
  queuedMs = Infinity;
  /** Delay before the last look; 0 = it found bytes. */
  waitedMs = 0;
}

// Every connection has two flows, so fields that most flows do not need are in an object of their own. Eight fields are the most that fit
// into 80 bytes; test/worker/connection.test.ts measures it.
export class Flow {
  state: FlowState = "open";
  /** The sender; null once its socket is closed. */
  from: Socket<unknown> | null = null;
  /** The receiver; null before it is connected. */
  to: Socket<unknown> | null = null;
  queue: ByteQueue | null = null;
  /** The runtime does not read from the sender, because bytes wait for the receiver, or would have to. */
  paused = false;
  /** The bandwidth limit of this direction, or null. */
  pace: Pace | null = null;
  /** Every byte must pass through this process, as with TLS: the kernel may not move bytes directly. */
  mustSeeBytes = false;
  /** Null if all chunks were small and were sent at once, as in most connections. */
  pump: PumpState | null = null;

  /**
   * Takes bytes of the sender, which are the last of a buffer that belongs to the flow from now on. False = the receiver is gone, and the
   * bytes are lost. Hot path.
   */
  forward(chunk: Uint8Array): boolean {
    if (this.queue === null && this.to !== null) {
      if (this.pace !== null) return this.#forwardPaced(chunk, this.pace);
      const taken = this.to.write(chunk);
      if (taken === chunk.length) {
        if (taken >= RELEASE_FROM_BYTES) release(chunk);
        return true;
      }
      if (taken < 0) return false;
      if (taken > 0) chunk = chunk.subarray(taken);
    }
    this.#keep(chunk);
    return true;
  }

  #forwardPaced(chunk: Uint8Array, pace: Pace): boolean {
    const allowed = pace.allowance(performance.now(), chunk.length);
    if (allowed > 0) {
      const offered = allowed < chunk.length ? chunk.subarray(0, allowed) : chunk;
      const taken = this.to!.write(offered);
      if (taken < 0) return false;
      pace.spend(taken);
      if (taken === chunk.length) {
        if (taken >= RELEASE_FROM_BYTES) release(chunk);
        return true;
      }
      if (taken > 0) chunk = chunk.subarray(taken);
    }
    this.#keep(chunk);
    return true;
  }

  // A sender is paused as soon as its receiver does not keep up, because the next read may be large. Before the receiver is connected,
  // usually only a few bytes arrive, and a pause and a resume cost two system calls.
  #keep(chunk: Uint8Array): void {
    this.queue ??= new ByteQueue();
    this.queue.push(chunk, chunk.byteOffset === 0);
    if (this.to !== null || this.queue.bytes >= DIAL_QUEUE_BYTES) this.pause();
  }

  /** Sends what waits, as far as the receiver and the bandwidth limit allow. False = the receiver is gone. Hot path. */
  flush(): boolean {
    const { queue, to, pace } = this;
    if (queue === null || to === null) return true;
    if (pace === null) {
      if (queue.drainTo(to) === CLOSED) return false;
    } else {
      const taken = queue.take(pace.allowance(performance.now(), queue.bytes), to);
      if (taken < 0) return false;
      pace.spend(taken);
    }
    if (queue.bytes === 0) this.queue = null;
    return true;
  }

  pause(): void {
    if (this.paused || this.from === null) return;
    this.paused = true;
    this.from.pause();
  }

  resume(): void {
    if (!this.paused) return;
    this.paused = false;
    this.from?.resume();
  }

  /** Number of bytes that wait for the receiver. */
  get waiting(): number {
    return this.queue === null ? 0 : this.queue.bytes;
  }

  /** Nothing waits, and the receiver is there, so an end can be passed on. */
  get drained(): boolean {
    return this.queue === null && this.to !== null;
  }

  ensurePump(): PumpState {
    return (this.pump ??= new PumpState());
  }

  /** Releases everything: no socket is used and no buffer held from now on. */
  clear(): void {
    this.queue?.clear();
    this.queue = null;
    this.from = null;
    this.to = null;
    // The pace is not used again, so the time does not matter.
    this.pace?.giveBack(Infinity);
    this.pace = null;
    this.pump = null;
  }
}
