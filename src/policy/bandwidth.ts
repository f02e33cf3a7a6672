// Limits on bandwidth, as a time line: so many bytes keep it busy for bytes / rate, and each reservation begins where the one before
// it ends. Whoever has bytes that wait holds one reservation, so they take turns, wherever they are. Has no clock.

/** After a pause, a limit allows a burst of at most what this much time is worth. */
export const SAVED_MS_MAX = 100;
/**
 * The same above FAST_BYTES_PER_SECOND, where a larger burst would overflow the buffers of a fast network. With PEAK and a portion that
 * was reserved and fetched late, 10 ms let 18.5 ms' worth through at most.
 */
export const SAVED_MS_MAX_FAST = 4;
/** 100 Mbit/s. */
export const FAST_BYTES_PER_SECOND = 12_500_000;
/** A wake-up that comes late costs no bandwidth: up to this much time's worth is made up for, at PEAK times the limit. */
export const OWED_MS_MAX = 100;
export const PEAK = 1.25;

/**
 * Whoever waits for a limit of its own gets at least this many bytes at once, but at most PORTION_MS_MAX' worth and at least
 * PORTION_MS' worth: fewer, larger writes.
 */
const PORTION_BYTES = 64 * 1024;
const PORTION_MS_MAX = 50;
const PORTION_MS = 2;

/**
 * Whoever waits for a limit that others wait for too gets this much time's worth at once, and less where a turn of all of them would
 * take longer than so many of these.
 */
const QUANTUM_MS = 5;
const QUANTUM_MS_FAST = 2;
const QUANTA_OF_A_TURN = 4;
/** Whoever comes late for a reservation gets more the next time, at most so many times as much. */
export const LATE_FACTOR_MAX = 4;

/** A shorter delay is none: timers are no finer. */
export const DELAY_MS = 1;

/** What a limit of `bytesPerSecond` means. */
export class BandwidthRate {
  readonly bytesPerMs: number;
  readonly savedMs: number;
  readonly #quantumMs: number;

  constructor(bytesPerSecond: number) {
    const isFast = bytesPerSecond > FAST_BYTES_PER_SECOND;
    this.bytesPerMs = bytesPerSecond / 1000;
    this.savedMs = isFast ? SAVED_MS_MAX_FAST : SAVED_MS_MAX;
    this.#quantumMs = isFast ? QUANTUM_MS_FAST : QUANTUM_MS;
  }

  /** Bytes for one of those who wait together, where what they have reserved takes `backlogMs`. */
  quantum(backlogMs: number): number {
    const turnMs = this.#quantumMs * QUANTA_OF_A_TURN;
    const share = backlogMs <= turnMs ? 1 : turnMs / backlogMs;
    return Math.max(1, Math.floor(this.bytesPerMs * this.#quantumMs * share));
  }

  /** Bytes for one who waits alone. */
  get portion(): number {
    const bytes = Math.max(Math.min(PORTION_BYTES, this.bytesPerMs * PORTION_MS_MAX), this.bytesPerMs * PORTION_MS);
    return Math.max(1, Math.floor(bytes));
  }
}

/** Times are milliseconds of one clock that does not go back. */
export interface Bandwidth {
  readonly rate: BandwidthRate;
  /**
   * Reserves bytes: when they may go. `isBusy`: the sender has not paused before, so what was lost to late wake-ups is made up for.
   */
  reserve(bytes: number, nowMs: number, isBusy: boolean): number;
  /** Bytes that were reserved and do not go. */
  giveBack(bytes: number): void;
  /** Bytes that may go at once. */
  saved(nowMs: number): number;
  /** Bytes to reserve for one sender; `lateFactor`: how much later than it should the sender came back, see LATE_FACTOR_MAX. */
  quantum(nowMs: number, lateFactor: number): number;
  /** Bytes have gone without a reservation: whether the limit would have delayed them. What is over it counts no further. */
  exceededBy(bytes: number, nowMs: number): boolean;
}

/** The limit of one sender. */
export class OwnBandwidth implements Bandwidth {
  readonly rate: BandwidthRate;
  /** What is reserved ends here: at the limit, and at PEAK times the limit. */
  #endMs: number;
  #peakEndMs: number;

  /** Nothing is saved at first. */
  constructor(rate: BandwidthRate, nowMs: number) {
    this.rate = rate;
    this.#endMs = nowMs;
    this.#peakEndMs = nowMs;
  }

  reserve(bytes: number, nowMs: number, isBusy: boolean): number {
    const { bytesPerMs, savedMs } = this.rate;
    this.#endMs = endOf(this.#endMs, nowMs - (isBusy ? OWED_MS_MAX : savedMs), bytes / bytesPerMs);
    this.#peakEndMs = endOf(this.#peakEndMs, nowMs - savedMs / PEAK, bytes / bytesPerMs / PEAK);
    return Math.max(this.#endMs, this.#peakEndMs);
  }

  giveBack(bytes: number): void {
    this.#endMs -= bytes / this.rate.bytesPerMs;
    this.#peakEndMs -= bytes / this.rate.bytesPerMs / PEAK;
  }

  saved(nowMs: number): number {
    return savedBytes(this.rate, nowMs - this.#endMs, nowMs - this.#peakEndMs);
  }

  quantum(nowMs: number): number {
    return Math.max(this.rate.portion, this.saved(nowMs));
  }

  exceededBy(bytes: number, nowMs: number): boolean {
    const { bytesPerMs, savedMs } = this.rate;
    const end = endOf(this.#endMs, nowMs - savedMs, bytes / bytesPerMs);
    this.#endMs = Math.min(end, nowMs);
    return end > nowMs + DELAY_MS;
  }
}

/** The end of a reservation that takes `ms`, begins at `fromMs` at the earliest, and follows the one that ends at `endMs`. */
export function endOf(endMs: number, fromMs: number, ms: number): number {
  return Math.max(endMs, fromMs) + ms;
}

/** Bytes that are saved where reservations ended so long ago, at the limit and at PEAK times it. */
export function savedBytes({ bytesPerMs, savedMs }: BandwidthRate, agoMs: number, peakAgoMs: number): number {
  const ms = Math.min(agoMs, peakAgoMs * PEAK, savedMs);
  return Math.max(0, Math.floor(ms * bytesPerMs + 1e-6));
}
