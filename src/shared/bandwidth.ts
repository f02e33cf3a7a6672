// A bandwidth limit that connections of all workers share, in shared memory. It is two times, like a limit of a single sender
// (policy/bandwidth.ts): the end of the reservations at the limit and at its peak, in nanoseconds on the clock of all threads. A
// reservation is one exchange of each.
import { monotonicMsOf } from "../platform/clock.ts";
import {
  DELAY_MS,
  endOf,
  OWED_MS_MAX,
  PEAK,
  savedBytes,
  type Bandwidth,
  type BandwidthRate,
} from "../policy/bandwidth.ts";
import { TIME_BYTES, type TimeCells } from "./time-cells.ts";

const NS_PER_MS = 1_000_000;
/** Times of one limit, for both directions. */
const TIMES = 4;

export type Direction = "upload" | "download";

/** Memory for the limits of this many clients, or of one listener. */
export function bandwidthMemory(entries: number): SharedArrayBuffer {
  return new SharedArrayBuffer(entries * TIMES * TIME_BYTES);
}

/** A limit has no holders: a worker that dies costs the others only its last reservations. */
export class SharedBandwidth implements Bandwidth {
  readonly rate: BandwidthRate;
  readonly #times: TimeCells;
  readonly #at: number;
  readonly #originMs: number;

  /** The limit at `entry` in memory of `bandwidthMemory`. `originMs` + `nowMs` of a call is the same time in all threads. */
  constructor(times: TimeCells, entry: number, direction: Direction, rate: BandwidthRate, originMs = monotonicMsOf(0)) {
    this.rate = rate;
    this.#times = times;
    this.#at = entry * TIMES + (direction === "upload" ? 0 : 2);
    this.#originMs = originMs;
  }

  reserve(bytes: number, nowMs: number, isBusy: boolean): number {
    const { bytesPerMs, savedMs } = this.rate;
    const ms = bytes / bytesPerMs;
    const endMs = this.#extend(this.#at, nowMs - (isBusy ? OWED_MS_MAX : savedMs), ms);
    return Math.max(endMs, this.#extend(this.#at + 1, nowMs - savedMs / PEAK, ms / PEAK));
  }

  giveBack(bytes: number): void {
    const ms = bytes / this.rate.bytesPerMs;
    this.#shorten(this.#at, ms);
    this.#shorten(this.#at + 1, ms / PEAK);
  }

  saved(nowMs: number): number {
    return savedBytes(this.rate, nowMs - this.#endMs(this.#at), nowMs - this.#endMs(this.#at + 1));
  }

  quantum(nowMs: number, lateFactor: number): number {
    return Math.ceil(this.rate.quantum(this.#endMs(this.#at) - nowMs) * lateFactor);
  }

  exceededBy(bytes: number, nowMs: number): boolean {
    const { bytesPerMs, savedMs } = this.rate;
    const ms = bytes / bytesPerMs;
    return this.#extend(this.#at, nowMs - savedMs, ms, nowMs) > nowMs + DELAY_MS;
  }

  #endMs(at: number): number {
    return this.#times.load(at) / NS_PER_MS - this.#originMs;
  }

  /** The end of a further reservation; the time is set to that, or to `mostMs`. */
  #extend(at: number, fromMs: number, ms: number, mostMs = Infinity): number {
    for (;;) {
      const seen = this.#times.load(at);
      const endMs = endOf(seen / NS_PER_MS - this.#originMs, fromMs, ms);
      const next = toNs(Math.min(endMs, mostMs) + this.#originMs);
      if (this.#times.exchange(at, seen, next)) return endMs;
    }
  }

  #shorten(at: number, ms: number): void {
    for (;;) {
      const seen = this.#times.load(at);
      if (this.#times.exchange(at, seen, seen - toNs(ms))) return;
    }
  }
}

function toNs(ms: number): number {
  return Math.round(ms * NS_PER_MS);
}
