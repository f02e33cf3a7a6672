// Takes a new config over while everything runs: loads it, binds what is new, gives every worker the new generation, and only
// then lets go of what is gone. Any failure leaves the config before in force. Hears of changed files, where it is to.
import { statSync } from "node:fs";
import { summarize } from "../config/diff.ts";
import { loadConfig, type FileContents } from "../config/load.ts";
import { countedProblems, formatProblem } from "../config/problem.ts";
import type { Config } from "../config/schema.ts";
import type { Admin } from "./admin.ts";
import { tooFewFiles } from "./budget.ts";
import type { Fleet } from "./fleet.ts";
import { needsOf, workerCount, type ActiveConfig } from "./active-config.ts";
import type { AccessSink, Log } from "./log.ts";
import type { Resolver } from "./resolve.ts";
import type { ListeningSockets } from "./sockets.ts";
import { isOpenForWriting } from "../platform/lease.ts";
import { OPEN_MS, watchFiles, type Watch } from "./watch.ts";

const FILE_CHANGED = "file changed";
/** Whether somebody still writes is asked for so often. */
const WRITER_POLL_MS = 50;

/** Another one after each write. */
function stampOf(path: string): string {
  const stat = statSync(path, { bigint: true, throwIfNoEntry: false });
  return stat === undefined ? "" : `${stat.ino} ${stat.size} ${stat.mtimeNs}`;
}

export interface ReloadOptions {
  file: string;
  active: ActiveConfig;
  sockets: ListeningSockets;
  resolver: Resolver;
  fleet: Fleet;
  access: AccessSink;
  log: Log;
  /** False while the process starts and when it stops: there is no reload then. */
  isRunning: () => boolean;
  startAdmin: (config: Config) => Promise<Admin | { error: string }>;
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
  readonly #begun = Promise.withResolvers<void>();
  #last: Promise<unknown> = this.#begun.promise;
  /** The reload that has not begun: it does for all who ask for one until then. */
  #next: Promise<Reloaded> | null = null;
  /** What the config consists of: it is watched. */
  #files: readonly string[];
  /** What was read of these files last. */
  #contents: FileContents;
  #watch: Watch | null = null;

  /** `loaded` is the config that the process starts with. */
  constructor(loaded: { files: readonly string[]; contents: FileContents }, options: ReloadOptions) {
    this.#files = loaded.files;
    this.#contents = loaded.contents;
    this.#options = options;
  }

