// The top clients: open connections from the workers' ledgers, and connections ended in the last minute from their tables of the most
// active clients (shared/client-activity.ts). Computed on request; no state is kept here.
import { formatAddress, formatCidr, isIPv4, type Address } from "../core/address.ts";
import { cidrHasAt } from "../core/cidr-set.ts";
import { ClientPrefix, type PrefixLengths } from "../core/client-prefix.ts";
import {
  CLIENTS_DEFAULT,
  type ClientList,
  type ClientQuery,
  type ClientStatus,
  type ConnectionFilter,
} from "../observe/live.ts";
import { monotonicMs } from "../platform/clock.ts";
import { ACTIVITY, windowsBeginMs, type Activity, type ClientActivity } from "../shared/client-activity.ts";
import { ROW, ROW_FLOAT, ROW_FLOATS, ROW_WORDS, type Ledger } from "../shared/ledger.ts";
import type { Result } from "../admin/operations.ts";
import type { ByteRates } from "./byte-rates.ts";
import type { Registry } from "./registry.ts";
import { eachMatch, type RowMatch } from "./row-match.ts";

/** The part of a worker slot that is needed here. */
export interface ActiveWorker {
  readonly ledger: Ledger;
  readonly activity: ClientActivity;
}

export interface TopClientsOptions {
  registry: Registry;
  /** The workers that have connections now. */
  workers: () => readonly ActiveWorker[];
  rates: ByteRates;
  /** Resolves the names of a filter to ids. */
  match: (filter: ConnectionFilter) => Result<RowMatch>;
}

const MINUTE_MS = 60_000;

export class TopClients {
  readonly #options: TopClientsOptions;

  constructor(options: TopClientsOptions) {
    this.#options = options;
  }

  list({ sort = "open", limit = CLIENTS_DEFAULT, ...filter }: ClientQuery): Result<ClientList> {
    const match = this.#options.match(filter);
    if (!match.ok) return match;
    const nowMs = monotonicMs();
    const tallies = new Tallies(this.#options.registry);
    this.#addEnded(tallies, match.value, nowMs);
    this.#addOpen(tallies, match.value, nowMs);
    const clients = tallies.statuses();
    const key = (client: ClientStatus): number =>
      sort === "bytes" ? client.bytes_in + client.bytes_out : client[sort];
    const first = clients.toSorted((a, b) => key(b) - key(a) || b.open - a.open).slice(0, limit);
    const period_ms = Math.round(nowMs - windowsBeginMs(nowMs));
    return { ok: true, value: { total: clients.length, period_ms, clients: first } };
  }

  #addEnded(tallies: Tallies, { listeners, clients }: RowMatch, nowMs: number): void {
    const add = (activity: Activity, count: (tally: Tally, count: number, error: number) => void): void => {
      for (const worker of this.#options.workers()) {
        worker.activity.each(activity, nowMs, (listener, words, value, error) => {
          if (listeners !== null && !listeners.has(listener)) return;
          if (clients !== null && !cidrHasAt(clients, words, 0)) return;
          const tally = tallies.of(listener, words, 0);
          if (tally !== null) count(tally, value, error);
        });
      }
    };
    add(ACTIVITY.connections, (tally, count, error) => {
      tally.connections += count;
      tally.connectionsError += error;
    });
    add(ACTIVITY.bytesIn, (tally, count, error) => {
      tally.bytesIn += count;
      tally.bytesInError += error;
    });
    add(ACTIVITY.bytesOut, (tally, count, error) => {
      tally.bytesOut += count;
      tally.bytesOutError += error;
    });
    add(ACTIVITY.refusals, (tally, count, error) => {
      tally.refusals += count;
      tally.refusalsError += error;
    });
  }

