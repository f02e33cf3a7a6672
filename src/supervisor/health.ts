// Active health checks of all backends: which backends are checked and when, when one goes up or down, and what the status shows of each.
// probe.ts runs one check, check-spec.ts says what it does, policy/check-queue.ts decides whose turn it is.
import { PlanCache } from "../core/plan-cache.ts";
import type { PoolConfig } from "../config/schema.ts";
import type { CheckFailure } from "../core/check-failures.ts";
import { TlsClient, type TlsClientPlan } from "../platform/tls-client.ts";
import { CheckQueue } from "../policy/check-queue.ts";
import { isChanging, record, startRiseFall, type RiseFall } from "../policy/rise-fall.ts";
import { AgentExchange, NOTHING_REPORTED, type AgentReport } from "../wire/agent.ts";
import { agentSpec, hasAgent, healthSpec, tlsPlan } from "./check-spec.ts";
import type { Outcome } from "./probe.ts";
import { RecurringCheck, type CheckTask } from "./recurring-check.ts";
import { orderOf } from "./pool-tiers.ts";
import type { BackendRecord, PoolRecord } from "./registry.ts";

/** Minimum time between two log lines about checks that could not be made on this machine. */
const UNKNOWN_SAID_EVERY_MS = 60_000;

export interface HealthFacts {
  sinceMs: number;
  success: number;
  failure: number;
  /** How many checks failed, by reason. */
  failures: Record<CheckFailure, number>;
  lastError: string | null;
}

export interface AgentFacts {
  report: AgentReport;
  /** Why the backend is down by the last report; null = the report says up. */
  downReason: string | null;
  /** Why the last request to the agent failed; null = it succeeded. */
  lastError: string | null;
}

export interface HealthOptions {
  /** Maximum number of checks in flight: their share of the open files. More wait for their turn. */
  places: number;
  /** A backend went up or down. */
  onChange: (backendId: number, up: boolean, reason: string) => void;
  /** A backend's agent has reported something new. `onChange` hears whether the backend is up. */
  onAgent: (backendId: number, report: AgentReport) => void;
  /** A check could not be made for a reason on this machine; logged at most once a minute. */
  onUnknown: (backendId: number, reason: string) => void;
}

/** A pool with the state that all its checks share. */
interface Checked {
  readonly record: PoolRecord;
  /** The settings of its checks, to detect that a reload has changed them; `question` is the part that decides what a backend is asked. */
  readonly settings: string;
  readonly question: string;
  /** The TLS of its checks, or null. */
  readonly tls: TlsClient | null;
}

export class HealthChecks {
  readonly #options: HealthOptions;
  readonly #queue: CheckQueue<RecurringCheck>;
  readonly #checks = new Map<number, BackendChecks>();
  #tls: PlanCache<TlsClientPlan, TlsClient> | null = null;
  #unknownSaidMs = -Infinity;

  constructor(options: HealthOptions) {
    this.#options = options;
    this.#queue = new CheckQueue(options.places);
  }

