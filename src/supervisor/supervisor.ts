// The control plane of one process: loads the config, starts everything, handles signals, passes on changes of backends, and stops
// everything. Each part has its own file; this one decides the order.
import { loadConfig, type LoadResult } from "../config/load.ts";
import { countedProblems, formatProblem, formatProblemWithExcerpt } from "../config/problem.ts";
import type { Config } from "../config/schema.ts";
import { formatEndpoint } from "../core/address.ts";
import { monotonicMs } from "../platform/clock.ts";
import { inheritedSockets } from "../platform/inherited.ts";
import { formatAccess } from "../observe/access-line.ts";
import type { Snapshot } from "../observe/snapshot.ts";
import { add, claimed } from "../shared/cells.ts";
import type { Admin } from "../admin/admin.ts";
import { AccessSink } from "./access-sink.ts";
import { BackendStates } from "./backend-states.ts";
import { ledgerRows, shares, tooFewFiles } from "./budget.ts";
import { Events } from "./events.ts";
import { Expiring } from "./expiring.ts";
import { Fleet } from "./fleet.ts";
import { Followers } from "./followers.ts";
import { HealthChecks } from "./health.ts";
import { ActiveConfig, needsOf, workerCount } from "./active-config.ts";
import { ByteRates } from "./byte-rates.ts";
import { History } from "./history.ts";
import { LiveConnections } from "./live-connections.ts";
import { forStderr, Log, within } from "./log.ts";
import { Otel } from "./otel.ts";
import type { Dashboard } from "../admin/operations.ts";
import { operationsOf } from "./operations.ts";
import type { Phase } from "./readiness.ts";
import { readdressedState } from "./plans.ts";
import { Recount } from "./recount.ts";
import { Registry } from "./registry.ts";
import { adminAccess, Reloads } from "./reload.ts";
import { endMatching } from "./ordered-ends.ts";
import { EVERY_ROW } from "./row-match.ts";
import { RuntimeChanges } from "./runtime-changes.ts";
import { RuntimeOperations } from "./runtime-operations.ts";
import { Resolver } from "./resolve.ts";
import { ListeningSockets } from "./sockets.ts";
import { transparencyTrouble } from "./transparency.ts";
import { takeSnapshot } from "./status.ts";
import { TopClients } from "./top-clients.ts";
import type { WorkerSlot } from "./worker-slot.ts";

/** The last part of shutdown_timeout, over which the remaining connections are ended. */
const SPREAD_PART = 1 / 5;
/** At a drain timeout, the remaining connections are ended over this time. */
const DRAIN_SPREAD_MS = 1000;
const HOUSEKEEPING_MS = 1000;
/** Time limit for writing the last log lines before exit. */
const LAST_LINES_MS = 2000;
/** The same time limit after a second signal. */
const AT_ONCE_MS = 500;
/** Below this fraction of max_connections the process counts as recovered. */
const RECOVERED_BELOW = 0.9;

export interface RunOptions {
  file: string;
  version: string;
  /** Starts a worker thread; only main.ts can name its module. */
  spawn: () => Worker;
  /** null = it was not built. */
  dashboard: Dashboard | null;
}

