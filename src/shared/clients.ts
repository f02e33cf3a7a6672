// The table of clients of one listener: how many connections each has, and whether it may open another one; exact over all workers. Its
// size is fixed, and it is set-associative: when a set is full, the entry that has been idle longest is replaced. So a flood of addresses
// cannot make it grow, and a client with open connections keeps its entry.
import { dryRunBit } from "../core/dry-run.ts";
import { hashWords, type HashKey } from "../core/hash.ts";
import { NO_TOKEN, takeToken } from "../policy/token-bucket.ts";
import { TIME_BYTES, TimeCells } from "./time-cells.ts";

// An entry is six 32-bit words: atomics on 64 bits need BigInts, which cost more than all the rest of a claim. The claim of a place and that of
// a token end with one compare-and-exchange of a word.
//
// OWNER: the number of open connections (24 bits), and a number that changes when the entry is given to another client (8 bits, 0 = no
// client yet). It is read before the tag, so the exchange succeeds only if the entry still belongs to the client with that tag.
//
// FULL_AT, two words: the time of the token bucket (policy/token-bucket.ts), see time-cells.ts. A new owner gets another lower word, so an
// exchange fails if the entry was given away after the tag was read.
//
// TAG and TAG_2: the hash of the client's address. SEEN: the time of its last claim, in seconds.
const OWNER = 0;
const TAG = 1;
const FULL_AT = 2;
const SEEN = 4;
const TAG_2 = 5;
const ENTRY_WORDS = 6;
const ENTRY_BYTES = 4 * ENTRY_WORDS;
/** `fullAt` in the times of the table. */
const ENTRY_TIMES = ENTRY_BYTES / TIME_BYTES;
const FULL_AT_TIME = (FULL_AT * 4) / TIME_BYTES;

const OPEN_BITS = 24;
const OPEN_MASK = 2 ** OPEN_BITS - 1;

/** Entries of a set: all the entries that one client may use. */
export const WAYS = 16;
const SET_BYTES = WAYS * ENTRY_BYTES + 4;
const HEADER_BYTES = 64;

