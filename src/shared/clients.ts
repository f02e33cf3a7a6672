// The table of clients of one listener: how many connections each has, and whether it may open another one; exact over all workers. Its
// size is fixed, and it is set-associative: when a set is full, the entry that has been idle longest is replaced. So a flood of addresses
// cannot make it grow, and a client with open connections keeps its entry.
import { dryRunBit } from "../core/dry-run.ts";
import { hashWords, type HashKey } from "../core/hash.ts";
import { NO_TOKEN, takeToken } from "../policy/token-bucket.ts";

// An entry is two 64-bit words and a time. The first word holds the client's tag and its open connections, so one compare-and-exchange
// counts a connection, and one gives the entry to another client only if nothing is open. The second word is the theoretical arrival time
// of the token bucket (GCRA), in nanoseconds, which is the whole state of the bucket.
const OPEN_BITS = 24n;
const OPEN_MASK = (1n << OPEN_BITS) - 1n;
const TAG_BITS = 40n;

/** Entries of a set: all the entries that one client may use. */
export const WAYS = 16;
const ENTRY_BYTES = 24;
const SET_BYTES = WAYS * ENTRY_BYTES + 4;
const HEADER_BYTES = 64;

/** An entry that is being replaced: no client's tag, and open, so that no worker takes it. */
const NOBODY = 1n;
/** A worker makes an entry in a microsecond; one that has not finished after this time has died. */
const MAKING_MS = 100;

/** Results of `claim` other than an entry's number. */
export const CLIENT_OVER_RATE = -1;
export const CLIENT_OVER_CAP = -2;
/** Every entry that the client may use belongs to a client with open connections. */
export const CLIENT_TABLE_FULL = -3;

/** What a listener allows one client; 0 = no limit. */
export interface ClientLimits {
  /** Maximum number of open connections. */
  maxOpen: number;
  /** Nanoseconds between two new connections at the steady rate; 0 = no rate limit. */
  intervalNs: number;
  /** Number of new connections at once after a pause. */
  burst: number;
  /** A place is claimed even without a cap, because connections share the bandwidth limit of the client's entry. */
  holds: boolean;
  /** The cap, or the rate, is evaluated but not enforced. */
  dryRunOpen: boolean;
  dryRunRate: boolean;
}

/** Memory for a table of at least `entries` clients (rounded up to a power of two), with its own hash key. */
export function clientMemory(entries: number): SharedArrayBuffer {
  const sets = 2 ** Math.ceil(Math.log2(Math.max(1, entries / WAYS)));
  const memory = new SharedArrayBuffer(HEADER_BYTES + sets * SET_BYTES);
  // A private key: an attacker must not be able to choose addresses that fall into one set.
  new Uint8Array(memory, 0, 8).set(crypto.getRandomValues(new Uint8Array(8)));
  return memory;
}

/** Number of entries of the table. */
export function entriesOf(memory: SharedArrayBuffer): number {
  return ((memory.byteLength - HEADER_BYTES) / SET_BYTES) * WAYS;
}

export class ClientTable {
  /** Whether the last claim took a place, which `release` gives back. */
  claimed = false;
  /** The limits that would have refused the last claim but are not enforced (core/dry-run.ts). */
  dryRun = 0;
  readonly #words: BigInt64Array;
  /** The same words, each as its lower and its upper half: comparing a tag by numbers is many times cheaper than by BigInts. */
  readonly #halves: Int32Array;
  readonly #seen: Int32Array;
  /** One cell per set: 1 while a worker makes an entry there. */
  readonly #making: Int32Array;
  readonly #sets: number;
  readonly #key: HashKey;
  readonly #hash = new Int32Array(2);
  // The tag of the client in the current call: its upper 32 bits and the other 8.
  #tagHigh = 0;
  #tagLow = 0;

  constructor(memory: SharedArrayBuffer) {
    const entries = entriesOf(memory);
    const sets = entries / WAYS;
    this.#key = new Int32Array(memory, 0, 2);
    this.#words = new BigInt64Array(memory, HEADER_BYTES, entries * 2);
    this.#halves = new Int32Array(memory, HEADER_BYTES, entries * 4);
    this.#seen = new Int32Array(memory, HEADER_BYTES + entries * 16, entries);
    this.#making = new Int32Array(memory, HEADER_BYTES + entries * ENTRY_BYTES, sets);
    this.#sets = sets;
  }

