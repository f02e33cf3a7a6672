// The operations that change backends and listeners at run time. They look up the target, record the change in runtime-changes.ts, and
// apply it: states and weights as new tiers, at once; added and removed backends and listeners like a reload of the same file.
import { dirname } from "node:path";
import { absoluteEndpoint } from "../config/paths.ts";
import type { BackendConfig, FileBackend } from "../config/schema.ts";
import { formatDuration } from "../config/units.ts";
import { formatEndpoint } from "../core/address.ts";
import { isNameOfOne } from "../core/backend-name.ts";
import { failure, type BackendChange, type Operations, type Result } from "../admin/operations.ts";
import type { BackendStates } from "./backend-states.ts";
import { orderOf } from "./pool-tiers.ts";
import type { BackendRecord, PoolRecord, Registry } from "./registry.ts";
import type { Reloads } from "./reload.ts";
import type { BackendTarget, OperatorState } from "./runtime-changes.ts";

export interface RuntimeOperationsOptions {
  /** The config file: relative socket paths start at its folder. */
  file: string;
  registry: Registry;
  states: Pick<BackendStates, "ordered">;
  reloads: Pick<Reloads, "change">;
  /** Call it when states have changed: which backends are checked is decided again. */
  followHealth: () => void;
  /** Resolves when the workers have the states that were sent; see Fleet.catchUp. */
  workersCatchUp: () => Promise<void>;
}

type Failed = ReturnType<typeof failure>;

/** The backends that a name means. */
interface Meant {
  readonly pool: PoolRecord;
  readonly config: BackendConfig;
  readonly target: BackendTarget;
  /** Empty while the name has no address. */
  readonly records: readonly BackendRecord[];
}

export class RuntimeOperations implements Pick<
  Operations,
  "setBackend" | "addBackend" | "removeBackend" | "setListener"