  /** Checks exactly the backends of these pools from now on; backends that were checked before keep their history. */
  follow(pools: readonly PoolRecord[]): void {
    const tls = new PlanCache(TlsClient, this.#tls);
    this.#tls = tls;
    const wanted = new Set<number>();
    for (const record of pools) {
      const { health } = record.config;
      if (health.type === "off" && health.agent_port === 0) continue;
      const plan = tlsPlan(record.config);
      const pool: Checked = { record, ...settingsOf(health), tls: plan && tls.get(plan) };
      for (const backend of record.backends) {
        if (orderOf(record, backend).state === "maintenance") continue;
        wanted.add(backend.id);
        const check = this.#checks.get(backend.id);
        if (check === undefined) this.#checks.set(backend.id, new BackendChecks(backend, pool, this));
        else check.reconfigure(backend, pool);
      }
    }
    for (const [id, check] of this.#checks) {
      if (wanted.has(id)) continue;
      this.#checks.delete(id);
      check.stop();
    }
  }

  stop(): void {
    this.follow([]);
  }

  facts(backendId: number): HealthFacts | null {
    return this.#checks.get(backendId)?.facts ?? null;
  }

  /** The last report of the backend's agent; null = it has none. */
  agent(backendId: number): AgentFacts | null {
    return this.#checks.get(backendId)?.agent ?? null;
  }

  // ---------------------------------------------------------------- for the checks

  due(check: RecurringCheck): void {
    this.#queue.add(check);
    this.#startNext();
  }

  closed(check: RecurringCheck): void {
    this.#queue.remove(check);
    this.#startNext();
  }

  changed(backendId: number, up: boolean, reason: string): void {
    this.#options.onChange(backendId, up, reason);
  }

  reported(backendId: number, report: AgentReport): void {
    this.#options.onAgent(backendId, report);
  }

  unknown(backendId: number, reason: string): void {
    const nowMs = performance.now();
    if (nowMs < this.#unknownSaidMs + UNKNOWN_SAID_EVERY_MS) return;
    this.#unknownSaidMs = nowMs;
    this.#options.onUnknown(backendId, reason);
  }

  #startNext(): void {
    for (let check = this.#queue.next(); check !== null; check = this.#queue.next()) check.begin();
  }
}

/** The checks of one backend: its health and its agent. The backend is up if both say so. */
class BackendChecks {
  readonly facts: HealthFacts = {
    sinceMs: Date.now(),
    success: 0,
    failure: 0,
    failures: { refused: 0, timeout: 0, tls: 0, answer: 0, failed: 0 },
    lastError: null,
  };
  /** null = the backend has no agent. */
  agent: AgentFacts | null = null;
  readonly #checks: HealthChecks;
  #backend: BackendRecord;
  #checked: Checked;
  #state: RiseFall;
  #up: boolean;
  #health: RecurringCheck | null = null;
  #agent: RecurringCheck | null = null;
  #exchange = new AgentExchange(NOTHING_REPORTED);

  constructor(backend: BackendRecord, checked: Checked, checks: HealthChecks) {
    this.#backend = backend;
    this.#checked = checked;
    this.#checks = checks;
    const { rise, fall } = this.#config;
    this.#state = startRiseFall(rise, fall, backend.up);
    this.#up = backend.up;
    this.#arrange();
  }

  get #config(): PoolConfig["health"] {
    return this.#checked.record.config.health;
  }

  /**
   * The same backend after a reload. Its history continues if the rules are the same; the first answer to another question decides alone.
   */
  reconfigure(backend: BackendRecord, checked: Checked): void {
    const before = this.#checked;
    this.#backend = backend;
    this.#checked = checked;
    if (checked.settings === before.settings) return;
    const { rise, fall, agent_port } = this.#config;
    const isOther = checked.question !== before.question;
    const fresh = this.#state.fresh || isOther;
    if (fresh || rise !== this.#state.rise || fall !== this.#state.fall) {
      this.#state = { ...startRiseFall(rise, fall, this.#state.up), fresh };
    }
    if (isOther) this.#health?.restart();
    else this.#health?.reschedule();
    if (agent_port === before.record.config.health.agent_port) this.#agent?.reschedule();
    else this.#agent?.restart();
    this.#arrange();
  }

  stop(): void {
    this.#health?.stop();
    this.#agent?.stop();
  }

  // Starts and stops checks as the config says.
  #arrange(): void {
    const pool = this.#checked.record.id;
    if (hasAgent(this.#backend, this.#config)) {
      const { agent: report } = this.#backend;
      this.agent ??= { report, downReason: report.up ? null : "its agent says down", lastError: null };
      this.#agent ??= new RecurringCheck(pool, this.#agentTask(), this.#checks);
    } else if (this.#agent !== null) {
      this.#agent.stop();
      this.#agent = null;
      this.#reported(NOTHING_REPORTED, "");
      this.agent = null;
    }
    this.#arrangeHealth();
    this.#settle("");
  }

  // A backend in maintenance is not checked, whether an operator or its agent says so: it may be stopped, and its open connections end with
  // it and not before.
  #arrangeHealth(): void {
    const { type, rise, fall } = this.#config;
    const isOff = type === "off";
    if (!isOff && this.agent?.report.state !== "maint") {
      this.#health ??= new RecurringCheck(this.#checked.record.id, this.#healthTask(), this.#checks);
      return;
    }
    this.#health?.stop();
    this.#health = null;
    this.#state = startRiseFall(rise, fall, isOff || this.#state.up);
  }

  #healthTask(): CheckTask {
    return {
      spec: () => healthSpec(this.#backend, this.#checked.record.config, this.#checked.tls),
      intervalMs: () => {
        const { interval, fast_interval } = this.#config;
        return fast_interval > 0 && isChanging(this.#state) ? fast_interval : interval;
      },
      probed: (outcome) => this.#healthProbed(outcome),
    };
  }

  #healthProbed({ result, why, failure }: Outcome): void {
    const { facts } = this;
    facts.lastError = why;
    if (result === "success") facts.success++;
    else if (failure !== null) {
      facts.failure++;
      facts.failures[failure]++;
    } else this.#checks.unknown(this.#backend.id, why ?? result);
    if (record(this.#state, result) !== null) this.#settle(why ?? "");
  }

  #agentTask(): CheckTask {
    return {
      spec: () => agentSpec(this.#backend, this.#checked.record.config, this.#newExchange()),
      intervalMs: () => this.#config.interval,
      probed: ({ result, why }) => {
        if (this.agent === null) return;
        this.agent.lastError = why;
        // An agent that cannot be asked says nothing about its server: its last report stays valid.
        if (result === "success") this.#reported(this.#exchange.report, this.#exchange.why);
      },
    };
  }

  #newExchange(): AgentExchange {
    return (this.#exchange = new AgentExchange(this.agent?.report ?? NOTHING_REPORTED));
  }

  #reported(report: AgentReport, why: string): void {
    if (this.agent === null) return;
    const { up, state, percent } = this.agent.report;
    this.agent.report = report;
    if (report.up === up && report.state === state && report.percent === percent) return;
    this.#checks.reported(this.#backend.id, report);
    if (report.state !== state) this.#arrangeHealth();
    if (report.up === up) return;
    this.agent.downReason = report.up ? null : `its agent says ${why}`;
    this.#settle(this.agent.downReason ?? "");
  }

  /** Reports a change of the combined state of health and agent. */
  #settle(reason: string): void {
    const up = this.#state.up && (this.agent?.report.up ?? true);
    if (up === this.#up) return;
    this.#up = up;
    this.facts.sinceMs = Date.now();
    this.#checks.changed(this.#backend.id, up, reason);
  }
}

function settingsOf(health: PoolConfig["health"]): { settings: string; question: string } {
  const {
    interval: _,
    fast_interval: _1,
    timeout: _2,
    rise: _3,
    fall: _4,
    initial: _5,
    agent_port: _6,
    ...question
  } = health;
  return { settings: JSON.stringify(health), question: JSON.stringify(question) };
}