  /**
   * Adds a connection of a client (its address masked to the listener's client prefix) at `nowNs` on a clock that all threads share.
   * Returns the number of its entry, which `release` must give back when the connection ends if `claimed` says so, or one of the negative
   * results above.
   */
  claim(w0: number, w1: number, w2: number, w3: number, limits: ClientLimits, nowNs: number): number {
    const set = this.#lookFor(w0, w1, w2, w3);
    const seconds = Math.floor(nowNs / 1e9) | 0;
    this.claimed = false;
    this.dryRun = 0;
    for (;;) {
      const entry = this.#find(set, seconds);
      if (entry < 0) return CLIENT_TABLE_FULL;
      const answer = this.#count(entry, limits, nowNs);
      if (answer === LOST) continue;
      this.#seen[entry] = seconds;
      return answer;
    }
  }

  /** Ends one connection of an entry's client. A second call for the same connection throws, as in `giveBack`. */
  release(entry: number): void {
    if ((Atomics.sub(this.#words, 2 * entry, 1n) & OPEN_MASK) !== 0n) return;
    Atomics.add(this.#words, 2 * entry, 1n);
    throw new Error("a connection of a client was released twice");
  }

  /**
   * The current state of a client, without a claim: its open connections, and when its token bucket is full again, as takeToken counts (0 =
   * it was never used).
   */
  peek(w0: number, w1: number, w2: number, w3: number): { open: number; fullAtNs: number } {
    const set = this.#lookFor(w0, w1, w2, w3);
    for (let entry = set; entry < set + WAYS; entry++) {
      if (!this.#isFound(entry)) continue;
      return { open: this.open(entry), fullAtNs: this.#loadTime(entry) };
    }
    return { open: 0, fullAtNs: 0 };
  }

  /** Open connections of an entry's client. */
  open(entry: number): number {
    return Number(Atomics.load(this.#words, 2 * entry) & OPEN_MASK);
  }

  // Sets the tag to that of a client, and returns the first entry of its set.
  #lookFor(w0: number, w1: number, w2: number, w3: number): number {
    hashWords(this.#key, 0, w0, w1, w2, w3, this.#hash);
    const low = this.#hash[0]!;
    this.#tagHigh = this.#hash[1]!;
    this.#tagLow = low >>> 24;
    // The tag is never 0, which marks an unused entry.
    if (this.#tagHigh === 0 && this.#tagLow === 0) this.#tagLow = 1;
    return (low & (this.#sets - 1)) * WAYS;
  }

  get #tag(): bigint {
    return (BigInt(this.#tagHigh >>> 0) << 8n) | BigInt(this.#tagLow);
  }

  // Whether the entry has the tag. The halves are two reads: a change between them is equivalent to a change after them.
  #isFound(entry: number): boolean {
    const halves = this.#halves;
    return (
      Atomics.load(halves, 4 * entry + 1) === this.#tagHigh && Atomics.load(halves, 4 * entry) >>> 24 === this.#tagLow
    );
  }

  // The client's entry, which may replace the one that has been idle longest; -1 = no entry is idle.
  #find(set: number, seconds: number): number {
    for (let entry = set; entry < set + WAYS; entry++) if (this.#isFound(entry)) return entry;
    // Two workers that see a new client at the same time must not make two entries for it: one makes the entry, the other finds it. This is
    // the only place where a worker may wait for another: for a microsecond, at a client's first connection.
    const lock = set / WAYS;
    while (Atomics.compareExchange(this.#making, lock, 0, 1) !== 0) {
      if (Atomics.wait(this.#making, lock, 1, MAKING_MS) === "timed-out") break;
    }
    const entry = this.#findOrMake(set, this.#tag, seconds);
    Atomics.store(this.#making, lock, 0);
    Atomics.notify(this.#making, lock, 1);
    return entry;
  }

  #findOrMake(set: number, tag: bigint, seconds: number): number {
    for (;;) {
      let oldest = -1;
      let oldestWord = 0n;
      let oldestAge = -1;
      for (let entry = set; entry < set + WAYS; entry++) {
        const word = Atomics.load(this.#words, 2 * entry);
        if (tagOf(word) === tag) return entry;
        if ((word & OPEN_MASK) !== 0n) continue;
        const age = word === 0n ? 2 ** 31 : (seconds - (this.#seen[entry] ?? 0)) | 0;
        if (age <= oldestAge) continue;
        oldest = entry;
        oldestWord = word;
        oldestAge = age;
      }
      if (oldest < 0) return -1;
      // The entry belongs to no client while the bucket of the former client is cleared, so that neither client uses the other's bucket.
      if (Atomics.compareExchange(this.#words, 2 * oldest, oldestWord, NOBODY) !== oldestWord) continue;
      Atomics.store(this.#words, 2 * oldest + 1, 0n);
      this.#seen[oldest] = seconds;
      Atomics.store(this.#words, 2 * oldest, BigInt.asIntN(64, tag << OPEN_BITS));
      return oldest;
    }
  }

  #count(entry: number, limits: ClientLimits, nowNs: number): number {
    const { maxOpen, intervalNs, holds, dryRunOpen } = limits;
    if (maxOpen > 0 || holds) {
      const refused = this.#claimPlace(entry, maxOpen);
      if (refused === LOST || (refused === CLIENT_OVER_CAP && !dryRunOpen)) return refused;
      if (refused === CLIENT_OVER_CAP) this.dryRun |= OVER_CAP;
    }
    return intervalNs === 0 ? entry : this.#takeToken(entry, limits, nowNs);
  }

  // The entry, LOST or CLIENT_OVER_CAP.
  #claimPlace(entry: number, maxOpen: number): number {
    const tag = this.#tag;
    for (;;) {
      const word = Atomics.load(this.#words, 2 * entry);
      if (tagOf(word) !== tag) return LOST;
      if (maxOpen > 0 && (word & OPEN_MASK) >= BigInt(maxOpen)) return CLIENT_OVER_CAP;
      if (Atomics.compareExchange(this.#words, 2 * entry, word, word + 1n) !== word) continue;
      this.claimed = true;
      return entry;
    }
  }

  #takeToken(entry: number, { intervalNs, burst, dryRunRate }: ClientLimits, nowNs: number): number {
    // The cap would have refused the connection before it took a token.
    if (dryRunRate && this.dryRun !== 0) return entry;
    for (;;) {
      // Without a claimed place, the entry may be given to another client.
      if (!this.claimed && !this.#isFound(entry)) return LOST;
      const fullAtNs = this.#loadTime(entry);
      const next = takeToken(fullAtNs, nowNs, intervalNs, burst);
      if (next === NO_TOKEN && dryRunRate) {
        this.dryRun |= OVER_RATE;
        return entry;
      }
      if (next === NO_TOKEN) {
        if (this.claimed) this.release(entry);
        this.claimed = false;
        return CLIENT_OVER_RATE;
      }
      if (this.#exchangeTime(entry, fullAtNs, next)) return entry;
    }
  }

  // Read by halves, since a BigInt costs more than all the rest of it. The time of a client only rises, and so does the upper half: if that
  // is the same before and after, the lower half belongs to it.
  #loadTime(entry: number): number {
    const halves = this.#halves;
    const at = 4 * entry + 2;
    for (let high = Atomics.load(halves, at + 1); ;) {
      timeHalves[0] = Atomics.load(halves, at);
      const again = Atomics.load(halves, at + 1);
      timeHalves[1] = high;
      if (again === high) return time[0]!;
      high = again;
    }
  }

  #exchangeTime(entry: number, from: number, to: number): boolean {
    time[0] = from;
    time[1] = to;
    return Atomics.compareExchange(this.#words, 2 * entry + 1, timeWords[0]!, timeWords[1]!) === timeWords[0];
  }
}

/** A time of a bucket, and its bits. */
const time = new Float64Array(2);
const timeWords = new BigInt64Array(time.buffer);
const timeHalves = new Int32Array(time.buffer);

const OVER_CAP = dryRunBit("max_connections_per_client");
const OVER_RATE = dryRunBit("rate_limit");

/** The entry was given to another client after it was found: search again. */
const LOST = -4;

function tagOf(word: bigint): bigint {
  return BigInt.asUintN(Number(TAG_BITS), word >> OPEN_BITS);
}
