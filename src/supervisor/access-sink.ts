// The target of the access log: a stream, a file, a syslog receiver, or none. It never blocks the supervisor: lines that cannot be written
// soon enough are dropped and counted.
import { closeSync, constants, existsSync, openSync, unlinkSync } from "node:fs";
import type { Config, SyslogConfig } from "../config/schema.ts";
import { isJournal } from "../platform/journal.ts";
import { PRIORITY, within, type Fields, type Log } from "./log.ts";
import { Output, type AccessOutput } from "./output.ts";
import { SyslogOutput } from "./syslog-output.ts";
import { receiverTrouble } from "./syslog-receiver.ts";

export type AccessTarget = Config["log"]["access"];

/** Maximum number of unwritten bytes of the access log, over all workers. */
const ACCESS_BYTES_MAX = 16 * 1024 * 1024;
/**
 * The same for a syslog receiver, which may be unreachable for hours. Less than a worker may have unwritten (LOG_PENDING_MAX), so that lost
 * lines are counted here.
 */
export const SYSLOG_BYTES_MAX = 2 * 1024 * 1024;
/** Minimum interval of warnings of one kind. */
const WARN_EVERY_MS = 60_000;

export class AccessSink {
  readonly #log: Log;
  readonly #bytesMax: number;
  #target: AccessTarget = "off";
  #output: AccessOutput | null = null;
  #isJournal = false;
  /** The current output and former ones that still have something to write. */
  readonly #outputs = new Set<AccessOutput>();
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
    if (output.broken || this.#waitingBytes + bytes.length > this.#waitingBytesMax) {
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

  get #waitingBytesMax(): number {
    return isSyslog(this.#target) ? Math.min(SYSLOG_BYTES_MAX, this.#bytesMax) : this.#bytesMax;
  }

  /** Sets the target of further lines. Returns null, or the reason why the target cannot be used; in that case nothing has changed. */
  configure(target: AccessTarget): string | null {
    if (JSON.stringify(target) === JSON.stringify(this.#target)) return null;
    const output = this.#outputFor(target);
    if (typeof output === "string") return output;
    this.#target = target;
    this.#use(output);
    return null;
  }

  /** Reopens the file by its path, after a log rotation. If that fails, the old file stays in use. */
  reopen(): void {
    const target = this.#target;
    if (typeof target === "string" || isSyslog(target)) return;
    const output = this.#outputFor(target);
    if (typeof output === "string") {
      this.#log.error("access log not reopened, the old file stays in use", { error: output });
      return;
    }
    this.#use(output);
    this.#log.info("access log reopened", { file: target.file });
  }

  /** Resolves when every line is written or lost, or after `timeoutMs`. */
  async flush(timeoutMs: number): Promise<void> {
    await within(timeoutMs, Promise.all([...this.#outputs].map((output) => output.drained())));
  }

  /** The same before the process ends: connections to receivers are closed in an orderly way. */
  async close(timeoutMs: number): Promise<void> {
    await this.flush(timeoutMs);
    if (isSyslog(this.#target)) this.#output?.close();
  }

  /** The former output writes its queue. */
  #use(output: AccessOutput | null): void {
    const former = this.#output;
    this.#output = output;
    this.#isJournal = !isFile(this.#target) && output instanceof Output && isJournal(output.fd, process.env);
    if (output !== null) this.#outputs.add(output);
    if (former === null) return;
    former.retire();
    void former.drained().then(() => this.#outputs.delete(former));
  }

  /** null = none; a text = why there is none. */
  #outputFor(target: AccessTarget): AccessOutput | string | null {
    if (isSyslog(target)) return this.#syslogOutput(target.syslog);
    const opened = open(target);
    if (typeof opened === "string") return opened;
    if (opened.fd < 0) return null;
    const name = nameOf(target);
    const lost = (lines: number, code: string): void => {
      this.#linesLost += lines;
      const fields = { target: name, error: code };
      if (output.broken) this.#log.warn("access log cannot be written any more: all further lines are lost", fields);
      else this.#warn("access log cannot be written: lines are lost", fields);
    };
    const output = new Output(opened.fd, lost, opened.owned);
    return output;
  }

  #syslogOutput(syslog: SyslogConfig): SyslogOutput {
    const target = syslog.address;
    const output = new SyslogOutput(syslog, {
      lost: (lines) => (this.#linesLost += lines),
      trouble: (code) => {
        if (code === null)
          this.#log.info("the syslog receiver takes access lines again", { target, lines_lost: this.#linesLost });
        else this.#log.warn("the syslog receiver cannot be reached: access lines wait", { target, error: code });
      },
    });
    output.start();
    return output;
  }

  #warn(event: string, fields: Fields): void {
    const now = performance.now();
    const last = this.#warned.get(event);
    if (last !== undefined && now - last < WARN_EVERY_MS) return;
    this.#warned.set(event, now);
    this.#log.warn(event, { ...fields, lines_lost: this.#linesLost });
  }
}

/** Lines of the access log in the form for the journal. */
function withPriority(lines: string): string {
  return `${PRIORITY.info}${lines.slice(0, -1).replaceAll("\n", `\n${PRIORITY.info}`)}\n`;
}

interface Opened {
  /** -1 = none. */
  fd: number;
  owned: boolean;
}

/** Why the access log cannot be written, or null. A file that did not exist before is removed again. */
export async function accessLogTrouble(target: AccessTarget): Promise<string | null> {
  if (isSyslog(target)) {
    const code = await receiverTrouble(target.syslog);
    return code === null ? null : `the syslog receiver ${target.syslog.address} cannot be reached (${code})`;
  }
  const isNew = isFile(target) && !existsSync(target.file);
  const opened = open(target);
  if (typeof opened === "string") return opened;
  if (opened.owned) closeSync(opened.fd);
  if (isNew) unlinkSync(target.file);
  return null;
}

/** The descriptor to write to, or why there is none. */
function open(target: Exclude<AccessTarget, { syslog: SyslogConfig }>): Opened | string {
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

function isSyslog(target: AccessTarget): target is { syslog: SyslogConfig } {
  return typeof target === "object" && "syslog" in target;
}

function isFile(target: AccessTarget): target is { file: string } {
  return typeof target === "object" && "file" in target;
}

function nameOf(target: AccessTarget): string {
  if (typeof target === "string") return target;
  return isSyslog(target) ? target.syslog.address : target.file;
}
