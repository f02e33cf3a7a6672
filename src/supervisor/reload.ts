// Takes a new config over while everything runs: loads it, binds what is new, gives every worker the new generation, and only
// then lets go of what is gone. Any failure leaves the config before in force. Hears of changed files, where it is to.
import { summarize } from "../config/diff.ts";
import { loadConfig } from "../config/load.ts";
import { formatProblem } from "../config/problem.ts";
import type { Config } from "../config/schema.ts";
import type { Admin } from "./admin.ts";
import type { Fleet } from "./fleet.ts";
import { workerCount, type InForce } from "./in-force.ts";
import type { AccessSink, Log } from "./log.ts";
import type { Resolver } from "./resolve.ts";
import type { ListeningSockets } from "./sockets.ts";
import { watchFiles, type Watch } from "./watch.ts";

export interface ReloadOptions {
  file: string;
  inForce: InForce;
  sockets: ListeningSockets;
  resolver: Resolver;
  fleet: Fleet;
  access: AccessSink;
  log: Log;
  /** False while the process starts and when it stops: there is no reload then. */
  isRunning: () => boolean;
  startAdmin: (config: Config) => Admin | { error: string };
  /** Every worker goes by the new config. */
  onTaken: () => void;
}

export interface Reloaded {
  ok: boolean;
  /** For people: the generation, or why it is still the old one. */
  message: string;
}

export class Reloads {
  readonly #options: ReloadOptions;
  success = 0;
  failure = 0;
  /** Of the last one, null when it went well. */
  lastError: string | null = null;
  #last: Promise<unknown> = Promise.resolve();
  /** What the config consists of: it is watched. */
  #files: readonly string[];
  #watch: Watch | null = null;

  /** `files` are those of the config that the process starts with. */
  constructor(files: readonly string[], options: ReloadOptions) {
    this.#files = files;
    this.#options = options;
  }

  /** Loads the file again and takes it over, or leaves everything as it is. One at a time. */
  reload(cause: string): Promise<Reloaded> {
    const next = this.#last.then(() => this.#reload(cause));
    this.#last = next;
    return next;
  }

  /** Watches the files, or does so no more, as the config in force has it. */
  watchAsAsked(): void {
    if (!this.#options.inForce.config.watch) {
      this.#watch?.stop();
      this.#watch = null;
      return;
    }
    this.#watch ??= watchFiles(
      () => this.#files,
      () => void this.reload("file changed"),
    );
  }

  /** Resolves when what is under way is over, and nothing is watched any more. */
  async stop(): Promise<void> {
    await this.#last;
    this.#watch?.stop();
  }

  async #reload(cause: string): Promise<Reloaded> {
    const { isRunning, inForce, log } = this.#options;
    if (!isRunning()) return { ok: false, message: "the process is not running yet, or is stopping" };
    const error = await this.#tryReload(cause);
    this.#watch?.refresh();
    // The file as text, as a tree and as plans is garbage now, a hundred megabytes of it for ten thousand backends.
    Bun.gc(true);
    this.lastError = error;
    if (error === null) {
      this.success++;
      return { ok: true, message: `generation ${inForce.generation} is in force` };
    }
    this.failure++;
    log.error("reload failed, the old config stays in force", { cause, reason: error });
    return { ok: false, message: error };
  }

  async #tryReload(cause: string): Promise<string | null> {
    const { file, inForce, sockets, resolver, log } = this.#options;
    const loaded = loadConfig(file, process.env);
    // What the new file names is watched too, even when it is bad: the cure may be in any of its files.
    this.#files = [...new Set([...loaded.files, ...(loaded.ok ? [] : this.#files)])];
    if (!loaded.ok) return loaded.problems.map(formatProblem).join("\n");
    const old = inForce.config;
    const config = loaded.config;
    const bound = await sockets.bind(config, workerCount(config));
    if ("error" in bound) return bound.error;
    const admin = this.#nextAdmin(old, config);
    if (admin !== null && "error" in admin) {
      sockets.undo(bound);
      return admin.error;
    }
    await resolver.learn(config.pools);
    const refused = await this.#takeOver(config);
    if (refused !== null) {
      sockets.undo(bound);
      if (admin !== null && admin !== inForce.admin) admin.stop();
      return refused;
    }
    if (admin !== inForce.admin) inForce.admin?.stop();
    inForce.admin = admin;
    admin?.setToken(config.admin.token);
    log.configure(config.log);
    this.watchAsAsked();
    this.#sayReloaded(cause, old, config);
    return null;
  }

  // Every worker gets the new generation, or all get the old one again. Sockets that are gone and workers that are too
  // many go last: until then somebody serves every socket.
  async #takeOver(config: Config): Promise<string | null> {
    const { inForce, sockets, fleet, access, onTaken } = this.#options;
    const old = inForce.config;
    const trouble = access.configure(config.log.access);
    if (trouble !== null) return trouble;
    const takeBack = inForce.put(config);
    const count = workerCount(config);
    const oldCount = fleet.seats.length;
    const refused = (await fleet.applyAll()) ?? (await fleet.growTo(count));
    if (refused !== null) {
      takeBack();
      access.configure(old.log.access);
      await fleet.applyAll();
      fleet.shrinkTo(oldCount);
      inForce.settle();
      return refused;
    }
    fleet.shrinkTo(count);
    sockets.settle(config, count);
    inForce.loadedAtMs = Date.now();
    inForce.settle();
    onTaken();
    return null;
  }

  #nextAdmin(old: Config, config: Config): Admin | { error: string } | null {
    const { inForce, startAdmin } = this.#options;
    const same = JSON.stringify(old.admin) === JSON.stringify(config.admin);
    if (same) return inForce.admin;
    if (!config.admin.enabled) return null;
    // The same address with another token: that one changes when the reload is decided.
    const isThere = JSON.stringify(old.admin.bind) === JSON.stringify(config.admin.bind);
    if (inForce.admin !== null && isThere) return inForce.admin;
    return startAdmin(config);
  }

  #sayReloaded(cause: string, old: Config, config: Config): void {
    const { inForce, log } = this.#options;
    const changes = summarize(old, config);
    log.info("reloaded", { cause, generation: inForce.generation, changes: changes.length });
    for (const change of changes) log.info("changed", { what: change });
  }
}
