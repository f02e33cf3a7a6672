// Names of backends to addresses: looked up before a pool is used and again at its interval. A look-up that fails, or that
// answers nothing, keeps the last good answer.
import { lookup } from "node:dns/promises";
import { parseAddress, type Address } from "../core/address.ts";
import type { PoolConfig } from "../config/schema.ts";
import type { Log } from "./log.ts";

/** A look-up that takes longer has failed. */
export const LOOKUP_TIMEOUT_MS = 5000;

/** The system's answer for a name: its addresses in a stable order. Fails with the reason as text. */
export type Lookup = (host: string) => Promise<Address[]>;

export class Resolver {
  readonly #known = new Map<string, readonly Address[]>();
  readonly #failing = new Set<string>();
  readonly #timers: ReturnType<typeof setInterval>[] = [];
  readonly #log: Log;
  readonly #lookup: Lookup;

  constructor(log: Log, lookUp: Lookup = systemLookup) {
    this.#log = log;
    this.#lookup = lookUp;
  }

  /** The last good answer for a name, empty if there never was one. */
  readonly addresses = (host: string): readonly Address[] => this.#known.get(host) ?? [];

  /** Looks up the names of these pools that are not known yet. */
  async learn(pools: readonly PoolConfig[]): Promise<void> {
    const unknown = new Set(pools.flatMap(namesOf).filter((host) => !this.#known.has(host)));
    await Promise.all([...unknown].map((host) => this.#look(host)));
  }

  /** From now on looks up the names of these pools at their intervals, and tells of each pool that was looked up. */
  follow(pools: readonly PoolConfig[], onAnswer: (pool: string) => void): void {
    this.stop();
    for (const pool of pools) {
      const names = namesOf(pool);
      if (names.length === 0) continue;
      let asking = false;
      const again = async (): Promise<void> => {
        // A slow answer may take longer than the interval: one question at a time.
        if (asking) return;
        asking = true;
        await Promise.all(names.map((host) => this.#look(host)));
        asking = false;
        onAnswer(pool.name);
      };
      this.#timers.push(setInterval(() => void again(), pool.resolve));
    }
    const names = new Set(pools.flatMap(namesOf));
    for (const host of this.#known.keys()) if (!names.has(host)) this.#known.delete(host);
  }

  stop(): void {
    for (const timer of this.#timers.splice(0)) clearInterval(timer);
  }

  async #look(host: string): Promise<void> {
    try {
      const addresses = await withTimeout(this.#lookup(host));
      if (addresses.length === 0) throw new Error("no address");
      this.#known.set(host, addresses);
      if (this.#failing.delete(host)) this.#log.info("name resolves again", { host });
    } catch (error) {
      if (this.#failing.has(host)) return;
      this.#failing.add(host);
      const kept = this.addresses(host).length;
      this.#log.warn("name does not resolve", { host, error: String((error as Error).message), addresses_kept: kept });
    }
  }
}

function namesOf(pool: PoolConfig): string[] {
  return pool.backends.flatMap(({ endpoint }) => (endpoint.kind === "name" ? [endpoint.host] : []));
}

async function systemLookup(host: string): Promise<Address[]> {
  const answers = await lookup(host, { all: true });
  const texts = [...new Set(answers.map(({ address }) => address))].sort();
  return texts.map(parseAddress).filter((address) => address !== null);
}

async function withTimeout<T>(promise: Promise<T>): Promise<T> {
  const { promise: late, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => reject(new Error("timed out")), LOOKUP_TIMEOUT_MS);
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
