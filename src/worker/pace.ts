// A bandwidth allowance, and when the next bytes of it may go. Each direction of a connection has one of its own; nothing here
// speaks of connections, so flows could share one.
import { savedMsMax } from "../policy/token-bucket.ts";

/** Whoever waits gets at least this many bytes at once, or PORTION_MS' worth: fewer, larger writes. */
const PORTION_BYTES = 64 * 1024;
const PORTION_MS = 50;
/** A wake-up that comes late costs no bandwidth: up to this much time's worth is made up for, at this share of the limit on top. */
const OWED_MS_MAX = 100;
const OWED_SHARE = 0.25;

export class Pace {
  readonly #bytesPerMs: number;
  readonly #portion: number;
  readonly #creditMax: number;
  #credit = 0;
  /** What was lost to late wake-ups. */
  #owed = 0;
  #waits = false;
  #refilledMs: number;

  /** `nowMs` here and below: on any one clock that does not go back. */
  constructor(bytesPerSecond: number, nowMs: number) {
    this.#bytesPerMs = bytesPerSecond / 1000;
    this.#portion = Math.max(1, Math.min(PORTION_BYTES, this.#bytesPerMs * PORTION_MS));
    // One byte at the least, so that the slowest rate moves.
    this.#creditMax = Math.max(1, this.#bytesPerMs * savedMsMax(bytesPerSecond));
    this.#refilledMs = nowMs;
  }

  /** Bytes that may go now. */
  allowance(nowMs: number): number {
    const gained = this.#bytesPerMs * (nowMs - this.#refilledMs);
    const paid = Math.min(this.#owed, gained * OWED_SHARE);
    const credit = this.#credit + gained + paid;
    const over = credit - this.#creditMax;
    this.#owed -= paid;
    // After a pause of the sender nothing is owed.
    if (over > 0) this.#owed = this.#waits ? Math.min(this.#owed + over, this.#bytesPerMs * OWED_MS_MAX) : 0;
    this.#credit = over > 0 ? this.#creditMax : credit;
    this.#refilledMs = nowMs;
    this.#waits = false;
    return Math.floor(this.#credit);
  }

  /** So many of them have gone. */
  spend(bytes: number): void {
    this.#credit -= bytes;
  }

  /** Bytes wait: when to come back for the next portion, if nothing else goes before. */
  nextMs(nowMs: number): number {
    const lacks = this.#portion - this.allowance(nowMs);
    this.#waits = true;
    return nowMs + Math.max(0, lacks / this.#bytesPerMs);
  }

  /** As much is there as is ever saved. */
  full(nowMs: number): boolean {
    return this.allowance(nowMs) >= Math.floor(this.#creditMax);
  }
}
