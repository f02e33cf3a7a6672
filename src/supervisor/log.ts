// The two logs. Log is the process log, on stderr. AccessSink writes the workers' access log lines. Neither blocks the supervisor: lines
// that cannot be written soon enough are dropped and counted.
import { word } from "../observe/access-line.ts";
import { closeSync, constants, existsSync, openSync, unlinkSync } from "node:fs";
import type { Config } from "../config/schema.ts";
import { isJournal } from "../platform/journal.ts";
import { Output } from "./output.ts";

export type Level = Config["log"]["level"];
export type Fields = Record<string, string | number | boolean>;

const SEVERITY: Record<Level, number> = { debug: 0, info: 1, warn: 2, error: 3 };

/** How a line for the journal begins: "<", a severity of syslog, ">" (sd-daemon(3)). */
const PRIORITY: Record<Level, string> = { debug: "<7>", info: "<6>", warn: "<4>", error: "<3>" };

/** Maximum number of unwritten bytes of the process log. */
const LOG_BYTES_MAX = 1024 * 1024;

/** An error of several lines for stderr, before there is a log. */
export function forStderr(text: string): string {
  return isJournal(2, process.env) ? text.replace(/^/gm, PRIORITY.error) : text;
}

/** The part of the log that writers of messages need. */
export type Logger = Pick<Log, Level>;

export class Log {
  #level: Level;
  #format: "text" | "json";
  readonly #output: Output;
  readonly #isJournal: boolean;
  #waitingBytes = 0;
  #linesLost = 0;
  /** Called for every message except those of level debug, whatever the level of the log. */
  onMessage: ((level: Level, event: string, fields: Fields) => void) | null = null;

