// The most active clients of the last minute: for each worker a table in shared memory of connections, bytes each way and refusals by
// client, which only that worker writes, when a session ends. Its size is fixed, however many clients there are. Each of these counts has
// its own table, and a new one every ten seconds: Space-Saving (Metwally, Agrawal and El Abbadi, "Efficient computation of frequent and
// top-k elements in data streams", ICDT 2005), set-associative. A client without an entry replaces the one with the smallest count in its
// set and continues from that count, which is kept as its possible error. So a count is never too low while a client keeps its entry, and
// too high by at most its error. With E events of others in a client's set, which is a sixteenth of all on average, a client with more than
// E / 15 of its own keeps its entry.
import type { ClientWords } from "../core/client-prefix.ts";

/** The counts of a client. */
export const ACTIVITY = { connections: 0, bytesIn: 1, bytesOut: 2, refusals: 3 } as const;
export type Activity = (typeof ACTIVITY)[keyof typeof ACTIVITY];

export const WINDOW_MS = 10_000;
/** Number of windows in an answer: the current one and those before it, 50 to 60 s together. */
export const WINDOWS = 6;
/** One more than that, so that a reader does not read the window that is being cleared. */
const RING = WINDOWS + 1;

export const SETS = 16;
export const WAYS = 16;
const ENTRIES = SETS * WAYS;
/** Of an entry: the id of the listener, 0 = free or being replaced, and the client's address masked by `client_prefix`. */
const KEY_WORDS = 5;
/** Tables per window, one for each activity. */
const TABLES = 4;
const HEADER_WORDS = 16;

const KEYS = RING * TABLES * ENTRIES * KEY_WORDS;
const NUMBERS = RING * TABLES * ENTRIES;

/** Memory for the tables of one worker: 258 KB. */
export function activityMemory(): SharedArrayBuffer {
  const memory = new SharedArrayBuffer((HEADER_WORDS + KEYS) * 4 + 2 * NUMBERS * 8);
  // A private key, so that nobody can choose addresses that evict a certain client.
  new Uint32Array(memory, 0, 1).set(crypto.getRandomValues(new Uint32Array(1)));
  return memory;
}

/**
 * Called with each count of a table: the listener's id, the four words of the address, valid until the next call, the count, and its
 * possible error.
 */
type EachCount = (listener: number, address: Int32Array, count: number, error: number) => void;

export class ClientActivity {
  /** The hash key, and from cell 1 on the number of the window in each slot of the ring. */
  readonly #header: Int32Array;
  readonly #keys: Int32Array;
  readonly #counts: Float64Array;
  readonly #errors: Float64Array;
  readonly #address = new Int32Array(KEY_WORDS - 1);

  constructor(memory: SharedArrayBuffer) {
    const numbersAt = (HEADER_WORDS + KEYS) * 4;
    this.#header = new Int32Array(memory, 0, HEADER_WORDS);
    this.#keys = new Int32Array(memory, HEADER_WORDS * 4, KEYS);
    this.#counts = new Float64Array(memory, numbersAt, NUMBERS);
    this.#errors = new Float64Array(memory, numbersAt + NUMBERS * 8, NUMBERS);
  }

  /**
   * Adds to a count of a client (its address masked by `client_prefix`) at a listener, in the window of `atMs`, which may be up to a minute
   * ago. Hot path.
   */
  add(activity: Activity, amount: number, atMs: number, listener: number, { w0, w1, w2, w3 }: ClientWords): void {
    const slot = this.#slotOf(Math.floor(atMs / WINDOW_MS));
    if (slot < 0) return;
    const keys = this.#keys;
    const counts = this.#counts;
    const set = hash(this.#header[0]!, listener, w0, w1, w2, w3) & (SETS - 1);
    const first = (slot * TABLES + activity) * ENTRIES + set * WAYS;
    let least = first;
    let leastCount = counts[first]!;
    for (let entry = first; entry < first + WAYS; entry++) {
      const key = entry * KEY_WORDS;
      // The last word is compared first, because it usually differs.
      const isClient =
        keys[key + 4] === w3 &&
        keys[key] === listener &&
        keys[key + 3] === w2 &&
        keys[key + 2] === w1 &&
        keys[key + 1] === w0;
      const count = counts[entry]!;
      if (isClient) {
        counts[entry] = count + amount;
        return;
      }
      if (count < leastCount) {
        least = entry;
        leastCount = count;
      }
    }
    const key = least * KEY_WORDS;
    // A reader skips the entry meanwhile. The atomic stores keep the order.
    Atomics.store(keys, key, 0);
    keys[key + 1] = w0;
    keys[key + 2] = w1;
    keys[key + 3] = w2;
    keys[key + 4] = w3;
    this.#errors[least] = leastCount;
    counts[least] = leastCount + amount;
    Atomics.store(keys, key, listener);
  }

  /** Every count of an activity in the windows up to `nowMs`, for a reader in another thread. */
  each(activity: Activity, nowMs: number, take: EachCount): void {
    const now = Math.floor(nowMs / WINDOW_MS);
    for (let window = now - WINDOWS + 1; window <= now; window++) {
      const slot = window % RING;
      if (this.#header[1 + slot] !== window) continue;
      const first = (slot * TABLES + activity) * ENTRIES;
      for (let entry = first; entry < first + ENTRIES; entry++) this.#read(entry, take);
    }
  }

  #read(entry: number, take: EachCount): void {
    const keys = this.#keys;
    const key = entry * KEY_WORDS;
    // Atomic, because otherwise the compiler may use an earlier read.
    const listener = Atomics.load(keys, key);
    if (listener === 0) return;
    const address = this.#address;
    address.set(keys.subarray(key + 1, key + KEY_WORDS));
    const count = this.#counts[entry]!;
    const error = this.#errors[entry]!;
    const isStill = Atomics.load(keys, key) === listener && address.every((word, i) => word === keys[key + 1 + i]);
    if (isStill && count > 0) take(listener, address, count, Math.min(error, count));
  }

  // The slot of a window, cleared when the window begins; -1 = too old.
  #slotOf(window: number): number {
    const slot = window % RING;
    const has = this.#header[1 + slot]!;
    if (has === window) return slot;
    if (has > window) return -1;
    const from = slot * TABLES * ENTRIES;
    const to = from + TABLES * ENTRIES;
    this.#header[1 + slot] = 0;
    this.#keys.fill(0, from * KEY_WORDS, to * KEY_WORDS);
    this.#counts.fill(0, from, to);
    this.#errors.fill(0, from, to);
    this.#header[1 + slot] = window;
    return slot;
  }
}

/** The start of the windows of an answer at `nowMs`. */
export function windowsBeginMs(nowMs: number): number {
  return (Math.floor(nowMs / WINDOW_MS) - WINDOWS + 1) * WINDOW_MS;
}

// Spreads clients over the sets. It need not resist attacks further than that: an evicted client is only missing in a list.
function hash(key: number, listener: number, w0: number, w1: number, w2: number, w3: number): number {
  let h = mix(key ^ listener, w0);
  h = mix(h, w1);
  h = mix(h, w2);
  h = mix(h, w3);
  return (h ^ (h >>> 16)) >>> 0;
}

function mix(h: number, word: number): number {
  const mixed = Math.imul(h ^ word, 0x85ebca6b);
  return Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35);
}
