// The bandwidth limit of one direction of one connection: how many bytes may go at each tick of the worker's clock.
import { refillBytes } from "../policy/token-bucket.ts";

export class Pace {
  readonly #bytesPerSecond: number;
  #credit = 0;

  constructor(bytesPerSecond: number) {
    this.#bytesPerSecond = bytesPerSecond;
  }

  /** Bytes that may go now, `elapsedMs` after the last tick. */
  allowance(elapsedMs: number): number {
    this.#credit = refillBytes(this.#credit, this.#bytesPerSecond, elapsedMs);
    return Math.floor(this.#credit);
  }

  /** So many of them have gone. */
  spend(bytes: number): void {
    this.#credit -= bytes;
  }
}