  #addOpen(tallies: Tallies, match: RowMatch, nowMs: number): void {
    const { rates } = this.#options;
    const workers = this.#options.workers();
    const beginMs = windowsBeginMs(nowMs);
    rates.sample(
      workers.map(({ ledger }) => ledger),
      nowMs,
    );
    for (const { ledger } of workers) {
      const { words, floats } = ledger;
      eachMatch(ledger, match, (row, id) => {
        const at = row * ROW_WORDS;
        const floatsAt = row * ROW_FLOATS;
        const tally = tallies.of(words[at + ROW.listener]!, words, at + ROW.address);
        if (tally === null) return;
        const startedMs = floats[floatsAt + ROW_FLOAT.startedMs]!;
        tally.open++;
        if (startedMs >= beginMs) tally.connections++;
        if (nowMs - startedMs <= MINUTE_MS) {
          tally.bytesIn += floats[floatsAt + ROW_FLOAT.bytesIn]!;
          tally.bytesOut += floats[floatsAt + ROW_FLOAT.bytesOut]!;
          return;
        }
        const rate = rates.of(ledger, row, id, nowMs);
        tally.bytesIn += (rate.in * MINUTE_MS) / 1000;
        tally.bytesOut += (rate.out * MINUTE_MS) / 1000;
      });
    }
  }
}

/** The counts of one client. */
interface Tally {
  readonly address: Address;
  /** Of the IPv4-mapped form, as in Cidr. */
  readonly prefix: number;
  open: number;
  connections: number;
  connectionsError: number;
  bytesIn: number;
  bytesInError: number;
  bytesOut: number;
  bytesOutError: number;
  refusals: number;
  refusalsError: number;
}

const NOTHING = {
  open: 0,
  connections: 0,
  connectionsError: 0,
  bytesIn: 0,
  bytesInError: 0,
  bytesOut: 0,
  bytesOutError: 0,
  refusals: 0,
  refusalsError: 0,
};

/** Counts by client, where listeners with the same prefix share a client. */
class Tallies {
  readonly #byKey = new Map<number | string, Tally>();
  readonly #registry: Registry;
  readonly #prefixes = new Map<number, { of: ClientPrefix; lengths: PrefixLengths } | null>();

  constructor(registry: Registry) {
    this.#registry = registry;
  }

  /** The counts of the client whose address is in the cells from `at`; null for a listener that no longer exists. */
  of(listener: number, words: Int32Array, at: number): Tally | null {
    const prefix = this.#prefixOf(listener);
    if (prefix === null) return null;
    const { w0, w1, w2, w3 } = prefix.of.of(words, at);
    const bits = isIPv4(w0, w1, w2) ? 96 + prefix.lengths.ipv4 : prefix.lengths.ipv6;
    // Numbers are faster keys than strings, and for most clients one is enough.
    const key = isIPv4(w0, w1, w2) ? (w3 >>> 0) + bits * 2 ** 32 : `${w0} ${w1} ${w2} ${w3} ${bits}`;
    const known = this.#byKey.get(key);
    if (known !== undefined) return known;
    const address = [w0 >>> 0, w1 >>> 0, w2 >>> 0, w3 >>> 0] as const;
    const tally: Tally = { address, prefix: bits, ...NOTHING };
    this.#byKey.set(key, tally);
    return tally;
  }

  statuses(): ClientStatus[] {
    return [...this.#byKey.values()].map((tally) => ({
      client: clientName(tally),
      open: tally.open,
      new_connections: tally.connections,
      bytes_in: Math.round(tally.bytesIn),
      bytes_out: Math.round(tally.bytesOut),
      refusals: tally.refusals,
      error: {
        new_connections: tally.connectionsError,
        bytes_in: Math.round(tally.bytesInError),
        bytes_out: Math.round(tally.bytesOutError),
        refusals: tally.refusalsError,
      },
    }));
  }

  #prefixOf(listener: number): { of: ClientPrefix; lengths: PrefixLengths } | null {
    const known = this.#prefixes.get(listener);
    if (known !== undefined) return known;
    const lengths = this.#registry.listenerById.get(listener)?.config.client_prefix;
    const prefix = lengths === undefined ? null : { of: new ClientPrefix(lengths), lengths };
    this.#prefixes.set(listener, prefix);
    return prefix;
  }
}

/** An address, a CIDR if the prefix is shorter, or "unix". */
function clientName({ address, prefix }: Tally): string {
  if (address.every((word) => word === 0)) return "unix";
  return prefix === 128 ? formatAddress(...address) : formatCidr({ address, prefix });
}
