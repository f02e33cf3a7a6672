// Resolves names of backends to addresses: before a pool is used and again at its interval. If a lookup fails or is not answered yet, the
// last good answer stays valid. A late answer is used whenever it arrives.
import type { Address } from "../core/address.ts";
import type { PoolConfig } from "../config/schema.ts";
import type { Logger } from "./log.ts";
import { lookUp as systemLookup } from "./lookup.ts";

/** A start or a reload waits at most this long for new names. */
export const LEARN_MS = 5000;
/** Lookup interval of a name that has never had an address, if its pool's interval is longer. */
export const RETRY_MS = 2000;
/** Number of answers that are kept for names that the active config does not use. */
export const KEPT_MAX = 1024;

/** The addresses of a name in a stable order. Fails with the reason as text. */
export type Lookup = (host: string) => Promise<Address[]>;

export class Resolver {
  /** The last good answer for a name; the latest answer is last. */
  readonly #known = new Map<string, readonly Address[]>();
  readonly #failing = new Set<string>();
  /** Lookups in flight, at most one per name. */
  readonly #pending = new Map<string, Promise<void>>();
  /** The names of the active config, with the pools that use them. */
  #followed = new Map<string, string[]>();
  #onAnswer: (pool: string) => void = () => undefined;
  readonly #timers: ReturnType<typeof setInterval>[] = [];
  readonly #log: Logger;
  readonly #lookup: Lookup;

  constructor(log: Logger, lookUp: Lookup = systemLookup) {
    this.#log = log;
    this.#lookup = lookUp;
  }

  /** The last good answer for a name, empty if there never was one. */
  readonly addresses = (host: string): readonly Address[] => this.#known.get(host) ?? [];

  /** The names of a pool that have never resolved. */
  readonly missing = (pool: PoolConfig): string[] => namesOf(pool).filter((host) => !this.#known.has(host));

  /** Looks up the names of these pools that are not followed, or that have no address yet. Waits for the answers for a limited time. */
  async learn(pools: readonly PoolConfig[]): Promise<void> {
    const hosts = new Set(pools.flatMap(namesOf).filter((host) => !this.#known.has(host) || !this.#followed.has(host)));
    const late = Promise.withResolvers<void>();
    const timer = setTimeout(late.resolve, LEARN_MS);
    await Promise.race([Promise.all([...hosts].map((host) => this.#look(host))), late.promise]);
    clearTimeout(timer);
    for (const host of hosts) if (this.#pending.has(host)) this.#fails(host, `no answer within ${LEARN_MS / 1000} s`);
  }

  /**
   * From now on looks up the names of these pools at their intervals. Reports each pool with names now, because an answer may have arrived
   * after its addresses were read, and later whenever one of its names is answered.
   */
  follow(pools: readonly PoolConfig[], onAnswer: (pool: string) => void): void {
    this.stop();
    this.#onAnswer = onAnswer;
    for (const pool of pools) {
      const names = new Set(namesOf(pool));
      if (names.size === 0) continue;
      for (const host of names) this.#followed.set(host, [...(this.#followed.get(host) ?? []), pool.name]);
      this.#timers.push(setInterval(() => this.#lookAll(names), pool.resolve));
    }
    if (this.#followed.size > 0) this.#timers.push(setInterval(() => this.#lookAll(this.#unanswered()), RETRY_MS));
    this.#forget();
    for (const pool of new Set([...this.#followed.values()].flat())) onAnswer(pool);
  }

  stop(): void {
    for (const timer of this.#timers.splice(0)) clearInterval(timer);
    this.#followed = new Map();
    this.#onAnswer = () => undefined;
  }

  *#unanswered(): Generator<string> {
    for (const host of this.#followed.keys()) if (!this.#known.has(host)) yield host;
  }

  #lookAll(hosts: Iterable<string>): void {
    for (const host of hosts) void this.#look(host);
  }

  #look(host: string): Promise<void> {
    const asked = this.#pending.get(host) ?? this.#ask(host).finally(() => this.#pending.delete(host));
    this.#pending.set(host, asked);
    return asked;
  }

  async #ask(host: string): Promise<void> {
    try {
      const addresses = await this.#lookup(host);
      if (addresses.length === 0) throw new Error("it has no address");
      this.#known.delete(host);
      this.#known.set(host, addresses);
      if (this.#failing.delete(host)) this.#log.info("name resolves again", { host });
      for (const pool of this.#followed.get(host) ?? []) this.#onAnswer(pool);
    } catch (error) {
      this.#fails(host, (error as Error).message);
    }
  }

  // Logged once, until the name resolves again.
  #fails(host: string, error: string): void {
    if (this.#failing.has(host)) return;
    this.#failing.add(host);
    this.#log.warn("name does not resolve", { host, error, addresses_kept: this.addresses(host).length });
  }

  // Some answers are kept: a former config may return at a time when its names do not resolve.
  #forget(): void {
    const spare = [...this.#known.keys()].filter((host) => !this.#followed.has(host));
    for (const host of spare.slice(0, Math.max(0, spare.length - KEPT_MAX))) this.#known.delete(host);
    for (const host of this.#failing) if (!this.#followed.has(host)) this.#failing.delete(host);
  }
}

function namesOf(pool: PoolConfig): string[] {
  return pool.backends.flatMap(({ endpoint }) => (endpoint.kind === "name" ? [endpoint.host] : []));
}