> {
  readonly #options: RuntimeOperationsOptions;

  constructor(options: RuntimeOperationsOptions) {
    this.#options = options;
  }

  async setBackend(poolName: string, name: string, change: BackendChange): Promise<Result<string>> {
    const meant = this.#meant(poolName, name);
    if ("ok" in meant) return meant;
    const { state, weight, timeoutMs } = change;
    if (state === undefined && weight === undefined)
      return failure("bad_change", "nothing to change", "give state, weight or both");
    if (timeoutMs !== undefined && (state === undefined || state === "ready"))
      return failure("bad_change", "timeout has no meaning here", "give it with the state drain or maintenance");
    const { pool, config, target, records } = meant;
    const before = shown(pool, meant);
    this.#options.states.ordered(pool, records, {
      endsEjection: state === "ready",
      give: (nowMs) => {
        if (state !== undefined)
          pool.changes.setState(target, state, timeoutMs === undefined ? null : nowMs + timeoutMs);
        if (weight !== undefined) pool.changes.setWeight(target, weight, config.weight);
      },
    });
    this.#options.followHealth();
    const after = shown(pool, meant);
    // An operator who has drained a backend may stop it then.
    await this.#options.workersCatchUp();
    const value = `pool ${pool.name}, backend ${name}: ${sentence(change, config.weight)}`;
    return { ok: true, value, change: { before, after } };
  }

  async addBackend(poolName: string, given: FileBackend): Promise<Result<string>> {
    const pool = this.#pool(poolName);
    if ("ok" in pool) return pool;
    const { address, name, ...rest } = given;
    const backend: BackendConfig = {
      endpoint: absoluteEndpoint(dirname(this.#options.file), address),
      name: name ?? formatEndpoint(address),
      ...rest,
    };
    // Evaluated when its turn comes: another change or a reload may run before.
    let exists: string | null = null;
    const error = await this.#options.reloads.change(() => {
      const current = this.#options.registry.pools.find((one) => one.name === poolName)?.config.backends ?? [];
      const same = current.find((one) => one.name === backend.name);
      const there = current.find((one) => formatEndpoint(one.endpoint) === formatEndpoint(backend.endpoint));
      exists = same ? `name ${backend.name}` : there ? `address ${formatEndpoint(backend.endpoint)}` : null;
      return exists === null ? this.#options.registry.changes.ofPool(poolName).add(backend) : null;
    });
    if (exists !== null) {
      const cure = "give another one, or remove that backend first";
      return failure("backend_exists", `pool ${poolName} has a backend of the ${String(exists)} already`, cure);
    }
    if (error !== null) return failure("change_failed", error, CHANGE_CURE);
    const value = `pool ${poolName}: backend ${backend.name} is added`;
    const { endpoint, ...after } = backend;
    return { ok: true, value, change: { before: null, after: { address: formatEndpoint(endpoint), ...after } } };
  }

  async removeBackend(poolName: string, name: string): Promise<Result<string>> {
    const meant = this.#meant(poolName, name);
    if ("ok" in meant) return meant;
    if (meant.target.address !== null) {
      const cure = `remove ${meant.config.name} with all its addresses, or drain this one`;
      return failure("bad_change", `${name} is one of the addresses of a name`, cure);
    }
    const before = shown(meant.pool, meant);
    const error = await this.#options.reloads.change(() => {
      const pool = this.#options.registry.pools.find((one) => one.name === poolName);
      const backend = pool?.config.backends.find((one) => one.name === meant.config.name);
      return pool === undefined || backend === undefined ? null : pool.changes.remove(backend);
    });
    if (error !== null) return failure("change_failed", error, CHANGE_CURE);
    const value = `pool ${poolName}: backend ${meant.config.name} is removed`;
    return { ok: true, value, change: { before, after: null } };
  }

  async setListener(name: string, state: "ready" | "drain"): Promise<Result<string>> {
    const { registry, reloads } = this.#options;
    const { changes } = registry;
    if (!registry.listeners.some((listener) => listener.name === name)) {
      const names = registry.listeners.map((listener) => listener.name).join(", ");
      return failure("no_such_listener", `there is no listener ${JSON.stringify(name)}`, `the listeners are ${names}`);
    }
    const before = changes.isDrained(name) ? "drain" : "ready";
    const error = before === state ? null : await reloads.change(() => changes.setListener(name, state));
    if (error !== null) return failure("change_failed", error, CHANGE_CURE);
    const value =
      state === "drain"
        ? `listener ${name} accepts no new connections; open ones continue`
        : `listener ${name} accepts connections`;
    return { ok: true, value, change: { before: { state: before }, after: { state } } };
  }

  #pool(name: string): PoolRecord | Failed {
    const { pools } = this.#options.registry;
    const names = pools.map((pool) => pool.name).join(", ");
    return (
      pools.find((pool) => pool.name === name) ??
      failure("no_such_pool", `there is no pool ${JSON.stringify(name)}`, `the pools are ${names}`)
    );
  }

  // "name" means all the addresses that it resolves to, "name@address" one of them; the name that the status shows of one means that one.
  #meant(poolName: string, text: string): Meant | Failed {
    const pool = this.#pool(poolName);
    if ("ok" in pool) return pool;
    const { backends: configs } = pool.config;
    const byName = configs.find(({ name }) => name === text);
    if (byName !== undefined) return meantBy(pool, byName, null);
    const record = pool.backends.find(
      ({ name, address, config }) => text === name || isNameOfOne(text, config.name, address),
    );
    if (record !== undefined) return meantBy(pool, record.config, record.address);
    const cure = "`pools` of GET /api/status lists the backends";
    return failure("no_such_backend", `pool ${poolName} has no backend ${JSON.stringify(text)}`, cure);
  }
}

const CHANGE_CURE = "nothing was changed";

function meantBy(pool: PoolRecord, config: BackendConfig, address: string | null): Meant {
  // An endpoint that is not a host name has one address.
  const target = { name: config.name, address: config.endpoint.kind === "name" ? address : null };
  const isMeant = (record: BackendRecord): boolean =>
    record.config.name === config.name && (target.address === null || record.address === target.address);
  return { pool, config, target, records: pool.backends.filter(isMeant) };
}

/** For the audit line: state and weight of the targets, with names if there is more than one backend. */
function shown(pool: PoolRecord, { config, records }: Meant): unknown {
  const each = records.map((record) => {
    const { state, weight } = orderOf(pool, record);
    return { backend: record.name, state, weight: weight ?? config.weight };
  });
  if (each.length !== 1) return each;
  const { state, weight } = each[0]!;
  return { state, weight };
}

const STATE_WORDS: Record<OperatorState, string> = {
  ready: "takes connections",
  drain: "takes no new connections",
  maintenance: "takes no new connections and is not checked",
};

function sentence({ state, weight, timeoutMs }: BackendChange, file: number): string {
  const parts: string[] = [];
  if (state !== undefined) parts.push(STATE_WORDS[state]);
  if (timeoutMs !== undefined) parts.push(`connections that are still open end in ${formatDuration(timeoutMs)}`);
  if (weight === null) parts.push(`weight ${file} as in the file`);
  else if (weight !== undefined) parts.push(`weight ${weight}, the file says ${file}`);
  return parts.join("; ");
}
