// The access log to a syslog receiver: a queue of lines, one connection at a time, and a growing pause while there is none. Lines wait
// while the receiver is unreachable or slow; access-sink.ts decides how many.
import { hostname } from "node:os";
import type { SyslogConfig } from "../config/schema.ts";
import { SyslogMessages } from "../wire/syslog.ts";
import type { AccessOutput, Batch } from "./output.ts";
import { openReceiver, receiverAddress, type Receiver, type ReceiverOwner } from "./syslog-receiver.ts";

/** Maximum size of a message over UDP, which receivers should accept (RFC 5426 section 3.2). */
const DATAGRAM_BYTES_MAX = 2048;
/** Maximum size of other messages, which receivers should accept (RFC 5425 section 4.3.1). */
const MESSAGE_BYTES_MAX = 8192;
/** Pause before another connection: doubles from the first to the second, until a connection has lasted. */
const PAUSE_MS_MIN = 100;
const PAUSE_MS_MAX = 10_000;
const LASTED_MS = 10_000;
/** UDP does not show that a receiver has moved, so its name is looked up again at this interval. */
const NAME_MS = 60_000;
/** A UDP receiver that has refused nothing for this long counts as reachable. */
const ACCEPTED_MS = 1000;
/** Time limit for the last lines of an output that is no longer used. */
const RETIRE_MS = 5000;

export interface SyslogHost {
  /** Lines that have not been received. */
  lost(lines: number, code: string): void;
  /** The receiver has become unreachable, or (null) reachable again. */
  trouble(code: string | null): void;
}

export class SyslogOutput implements AccessOutput, ReceiverOwner {
  readonly #config: SyslogConfig;
  readonly #host: SyslogHost;
  readonly #messages: SyslogMessages;
  #queue: Batch[] = [];
  /** The messages of the first batch, and how many of them are sent. */
  #current: Uint8Array[] | null = null;
  #sent = 0;
  #state: "closed" | "opening" | "open" | "full" | "pausing" | "over" = "closed";
  #receiver: Receiver | null = null;
  #isPumping = false;
  #timer: ReturnType<typeof setTimeout> | null = null;
  #pauseMs = PAUSE_MS_MIN;
  #openedMs = 0;
  #attempts = 0;
  #refusedMs = -Infinity;
  #hasTrouble = false;
  #waiting: (() => void)[] = [];

  constructor(config: SyslogConfig, host: SyslogHost) {
    this.#config = config;
    this.#host = host;
    const bytesMax = config.transport === "udp" ? DATAGRAM_BYTES_MAX : MESSAGE_BYTES_MAX;
    this.#messages = new SyslogMessages({ hostname: hostname(), pid: process.pid }, bytesMax);
  }

  get broken(): boolean {
    return this.#state === "over";
  }

  /** Connects before there is a line, so that an unreachable receiver is known. */
  start(): void {
    this.#open();
  }

  push(batch: Batch): void {
    this.#queue.push(batch);
    this.#pumpLater();
  }

  drained(): Promise<void> {
    return this.#queue.length === 0 ? Promise.resolve() : new Promise((resolve) => this.#waiting.push(resolve));
  }

  retire(): void {
    const timer = setTimeout(() => this.close(), RETIRE_MS);
    void this.drained().then(() => {
      clearTimeout(timer);
      this.close();
    });
  }

  /** Waiting lines are lost. */
  close(): void {
    if (this.#state === "over") return;
    this.#state = "over";
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#receiver?.close();
    const unsent = this.#queue.reduce((sum, { lines }) => sum + lines, 0) - this.#sent;
    if (unsent > 0) this.#host.lost(unsent, "closed");
    for (const batch of this.#queue.splice(0)) batch.settled();
    this.#tellDrained();
  }

  // ---------------------------------------------------------------- the queue

  // Deferred, so that a large queue does not block the event loop.
  #pumpLater(): void {
    if (this.#isPumping) return;
    this.#isPumping = true;
    setImmediate(() => {
      this.#isPumping = false;
      this.#pump();
    });
  }

  /** Sends one batch. */
  #pump(): void {
    const batch = this.#queue[0];
    if (batch === undefined) return;
    if (this.#state === "closed") return this.#open();
    if (this.#state !== "open" || this.#receiver === null) return;
    if (this.#isStale()) return this.#reopen();
    this.#current ??= this.#messages.of(batch.bytes);
    this.#sent += this.#receiver.send(this.#current, this.#sent);
    if (this.#sent < this.#current.length) {
      this.#state = "full";
      return;
    }
    this.#recovered();
    this.#queue.shift();
    this.#current = null;
    this.#sent = 0;
    batch.settled();
    if (this.#queue.length > 0) this.#pumpLater();
    else this.#tellDrained();
  }

  #tellDrained(): void {
    for (const resolve of this.#waiting.splice(0)) resolve();
  }

  // ---------------------------------------------------------------- the connection

  #open(): void {
    this.#state = "opening";
    void receiverAddress(this.#config.endpoint, this.#attempts).then((address) => {
      if (this.#state !== "opening") return;
      if (typeof address === "string") this.failed(address);
      else this.#receiver = openReceiver(this.#config, address, this);
    });
  }

  #reopen(): void {
    this.#receiver?.close();
    this.#receiver = null;
    this.#open();
  }

  #isStale(): boolean {
    const { endpoint, transport } = this.#config;
    return transport === "udp" && endpoint.kind === "name" && performance.now() - this.#openedMs > NAME_MS;
  }

  opened(): void {
    if (this.#state !== "opening") return;
    this.#state = "open";
    this.#openedMs = performance.now();
    // Without a line, a connected stream is all that can be known.
    if (this.#config.transport !== "udp") this.#recovered();
    this.#pumpLater();
  }

  ready(): void {
    if (this.#state !== "full") return;
    this.#state = "open";
    this.#pumpLater();
  }

  failed(code: string): void {
    if (this.#state === "over") return;
    if (this.#isOpen && performance.now() - this.#openedMs > LASTED_MS) this.#pauseMs = PAUSE_MS_MIN;
    const wasIdle = this.#isOpen && this.#queue.length === 0;
    this.#receiver = null;
    this.#attempts++;
    this.#state = "pausing";
    this.#timer = setTimeout(() => {
      this.#state = "closed";
      this.#pump();
    }, this.#pauseMs);
    this.#pauseMs = Math.min(2 * this.#pauseMs, PAUSE_MS_MAX);
    // A receiver that closes an idle connection has no problem.
    if (!wasIdle) this.#troubled(code);
  }

  lost(messages: number, code: string): void {
    this.#host.lost(messages, code);
    this.#refusedMs = performance.now();
    this.#troubled(code);
  }

  get #isOpen(): boolean {
    return this.#state === "open" || this.#state === "full";
  }

  #troubled(code: string): void {
    if (this.#hasTrouble) return;
    this.#hasTrouble = true;
    this.#host.trouble(code);
  }

  #recovered(): void {
    if (!this.#hasTrouble || performance.now() - this.#refusedMs < ACCEPTED_MS) return;
    this.#hasTrouble = false;
    this.#host.trouble(null);
  }
}
