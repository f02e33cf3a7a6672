// The operators' changes at run time, on top of the file: states and weights of backends, added and removed backends, drained listeners. A
// change survives reloads unless the file's own value changes, and it survives workers, which get its effect with every plan. This file
// knows neither records nor workers; the caller applies the changes to them.
import type { BackendConfig, Config, PoolConfig } from "../config/schema.ts";
import { monotonicMsOf } from "../platform/clock.ts";
import { formatEndpoint } from "../core/address.ts";
import { nameOfOne } from "../core/backend-name.ts";
import { sameJson } from "../core/json.ts";

/** ready: as the file says. drain: no new connections. maintenance: no new connections and no health checks. */
export type OperatorState = "ready" | "drain" | "maintenance";

/** An operator's order for a backend. */
export interface OperatorOrder {
  readonly state: OperatorState;
  /** Replaces the file's weight; null = the file's. */
  readonly weight: number | null;
  /** When its connections are ended, on performance.now(); null = never. */
  readonly endAtMs: number | null;
}

const NO_ORDER: OperatorOrder = { state: "ready", weight: null, endAtMs: null };

/** A backend by its name in the config, or one of the addresses to which this name resolves. */
export interface BackendTarget {
  readonly name: string;
  /** null = all. */
  readonly address: string | null;
}

/** A change of state or weight, for one target. null = no change: for one of a name's addresses, the name's own order applies then. */
interface Order {
  state: OperatorState | null;
  /** With the file's weight at that time; a different weight in the file ends the order. */
  weight: { value: number; file: number } | null;
  endAtMs: number | null;
}

/** As JSON, for another process on this machine: times are on monotonicMs(). */
export interface RuntimeChangesJson {
  listeners: { name: string; state: "drain" }[];
  pools: {
    name: string;
    added: BackendConfig[];
    /** `entry` is the file's entry for it. */
    removed: { name: string; entry: BackendConfig }[];
    orders: ({ name: string; address: string | null } & Order)[];
  }[];
}

export class RuntimeChanges {
  readonly #pools = new Map<string, PoolChanges>();
  readonly #drained = new Set<string>();

  ofPool(name: string): PoolChanges {
    let pool = this.#pools.get(name);
    if (pool === undefined) this.#pools.set(name, (pool = new PoolChanges()));
    return pool;
  }

  readonly isDrained = (listener: string): boolean => this.#drained.has(listener);

