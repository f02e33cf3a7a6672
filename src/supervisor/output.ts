// Writes text to a descriptor that may be slow, full or closed. It uses the thread pool, one write(2) at a time, so that the event loop
// never blocks. access-sink.ts and log.ts decide what is written and how much may be queued.
import { closeSync, write, writeSync } from "node:fs";

/** Lines that are written or lost together. `settled` is called once, when either has happened. */
export interface Batch {
  bytes: Uint8Array;
  lines: number;
  settled: () => void;
}

/** A target of the access log's lines. */
export interface AccessOutput {
  /** It will never take a line again. */
  readonly broken: boolean;
  push(batch: Batch): void;
  /** Resolves when everything is written or lost. */
  drained(): Promise<void>;
  /** Ends it after it has written its queue. */
  retire(): void;
  /** Ends it at once. */
  close(): void;
}

/** Approximate maximum of one write(2). */
const WRITE_BYTES_MAX = 256 * 1024;
/** Delay before another attempt on a full non-blocking pipe (EAGAIN): doubles from the first to the second. */
const RETRY_MS_MIN = 5;
const RETRY_MS_MAX = 200;

const LINE_FEED = 0x0a;

/** Errors after which a descriptor is never writable again. */
const FINAL = new Set(["EPIPE", "EBADF", "ENXIO", "ECONNRESET", "EINVAL"]);

export class Output implements AccessOutput {
  readonly fd: number;
  readonly #closesFd: boolean;
  /** Called with the number of lines that could not be written. */
  readonly #lost: (lines: number, code: string) => void;
  #queue: Batch[] = [];
  /** The batch that is being written, and the number of bytes written. */
  #current: Batch | null = null;
  #offset = 0;
  #scheduled = false;
  #retryMs = RETRY_MS_MIN;
  /** The last write ended within a line. */
  #isTorn = false;
  #waiting: (() => void)[] = [];
  /** All later writes fail too. */
  broken = false;

  /** `closesFd`: the descriptor belongs to the output. */
  constructor(fd: number, lost: (lines: number, code: string) => void, closesFd = false) {
    this.fd = fd;
    this.#lost = lost;
    this.#closesFd = closesFd;
  }

  get idle(): boolean {
    return this.#current === null && this.#queue.length === 0;
  }

  push(batch: Batch): void {
    this.#queue.push(batch);
    if (this.#current !== null || this.#scheduled) return;
    // Deferred, so that everything added in the same turn of the event loop goes into one write.
    this.#scheduled = true;
    queueMicrotask(() => {
      this.#scheduled = false;
      this.#next();
    });
  }

  /** Resolves when everything is written or lost. */
  drained(): Promise<void> {
    return this.idle ? Promise.resolve() : new Promise((resolve) => this.#waiting.push(resolve));
  }

  retire(): void {
    void this.drained().then(() => this.close());
  }

  /** It must be idle. */
  close(): void {
    if (this.#closesFd) closeSync(this.fd);
  }

  /**
   * Writes the queue without the thread pool, when the process exits. Does nothing while a write is in flight: that write may block for
   * ever, and then this one would block too.
   */
  writeRestSync(): void {
    if (this.#current !== null) return;
    for (const { bytes } of this.#queue.splice(0)) {
      try {
        for (let at = 0; at < bytes.length;) at += writeSync(this.fd, bytes, at);
      } catch {
        return;
      }
    }
  }

  #next(): void {
    if (this.#current !== null || this.#queue.length === 0) return;
    const batches: Batch[] = [];
    let size = 0;
    for (const batch of this.#queue) {
      if (batches.length > 0 && size + batch.bytes.length > WRITE_BYTES_MAX) break;
      batches.push(batch);
      size += batch.bytes.length;
    }
    this.#queue.splice(0, batches.length);
    const parts = batches.map(({ bytes }) => bytes);
    if (this.#isTorn) parts.unshift(Uint8Array.of(LINE_FEED));
    this.#current = {
      bytes: parts.length === 1 ? parts[0]! : Buffer.concat(parts),
      lines: batches.reduce((sum, { lines }) => sum + lines, 0),
      settled: () => {
        for (const batch of batches) batch.settled();
      },
    };
    this.#offset = 0;
    this.#write(this.#current.bytes);
  }

  #write(bytes: Uint8Array): void {
    write(this.fd, bytes, this.#offset, bytes.length - this.#offset, null, (error, count) => {
      this.#offset += count ?? 0;
      if (count > 0) this.#isTorn = bytes[this.#offset - 1] !== LINE_FEED;
      const code = error === null ? "" : (error.code ?? "unknown error");
      if (code === "EINTR") this.#write(bytes);
      else if (code === "EAGAIN" || (code === "" && count === 0 && bytes.length > 0)) this.#writeLater(bytes);
      else if (code !== "") this.#lose(code);
      else if (this.#offset < bytes.length) this.#write(bytes);
      else this.#finish();
      if (count > 0) this.#retryMs = RETRY_MS_MIN;
    });
  }

  #writeLater(bytes: Uint8Array): void {
    setTimeout(() => this.#write(bytes), this.#retryMs);
    this.#retryMs = Math.min(2 * this.#retryMs, RETRY_MS_MAX);
  }

  #lose(code: string): void {
    const current = this.#current;
    if (current === null) return;
    let lines = linesIn(current.bytes, this.#offset);
    this.broken ||= FINAL.has(code);
    if (this.broken) {
      for (const batch of this.#queue.splice(0)) {
        lines += batch.lines;
        batch.settled();
      }
    }
    this.#lost(lines, code);
    this.#finish();
  }

  #finish(): void {
    const done = this.#current;
    this.#current = null;
    done?.settled();
    if (this.#queue.length > 0) this.#next();
    else if (this.idle) for (const resolve of this.#waiting.splice(0)) resolve();
  }
}

function linesIn(bytes: Uint8Array, from: number): number {
  let lines = 0;
  for (let at = bytes.indexOf(LINE_FEED, from); at >= 0; at = bytes.indexOf(LINE_FEED, at + 1)) lines++;
  return lines;
}
