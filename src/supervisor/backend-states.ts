// The state changes of backends while the config stays the same: health, agent reports, ejection, ramps, orders of operators. Each change
// is written to the records of the registry, logged, and sent to the workers as the new tiers of the pool. Apart from this file, only the
// config and name lookups change tiers.
import type { BackendFailures, PoolState } from "../messages.ts";
import { eject, ejectedMax, endEjection, noteFailures, type EjectionRules } from "../policy/ejection.ts";
import { RAMP_FROM, rampAt, rampStepMs } from "../policy/slow-start.ts";
import { formatDuration } from "../config/units.ts";
import type { PoolConfig } from "../config/schema.ts";
import type { AgentReport } from "../wire/agent.ts";
import type { HealthFacts } from "./health.ts";
import type { Log } from "./log.ts";
import { poolState } from "./plans.ts";
import { ramps, takesConnections } from "./pool-tiers.ts";
import { ejectionReason } from "./reasons.ts";
import type { BackendRecord, PoolRecord, Registry } from "./registry.ts";
import { TierLog } from "./tier-log.ts";

/** A timer with a longer delay fires at once. */
const TIMER_MS_MAX = 3_600_000;

/** Messages to the workers are delayed by one millisecond for each this many backends of a pool. */
const TOLD_AT_ONCE = 20;

export interface BackendStatesOptions {
  registry: Registry;
  /** The facts of a backend's active checks; null = it has none. */
  facts: (backendId: number) => Pick<HealthFacts, "failure"> | null;
  /** Ends the connections of these backends as `drain`. */
  endConnections: (backendIds: ReadonlySet<number>) => void;
  /** Sends the state to all workers. */
  send: (state: PoolState) => void;
  log: Pick<Log, "info" | "warn" | "error">;
  /** Milliseconds on a monotonic clock; the default is performance.now(). */
  nowMs?: () => number;
}

/** A backend of the active config and its pool. */
interface Found {
  pool: PoolRecord;
  backend: BackendRecord;
}

export class BackendStates {
  readonly #options: BackendStatesOptions;
  readonly #nowMs: () => number;
  /** The id of the pool of each backend, as far as followConfig knows it. */
  readonly #poolOf = new Map<number, number>();
  /** Pools whose state was not sent to the workers yet, by id. */
  readonly #untold = new Set<number>();
  /** The time of the next step of a pool, by the pool's id. */
  readonly #timers = new Map<number, { timer: ReturnType<typeof setTimeout>; dueMs: number }>();
  /** When max_ejected last prevented the ejection of a backend, by its id; for the log. */
  readonly #preventedMs = new Map<number, number>();
  readonly #tierLog: TierLog;

  constructor(options: BackendStatesOptions) {
    this.#options = options;
    this.#tierLog = new TierLog(options.log);
    this.#nowMs = options.nowMs ?? (() => performance.now());
  }

  // ---------------------------------------------------------------- changes

  /** Call it when every worker has a new config, or when the names of a pool have other addresses. */
  followConfig(): void {
    this.#poolOf.clear();
    for (const id of this.#preventedMs.keys())
      if (!this.#options.registry.backendById.has(id)) this.#preventedMs.delete(id);
    for (const pool of this.#options.registry.pools) {
      for (const { id } of pool.backends) this.#poolOf.set(id, pool.id);
      this.#advance(pool);
      this.#tierLog.note(pool);
    }
    this.#tierLog.keepOnly(this.#options.registry.pools);
  }

  healthChanged(backendId: number, up: boolean, reason: string): void {
    const found = this.#find(backendId);
    if (found === null) return;
    const { pool, backend } = found;
    this.#change(pool, [backend], () => {
      backend.up = up;
      backend.state.sinceMs = Date.now();
      // A backend that is down is no longer ejected.
      if (!up && isEjected(backend)) endEjection(backend.state.ejection, this.#nowMs());
      this.#logHealth(found, up, reason);
    });
  }

  #logHealth({ pool, backend }: Found, up: boolean, reason: string): void {
    let left = 0;
    for (const other of pool.backends) if (other.up) left++;
    const fields = { pool: pool.name, backend: backend.name, backends_up: left, backends: pool.backends.length };
    if (up) this.#options.log.info("backend up", fields);
    else this.#options.log.warn("backend down", { ...fields, reason });
  }