  /** `fd` is for tests: the log writes to stderr. */
  constructor({
    level = "info",
    format = "text",
    fd = 2,
  }: { level?: Level; format?: "text" | "json"; fd?: number } = {}) {
    this.#level = level;
    this.#format = format;
    this.#isJournal = isJournal(fd, process.env);
    this.#output = new Output(fd, (lines) => (this.#linesLost += lines));
    process.once("exit", () => this.#output.writeRestSync());
  }

  configure({ level, format }: { level: Level; format: "text" | "json" }): void {
    this.#level = level;
    this.#format = format;
  }

  /** `event` is a constant text of a few words. Values belong into the fields. */
  debug(event: string, fields: Fields = {}): void {
    this.#write("debug", event, fields);
  }

  info(event: string, fields: Fields = {}): void {
    this.#write("info", event, fields);
  }

  warn(event: string, fields: Fields = {}): void {
    this.#write("warn", event, fields);
  }

  error(event: string, fields: Fields = {}): void {
    this.#write("error", event, fields);
  }

  /** Resolves when everything is written, or after `timeoutMs`. Await it before the process exits. */
  flush(timeoutMs: number): Promise<void> {
    return within(timeoutMs, this.#output.drained());
  }

  #write(level: Level, event: string, fields: Fields): void {
    if (level !== "debug") this.onMessage?.(level, event, fields);
    if (SEVERITY[level] < SEVERITY[this.#level]) return;
    const line = (this.#format === "json" ? asJson : asText)(this.#time(), level, event, fields);
    const bytes = Buffer.from(`${this.#isJournal ? PRIORITY[level] : ""}${line}\n`);
    if (this.#output.broken || this.#waitingBytes + bytes.length > LOG_BYTES_MAX) {
      this.#linesLost++;
      return;
    }
    this.#waitingBytes += bytes.length;
    this.#output.push({ bytes, lines: 1, settled: () => this.#settled(bytes.length) });
  }

  // The journal has a time of its own.
  #time(): string | undefined {
    return this.#isJournal ? undefined : new Date().toISOString();
  }

  #settled(bytes: number): void {
    this.#waitingBytes -= bytes;
    if (this.#linesLost === 0 || this.#waitingBytes > 0 || this.#output.broken) return;
    const lines = this.#linesLost;
    this.#linesLost = 0;
    this.warn("lines of this log were lost: stderr was not read, or its disk was full", { lines });
  }
}

function asJson(time: string | undefined, level: Level, event: string, fields: Fields): string {
  return JSON.stringify({ time, level, event, ...fields });
}

/** `2026-01-01T00:00:00.000Z info  listening listener=web bind=0.0.0.0:8080`. */
function asText(time: string | undefined, level: Level, event: string, fields: Fields): string {
  let text = `${time === undefined ? "" : `${time} `}${level.padEnd(5)} ${printable(event)}`;
  for (const [key, value] of Object.entries(fields)) {
    text += ` ${key}=${word(String(value))}`;
  }
  return text;
}

/** Control characters, which could move a terminal's cursor or forge a line, are escaped. */
function printable(text: string): string {
  return text.replace(/[\p{Cc}\u2028\u2029]/gu, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

// ---------------------------------------------------------------------- the access log

export type AccessTarget = Config["log"]["access"];

/** Maximum number of unwritten bytes of the access log, over all workers. */
export const ACCESS_BYTES_MAX = 16 * 1024 * 1024;
/** Minimum interval of warnings of one kind. */
const WARN_EVERY_MS = 60_000;

export class AccessSink {
  readonly #log: Log;
  readonly #bytesMax: number;
  #target: AccessTarget = "off";
  #output: Output | null = null;
  #isJournal = false;
  /** The current output and former ones that still have something to write, each with the descriptor to close, or -1. */
  readonly #outputs = new Map<Output, number>();
  #waitingBytes = 0;
  #linesLost = 0;
  readonly #warned = new Map<string, number>();

  /** Nothing is written before `configure`. */
  constructor(log: Log, bytesMax = ACCESS_BYTES_MAX) {
    this.#log = log;
    this.#bytesMax = bytesMax;
  }

  /** Number of lines that could not be written since the start. */
  get linesLost(): number {
    return this.#linesLost;
  }

  /**
   * Takes `lines` whole lines, each with its line feed. `done` is called with the number of their characters as soon as they are written or
   * lost, possibly before this call returns.
   */
  write(text: string, lines: number, done: (characters: number) => void): void {
    const output = this.#output;
    if (output === null) {
      done(text.length);
      return;
    }
    const bytes = Buffer.from(this.#isJournal ? withPriority(text) : text);
    if (output.broken || this.#waitingBytes + bytes.length > this.#bytesMax) {
      this.#linesLost += lines;
      if (!output.broken) {
        this.#warn("access log is written too slowly: lines are lost", { target: nameOf(this.#target) });
      }
      done(text.length);
      return;
    }
    this.#waitingBytes += bytes.length;
    const settled = () => {
      this.#waitingBytes -= bytes.length;
      done(text.length);
    };
    output.push({ bytes, lines, settled });
  }

  /** Sets the target of further lines. Returns null, or the reason why the target cannot be used; in that case nothing has changed. */
  configure(target: AccessTarget): string | null {
    if (nameOf(target) === nameOf(this.#target) && typeof target === typeof this.#target) return null;
    const opened = open(target);
    if (typeof opened === "string") return opened;
    this.#target = target;
    this.#use(opened);
    return null;
  }

  /** Reopens the file by its path, after a log rotation. If that fails, the old file stays in use. */
  reopen(): void {
    if (typeof this.#target === "string") return;
    const opened = open(this.#target);
    if (typeof opened === "string") {
      this.#log.error("access log not reopened, the old file stays in use", { error: opened });
      return;
    }
    this.#use(opened);
    this.#log.info("access log reopened", { file: this.#target.file });
  }

  /** Resolves when every line is written or lost, or after `timeoutMs`. */
  async flush(timeoutMs: number): Promise<void> {
    await within(timeoutMs, Promise.all([...this.#outputs.keys()].map((output) => output.drained())));
  }

  /** The old output writes what is queued; then its file is closed. */
  #use({ fd, owned }: Opened): void {
    this.#retire(this.#output);
    this.#output = null;
    if (fd < 0) return;
    this.#isJournal = !owned && isJournal(fd, process.env);
    const name = nameOf(this.#target);
    const output = new Output(fd, (lines, code) => {
      this.#linesLost += lines;
      if (output.broken)
        this.#log.warn("access log cannot be written any more: all further lines are lost", {
          target: name,
          error: code,
        });
      else this.#warn("access log cannot be written: lines are lost", { target: name, error: code });
    });
    this.#output = output;
    this.#outputs.set(output, owned ? fd : -1);
  }

  #retire(output: Output | null): void {
    if (output === null) return;
    void output.drained().then(() => {
      const fd = this.#outputs.get(output) ?? -1;
      this.#outputs.delete(output);
      if (fd >= 0) closeSync(fd);
    });
  }

  #warn(event: string, fields: Fields): void {
    const now = performance.now();
    const last = this.#warned.get(event);
    if (last !== undefined && now - last < WARN_EVERY_MS) return;
    this.#warned.set(event, now);
    this.#log.warn(event, { ...fields, lines_lost: this.#linesLost });
  }
}

/** Lines of the access log as the journal takes them. */
function withPriority(lines: string): string {
  return `${PRIORITY.info}${lines.slice(0, -1).replaceAll("\n", `\n${PRIORITY.info}`)}\n`;
}

interface Opened {
  /** -1 = none. */
  fd: number;
  owned: boolean;
}

/** The descriptor to write to, or why there is none. */
/** Why the access log cannot be written, or null. A file that did not exist before is removed again. */
export function accessLogTrouble(target: AccessTarget): string | null {
  const isNew = typeof target !== "string" && !existsSync(target.file);
  const opened = open(target);
  if (typeof opened === "string") return opened;
  if (opened.owned) closeSync(opened.fd);
  if (isNew && typeof target !== "string") unlinkSync(target.file);
  return null;
}

function open(target: AccessTarget): Opened | string {
  if (target === "off") return { fd: -1, owned: false };
  if (target === "stdout") return { fd: 1, owned: false };
  if (target === "stderr") return { fd: 2, owned: false };
  // Without O_NONBLOCK, opening a named pipe would wait for a reader.
  const flags = constants.O_WRONLY | constants.O_APPEND | constants.O_CREAT | constants.O_NONBLOCK;
  try {
    return { fd: openSync(target.file, flags, 0o640), owned: true };
  } catch (error) {
    const code = error instanceof Error && "code" in error ? String(error.code) : "unknown error";
    return `the access log ${JSON.stringify(target.file)} cannot be opened: ${REASONS[code] ?? "it failed"} (${code})`;
  }
}

const REASONS: Record<string, string> = {
  ENOENT: "the folder does not exist, create it first",
  ENOTDIR: "a part of its path is not a folder",
  EACCES: "this user has no permission to write it",
  EPERM: "this user has no permission to write it",
  EISDIR: "it is a folder",
  EROFS: "the file system is read-only",
  ENXIO: "it is a named pipe without a reader",
  EMFILE: "the open-files limit is reached, raise it (ulimit -n, LimitNOFILE of systemd)",
  ENFILE: "the open-files limit of the machine is reached, raise fs.file-max",
};

function nameOf(target: AccessTarget): string {
  return typeof target === "string" ? target : target.file;
}

/** Resolves with `work`, or after `timeoutMs`. */
function within(timeoutMs: number, work: Promise<unknown>): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, timeoutMs);
    void work.then(() => {
      clearTimeout(timer);
      resolve();
    });
  });
}