/** The owner of an entry that is being replaced: no client, and open, so that no worker takes it. */
const NOBODY = 1;
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
  readonly #words: Int32Array;
  /** The same memory. */
  readonly #times: TimeCells;
  /** One cell per set: 1 while a worker makes an entry there. */
  readonly #making: Int32Array;
  readonly #sets: number;
  readonly #key: HashKey;
  readonly #hash = new Int32Array(2);
  // The tag of the client in the current call. The first word is never 0, which marks an entry without a client.
  #tag = 0;
  #tag2 = 0;

  constructor(memory: SharedArrayBuffer) {
    const entries = entriesOf(memory);
    this.#sets = entries / WAYS;
    this.#key = new Int32Array(memory, 0, 2);
    this.#words = new Int32Array(memory, HEADER_BYTES, entries * ENTRY_WORDS);
    this.#times = new TimeCells(memory, HEADER_BYTES, entries * ENTRY_TIMES);
    this.#making = new Int32Array(memory, HEADER_BYTES + entries * ENTRY_BYTES, this.#sets);
  }

  /**
   * Adds a connection of a client (its address masked to the listener's client prefix) at `nowNs` on a clock that all threads share.
   * Returns the number of its entry, which `release` must give back when the connection ends if `claimed` says so, or one of the negative
   * results above.
   */
  claim(w0: number, w1: number, w2: number, w3: number, limits: ClientLimits, nowNs: number): number {
    const set = this.#lookFor(w0, w1, w2, w3);
    this.claimed = false;
    this.dryRun = 0;
    for (let entry = this.#find(set); ; entry = -1) {
      if (entry < 0) entry = this.#make(set, nowNs);
      if (entry < 0) return CLIENT_TABLE_FULL;
      const answer = this.#count(entry, limits, nowNs);
      if (answer === LOST) continue;
      this.#words[entry * ENTRY_WORDS + SEEN] = secondsOf(nowNs);
      return answer;
    }
  }

  /** Ends one connection of an entry's client. A second call for the same connection throws, as in `giveBack`. */
  release(entry: number): void {
    if ((Atomics.sub(this.#words, entry * ENTRY_WORDS + OWNER, 1) & OPEN_MASK) !== 0) return;
    Atomics.add(this.#words, entry * ENTRY_WORDS + OWNER, 1);
    throw new Error("a connection of a client was released twice");
  }

  /** Releases a place that a terminated worker left claimed, or the entry if the worker was making it. */
  releaseLost(entry: number): void {
    const at = entry * ENTRY_WORDS;
    // It may still have the tag of its former client, for which nobody may find it.
    if (Atomics.load(this.#words, at + OWNER) === NOBODY) Atomics.store(this.#words, at + TAG, 0);
    this.release(entry);
  }

  /**
   * The current state of a client, without a claim: its open connections, and when its token bucket is full again, as takeToken counts (0 =
   * it was never used).
   */
  peek(w0: number, w1: number, w2: number, w3: number): { open: number; fullAtNs: number } {
    const entry = this.#find(this.#lookFor(w0, w1, w2, w3));
    return entry < 0
      ? { open: 0, fullAtNs: 0 }
      : { open: this.open(entry), fullAtNs: this.#times.load(entry * ENTRY_TIMES + FULL_AT_TIME) };
  }

  /** Open connections of an entry's client; 1 while the entry is made. */
  open(entry: number): number {
    return Atomics.load(this.#words, entry * ENTRY_WORDS + OWNER) & OPEN_MASK;
  }

  /** The same of all entries that have any. The reads are not ordered. */
  openByEntry(): Map<number, number> {
    const found = new Map<number, number>();
    const words = this.#words;
    for (let entry = 0, at = OWNER; at < words.length; entry++, at += ENTRY_WORDS) {
      const open = words[at]! & OPEN_MASK;
      if (open > 0) found.set(entry, open);
    }
    return found;
  }

  // Sets the tag to that of a client, and returns the first entry of its set.
  #lookFor(w0: number, w1: number, w2: number, w3: number): number {
    hashWords(this.#key, 0, w0, w1, w2, w3, this.#hash);
    this.#tag2 = this.#hash[0]!;
    this.#tag = this.#hash[1]! || 1;
    return (this.#tag2 & (this.#sets - 1)) * WAYS;
  }

  // The entry of the client, -1 = none. The reads are not ordered, so this is a hint, and the claim checks the tag again.
  #find(set: number): number {
    const words = this.#words;
    for (let entry = set, at = set * ENTRY_WORDS; entry < set + WAYS; entry++, at += ENTRY_WORDS) {
      if (words[at + TAG] === this.#tag && words[at + TAG_2] === this.#tag2) return entry;
    }
    return -1;
  }

  // The client's entry, which may replace the one that has been idle longest; -1 = no entry is idle. Two workers that see a new client at
  // the same time must not make two entries for it: one makes the entry, the other finds it. This is the only place where a worker may wait
  // for another: for a microsecond, at a client's first connection.
  #make(set: number, nowNs: number): number {
    const lock = set / WAYS;
    while (Atomics.compareExchange(this.#making, lock, 0, 1) !== 0) {
      if (Atomics.wait(this.#making, lock, 1, MAKING_MS) === "timed-out") break;
    }
    const entry = this.#findOrReplace(set, nowNs);
    Atomics.store(this.#making, lock, 0);
    Atomics.notify(this.#making, lock, 1);
    return entry;
  }

  #findOrReplace(set: number, nowNs: number): number {
    const words = this.#words;
    for (;;) {
      let oldest = -1;
      let oldestOwner = 0;
      let oldestAge = -1;
      for (let entry = set, at = set * ENTRY_WORDS; entry < set + WAYS; entry++, at += ENTRY_WORDS) {
        const owner = Atomics.load(words, at + OWNER);
        if (owner !== NOBODY && Atomics.load(words, at + TAG) === this.#tag && words[at + TAG_2] === this.#tag2) {
          return entry;
        }
        if ((owner & OPEN_MASK) !== 0) continue;
        const age = owner === 0 ? 2 ** 31 : (secondsOf(nowNs) - words[at + SEEN]!) | 0;
        if (age <= oldestAge) continue;
        oldest = entry;
        oldestOwner = owner;
        oldestAge = age;
      }
      if (oldest < 0 || this.#replace(oldest * ENTRY_WORDS, oldestOwner, nowNs)) return oldest;
    }
  }

  // Gives an entry to the client, unless it got a connection meanwhile. The entry belongs to no client while it is changed, so that neither
  // client uses the other's bucket; and whoever finds the tag finds the rest complete.
  #replace(at: number, owner: number, nowNs: number): boolean {
    const words = this.#words;
    if (Atomics.compareExchange(words, at + OWNER, owner, NOBODY) !== owner) return false;
    Atomics.store(words, at + TAG, 0);
    // The bucket is full from now on.
    this.#times.reset(at / 2 + FULL_AT_TIME, Math.floor(nowNs));
    words[at + SEEN] = secondsOf(nowNs);
    words[at + TAG_2] = this.#tag2;
    Atomics.store(words, at + OWNER, (((owner >>> OPEN_BITS) % 255) + 1) << OPEN_BITS);
    Atomics.store(words, at + TAG, this.#tag);
    return true;
  }

  #count(entry: number, limits: ClientLimits, nowNs: number): number {
    if (limits.maxOpen > 0 || limits.holds) {
      const refused = this.#claimPlace(entry, limits.maxOpen);
      if (refused === LOST || (refused === CLIENT_OVER_CAP && !limits.dryRunOpen)) return refused;
      if (refused === CLIENT_OVER_CAP) this.dryRun |= OVER_CAP;
    }
    return limits.intervalNs === 0 ? entry : this.#takeToken(entry, limits, nowNs);
  }

  // The entry, LOST or CLIENT_OVER_CAP.
  #claimPlace(entry: number, maxOpen: number): number {
    const words = this.#words;
    const at = entry * ENTRY_WORDS;
    for (;;) {
      const owner = Atomics.load(words, at + OWNER);
      if (owner === NOBODY || Atomics.load(words, at + TAG) !== this.#tag) return LOST;
      if (maxOpen > 0 && (owner & OPEN_MASK) >= maxOpen) return CLIENT_OVER_CAP;
      if (Atomics.compareExchange(words, at + OWNER, owner, owner + 1) !== owner) continue;
      this.claimed = true;
      return entry;
    }
  }

  // The entry, LOST or CLIENT_OVER_RATE.
  #takeToken(entry: number, { intervalNs, burst, dryRunRate }: ClientLimits, nowNs: number): number {
    // The cap would have refused the connection before it took a token.
    if (dryRunRate && this.dryRun !== 0) return entry;
    const times = this.#times;
    const cell = entry * ENTRY_TIMES + FULL_AT_TIME;
    for (;;) {
      const fullAtNs = times.load(cell);
      // Without a claimed place, the entry may have been given to another client.
      if (Atomics.load(this.#words, entry * ENTRY_WORDS + TAG) !== this.#tag) return LOST;
      const next = takeToken(fullAtNs, nowNs, intervalNs, burst);
      if (next === NO_TOKEN) {
        // Unless it was given away and back in between.
        if (times.load(cell) === fullAtNs) return this.#refuse(entry, dryRunRate);
        continue;
      }
      if (times.exchange(cell, fullAtNs, next)) return entry;
    }
  }

  #refuse(entry: number, dryRunRate: boolean): number {
    if (dryRunRate) {
      this.dryRun |= OVER_RATE;
      return entry;
    }
    if (this.claimed) this.release(entry);
    this.claimed = false;
    return CLIENT_OVER_RATE;
  }
}

const OVER_CAP = dryRunBit("max_connections_per_client");
const OVER_RATE = dryRunBit("rate_limit");

/** The entry was given to another client after it was found: search again. */
const LOST = -4;

function secondsOf(ns: number): number {
  return Math.floor(ns / 1e9) | 0;
}