  /** The returned function undoes it. */
  setListener(name: string, state: "ready" | "drain"): () => void {
    const before = this.#drained.has(name);
    const set = (drained: boolean): void => void (drained ? this.#drained.add(name) : this.#drained.delete(name));
    set(state === "drain");
    return () => set(before);
  }

  /** The config that is in force if the file says `config`. */
  appliedTo(config: Config): Config {
    const pools = config.pools.map((pool) => this.#pools.get(pool.name)?.appliedTo(pool) ?? pool);
    return pools.every((pool, i) => pool === config.pools[i]) ? config : { ...config, pools };
  }

  /** Drops the changes that the file's new config ends, and returns a sentence for each. */
  follow(config: Config): string[] {
    const dropped: string[] = [];
    for (const [name, changes] of this.#pools) {
      const pool = config.pools.find((one) => one.name === name);
      if (pool !== undefined) dropped.push(...changes.follow(pool).map((text) => `pools.${name}.${text}`));
      else {
        if (!changes.isEmpty) dropped.push(`pools.${name}: the pool is not in the file any more`);
        this.#pools.delete(name);
      }
    }
    for (const name of this.#drained) {
      if (config.listeners.some((listener) => listener.name === name)) continue;
      this.#drained.delete(name);
      dropped.push(`listeners.${name}: the listener is not in the file any more`);
    }
    return dropped;
  }

  toJSON(): RuntimeChangesJson {
    return {
      listeners: [...this.#drained].map((name) => ({ name, state: "drain" })),
      pools: [...this.#pools].flatMap(([name, pool]) => (pool.isEmpty ? [] : { name, ...pool.toJSON() })),
    };
  }

  /** Takes over the `toJSON` of another process. Call it before the first config is in force. */
  restore({ listeners, pools }: RuntimeChangesJson): void {
    for (const { name } of listeners) this.#drained.add(name);
    for (const pool of pools) this.ofPool(pool.name).restore(pool);
  }
}

export class PoolChanges {
  #added: BackendConfig[] = [];
  /** What the file says about the targets. */
  readonly #removed = new Map<string, BackendConfig>();
  /** By the target as text. */
  readonly #orders = new Map<string, { readonly target: BackendTarget } & Order>();

  get isEmpty(): boolean {
    return this.#added.length === 0 && this.#removed.size === 0 && this.#orders.size === 0;
  }

  // ---------------------------------------------------------------- states and weights

  /** The order that applies to a backend. */
  order({ name, weight: file }: BackendConfig, address: string): OperatorOrder {
    if (this.#orders.size === 0) return NO_ORDER;
    const one = this.#orders.get(keyOf({ name, address }));
    const all = this.#orders.get(keyOf({ name, address: null }));
    if (one === undefined && all === undefined) return NO_ORDER;
    const source = one?.state ? one : all;
    const weights = [one?.weight, all?.weight];
    return {
      state: source?.state ?? "ready",
      weight: weights.find((weight) => weight?.file === file)?.value ?? null,
      endAtMs: source?.endAtMs ?? null,
    };
  }

  /** An order for a name replaces those for its addresses. `endAtMs` belongs to the state. */
  setState(target: BackendTarget, state: OperatorState, endAtMs: number | null): void {
    for (const order of this.#ordersBelow(target)) order.state = order.endAtMs = null;
    const all = this.#orders.get(keyOf({ name: target.name, address: null }));
    // A single address needs an order "ready" only if the order of its name says something else.
    const isDefault = state === "ready" && (target.address === null || (all?.state ?? null) === null);
    const order = this.#orderFor(target);
    order.state = isDefault ? null : state;
    order.endAtMs = isDefault ? null : endAtMs;
    this.#tidy();
  }

  /** null = the file's weight, which is in `file`. */
  setWeight(target: BackendTarget, weight: number | null, file: number): void {
    for (const order of this.#ordersBelow(target)) order.weight = null;
    const all = this.#orders.get(keyOf({ name: target.name, address: null }));
    const isDefault = target.address === null || (all?.weight ?? null) === null;
    const value = weight ?? file;
    this.#orderFor(target).weight = value === file && isDefault ? null : { value, file };
    this.#tidy();
  }

  /** The targets whose connections are due to be ended; each is returned once. */
  takeDue(nowMs: number): BackendTarget[] {
    const due = [...this.#orders.values()].filter(({ endAtMs }) => endAtMs !== null && endAtMs <= nowMs);
    for (const order of due) order.endAtMs = null;
    return due.map(({ target }) => target);
  }

  /** When the next target is due; Infinity = never. */
  get nextDueMs(): number {
    let nextMs = Infinity;
    for (const { endAtMs } of this.#orders.values()) nextMs = Math.min(nextMs, endAtMs ?? Infinity);
    return nextMs;
  }

  #orderFor(target: BackendTarget): Order {
    const key = keyOf(target);
    let order = this.#orders.get(key);
    if (order === undefined) this.#orders.set(key, (order = { target, state: null, weight: null, endAtMs: null }));
    return order;
  }

  /** The orders for single addresses of a target that means all addresses of the name. */
  #ordersBelow({ name, address }: BackendTarget): Order[] {
    if (address !== null) return [];
    return [...this.#orders.values()].filter(({ target }) => target.name === name && target.address !== null);
  }

  #tidy(): void {
    for (const [key, { state, weight }] of this.#orders)
      if (state === null && weight === null) this.#orders.delete(key);
  }

  // ---------------------------------------------------------------- members

  /** Whether the backend was added here and is not in the file. */
  isAdded(name: string): boolean {
    return this.#added.some((backend) => backend.name === name);
  }

  /** The removed backends of the file, by name. */
  get removed(): string[] {
    return [...this.#removed.keys()];
  }

  /** The returned function undoes it. */
  add(backend: BackendConfig): () => void {
    this.#added = [...this.#added, backend];
    return () => void (this.#added = this.#added.filter((one) => one !== backend));
  }

  /** Removes a backend by its name in force. The returned function undoes it. */
  remove(backend: BackendConfig): () => void {
    const before = this.#added;
    this.#added = before.filter(({ name }) => name !== backend.name);
    if (this.#added.length < before.length) return () => void (this.#added = before);
    this.#removed.set(backend.name, backend);
    return () => void this.#removed.delete(backend.name);
  }

  appliedTo(pool: PoolConfig): PoolConfig {
    if (this.#added.length === 0 && this.#removed.size === 0) return pool;
    const kept = pool.backends.filter((backend) => !this.#isRemoved(backend));
    return { ...pool, backends: [...kept, ...this.#added.filter((added) => !kept.some((one) => isSame(one, added)))] };
  }

  #isRemoved(backend: BackendConfig): boolean {
    const entry = this.#removed.get(backend.name);
    return entry !== undefined && sameJson(entry, backend);
  }

  // ---------------------------------------------------------------- the file

  follow(pool: PoolConfig): string[] {
    const dropped: string[] = [];
    for (const name of this.#removed.keys()) {
      const entry = pool.backends.find((backend) => backend.name === name);
      if (entry !== undefined && this.#isRemoved(entry)) continue;
      this.#removed.delete(name);
      dropped.push(`backends.${name}: removed by API, and the file's entry has changed`);
    }
    const inFile = pool.backends.filter((backend) => !this.#isRemoved(backend));
    this.#added = this.#added.filter((added) => {
      const isNew = !inFile.some((one) => isSame(one, added));
      if (!isNew) dropped.push(`backends.${added.name}: added by API, and the file has it now`);
      return isNew;
    });
    const { backends } = this.appliedTo(pool);
    for (const [key, order] of this.#orders) {
      const { target, weight } = order;
      const backend = backends.find(({ name }) => name === target.name);
      if (backend === undefined) {
        this.#orders.delete(key);
        dropped.push(`backends.${key}: the backend is gone`);
      } else if (weight !== null && weight.file !== backend.weight) {
        order.weight = null;
        dropped.push(`backends.${key}: weight ${weight.value} by API, and the file says ${backend.weight} now`);
      }
    }
    this.#tidy();
    return dropped;
  }

  // ---------------------------------------------------------------- as JSON

  toJSON(): Omit<RuntimeChangesJson["pools"][number], "name"> {
    return {
      added: this.#added,
      removed: [...this.#removed].map(([name, entry]) => ({ name, entry })),
      orders: [...this.#orders.values()].map(({ target, ...order }) => ({
        ...target,
        ...order,
        endAtMs: order.endAtMs === null ? null : order.endAtMs + monotonicMsOf(0),
      })),
    };
  }

  restore({ added, removed, orders }: Omit<RuntimeChangesJson["pools"][number], "name">): void {
    this.#added = added;
    for (const { name, entry } of removed) this.#removed.set(name, entry);
    for (const { name, address, ...order } of orders) {
      const target = { name, address };
      const endAtMs = order.endAtMs === null ? null : order.endAtMs - monotonicMsOf(0);
      this.#orders.set(keyOf(target), { target, ...order, endAtMs });
    }
  }
}

/** A sentence for each part of an order, for the status. `file` is null for a backend that is not in the file. */
export function describeOrder({ state, weight, endAtMs }: OperatorOrder, file: number | null): string[] {
  const changes: string[] = [];
  const endAt = endAtMs === null ? null : new Date(Date.now() + endAtMs - performance.now());
  const end = endAt === null ? "" : `, its connections end at ${endAt.toISOString()}`;
  if (state !== "ready") changes.push(`${state} by API${end}`);
  if (weight !== null) changes.push(`weight ${weight} by API${file === null ? "" : `, file says ${file}`}`);
  return changes;
}

function keyOf({ name, address }: BackendTarget): string {
  return address === null ? name : nameOfOne(name, address);
}

function isSame(a: BackendConfig, b: BackendConfig): boolean {
  return a.name === b.name || formatEndpoint(a.endpoint) === formatEndpoint(b.endpoint);
}
