// Requests of OTLP/HTTP to one receiver: which answers are tried again, and when. What is sent is decided in otel.ts.
import { parseAddress } from "../core/address.ts";
import type { OtelConfig } from "../config/schema.ts";
import { lookUp } from "./lookup.ts";

/** Time for one request. */
const REQUEST_MS = 10_000;
/** Pause before a request is sent again: doubles from the first to the second, with up to a fifth more at random. */
const PAUSE_MS_MIN = 500;
const PAUSE_MS_MAX = 30_000;
/** Longest pause that a receiver may ask for. */
const RETRY_AFTER_MS_MAX = 300_000;
/** What is read of an answer. */
const ANSWER_BYTES_MAX = 64 * 1024;

/** Answers after which the same request may succeed (OTLP/HTTP, "Retryable Response Codes"). */
const RETRYABLE = new Set([429, 502, 503, 504]);

/** The result of one request. `retryAfterMs`: null = it cannot succeed, 0 = the sender chooses. */
export type Sent = { ok: true; rejected: number } | { ok: false; why: string; retryAfterMs: number | null };

export class OtlpSender {
  readonly #config: OtelConfig;
  readonly #tell: (sent: Sent) => void;
  readonly #ended = new AbortController();
  /** The receiver has asked for no request before. */
  #notBeforeMs = 0;

  /** `tell` hears the result of each request. */
  constructor(config: OtelConfig, tell: (sent: Sent) => void) {
    this.#config = config;
    this.#tell = tell;
  }

  /** Sends until it succeeds, cannot succeed, or `untilMs` (of performance.now) has passed. Never throws. */
  async send(path: string, body: string, untilMs: number): Promise<Sent> {
    let pauseMs = PAUSE_MS_MIN;
    let atMs = this.#notBeforeMs;
    let sent: Sent = { ok: false, why: "the receiver has asked for a pause", retryAfterMs: 0 };
    while (atMs <= untilMs) {
      if (atMs > performance.now()) await this.#pause(atMs - performance.now());
      if (this.#ended.signal.aborted) break;
      sent = await this.#once(path, body);
      if (this.#ended.signal.aborted && !sent.ok) break;
      this.#tell(sent);
      if (sent.ok || sent.retryAfterMs === null) break;
      const nowMs = performance.now();
      this.#notBeforeMs = nowMs + sent.retryAfterMs;
      atMs = Math.max(this.#notBeforeMs, nowMs + pauseMs * (1 + Math.random() / 5));
      pauseMs = Math.min(2 * pauseMs, PAUSE_MS_MAX);
    }
    return sent;
  }

  /** What is under way is given up. */
  end(): void {
    this.#ended.abort();
  }

  async #once(path: string, body: string): Promise<Sent> {
    const { endpoint, headers, ca_pem: ca } = this.#config;
    try {
      await resolvable(endpoint);
      const response = await fetch(`${endpoint}${path}`, {
        method: "POST",
        headers: { ...headers, "Content-Type": "application/json", "User-Agent": "lb" },
        body,
        redirect: "manual",
        signal: AbortSignal.any([this.#ended.signal, AbortSignal.timeout(REQUEST_MS)]),
        ...(ca !== null && { tls: { ca } }),
      });
      const text = await answerOf(response);
      if (response.ok) return { ok: true, rejected: rejectedIn(text) };
      const retryAfterMs = RETRYABLE.has(response.status) ? retryAfter(response.headers.get("Retry-After")) : null;
      return { ok: false, why: `HTTP ${response.status}`, retryAfterMs };
    } catch (error) {
      return { ok: false, why: reasonOf(error), retryAfterMs: 0 };
    }
  }

  #pause(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const { signal } = this.#ended;
      const timer = setTimeout(done, ms);
      signal.addEventListener("abort", done);
      function done(): void {
        clearTimeout(timer);
        signal.removeEventListener("abort", done);
        resolve();
      }
    });
  }
}

// The runtime's look-up for a request occupies the thread pool, which writes the logs. A name without an answer is found out here.
async function resolvable(endpoint: string): Promise<void> {
  const { hostname } = new URL(endpoint);
  if (parseAddress(hostname.replace(/^\[|\]$/g, "")) === null) await lookUp(hostname);
}

async function answerOf(response: Response): Promise<string> {
  let text = "";
  const decoder = new TextDecoder();
  for await (const chunk of response.body ?? []) {
    text += decoder.decode(chunk, { stream: true });
    if (text.length > ANSWER_BYTES_MAX) break;
  }
  return text;
}

/** The records that the receiver did not take, of a request that has succeeded in part. */
function rejectedIn(text: string): number {
  try {
    const { partialSuccess } = JSON.parse(text) as { partialSuccess?: { rejectedLogRecords?: string | number } };
    return Number(partialSuccess?.rejectedLogRecords ?? 0) || 0;
  } catch {
    return 0;
  }
}

/** RFC 9110 section 10.2.3: seconds, or a date. */
function retryAfter(value: string | null): number {
  if (value === null) return 0;
  const ms = /^\d+$/.test(value) ? 1000 * Number(value) : Date.parse(value) - Date.now();
  return Number.isFinite(ms) ? Math.min(Math.max(0, ms), RETRY_AFTER_MS_MAX) : 0;
}

function reasonOf(error: unknown): string {
  const { code, message, name } = error as { code?: unknown; message?: string; name?: string };
  if (name === "TimeoutError") return "no answer in time";
  return typeof code === "string" ? code : (message ?? "failed");
}