  agentReported(backendId: number, report: AgentReport): void {
    const found = this.#find(backendId);
    if (found === null) return;
    const { pool, backend } = found;
    const before = backend.agent;
    this.#change(pool, [backend], () => void (backend.agent = report));
    const { state, percent } = report;
    if (state === before.state && percent === before.percent) return;
    this.#options.log.info("backend's agent reports", {
      pool: pool.name,
      backend: backend.name,
      state,
      weight_percent: percent,
    });
  }

  /** Applies an operator's order for backends of a pool; `give` writes it down. The workers are told before this returns. */
  ordered(
    pool: PoolRecord,
    backends: readonly BackendRecord[],
    { give, endsEjection }: { give: (nowMs: number) => void; endsEjection: boolean },
  ): void {
    const nowMs = this.#nowMs();
    this.#change(pool, backends, () => {
      give(nowMs);
      for (const backend of backends)
        if (endsEjection && isEjected(backend)) endEjection(backend.state.ejection, nowMs);
    });
    if (this.#untold.has(pool.id)) this.#send(pool.id);
  }

  /** Failures with real traffic. Failures of backends that get no connections anyway do not count. */
  failed(failures: readonly BackendFailures[]): void {
    for (const one of failures) {
      const found = this.#find(one.backend);
      if (found === null || found.pool.config.passive === null) continue;
      const { pool, backend } = found;
      const rules = rulesOf(found.pool.config.passive);
      if (!takesConnections(pool, backend)) continue;
      if (noteFailures(backend.state.ejection, one, rules, this.#nowMs())) this.#eject(found, rules);
    }
  }

  #eject(found: Found, rules: EjectionRules): void {
    const { pool, backend } = found;
    const { ejection } = backend.state;
    const max = ejectedMax(pool.backends.length, pool.config.passive?.max_ejected ?? 0);
    const ejected = pool.backends.filter(isEjected).length;
    // One of the next failures ejects it, when another backend has returned.
    if (ejected >= max) return this.#logPrevented(found, rules);
    this.#change(pool, [backend], () => {
      eject(ejection, rules, this.#nowMs());
      this.#options.log.warn("backend ejected", {
        ...ejectionFields(found),
        reason: ejectionReason(pool, backend),
        for: formatDuration(ejection.lastMs),
        in_a_row: ejection.inARow,
      });
    });
  }

  // Once, until the backend has not failed for as long as an ejection takes.
  #logPrevented(found: Found, { windowMs, ejectForMs }: EjectionRules): void {
    const nowMs = this.#nowMs();
    const lastMs = this.#preventedMs.get(found.backend.id) ?? -Infinity;
    this.#preventedMs.set(found.backend.id, nowMs);
    if (nowMs < lastMs + windowMs + ejectForMs) return;
    const { max_ejected = 0 } = found.pool.config.passive ?? {};
    this.#options.log.warn("backend fails but is not ejected, because of max_ejected", {
      ...ejectionFields(found),
      max_ejected,
    });
  }

  #return(found: Found): void {
    const { pool, backend } = found;
    this.#change(pool, [backend], () => {
      endEjection(backend.state.ejection, this.#nowMs());
      this.#options.log.info("backend returned", ejectionFields(found));
    });
  }

  stop(): void {
    for (const { timer } of this.#timers.values()) clearTimeout(timer);
    this.#timers.clear();
  }

  // Null for a backend that is in no pool any more.
  #find(backendId: number): Found | null {
    const { registry } = this.#options;
    const backend = registry.backendById.get(backendId);
    const poolId = this.#poolOf.get(backendId);
    const isIts = ({ id, backends }: PoolRecord): boolean =>
      poolId === undefined ? backends.some((one) => one.id === backendId) : id === poolId;
    const pool = registry.pools.find(isIts);
    return backend === undefined || pool === undefined ? null : { pool, backend };
  }

  /** All changes of a backend go through here. A backend that takes connections again after a failure or a removal ramps. */
  #change(pool: PoolRecord, backends: readonly BackendRecord[], change: () => void): void {
    const before = backends.map((backend) => takesConnections(pool, backend));
    change();
    for (const [i, backend] of backends.entries()) {
      const { state } = backend;
      if (before[i]) state.hasServed = true;
      if (!takesConnections(pool, backend)) endRamp(state);
      else if (!before[i] && this.#isReturn(backend)) this.#beginRamp(pool, backend);
    }
    this.#schedule(pool, backends);
    this.#tell(pool);
  }

  // A backend that comes up at its first check ever, with `initial` down, has not returned: it ramped at each start of lb.
  #isReturn({ id, state }: BackendRecord): boolean {
    return state.hasServed || (this.#options.facts(id)?.failure ?? 0) > 0;
  }

  #beginRamp({ config }: PoolRecord, { state }: BackendRecord): void {
    if (!ramps(config)) return;
    state.ramp = RAMP_FROM;
    state.rampFromMs = this.#nowMs();
  }

  // ---------------------------------------------------------------- time

  // Runs the steps that are due.
  #advance(pool: PoolRecord): void {
    const nowMs = this.#nowMs();
    for (const backend of pool.backends) {
      const { untilMs } = backend.state.ejection;
      if (untilMs !== null && (untilMs <= nowMs || pool.config.passive === null)) this.#return({ pool, backend });
    }
    let isChanged = false;
    for (const { state } of pool.backends) {
      if (state.rampFromMs === null) continue;
      const ramp = ramps(pool.config) ? rampAt(nowMs - state.rampFromMs, pool.config.slow_start) : 1;
      isChanged ||= ramp !== state.ramp;
      if (ramp === 1) endRamp(state);
      else state.ramp = ramp;
    }
    this.#endDrained(pool, nowMs);
    this.#schedule(pool);
    if (isChanged) this.#tell(pool);
  }

  // Ends the connections of backends whose drain time is over.
  #endDrained({ name: pool, changes, backends }: PoolRecord, nowMs: number): void {
    for (const { name, address } of changes.takeDue(nowMs)) {
      const ended = backends.filter(
        (backend) => backend.config.name === name && (address === null || backend.address === address),
      );
      this.#options.endConnections(new Set(ended.map(({ id }) => id)));
      this.#options.log.info("drain timeout reached, connections are ended", {
        pool,
        backends: ended.map((backend) => backend.name).join(" "),
      });
    }
  }

  // One timer for each pool that has a pending step. `changed` are the backends whose step may have become earlier: looking at all ten
  // thousand backends when each of them changes would take seconds.
  #schedule({ id, config, backends, changes }: PoolRecord, changed: readonly BackendRecord[] = backends): void {
    const nowMs = this.#nowMs();
    let dueMs = changes.nextDueMs;
    for (const { state } of changed) {
      if (state.rampFromMs !== null) dueMs = Math.min(dueMs, nowMs + rampStepMs(config.slow_start));
      dueMs = Math.min(dueMs, state.ejection.untilMs ?? Infinity);
    }
    const before = this.#timers.get(id);
    if (dueMs >= (before?.dueMs ?? Infinity)) return;
    clearTimeout(before?.timer);
    const timer = setTimeout(
      () => {
        this.#timers.delete(id);
        const pool = this.#options.registry.pools.find((pool) => pool.id === id);
        if (pool !== undefined) this.#advance(pool);
      },
      Math.min(TIMER_MS_MAX, Math.max(1, dueMs - nowMs)),
    );
    this.#timers.set(id, { timer, dueMs });
  }

  // ---------------------------------------------------------------- workers and log

  // The cost of a pool's state grows with the pool, for each thread. When ten thousand backends go down at once, the changes of a few
  // milliseconds are sent together.
  #tell(pool: PoolRecord): void {
    const { id, backends } = pool;
    pool.version++;
    const delayMs = Math.floor(backends.length / TOLD_AT_ONCE);
    if (delayMs === 0) return this.#send(id);
    if (this.#untold.has(id)) return;
    this.#untold.add(id);
    setTimeout(() => this.#untold.has(id) && this.#send(id), delayMs);
  }

  #send(poolId: number): void {
    this.#untold.delete(poolId);
    const pool = this.#options.registry.pools.find(({ id }) => id === poolId);
    if (pool === undefined) return;
    this.#options.send(poolState(pool));
    this.#tierLog.note(pool);
  }
}

function isEjected({ state }: BackendRecord): boolean {
  return state.ejection.untilMs !== null;
}

function rulesOf({ failures, window, eject_for }: NonNullable<PoolConfig["passive"]>): EjectionRules {
  return { failures, windowMs: window, ejectForMs: eject_for };
}

function ejectionFields({ pool, backend }: Found): Record<string, string | number> {
  const ejected = pool.backends.filter(isEjected).length;
  return { pool: pool.name, backend: backend.name, backends_ejected: ejected, backends: pool.backends.length };
}

function endRamp(state: BackendRecord["state"]): void {
  state.ramp = 1;
  state.rampFromMs = null;
}
