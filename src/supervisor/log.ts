// The process log, on stderr. It never blocks the supervisor: lines that cannot be written soon enough are dropped and counted.
import { word } from "../observe/access-line.ts";
import type { Config } from "../config/schema.ts";
import { isJournal } from "../platform/journal.ts";
import { Output } from "./output.ts";

export type Level = Config["log"]["level"];
export type Fields = Record<string, string | number | boolean>;

const SEVERITY: Record<Level, number> = { debug: 0, info: 1, warn: 2, error: 3 };

/** The start of a line for the journal: "<", a syslog severity, ">" (sd-daemon(3)). */
export const PRIORITY: Record<Level, string> = { debug: "<7>", info: "<6>", warn: "<4>", error: "<3>" };

/** Maximum number of unwritten bytes of the process log. */
const LOG_BYTES_MAX = 1024 * 1024;

/** An error of several lines for stderr, before the log exists. */
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

  // The journal stores its own time.
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

/** Resolves with `work`, or after `timeoutMs`. */
export function within(timeoutMs: number, work: Promise<unknown>): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, timeoutMs);
    void work.then(() => {
      clearTimeout(timer);
      resolve();
    });
  });
}
