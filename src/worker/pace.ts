// When the bytes of one flow may be sent, under a limit of its own or a shared one.
import { LATE_FACTOR_MAX, type Bandwidth } from "../policy/bandwidth.ts";

/** Times this close in the future count as reached: the difference is below the precision of the clock. */
const NOW_MS = 0.001;
/** A sender whose bytes were sent this recently has not paused: time lost since then is due to late wake-ups or to starved peers. */
const PAUSE_MS = 50;

/** `nowMs` is on performance.now(). */
export class Pace {
  readonly #limit: Bandwidth;
  /** Number of bytes that may be sent now. */
  credit = 0;
  /** Reserved bytes, when they were reserved, and when they may be sent. */
  #reserved = 0;
  #askedMs = 0;
  #readyMs = 0;
  /** When `allowance` was last called, and when bytes were last sent. */
  #nowMs = 0;
  #movedMs = -Infinity;
  #lateFactor = 1;
  /** Since when the sender has had nothing; Infinity = it has something. */
  #idleSinceMs = Infinity;

  constructor(limit: Bandwidth) {
    this.#limit = limit;
  }

  /**
   * Number of bytes that may be sent now; the sender has `wanted` bytes at most (Infinity = unknown). Call it only if bytes are to be sent:
   * it reserves some.
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

  // A worker that is late for each turn would get less than its share, so the next reservation covers the whole time that has passed.
  #noteLate(nowMs: number): void {
    const waitedMs = Math.max(1, this.#readyMs - this.#askedMs);
    this.#lateFactor = Math.min(LATE_FACTOR_MAX, 1 + Math.max(0, nowMs - this.#readyMs) / waitedMs);
  }

  #reserve(nowMs: number, wanted: number): void {
    const bytes = Math.min(wanted, this.#limit.quantum(nowMs, this.#lateFactor)) - this.credit;
    // Waking up for a few bytes is not worth it. This also bounds the bytes that a stalled receiver may hold.
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

  /** This many of them were sent. */
  spend(bytes: number): void {
    this.credit -= bytes;
    if (bytes <= 0) return;
    this.#idleSinceMs = Infinity;
    this.#movedMs = this.#nowMs;
  }

  /** Bytes wait, at most `wanted`: returns when some of them may be sent. */
  nextMs(nowMs: number, wanted: number): number {
    return this.allowance(nowMs, wanted) > 0 ? nowMs : this.#readyMs;
  }

  /** The sender has nothing now, or the flow has ended: its reservation is released for others. */
  giveBack(nowMs: number): void {
    const bytes = this.credit + this.#reserved;
    if (bytes > 0) this.#limit.giveBack(bytes);
    this.credit = 0;
    this.#reserved = 0;
    this.#lateFactor = 1;
    this.#idleSinceMs = Math.min(this.#idleSinceMs, nowMs);
  }

  /** Whether this many bytes could be sent without waiting. */
  allows(bytes: number, nowMs: number): boolean {
    if (this.credit >= bytes) return true;
    return this.#reserved === 0 && this.credit + this.#limit.saved(nowMs) >= bytes;
  }

  /** Whether the sender has had nothing for as long as a burst is saved. */
  rested(nowMs: number): boolean {
    return nowMs - this.#idleSinceMs >= this.#limit.rate.savedMs;
  }
}
