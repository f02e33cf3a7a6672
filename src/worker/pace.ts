// When the bytes of one flow may go, by a limit that is its own or that it shares with others.
import { LATE_FACTOR_MAX, type Bandwidth } from "../policy/bandwidth.ts";

/** What lies this close ahead has come: it is below the precision of the clock. */
const NOW_MS = 0.001;
/** A sender from which bytes have gone this recently has not paused: what is lost meanwhile is lost to late wake-ups, or to starved peers. */
const PAUSE_MS = 50;

/** `nowMs` is on performance.now(). */
export class Pace {
  readonly #limit: Bandwidth;
  /** Bytes that may go now. */
  credit = 0;
  /** Bytes that are reserved, when that was done, and when they may go. */
  #reserved = 0;
  #askedMs = 0;
  #readyMs = 0;
  /** When `allowance` was last called, and when bytes have last gone. */
  #nowMs = 0;
  #movedMs = -Infinity;
  #lateFactor = 1;
  /** Since when the sender was seen to have nothing; Infinity = it has something. */
  #idleSinceMs = Infinity;

  constructor(limit: Bandwidth) {
    this.#limit = limit;
  }

  /**
   * Bytes that may go now; the sender has `wanted` bytes at most (Infinity = it is not known). Call it only where bytes are to go: it
   * reserves some.
   */
  allowance(nowMs: number, wanted: number): number {
    this.#nowMs = nowMs;
    if (this.#reserved > 0) {
      if (this.#readyMs > nowMs + NOW_MS) return this.credit;
      this.#noteLate(nowMs);
      this.credit += this.#reserved;
      this.#reserved = 0;
    }
    if (this.credit < wanted) this.#reserve(nowMs, wanted);
    return this.credit;
  }

  // A worker that is late for each turn would get less than its share: the next reservation stands for the whole time that has passed.
  #noteLate(nowMs: number): void {
    const waitedMs = Math.max(1, this.#readyMs - this.#askedMs);
    this.#lateFactor = Math.min(LATE_FACTOR_MAX, 1 + Math.max(0, nowMs - this.#readyMs) / waitedMs);
  }

  #reserve(nowMs: number, wanted: number): void {
    const bytes = Math.min(wanted, this.#limit.quantum(nowMs, this.#lateFactor)) - this.credit;
    // To come back for a few bytes is not worth it. It also bounds what a stalled receiver may hold.
    if (bytes <= this.credit) return;
    const readyMs = this.#limit.reserve(bytes, nowMs, nowMs - this.#movedMs < PAUSE_MS);
    this.#lateFactor = 1;
    if (readyMs <= nowMs + NOW_MS) {
      this.credit += bytes;
      return;
    }
    this.#reserved = bytes;
    this.#askedMs = nowMs;
    this.#readyMs = readyMs;
  }

  /** So many of them have gone. */
  spend(bytes: number): void {
    this.credit -= bytes;
    if (bytes <= 0) return;
    this.#idleSinceMs = Infinity;
    this.#movedMs = this.#nowMs;
  }

  /** Bytes wait, `wanted` at most: when some of them may go. */
  nextMs(nowMs: number, wanted: number): number {
    return this.allowance(nowMs, wanted) > 0 ? nowMs : this.#readyMs;
  }

  /** The sender has nothing now, or the flow has ended: what it has reserved is for others. */
  giveBack(nowMs: number): void {
    const bytes = this.credit + this.#reserved;
    if (bytes > 0) this.#limit.giveBack(bytes);
    this.credit = 0;
    this.#reserved = 0;
    this.#lateFactor = 1;
    this.#idleSinceMs = Math.min(this.#idleSinceMs, nowMs);
  }

  /** So many bytes would not have to wait. */
  allows(bytes: number, nowMs: number): boolean {
    if (this.credit >= bytes) return true;
    return this.#reserved === 0 && this.credit + this.#limit.saved(nowMs) >= bytes;
  }

  /** The sender has had nothing for as long as bandwidth is saved. */
  rested(nowMs: number): boolean {
    return nowMs - this.#idleSinceMs >= this.#limit.rate.savedMs;
  }
}
