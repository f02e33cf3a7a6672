// The connections that are open now: lists them from the workers' ledgers, and ends them on an operator's request. Reading shared memory
// costs the workers nothing.
import { isNameOfOne } from "../core/backend-name.ts";
import { cidrTable } from "../core/cidr-set.ts";
import { clientText } from "../observe/access-line.ts";
import {
  CONNECTIONS_DEFAULT,
  type ConnectionFilter,
  type ConnectionList,
  type ConnectionQuery,
  type ConnectionSort,
  type ConnectionStatus,
  type SignedSort,
} from "../observe/live.ts";
import { monotonicMs } from "../platform/clock.ts";
import { ROW, ROW_FLOAT, ROW_FLOATS, ROW_WORDS, type Ledger } from "../shared/ledger.ts";
import type { ByteRates } from "./byte-rates.ts";
import { failure, type AccessQuery, type Result } from "../admin/operations.ts";
import type { AccessFilter } from "../messages.ts";
import { endMatching, type EndingWorker } from "./ordered-ends.ts";
import type { BackendRecord, Registry } from "./registry.ts";
import { eachMatch, EVERY_ROW, type RowMatch } from "./row-match.ts";

/** The part of a worker slot that is needed here. */
export interface LiveWorker extends EndingWorker {
  readonly index: number;
}

const UNANSWERED =
  "the connection ends when it runs again, or POST /api/workers/N/restart ends it with all its connections";

interface Found {
  readonly worker: LiveWorker;
  readonly row: number;
  readonly id: number;
  readonly key: number;
}

export class LiveConnections {
  readonly #registry: Registry;
  readonly #workers: () => readonly LiveWorker[];
  readonly #rates: ByteRates;

  /** `workers` returns those that have connections now. */
  constructor(registry: Registry, workers: () => readonly LiveWorker[], rates: ByteRates) {
    this.#registry = registry;
    this.#workers = workers;
    this.#rates = rates;
  }

  list(query: ConnectionQuery): Result<ConnectionList> {
    const match = this.match(query);
    if (!match.ok) return match;
    const workers = this.#workers();
    const nowMs = monotonicMs();
    this.#rates.sample(
      workers.map(({ ledger }) => ledger),
      nowMs,
    );
    const first = new First(query.limit ?? CONNECTIONS_DEFAULT);
    const key = this.#keyOf(query.sort ?? "age_ms", nowMs);
    for (const worker of workers) {
      const { ledger } = worker;
      eachMatch(ledger, match.value, (row, id) => first.add({ worker, row, id, key: key(ledger, row, id) }));
    }
    const connections = first.sorted().flatMap((found) => this.#statusOf(found, nowMs) ?? []);
    return { ok: true, value: { total: first.total, connections } };
  }

