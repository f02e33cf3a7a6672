// Replaces the config while everything runs: loads it, binds new sockets, sends every worker the new generation, and only then
// stops what was removed. After any failure the former config stays active. Watches the files if the config says so.
import { statSync } from "node:fs";
import { summarize } from "../config/diff.ts";
import { loadConfig, type FileContents } from "../config/load.ts";
import { countedProblems, formatProblem } from "../config/problem.ts";
import type { Config } from "../config/schema.ts";
import type { Admin } from "../admin/admin.ts";
import { tooFewFiles } from "./budget.ts";
import { transparencyTrouble } from "./transparency.ts";
import type { Fleet } from "./fleet.ts";
import { needsOf, workerCount, type ActiveConfig } from "./active-config.ts";
import type { AccessSink } from "./access-sink.ts";
import type { Log } from "./log.ts";
import type { Resolver } from "./resolve.ts";
import type { ListeningSockets } from "./sockets.ts";
import { isOpenForWriting } from "../platform/lease.ts";
import { OPEN_MS, watchFiles, type Watch } from "./watch.ts";

const NOT_RUNNING = "the process is not running yet, or is stopping";
const FILE_CHANGED = "file changed";
/** Number of changes that the answer to a reload lists at most. */
const SHOWN_MAX = 50;
/** Interval of checks for a process that still writes the files. */
const WRITER_POLL_MS = 50;

/** Changes with each write. */
function stampOf(path: string): string {
  const stat = statSync(path, { bigint: true, throwIfNoEntry: false });
  return stat === undefined ? "" : `${stat.ino} ${stat.size} ${stat.mtimeNs}`;
}

/** The settings of the admin endpoint that may change while it listens. */
export function adminAccess({ admin }: Config) {
  return { tokens: { full: admin.token, read: admin.read_token }, tls: admin.tls };
}

export interface ReloadOptions {
  file: string;
  active: ActiveConfig;
  sockets: ListeningSockets;
  resolver: Resolver;
  fleet: Pick<Fleet, "applyAll" | "growTo" | "sendBackends" | "shrinkTo"> & {
    readonly slots: { readonly length: number };
  };
  access: Pick<AccessSink, "configure">;
  log: Pick<Log, "configure" | "info" | "error">;
  /** False while the process starts or stops; there are no reloads then. */
  isRunning: () => boolean;
  startAdmin: (config: Config) => Promise<Admin | { error: string }>;
  /** Called when every worker has the new config. */
  onReloaded: () => void;
}

export interface Reloaded {
  ok: boolean;
  /** Text for people: the new generation and a line for each change, or why the old one stays. */
  message: string;
}

export class Reloads {
  readonly #options: ReloadOptions;
  success = 0;
  failure = 0;
  /** The error of the last reload; null if it succeeded. */
  lastError: string | null = null;
  readonly #begun = Promise.withResolvers<void>();
  #last: Promise<unknown> = this.#begun.promise;
  /** The next reload, not started yet; all requests until its start share it. */
  #next: Promise<Reloaded> | null = null;
  /** The config and the files that it names; they are watched. */
  #files: readonly string[];
  /** The contents of these files at the last read. */
  #contents: FileContents;
  #watch: Watch | null = null;

  /** `loaded` is the config that the process starts with. */
  constructor(loaded: { files: readonly string[]; contents: FileContents }, options: ReloadOptions) {
    this.#files = loaded.files;
    this.#contents = loaded.contents;
    this.#options = options;
  }