  /** Loads the file again and takes it over, or leaves everything as it is. One at a time, and none before `begin`. */
  reload(cause: string): Promise<Reloaded> {
    this.#next ??= this.#last.then(() => {
      this.#next = null;
      return this.#reload(cause);
    });
    this.#last = this.#next;
    return this.#next;
  }

  /** The process runs: what was asked for meanwhile is done, and what has changed since the start is a change. */
  begin(): void {
    this.#begun.resolve();
    this.#watchAsAsked();
  }

  // Watches the files, or does so no more, as the config in force has it.
  #watchAsAsked(): void {
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

  /** Resolves when what is under way is over, and nothing is watched any more. */
  async stop(): Promise<void> {
    await this.#last;
    this.#watch?.stop();
  }

  async #reload(cause: string): Promise<Reloaded> {
    const { isRunning, active, log } = this.#options;
    if (!isRunning()) return { ok: false, message: "the process is not running yet, or is stopping" };
    const error = await this.#tryReload(cause);
    this.#watch?.refresh();
    // The file as text, as a tree and as plans is garbage now, a hundred megabytes of it for ten thousand backends.
    Bun.gc(true);
    this.lastError = error;
    if (error === null) {
      this.success++;
      return { ok: true, message: `generation ${active.generation} is in force` };
    }
    this.failure++;
    log.error("reload failed, the old config stays in force", { cause, reason: error });
    return { ok: false, message: error };
  }

  async #tryReload(cause: string): Promise<string | null> {
    const { file, active, sockets, resolver, log } = this.#options;
    // The watch has seen to it already.
    const unfinished = cause === FILE_CHANGED ? null : await this.#awaitWriters();
    if (unfinished !== null) return unfinished;
    const loaded = loadConfig(file, process.env);
    this.#contents = loaded.contents;
    // What the new file names is watched too, even when it is bad: the cure may be in any of its files.
    this.#files = [...new Set([...loaded.files, ...(loaded.ok ? [] : this.#files)])];
    if (!loaded.ok) {
      const lines = loaded.problems.map(formatProblem);
      if (loaded.omitted > 0) lines.push(countedProblems(loaded.problems.length, loaded.omitted));
      return lines.join("\n");
    }
    const old = active.config;
    const config = loaded.config;
    const tooFew = tooFewFiles(needsOf(config));
    if (tooFew !== null) return tooFew;
    const bound = await sockets.bind(config, workerCount(config));
    if ("error" in bound) return bound.error;
    const admin = await this.#nextAdmin(old, config);
    if (admin !== null && "error" in admin) {
      sockets.undo(bound);
      return admin.error;
    }
    await resolver.learn(config.pools);
    const refused = await this.#takeOver(config);
    if (refused !== null) {
      sockets.undo(bound);
      if (admin !== null && admin !== active.admin) admin.stop();
      return refused;
    }
    if (admin !== active.admin) active.admin?.stop();
    active.admin = admin;
    admin?.setToken(config.admin.token);
    log.configure(config.log);
    this.#watchAsAsked();
    this.#sayReloaded(cause, old, config);
    return null;
  }

  // A file that is being written may be cut off and valid all the same. What nobody writes to any more is taken although
  // somebody has it open. The reason not to reload, or null.
  async #awaitWriters(): Promise<string | null> {
    const { isRunning, log } = this.#options;
    const untilMs = performance.now() + OPEN_MS;
    const before = this.#files.map(stampOf).join();
    let isSaid = false;
    for (;;) {
      const path = this.#files.find((name) => isOpenForWriting(name) === true);
      if (path === undefined) return null;
      if (!isRunning()) return "the process is stopping";
      if (!isSaid) log.info("reload waits: another process has a file open for writing", { file: path });
      isSaid = true;
      if (performance.now() > untilMs) {
        if (this.#files.map(stampOf).join() === before) return null;
        return `${path} is still being written after ${OPEN_MS / 1000} s; try again when it is complete`;
      }
      await Bun.sleep(WRITER_POLL_MS);
    }
  }

  // Every worker gets the new generation, or all get the old one again. Sockets that are gone and workers that are too
  // many go last: until then somebody serves every socket.
  async #takeOver(config: Config): Promise<string | null> {
    const { active, sockets, fleet, access, onTaken } = this.#options;
    const old = active.config;
    const trouble = access.configure(config.log.access);
    if (trouble !== null) return trouble;
    const takeBack = active.put(config);
    const count = workerCount(config);
    const oldCount = fleet.slots.length;
    const refused = (await fleet.applyAll()) ?? (await fleet.growTo(count));
    if (refused !== null) {
      takeBack();
      access.configure(old.log.access);
      await fleet.applyAll();
      fleet.shrinkTo(oldCount);
      active.settle();
      return refused;
    }
    fleet.shrinkTo(count);
    sockets.settle(config, count);
    active.loadedAtMs = Date.now();
    active.settle();
    onTaken();
    return null;
  }

  async #nextAdmin(old: Config, config: Config): Promise<Admin | { error: string } | null> {
    const { active, startAdmin } = this.#options;
    const same = JSON.stringify(old.admin) === JSON.stringify(config.admin);
    if (same) return active.admin;
    if (!config.admin.enabled) return null;
    // The same address with another token: that one changes when the reload is decided.
    const isThere = JSON.stringify(old.admin.bind) === JSON.stringify(config.admin.bind);
    if (active.admin !== null && isThere) return active.admin;
    return startAdmin(config);
  }

  #sayReloaded(cause: string, old: Config, config: Config): void {
    const { active, log } = this.#options;
    const changes = summarize(old, config);
    log.info("reloaded", { cause, generation: active.generation, changes: changes.length });
    for (const change of changes) log.info("changed", { what: change });
  }
}