  /** Ends the matching connections. A filter without a condition is refused. The value is their number. */
  async end(filter: ConnectionFilter): Promise<Result<number>> {
    const match = this.match(filter);
    if (!match.ok) return match;
    if (Object.values(match.value).every((condition) => condition === null)) {
      const cure = "give client, listener, pool or backend";
      return failure("no_condition", "to end connections takes at least one condition", cure);
    }
    const ended = await endMatching(this.#workers(), match.value, "killed");
    return { ok: true, value: ended, change: { before: null, after: { killed: ended } } };
  }

  /** Ends the connection with this id. */
  async endOne(id: number): Promise<Result<number>> {
    for (const worker of this.#workers()) {
      const { ledger } = worker;
      for (const row of ledger.rowsInUse()) {
        if (ledger.floats[row * ROW_FLOATS + ROW_FLOAT.id] !== id) continue;
        const ended = await worker.endConnections("killed", Uint32Array.of(row), Float64Array.of(id));
        if (ended === null) return failure("worker_not_running", `worker ${worker.index} does not answer`, UNANSWERED);
        if (ended > 0) return { ok: true, value: ended, change: { before: null, after: { killed: id } } };
      }
    }
    return failure(
      "no_such_connection",
      `there is no connection ${id}`,
      "GET /api/connections lists those that are open",
    );
  }

  /** Resolves the names of a filter to ids. Names of a former config count while connections may have them. */
  match({ client, listener, pool, backend }: ConnectionFilter): Result<RowMatch> {
    const { listenerById, poolById, backendById } = this.#registry;
    const listeners = idsOf(listenerById, listener, (record) => record.name === listener);
    if (listeners?.size === 0) return unknown("no_such_listener", "listener", listener!, listenerById);
    const pools = idsOf(poolById, pool, (record) => record.name === pool);
    if (pools?.size === 0) return unknown("no_such_pool", "pool", pool!, poolById);
    const backends = idsOf(backendById, backend, (record) => isCalled(record, backend!));
    if (backends?.size === 0)
      return failure(
        "no_such_backend",
        `there is no backend ${JSON.stringify(backend)}`,
        "`pools` of GET /api/status lists the backends",
      );
    return {
      ok: true,
      value: { ...EVERY_ROW, listeners, pools, backends, clients: client === undefined ? null : cidrTable([client]) },
    };
  }

  /** The filter for access log lines, which have names. A backend that gets the name later matches too. */
  accessFilter(query: Omit<AccessQuery, "format">): Result<AccessFilter> {
    const match = this.match(query);
    if (!match.ok) return match;
    const { listener = null, pool = null, backend, end = null, min_duration: minDurationMs = 0 } = query;
    const { backends: ids, clients } = match.value;
    const names = [...(ids ?? [])].flatMap((id) => this.#registry.backendById.get(id)?.name ?? []);
    const backends = backend === undefined ? null : [...new Set([...names, backend])];
    return { ok: true, value: { listener, pool, backends, clients, end, minDurationMs } };
  }

  #keyOf(sort: SignedSort, nowMs: number): (ledger: Ledger, row: number, id: number) => number {
    const reversed = sort.startsWith("-");
    const by = (reversed ? sort.slice(1) : sort) as ConnectionSort;
    const value = (ledger: Ledger, row: number, id: number): number => {
      const floatsAt = row * ROW_FLOATS;
      switch (by) {
        case "age_ms":
          return nowMs - ledger.floats[floatsAt + ROW_FLOAT.startedMs]!;
        case "bytes_in":
          return ledger.floats[floatsAt + ROW_FLOAT.bytesIn]!;
        case "bytes_out":
          return ledger.floats[floatsAt + ROW_FLOAT.bytesOut]!;
        case "rate_in":
          return this.#rates.of(ledger, row, id, nowMs).in;
        case "rate_out":
          return this.#rates.of(ledger, row, id, nowMs).out;
        case "id":
          return id;
      }
    };
    return reversed ? (ledger, row, id) => -value(ledger, row, id) : value;
  }

  // Null if the connection has ended since it was found.
  #statusOf({ worker, row, id }: Found, nowMs: number): ConnectionStatus | null {
    const { listenerById, poolById, backendById } = this.#registry;
    const { ledger } = worker;
    const { words, floats } = ledger;
    const at = row * ROW_WORDS;
    const floatsAt = row * ROW_FLOATS;
    const stamp = ledger.stamp(row);
    if (Math.abs(stamp) !== id) return null;
    const rates = this.#rates.of(ledger, row, id, nowMs);
    const status: ConnectionStatus = {
      id,
      listener: listenerById.get(words[at + ROW.listener]!)?.name ?? "",
      client: clientText(words, at + ROW.address),
      peer: stamp < 0 ? clientText(words, at + ROW.peer) : null,
      sni: ledger.sni(row) || null,
      pool: poolById.get(words[at + ROW.pool]!)?.name ?? null,
      backend: backendById.get(words[at + ROW.backend]!)?.name ?? null,
      phase: ledger.phase(row),
      age_ms: Math.max(0, Math.round(nowMs - floats[floatsAt + ROW_FLOAT.startedMs]!)),
      bytes_in: floats[floatsAt + ROW_FLOAT.bytesIn]!,
      bytes_out: floats[floatsAt + ROW_FLOAT.bytesOut]!,
      rate_in: rates.in,
      rate_out: rates.out,
      worker: worker.index,
    };
    return ledger.isStill(row, stamp) && status.phase !== "closed" ? status : null;
  }
}

/** The first of many by their keys; memory for twice the wanted number. */
class First {
  readonly #limit: number;
  #found: Found[] = [];
  total = 0;

  constructor(limit: number) {
    this.#limit = limit;
  }

  add(found: Found): void {
    this.total++;
    this.#found.push(found);
    if (this.#found.length > 2 * this.#limit + 1000) this.#found = this.sorted();
  }

  /** The largest key first; among equal keys the lower id. */
  sorted(): Found[] {
    return this.#found.toSorted((a, b) => b.key - a.key || a.id - b.id).slice(0, this.#limit);
  }
}

function idsOf<T extends { id: number }>(
  records: ReadonlyMap<number, T>,
  wanted: string | undefined,
  isWanted: (record: T) => boolean,
): ReadonlySet<number> | null {
  if (wanted === undefined) return null;
  return new Set([...records.values()].filter(isWanted).map(({ id }) => id));
}

/** A name that resolves to several addresses means all of them. */
function isCalled({ name, address, config }: BackendRecord, text: string): boolean {
  return text === name || text === config.name || text === address || isNameOfOne(text, config.name, address);
}

function unknown(
  error: "no_such_listener" | "no_such_pool",
  kind: string,
  name: string,
  records: ReadonlyMap<number, { name: string }>,
): ReturnType<typeof failure> {
  const names = [...records.values()].map((record) => record.name).join(", ");
  return failure(error, `there is no ${kind} ${JSON.stringify(name)}`, `the ${kind}s are ${names}`);
}
