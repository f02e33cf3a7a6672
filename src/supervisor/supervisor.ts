// The control plane of one process: loads the config, brings everything up, takes signals and reloads, and brings
// everything down. Each part has its own file; this one is the order in which they are called.
import { availableParallelism } from "node:os";
import { summarize } from "../config/diff.ts";
import { loadConfig } from "../config/load.ts";
import { formatProblem } from "../config/problem.ts";
import type { Config } from "../config/schema.ts";
import { formatEndpoint } from "../core/address.ts";
import type { Plan } from "../messages.ts";
import { formatAccess } from "../observe/access-line.ts";
import type { Snapshot } from "../observe/snapshot.ts";
import { ownSockets } from "../platform/sockets.ts";
import { add, claimed } from "../shared/cells.ts";
import { startAdmin, type Admin } from "./admin.ts";
import { budget, ledgerRows } from "./budget.ts";
import { Fleet } from "./fleet.ts";
import { HealthChecks } from "./health.ts";
import { AccessSink, Log } from "./log.ts";
import { listenerPlan, poolPlan, poolState, Registry, type PoolRecord } from "./registry.ts";
import { Resolver } from "./resolve.ts";
import { ListeningSockets } from "./sockets.ts";
import { daysLeft, takeSnapshot } from "./status.ts";
import { watchFiles, type Watch } from "./watch.ts";

/** The last part of shutdown_timeout, over which the connections that are left are ended. */
const SPREAD_PART = 1 / 5;
const HOUSEKEEPING_MS = 1000;
/** What is in no plan any more is forgotten so long after the change. */
const SWEEP_AFTER_MS = 10_000;
/** How long the last lines of the log may take at the end. */
const LAST_LINES_MS = 2000;
/** The same, when the process is told twice. */
const AT_ONCE_MS = 100;
const DAY_MS = 86_400_000;
/** A certificate with fewer days left is told of every day. */
const EXPIRY_WARNING_DAYS = 14;
/** Below this part of the cap the process counts as recovered. */
const RECOVERED_BELOW = 0.9;

export interface RunOptions {
  file: string;
  version: string;
  /** Makes a worker thread; only main.ts can name its module. */
  spawn: () => Worker;
}

/** Runs until the process is told to stop. The exit code: 0 fine, 1 failed, 2 bad config. */
export async function run(options: RunOptions): Promise<number> {
  const loaded = loadConfig(options.file, process.env);
  if (!loaded.ok) {
    for (const problem of loaded.problems) console.error(formatProblem(problem));
    return 2;
  }
  const log = new Log(loaded.config.log);
  for (const warning of loaded.warnings) log.warn("config", { problem: formatProblem(warning) });
  const supervisor = new Supervisor(options, log, loaded.config, loaded.files);
  const error = await supervisor.start();
  if (error !== null) {
    log.error("cannot start", { reason: error });
    await log.flush(LAST_LINES_MS);
    return 1;
  }
  return supervisor.finished;
}

export class Supervisor {
  readonly finished: Promise<number>;
  readonly #finish: (code: number) => void;
  readonly #options: RunOptions;
  readonly #log: Log;
  readonly #access: AccessSink;
  readonly #registry = new Registry();
  readonly #sockets = new ListeningSockets();
  readonly #resolver: Resolver;
  readonly #health: HealthChecks;
  readonly #fleet: Fleet;
  readonly #open: Int32Array<SharedArrayBuffer>;
  #config: Config;
  #files: readonly string[];
  #admin: Admin | null = null;
  #watch: Watch | null = null;
  #housekeeping: ReturnType<typeof setInterval> | null = null;
  #generation = 0;
  #loadedAtMs = 0;
  readonly #startedAtMs = Date.now();
  #reloads = { success: 0, failure: 0, lastError: null as string | null };
  #reloading: Promise<unknown> = Promise.resolve();
  #maxConnections = 0;
  #isReloading = false;
  /** When backends or listeners last may have changed. */
  #changedAtMs = 0;
  #overBudget = false;
  /** Days since the load of the config on which certificates that expire have been told of. */
  #daysSaid = 0;
  #phase: "starting" | "running" | "stopping" = "starting";

