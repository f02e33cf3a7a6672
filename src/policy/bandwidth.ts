// Bandwidth limits as a timeline: a reservation occupies bytes / rate of it, and begins where the reservation before it ends. Each sender
// with pending bytes holds one reservation, so senders take turns, in whichever worker they are. Has no clock.

/** Maximum burst after a pause, as time at the limit's rate. */
export const SAVED_MS_MAX = 100;
/**
 * The same duration above FAST_BYTES_PER_SECOND, where a larger burst would overflow the buffers of a fast network. With PEAK and a portion
 * that was reserved and fetched late, 10 ms let at most 18.5 ms' worth through.
 */
export const SAVED_MS_MAX_FAST = 4;
/** 100 Mbit/s. */
const FAST_BYTES_PER_SECOND = 12_500_000;
/** A late wake-up costs no bandwidth: up to this much time's worth is made up for, at PEAK times the limit. */
export const OWED_MS_MAX = 100;
export const PEAK = 1.25;

/**
 * A sender with a limit of its own gets at least this many bytes at once, but at least PORTION_MS' worth and at most PORTION_MS_MAX' worth:
 * fewer, larger writes.
 */
const PORTION_BYTES = 64 * 1024;
const PORTION_MS_MAX = 50;
const PORTION_MS = 2;

/**
 * A sender that shares its limit gets this much time's worth at once, and less if a turn of all senders would take longer than
 * QUANTA_OF_A_TURN of these.
 */
const QUANTUM_MS = 5;
const QUANTUM_MS_FAST = 2;
const QUANTA_OF_A_TURN = 4;
/** A sender that comes late for a reservation gets a larger one next time, larger by at most this factor. */
export const LATE_FACTOR_MAX = 4;

/** Shorter delays count as none, because timers are no finer. */
export const DELAY_MS = 1;

/** The burst and the portions for a limit of `bytesPerSecond`. */
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

  /** Bytes for one of several waiting senders, whose reservations take `backlogMs`. */
  quantum(backlogMs: number): number {
    const turnMs = this.#quantumMs * QUANTA_OF_A_TURN;
    const share = backlogMs <= turnMs ? 1 : turnMs / backlogMs;
    return Math.max(1, Math.floor(this.bytesPerMs * this.#quantumMs * share));
  }

  /** Bytes for a single waiting sender. */
  get portion(): number {
    const bytes = Math.max(Math.min(PORTION_BYTES, this.bytesPerMs * PORTION_MS_MAX), this.bytesPerMs * PORTION_MS);
    return Math.max(1, Math.floor(bytes));
  }
}

/** Times are milliseconds on one monotonic clock. */
export interface Bandwidth {
  readonly rate: BandwidthRate;
  /**
   * Reserves bytes; returns when they may be sent. `isBusy`: the sender has not paused before, so the time lost to late wake-ups is made up
   * for.
   */
  reserve(bytes: number, nowMs: number, isBusy: boolean): number;
  /** Returns reserved bytes that are not sent. */
  giveBack(bytes: number): void;
  /** Bytes that may be sent at once. */
  saved(nowMs: number): number;
  /** Bytes to reserve for one sender; `lateFactor`: how much later than planned the sender came back, see LATE_FACTOR_MAX. */
  quantum(nowMs: number, lateFactor: number): number;
  /**
   * Bytes were sent without a reservation: returns whether the limit would have delayed them. Bytes over the limit are not carried over.
   */
  exceededBy(bytes: number, nowMs: number): boolean;
}

/** The limit of a single sender. */
export class OwnBandwidth implements Bandwidth {
  readonly rate: BandwidthRate;
  /** The end of the reservations: at the limit, and at PEAK times the limit. */
  #endMs: number;
  #peakEndMs: number;

  /** No burst is saved at first. */
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

/** Bytes that are saved if the reservations ended this long ago, at the limit and at PEAK times the limit. */
export function savedBytes({ bytesPerMs, savedMs }: BandwidthRate, agoMs: number, peakAgoMs: number): number {
  const ms = Math.min(agoMs, peakAgoMs * PEAK, savedMs);
  return Math.max(0, Math.floor(ms * bytesPerMs + 1e-6));
}
