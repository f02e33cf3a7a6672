// Requests of OTLP/HTTP to one receiver: which answers are retried, and when. otel.ts decides what is sent.
import { parseAddress } from "../core/address.ts";
import type { OtelConfig } from "../config/schema.ts";
import { lookUp } from "./lookup.ts";

/** Timeout of a request. */
const REQUEST_MS = 10_000;
/** Pause before a retry: doubles from the first to the second, with up to a fifth more at random. */
const PAUSE_MS_MIN = 500;
const PAUSE_MS_MAX = 30_000;
/** Maximum pause that a receiver may request. */
const RETRY_AFTER_MS_MAX = 300_000;
/** Maximum number of bytes that are read of an answer. */
const ANSWER_BYTES_MAX = 64 * 1024;

/** Answers after which the same request may succeed (OTLP/HTTP, "Retryable Response Codes"). */
const RETRYABLE = new Set([429, 502, 503, 504]);

/** The result of one request. `retryAfterMs`: null = it cannot succeed, 0 = the sender chooses. */
export type Sent = { ok: true; rejected: number } | { ok: false; why: string; retryAfterMs: number | null };

export class OtlpSender {
  readonly #config: OtelConfig;
  readonly #tell: (sent: Sent) => void;
  readonly #ended = new AbortController();
  /** The receiver allows no request before this time. */
  #notBeforeMs = 0;

  /** `tell` is called with the result of each request. */
  constructor(config: OtelConfig, tell: (sent: Sent) => void) {
    this.#config = config;
    this.#tell = tell;
  }

  /** Sends until the request succeeds, cannot succeed, or `untilMs` (of performance.now) has passed. Never throws. */
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

  /** Aborts requests in flight. */
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

// The runtime's lookup for a request occupies the thread pool, which also writes the logs. So a name without an answer is detected here.
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

/** The number of rejected records of a request that succeeded partly. */
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