  constructor(options: RunOptions, log: Log, config: Config, files: readonly string[]) {
    const { promise, resolve } = Promise.withResolvers<number>();
    this.finished = promise;
    this.#finish = resolve;
    this.#options = options;
    this.#log = log;
    this.#config = config;
    this.#files = files;
    this.#access = new AccessSink(log);
    this.#resolver = new Resolver(log);
    this.#health = new HealthChecks((id, up, reason) => this.#healthChanged(id, up, reason));
    this.#open = this.#registry.arena.int32(1);
    this.#fleet = new Fleet({
      spawn: options.spawn,
      registry: this.#registry,
      log,
      open: this.#open,
      ledgerRows: ledgerRows(),
      planFor: (position) => this.#planFor(position),
      onAccess: (text, lines, pending) => this.#access.write(text, lines, (characters) => add(pending, -characters)),
      onLost: (line) => {
        const { access, format } = this.#config.log;
        if (access !== "off") this.#access.write(`${formatAccess(format, line)}\n`, 1, () => undefined);
      },
      onOverBudget: () => this.#sayOverBudget(),
    });
  }

  // ---------------------------------------------------------------- start

  /** Brings everything up; the reason if that cannot be, and then nothing is left behind. */
  async start(): Promise<string | null> {
    // First of all, because a signal that nobody handles ends the process.
    this.#takeSignals();
    const error = await this.#bringUp();
    if (error !== null) {
      this.#sockets.closeAll();
      this.#admin?.stop();
      this.#health.stop();
      return error;
    }
    this.#phase = "running";
    this.#watchAsAsked();
    this.#housekeeping = setInterval(() => this.#keepHouse(), HOUSEKEEPING_MS);
    this.#sayListening();
    return null;
  }

  async #bringUp(): Promise<string | null> {
    const config = this.#config;
    const count = workerCount(config);
    const bound = await this.#sockets.bind(config, count);
    if ("error" in bound) return bound.error;
    const trouble = this.#access.configure(config.log.access);
    if (trouble !== null) return trouble;
    if (config.admin.enabled) {
      const admin = this.#startAdmin(config);
      if ("error" in admin) return admin.error;
      this.#admin = admin;
    }
    await this.#resolver.learn(config.pools);
    this.#setMaxConnections(config, count);
    this.#registry.commit(this.#registry.draft(config, this.#maxConnections, this.#resolver.addresses));
    this.#generation = 1;
    this.#loadedAtMs = Date.now();
    this.#sockets.settle(config, count);
    const refused = await this.#fleet.growTo(count);
    if (refused !== null) return refused;
    this.#follow(config);
    return null;
  }

  // ---------------------------------------------------------------- plans

  #planFor(position: number): Plan {
    const config = this.#config;
    const { listeners, pools } = this.#registry;
    const ids = new Map(listeners.map(({ name, id }) => [name, id]));
    return {
      generation: this.#generation,
      listeners: listeners.map((listener) => listenerPlan(listener, pools)),
      pools: pools.map(poolPlan),
      sockets: this.#sockets.planFor(config, position, workerCount(config), ids),
      maxConnections: this.#maxConnections,
      accessLog: config.log.access === "off" ? "off" : config.log.format,
      debug: config.log.level === "debug",
    };
  }

  #follow(config: Config): void {
    this.#health.follow(this.#registry.pools);
    this.#resolver.follow(config.pools, (pool) => this.#namesAnswered(pool));
  }

  #healthChanged(backendId: number, up: boolean, reason: string): void {
    const backend = this.#registry.backendById.get(backendId);
    const pool = this.#registry.pools.find(({ backends }) => backends.some(({ id }) => id === backendId));
    if (backend === undefined || pool === undefined) return;
    backend.up = up;
    this.#tellPool(pool, false);
    const left = pool.backends.filter((other) => other.up).length;
    const fields = { pool: pool.name, backend: backend.name, backends_up: left, backends: pool.backends.length };
    if (up) this.#log.info("backend up", fields);
    else this.#log.warn("backend down", { ...fields, reason });
  }

  #namesAnswered(poolName: string): void {
    const pool = this.#registry.pools.find(({ name }) => name === poolName);
    if (pool === undefined || !this.#registry.readdress(pool, this.#resolver.addresses)) return;
    this.#changedAtMs = Date.now();
    this.#log.info("backends changed", {
      pool: poolName,
      backends: pool.backends.map(({ address }) => address).join(" "),
    });
    this.#health.follow(this.#registry.pools);
    this.#tellPool(pool, true);
  }

  #tellPool(pool: PoolRecord, withBackends: boolean): void {
    pool.version++;
    this.#fleet.broadcast(poolState(pool, this.#generation, withBackends));
  }

  // ---------------------------------------------------------------- reload

  /** Loads the file again and takes it over, or leaves everything as it is. One at a time. */
  reload(cause: string): Promise<{ ok: boolean; message: string }> {
    const next = this.#reloading.then(() => this.#reload(cause));
    this.#reloading = next;
    return next;
  }

  async #reload(cause: string): Promise<{ ok: boolean; message: string }> {
    if (this.#phase !== "running") return { ok: false, message: "the process is not running yet, or is stopping" };
    this.#isReloading = true;
    const error = await this.#tryReload(cause);
    this.#isReloading = false;
    this.#changedAtMs = Date.now();
    this.#watch?.refresh();
    if (error === null) {
      this.#reloads.success++;
      this.#reloads.lastError = null;
      return { ok: true, message: `generation ${this.#generation} is in force` };
    }
    this.#reloads.failure++;
    this.#reloads.lastError = error;
    this.#log.error("reload failed, the old config stays in force", { cause, reason: error });
    return { ok: false, message: error };
  }

  async #tryReload(cause: string): Promise<string | null> {
    const loaded = loadConfig(this.#options.file, process.env);
    // What the new file names is watched too, even when it is bad: the cure may be in any of its files.
    this.#files = [...new Set([...loaded.files, ...(loaded.ok ? [] : this.#files)])];
    if (!loaded.ok) return loaded.problems.map(formatProblem).join("\n");
    const old = this.#config;
    const config = loaded.config;
    const count = workerCount(config);
    const bound = await this.#sockets.bind(config, count);
    if ("error" in bound) return bound.error;
    const admin = this.#nextAdmin(old, config);
    if (admin !== null && "error" in admin) {
      this.#sockets.undo(bound);
      return admin.error;
    }
    await this.#resolver.learn(config.pools);
    const refused = await this.#takeOver(config, count);
    if (refused !== null) {
      this.#sockets.undo(bound);
      if (admin !== null && admin !== this.#admin) admin.stop();
      return refused;
    }
    if (admin !== this.#admin) this.#admin?.stop();
    this.#admin = admin;
    admin?.setToken(config.admin.token);
    this.#log.configure(config.log);
    this.#watchAsAsked();
    this.#sayReloaded(cause, old, config);
    return null;
  }

  // Every worker gets the new generation, or all get the old one again. Sockets that are gone and workers that are too
  // many go last: until then somebody serves every socket.
  async #takeOver(config: Config, count: number): Promise<string | null> {
    const old = { config: this.#config, maxConnections: this.#maxConnections, generation: this.#generation };
    const oldDraft = { listeners: this.#registry.listeners, pools: this.#registry.pools };
    const trouble = this.#access.configure(config.log.access);
    if (trouble !== null) return trouble;
    this.#setMaxConnections(config, count);
    const draft = this.#registry.draft(config, this.#maxConnections, this.#resolver.addresses);
    this.#registry.commit(draft);
    this.#config = config;
    this.#generation = old.generation + 1;
    const oldCount = this.#fleet.seats.length;
    const refused = (await this.#fleet.applyAll()) ?? (await this.#fleet.growTo(count));
    if (refused !== null) {
      this.#config = old.config;
      this.#maxConnections = old.maxConnections;
      this.#generation = old.generation;
      this.#registry.commit(oldDraft);
      this.#access.configure(old.config.log.access);
      await this.#fleet.applyAll();
      this.#fleet.shrinkTo(oldCount);
      return refused;
    }
    this.#fleet.shrinkTo(count);
    this.#sockets.settle(config, count);
    this.#loadedAtMs = Date.now();
    this.#daysSaid = 0;
    this.#follow(config);
    // Health may have changed while the plans were on their way.
    for (const pool of this.#registry.pools) this.#tellPool(pool, true);
    return null;
  }

  #nextAdmin(old: Config, config: Config): Admin | { error: string } | null {
    const same = JSON.stringify(old.admin) === JSON.stringify(config.admin);
    if (same) return this.#admin;
    if (!config.admin.enabled) return null;
    // The same address with another token: that one changes when the reload is decided.
    if (this.#admin !== null && JSON.stringify(old.admin.bind) === JSON.stringify(config.admin.bind))
      return this.#admin;
    return this.#startAdmin(config);
  }

  #startAdmin(config: Config): Admin | { error: string } {
    return startAdmin({
      bind: config.admin.bind,
      token: config.admin.token,
      snapshot: () => this.snapshot(),
      reload: () => this.reload("admin"),
      restartWorker: (index) => this.#fleet.seats.find((seat) => seat.index === index)?.kill() ?? false,
      failed: (error) => this.#log.error("admin endpoint failed", { reason: String(error) }),
    });
  }

  #watchAsAsked(): void {
    if (!this.#config.watch) {
      this.#watch?.stop();
      this.#watch = null;
      return;
    }
    this.#watch ??= watchFiles(
      () => this.#files,
      () => void this.reload("file changed"),
    );
  }

  // ---------------------------------------------------------------- limits

  #setMaxConnections(config: Config, workers: number): void {
    const listeningSockets = config.listeners.reduce((sum, { bind }) => sum + bind.length, 0);
    const { max, warning } = budget(config.max_connections, workers, listeningSockets);
    if (warning !== null) this.#log.warn("max_connections", { reason: warning });
    this.#maxConnections = max;
  }

  #sayOverBudget(): void {
    if (this.#overBudget) return;
    this.#overBudget = true;
    this.#log.warn("at max_connections, new connections are refused", { max_connections: this.#maxConnections });
  }

  #keepHouse(): void {
    // Not while a worker may still go by the plan before, or a reload be taken back.
    if (!this.#isReloading && Date.now() > this.#changedAtMs + SWEEP_AFTER_MS) this.#registry.sweep();
    this.#sayExpiring();
    if (!this.#overBudget || claimed(this.#open) >= this.#maxConnections * RECOVERED_BELOW) return;
    this.#overBudget = false;
    this.#log.info("below max_connections again", { open: claimed(this.#open) });
  }

  // The load of the config has said it for the first day.
  #sayExpiring(): void {
    if (Date.now() < this.#loadedAtMs + this.#daysSaid * DAY_MS + DAY_MS) return;
    this.#daysSaid++;
    for (const { name, config } of this.#registry.listeners) {
      for (const { cert, not_after } of config.tls?.certificates ?? []) {
        const days = Math.floor(daysLeft(not_after));
        if (days < EXPIRY_WARNING_DAYS)
          this.#log.warn("certificate expires", { listener: name, cert, days_left: days });
      }
    }
  }

  // ---------------------------------------------------------------- stop

  #takeSignals(): void {
    process.on("SIGHUP", () => void this.reload("SIGHUP"));
    process.on("SIGUSR1", () => this.#access.reopen());
    for (const signal of ["SIGTERM", "SIGINT"] as const) {
      process.on(signal, () => {
        if (this.#phase === "running") void this.stop(signal);
        else void this.#exitAtOnce();
      });
    }
  }

  /** Stops accepting and lets live connections go on for shutdown_timeout; then `finished` resolves. */
  async stop(cause: string): Promise<void> {
    this.#phase = "stopping";
    await this.#reloading;
    this.#watch?.stop();
    this.#health.stop();
    this.#resolver.stop();
    const timeoutMs = this.#config.shutdown_timeout;
    this.#log.info("stopping", { cause, open: claimed(this.#open), shutdown_timeout_ms: timeoutMs });
    this.#sockets.closeAll();
    const deadlineMs = performance.timeOrigin + performance.now() + timeoutMs;
    await this.#fleet.stopAll(deadlineMs - timeoutMs * SPREAD_PART, deadlineMs);
    if (this.#housekeeping !== null) clearInterval(this.#housekeeping);
    this.#admin?.stop();
    this.#log.info("stopped");
    await Promise.all([this.#access.flush(LAST_LINES_MS), this.#log.flush(LAST_LINES_MS)]);
    this.#finish(0);
  }

  async #exitAtOnce(): Promise<void> {
    this.#log.warn("stopping at once", { open: claimed(this.#open) });
    this.#sockets.closeAll();
    this.#admin?.stop();
    await Promise.all([this.#access.flush(AT_ONCE_MS), this.#log.flush(AT_ONCE_MS)]);
    process.exit(0);
  }

  // ---------------------------------------------------------------- what is said

  snapshot(): Snapshot {
    return takeSnapshot({
      version: this.#options.version,
      file: this.#options.file,
      startedAtMs: this.#startedAtMs,
      loadedAtMs: this.#loadedAtMs,
      generation: this.#generation,
      reloads: this.#reloads,
      phase: this.#phase,
      open: claimed(this.#open),
      maxConnections: this.#maxConnections,
      logLinesLost: this.#access.linesLost,
      registry: this.#registry,
      fleet: this.#fleet,
      health: this.#health,
    });
  }

  #sayListening(): void {
    for (const listener of this.#registry.listeners) {
      const pool = listener.config.pool ?? "none";
      this.#log.info("listening", { listener: listener.name, bind: bindText(listener.config), pool });
    }
    this.#log.info("started", {
      version: this.#options.version,
      workers: this.#fleet.seats.length,
      max_connections: this.#maxConnections,
      admin: this.#admin?.address ?? "off",
    });
  }

  #sayReloaded(cause: string, old: Config, config: Config): void {
    const changes = summarize(old, config);
    this.#log.info("reloaded", { cause, generation: this.#generation, changes: changes.length });
    for (const change of changes) this.#log.info("changed", { what: change });
  }
}

function bindText(config: Config["listeners"][number]): string {
  return config.bind.map(formatEndpoint).join(" ");
}

// Without sockets of our own there is nobody to keep an accept queue alive, so one worker must do.
function workerCount(config: Config): number {
  if (!ownSockets()) return 1;
  return config.workers === "auto" ? availableParallelism() : config.workers;
}