/** Runs until the process is told to stop. Resolves with the exit code: 0 success, 1 failure, 2 invalid config. */
export async function run(options: RunOptions): Promise<number> {
  // Before the file is read: a SIGHUP after that must cause a reload, and without a handler a SIGHUP ends the process. The handler runs in
  // a later turn of the event loop, when the supervisor exists.
  let supervisor: Supervisor | null = null;
  process.on("SIGHUP", () => supervisor?.hangUp());
  const loaded = loadConfig(options.file, process.env, { once: true });
  if (!loaded.ok) {
    const omitted = loaded.omitted > 0 ? [countedProblems(loaded.problems.length, loaded.omitted)] : [];
    for (const text of [...loaded.problems.map(formatProblemWithExcerpt), ...omitted]) console.error(forStderr(text));
    return 2;
  }
  const log = new Log(loaded.config.log);
  for (const warning of loaded.warnings) log.warn("config warning", { problem: formatProblem(warning) });
  supervisor = new Supervisor(options, log, loaded);
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
  readonly #changes = new RuntimeChanges();
  readonly #registry = new Registry(this.#changes);
  readonly #passed = inheritedSockets(process.env);
  readonly #sockets = new ListeningSockets(this.#passed, this.#changes.isDrained);
  readonly #resolver: Resolver;
  readonly #health: HealthChecks;
  readonly #states: BackendStates;
  readonly #fleet: Fleet;
  readonly #open: Int32Array<SharedArrayBuffer>;
  readonly #active: ActiveConfig;
  readonly #live: LiveConnections;
  readonly #topClients: TopClients;
  readonly #events = new Events(() => this.snapshot());
  readonly #followers = new Followers((followers) => this.#fleet.sendFollowers(followers));
  readonly #reloads: Reloads;
  readonly #history = new History();
  readonly #expiring: Expiring;
  readonly #otel: Otel;
  readonly #runtime: RuntimeOperations;
  #housekeeping: ReturnType<typeof setInterval> | null = null;
  readonly #startedAtMs = Date.now();
  #overBudget = false;
  #exiting = false;
  #phase: Phase = "starting";

  constructor(options: RunOptions, log: Log, loaded: LoadResult & { ok: true }) {
    const { config } = loaded;
    const { promise, resolve } = Promise.withResolvers<number>();
    this.finished = promise;
    this.#finish = resolve;
    this.#options = options;
    this.#log = log;
    this.#access = new AccessSink(log);
    this.#expiring = new Expiring(log);
    this.#otel = new Otel({
      version: options.version,
      log,
      followers: this.#followers,
      snapshot: () => this.snapshot(),
    });
    this.#resolver = new Resolver(log);
    this.#health = new HealthChecks({
      places: shares().healthChecks,
      onChange: (id, up, reason) => this.#states.healthChanged(id, up, reason),
      onAgent: (id, report) => this.#states.agentReported(id, report),
      onUnknown: (id, reason) => this.#healthUnknown(id, reason),
    });
    this.#states = new BackendStates({
      registry: this.#registry,
      facts: (id) => this.#health.facts(id),
      send: (state) => this.#fleet.sendPoolState(state),
      endConnections: (backends) =>
        void endMatching(this.#workers(), { ...EVERY_ROW, backends }, "drain", DRAIN_SPREAD_MS),
      log,
    });
    this.#open = this.#registry.arena.int32(1);
    const [registry, sockets, access] = [this.#registry, this.#sockets, this.#access];
    this.#active = new ActiveConfig(config, {
      registry,
      sockets,
      addresses: this.#resolver.addresses,
      log,
      followers: () => this.#followers.list(),
    });
    this.#active.text = loaded.text;
    log.onMessage = (level, event, fields) => this.#events.message(level, event, fields);
    const recount = new Recount({ registry, workers: this.#workers, open: this.#open, log });
    this.#fleet = new Fleet({
      spawn: options.spawn,
      registry,
      log,
      open: this.#open,
      ids: this.#registry.arena.int32(1),
      ledgerRows: ledgerRows(),
      planFor: (position) => this.#active.planFor(position),
      onAccess: (text, lines, pending) => access.write(text, lines, (characters) => add(pending, -characters)),
      onFollowed: (follower, text, lost) => this.#followers.take(follower, text, lost),
      onLost: (line) => {
        this.#followers.line(line);
        const config = this.#active.config.log;
        if (config.access !== "off") access.write(`${formatAccess(config.format, line)}\n`, 1, () => undefined);
      },
      onOverBudget: () => this.#logOverBudget(),
      onDeath: () => recount.begin(),
      onFailures: (failures) => this.#states.failed(failures),
    });
    const rates = new ByteRates();
    this.#live = new LiveConnections(registry, this.#workers, rates);
    this.#topClients = new TopClients({
      registry,
      workers: this.#workers,
      rates,
      match: (filter) => this.#live.match(filter),
    });
    this.#reloads = new Reloads(loaded, {
      file: options.file,
      active: this.#active,
      sockets,
      resolver: this.#resolver,
      fleet: this.#fleet,
      access,
      log,
      isRunning: () => this.#phase === "running",
      startAdmin: (config) => this.#startAdmin(config),
      onReloaded: () => this.#onReloaded(),
    });
    this.#runtime = new RuntimeOperations({
      file: options.file,
      registry,
      states: this.#states,
      reloads: this.#reloads,
      followHealth: () => this.#health.follow(registry.pools),
      workersCatchUp: () => this.#fleet.catchUp(),
    });
  }

  // ---------------------------------------------------------------- start

  /** Starts everything. Returns the reason if that fails, and then nothing is left behind. */
  async start(): Promise<string | null> {
    // First, because a signal without a handler ends the process.
    this.#handleSignals();
    const error = await this.#startAll();
    if (error !== null) {
      this.#sockets.stopAll();
      this.#active.admin?.stop();
      this.#health.stop();
      return error;
    }
    this.#phase = "running";
    this.#reloads.begin();
    this.#housekeeping = setInterval(() => this.#everySecond(), HOUSEKEEPING_MS);
    this.#logListening();
    return null;
  }

  async #startAll(): Promise<string | null> {
    const { config } = this.#active;
    const count = workerCount(config);
    const unfit = tooFewFiles(needsOf(config)) ?? transparencyTrouble(config);
    if (unfit !== null) return unfit;
    const bound = await this.#sockets.bind(config, count);
    if ("error" in bound) return bound.error;
    const trouble = this.#access.configure(config.log.access);
    if (trouble !== null) return trouble;
    if (config.admin.enabled) {
      const admin = await this.#startAdmin(config);
      if ("error" in admin) return admin.error;
      this.#active.admin = admin;
    }
    await this.#resolver.learn(config.pools);
    this.#active.put(config);
    this.#active.settle();
    this.#active.loadedAtMs = Date.now();
    this.#sockets.settle(config, count);
    const refused = await this.#fleet.growTo(count);
    if (refused !== null) return refused;
    this.#follow();
    this.#otel.configure(config.otel, LAST_LINES_MS);
    return null;
  }

  // Loaded here, because it takes 3 MB with the runtime's HTTP, which an lb without it does not need.
  async #startAdmin(config: Config): Promise<Admin | { error: string }> {
    const { auditFields, startAdmin } = await import("../admin/admin.ts");
    return startAdmin({
      bind: config.admin.bind,
      ...adminAccess(config),
      operations: operationsOf({
        file: this.#options.file,
        dashboard: this.#options.dashboard,
        phase: () => this.#phase,
        snapshot: () => this.snapshot(),
        open: this.#open,
        registry: this.#registry,
        active: this.#active,
        reloads: this.#reloads,
        runtime: this.#runtime,
        fleet: this.#fleet,
        health: this.#health,
        history: this.#history,
        events: this.#events,
        followers: this.#followers,
        live: this.#live,
        topClients: this.#topClients,
      }),
      connectionsMax: shares().admin,
      failed: (error) => this.#log.error("admin endpoint failed", { reason: String(error) }),
      audit: (entry) => this.#log.info("change by the admin API", auditFields(entry)),
    });
  }

  // The workers that have connections.
  readonly #workers = (): readonly WorkerSlot[] => [...this.#fleet.slots, ...this.#fleet.retiring];

  // ---------------------------------------------------------------- the backends

  #follow(): void {
    this.#health.follow(this.#registry.pools);
    this.#states.followConfig();
    this.#resolver.follow(this.#active.config.pools, (pool) => this.#namesAnswered(pool));
  }

  // Every worker has the new config.
  #onReloaded(): void {
    this.#expiring.loaded();
    this.#follow();
    this.#otel.configure(this.#active.config.otel, LAST_LINES_MS);
  }

  #healthUnknown(backendId: number, reason: string): void {
    const backend = this.#registry.backendById.get(backendId)?.name ?? "";
    this.#log.warn("health checks cannot be made, backends keep their state", { backend, reason });
  }

  #namesAnswered(poolName: string): void {
    const pool = this.#registry.pools.find(({ name }) => name === poolName);
    if (pool === undefined) return;
    const removed = this.#registry.readdress(pool, this.#resolver.addresses);
    if (removed === null) return;
    this.#log.info("backends changed", {
      pool: poolName,
      backends: pool.backends.map(({ address }) => address).join(" "),
    });
    this.#health.follow(this.#registry.pools);
    pool.version++;
    this.#fleet.sendPoolState(readdressedState(pool, removed));
    this.#states.followConfig();
  }

  // ---------------------------------------------------------------- limits

  #logOverBudget(): void {
    if (this.#overBudget) return;
    this.#overBudget = true;
    this.#log.warn("at max_connections, new connections are refused", {
      max_connections: this.#active.maxConnections,
    });
  }

  #everySecond(): void {
    if (this.#registry.sweep()) this.#giveBackMemory();
    this.#expiring.check(this.#active.config, this.#active.loadedAtMs);
    this.#fleet.resendOutdated(this.#active.generation);
    this.#history.add(Date.now(), claimed(this.#open), this.#registry.listeners);
    if (!this.#overBudget || claimed(this.#open) >= this.#active.maxConnections * RECOVERED_BELOW) return;
    this.#overBudget = false;
    this.#log.info("below max_connections again", { open: claimed(this.#open) });
  }

  // The machine code of a reload is most of what many reloads leave in memory; it is compiled again when it is needed.
  #giveBackMemory(): void {
    Bun.shrink();
    this.#fleet.sendSettled();
  }

  // ---------------------------------------------------------------- stop

  hangUp(): void {
    void this.#reloads.reload("SIGHUP");
  }

  #handleSignals(): void {
    process.on("SIGUSR1", () => this.#access.reopen());
    for (const signal of ["SIGTERM", "SIGINT"] as const) {
      process.on(signal, () => {
        if (this.#phase === "running") void this.stop(signal);
        else void this.#stopAtOnce();
      });
    }
  }

  /**
   * Accepts connections for `shutdown_delay` while /ready fails; then stops accepting and leaves connections open for `shutdown_timeout`;
   * then `finished` resolves.
   */
  async stop(cause: string): Promise<void> {
    this.#phase = "leaving";
    await this.#reloads.stop();
    const { shutdown_delay: delayMs, shutdown_timeout: timeoutMs } = this.#active.config;
    const times = { shutdown_delay_ms: delayMs, shutdown_timeout_ms: timeoutMs };
    this.#log.info("stopping", { cause, open: claimed(this.#open), ...times });
    await Bun.sleep(delayMs);
    this.#phase = "stopping";
    this.#health.stop();
    this.#states.stop();
    this.#resolver.stop();
    this.#sockets.stopAll();
    const deadlineMs = monotonicMs() + timeoutMs;
    await this.#fleet.stopAll(deadlineMs - timeoutMs * SPREAD_PART, deadlineMs);
    if (this.#housekeeping !== null) clearInterval(this.#housekeeping);
    this.#active.admin?.stop();
    this.#log.info("stopped");
    await this.#lastLines(LAST_LINES_MS);
    this.#finish(0);
  }

  async #lastLines(timeoutMs: number): Promise<void> {
    await Promise.all([this.#access.close(timeoutMs), within(timeoutMs, this.#otel.stop(timeoutMs))]);
    await this.#log.flush(timeoutMs);
  }

  // After a second signal: open connections are reset and logged before the process exits. The fleet limits the time for a hanging worker.
  async #stopAtOnce(): Promise<void> {
    if (this.#exiting) return;
    this.#exiting = true;
    this.#log.warn("stopping at once", { open: claimed(this.#open) });
    this.#sockets.stopAll();
    const nowMs = monotonicMs();
    await this.#fleet.stopAll(nowMs, nowMs);
    this.#active.admin?.stop();
    await this.#lastLines(AT_ONCE_MS);
    process.exit(0);
  }

  // ---------------------------------------------------------------- status

  snapshot(): Snapshot {
    return takeSnapshot({
      version: this.#options.version,
      file: this.#options.file,
      startedAtMs: this.#startedAtMs,
      loadedAtMs: this.#active.loadedAtMs,
      generation: this.#active.generation,
      reloads: this.#reloads,
      adminCertificate: this.#active.config.admin.tls,
      phase: this.#phase,
      open: claimed(this.#open),
      maxConnections: this.#active.maxConnections,
      logLinesLost: this.#access.linesLost,
      otel: this.#otel.status,
      registry: this.#registry,
      fleet: this.#fleet,
      health: this.#health,
      unresolved: this.#resolver.missing,
    });
  }

  #logListening(): void {
    const unusable = this.#passed.filter(({ endpoint }) => endpoint === null).map(({ fd }) => `descriptor ${fd}`);
    for (const address of [...this.#sockets.unused, ...unusable])
      this.#log.warn("a socket from the service manager is not used", { address });
    for (const listener of this.#registry.listeners) {
      const pool = listener.config.pool ?? "none";
      this.#log.info("listening", { listener: listener.name, bind: bindText(listener.config), pool });
    }
    this.#log.info("started", {
      version: this.#options.version,
      workers: this.#fleet.slots.length,
      max_connections: this.#active.maxConnections,
      admin: this.#active.admin?.address ?? "off",
    });
  }
}

function bindText(config: Config["listeners"][number]): string {
  return config.bind.map(formatEndpoint).join(" ");
}