  /** Loads the file again and applies it, or changes nothing. One reload runs at a time, and none before `begin`. */
  reload(cause: string): Promise<Reloaded> {
    this.#next ??= this.#last.then(() => {
      this.#next = null;
      return this.#reload(cause);
    });
    this.#last = this.#next;
    return this.#next;
  }

  /** Call it when the process runs: starts reloads that were requested during the start, and detects changes since then. */
  begin(): void {
    this.#begun.resolve();
    this.#updateWatch();
  }

  // Starts or stops watching the files, as the active config says.
  #updateWatch(): void {
    if (!this.#options.active.config.watch) {
      this.#watch?.stop();
      this.#watch = null;
      return;
    }
    this.#watch ??= watchFiles(
      () => this.#files,
      () => void this.reload(FILE_CHANGED),
      { loadedContent: (path) => this.#contents.get(path) },
    );
  }

  /** Resolves when no reload is in progress and the watch has stopped. */
  async stop(): Promise<void> {
    await this.#last;
    this.#watch?.stop();
  }

  async #reload(cause: string): Promise<Reloaded> {
    const { isRunning, log } = this.#options;
    if (!isRunning()) return { ok: false, message: NOT_RUNNING };
    const reloaded = await this.#tryReload(cause);
    const { ok, message } = reloaded;
    this.#watch?.refresh();
    // The file's text, tree and plans are garbage now: a hundred megabytes for ten thousand backends.
    Bun.gc(true);
    this.lastError = ok ? null : message;
    if (ok) this.success++;
    else {
      this.failure++;
      log.error("reload failed, the running config stays active", { cause, reason: message });
    }
    return reloaded;
  }

  async #tryReload(cause: string): Promise<Reloaded> {
    const { file, active } = this.#options;
    // The watch has already waited.
    const unfinished = cause === FILE_CHANGED ? null : await this.#awaitWriters();
    if (unfinished !== null) return { ok: false, message: unfinished };
    const loaded = loadConfig(file, process.env);
    this.#contents = loaded.contents;
    // The files that an invalid config names are watched too, because the correction may be in any of them.
    this.#files = [...new Set([...loaded.files, ...(loaded.ok ? [] : this.#files)])];
    if (!loaded.ok) {
      const lines = loaded.problems.map(formatProblem);
      if (loaded.omitted > 0) lines.push(countedProblems(loaded.problems.length, loaded.omitted));
      return { ok: false, message: lines.join("\n") };
    }
    const { config: old, generation: before, loadedAtMs } = active;
    const applied = await this.#apply(loaded.config);
    if (applied.error !== null) return { ok: false, message: applied.error };
    active.loadedAtMs = Date.now();
    active.text = loaded.text;
    const changes = summarize(old, active.config);
    this.#logReloaded(cause, changes);
    const since = `generation ${before}, which was loaded at ${new Date(loadedAtMs).toISOString()}`;
    const dropped = applied.dropped.map((what) => `run-time change dropped: ${what}`);
    return { ok: true, message: messageOf(active.generation, [...changes, ...dropped], since) };
  }

  /**
   * Applies a change of an operator: `change` makes it and returns the function that undoes it, or null if there is nothing to change. The
   * file is not read. It never runs at the same time as a reload. Resolves with the reason why it failed and was undone, or null.
   */
  change(change: () => (() => void) | null): Promise<string | null> {
    const changed = this.#last.then(async () => {
      if (!this.#options.isRunning()) return NOT_RUNNING;
      const revert = change();
      return revert === null ? null : (await this.#apply(this.#options.active.file, revert)).error;
    });
    this.#last = changed;
    return changed;
  }

  /**
   * Applies the file's config together with the changes of operators. `revert` undoes the last of these changes if that fails. `dropped`
   * are the changes of operators that the file has ended.
   */
  async #apply(file: Config, revert?: () => void): Promise<{ error: string } | { error: null; dropped: string[] }> {
    const { active, log } = this.#options;
    const config = active.changes.appliedTo(file);
    const error = await this.#tryApply(file, config, revert);
    if (error !== null) {
      revert?.();
      return { error };
    }
    const dropped = active.changes.follow(file);
    for (const what of dropped) log.info("run-time change dropped", { what });
    return { error, dropped };
  }

  async #tryApply(file: Config, config: Config, revert?: () => void): Promise<string | null> {
    const { active, sockets, resolver, log } = this.#options;
    const old = active.config;
    const unfit = tooFewFiles(needsOf(config)) ?? transparencyTrouble(config);
    if (unfit !== null) return unfit;
    const bound = await sockets.bind(config, workerCount(config));
    if ("error" in bound) return bound.error;
    const admin = await this.#nextAdmin(old, config);
    if (admin !== null && "error" in admin) {
      sockets.undo(bound);
      return admin.error;
    }
    await resolver.learn(config.pools);
    const refused = await this.#activate(file, config, revert);
    if (refused !== null) {
      sockets.undo(bound);
      if (admin !== null && admin !== active.admin) admin.stop();
      return refused;
    }
    if (admin !== active.admin) active.admin?.stop();
    active.admin = admin;
    admin?.configure(adminAccess(config));
    log.configure(config.log);
    this.#updateWatch();
    return null;
  }

  // A half-written file can be valid. A file that is open for writing but no longer changes is used. Returns the reason not to reload, or
  // null.
  async #awaitWriters(): Promise<string | null> {
    const { isRunning, log } = this.#options;
    const untilMs = performance.now() + OPEN_MS;
    const before = this.#files.map(stampOf).join();
    let isLogged = false;
    for (;;) {
      const path = this.#files.find((name) => isOpenForWriting(name) === true);
      if (path === undefined) return null;
      if (!isRunning()) return "the process is stopping";
      if (!isLogged) log.info("reload waits: another process has a file open for writing", { file: path });
      isLogged = true;
      if (performance.now() > untilMs) {
        if (this.#files.map(stampOf).join() === before) return null;
        return `${path} is still being written after ${OPEN_MS / 1000} s; try again when it is complete`;
      }
      await Bun.sleep(WRITER_POLL_MS);
    }
  }

  // Every worker gets the new generation, or all get the old one again. Removed sockets and surplus workers go last, so that every socket
  // is served until then.
  async #activate(file: Config, config: Config, revert?: () => void): Promise<string | null> {
    const { active, sockets, fleet, access, onReloaded } = this.#options;
    const old = active.config;
    const trouble = access.configure(config.log.access);
    if (trouble !== null) return trouble;
    const undo = active.put(file);
    const count = workerCount(config);
    const oldCount = fleet.slots.length;
    const letIn = sockets.holdBack(config);
    const refused = (await fleet.applyAll()) ?? (await fleet.growTo(count));
    if (refused !== null) {
      letIn();
      revert?.();
      undo();
      access.configure(old.log.access);
      await fleet.applyAll();
      fleet.shrinkTo(oldCount);
      active.settle();
      return refused;
    }
    fleet.sendBackends();
    fleet.shrinkTo(count);
    sockets.settle(config, count);
    active.settle();
    onReloaded();
    return null;
  }

  async #nextAdmin(old: Config, config: Config): Promise<Admin | { error: string } | null> {
    const { active, startAdmin } = this.#options;
    const same = JSON.stringify(old.admin) === JSON.stringify(config.admin);
    if (same) return active.admin;
    if (!config.admin.enabled) return null;
    // The same address with other tokens or another certificate: these change when the reload is decided.
    const isThere = JSON.stringify(old.admin.bind) === JSON.stringify(config.admin.bind);
    if (active.admin !== null && isThere) return active.admin;
    return startAdmin(config);
  }

  #logReloaded(cause: string, changes: readonly string[]): void {
    const { active, log } = this.#options;
    log.info("reloaded", { cause, generation: active.generation, changes: changes.length });
    for (const change of changes) log.info("config changed", { what: change });
  }
}

/** The result of a reload. `since` names the config with which it is compared. */
function messageOf(generation: number, changes: readonly string[], since: string): string {
  const lines = changes.slice(0, SHOWN_MAX);
  if (changes.length > lines.length) lines.push(`${changes.length - lines.length} more, see the log`);
  if (changes.length === 0) lines.push(`nothing has changed since ${since}`);
  return [`generation ${generation} is in force`, ...lines].join("\n");
}
