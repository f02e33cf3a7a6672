// The export to OpenTelemetry: the metrics at each interval, and access lines each second. The workers only know that the access log has a
// follower. The queue is bounded, and a slow or dead receiver delays nothing else.
import { hostname } from "node:os";
import type { OtelConfig } from "../config/schema.ts";
import { EVERY_LINE } from "../observe/access-filter.ts";
import type { JsonAccessLine } from "../observe/access-line.ts";
import { logsRequest, metricsRequests, type Process } from "../observe/otlp.ts";
import type { Snapshot } from "../observe/snapshot.ts";
import type { Followers, LineSink } from "./followers.ts";
import type { Logger } from "./log.ts";
import { OtlpSender, type Sent } from "./otlp-sender.ts";

const LINES_EVERY_MS = 1000;
/** Maximum number of access lines per request. */
const LINES_MAX = 1000;
/** Maximum number of unsent characters of access lines. */
export const OTEL_PENDING_MAX = 2 * 1024 * 1024;

interface Counts {
  success: number;
  failure: number;
}

export interface OtelSources {
  version: string;
  log: Logger;
  followers: Followers;
  snapshot: () => Snapshot;
}

/** One per process: its counts survive a change of the config. */
export class Otel {
  readonly #sources: OtelSources;
  readonly #metrics: Counts = { success: 0, failure: 0 };
  readonly #logs: Counts = { success: 0, failure: 0 };
  readonly #process: Process;
  #config: OtelConfig | null = null;
  #export: Export | null = null;
  #lost = 0;
  #lastError: string | null = null;

  constructor(sources: OtelSources) {
    this.#sources = sources;
    this.#process = { version: sources.version, hostname: hostname(), pid: process.pid };
  }

  get status(): Snapshot["otel"] {
    if (this.#config === null) return null;
    return {
      exports: [
        { signal: "metrics", ...this.#metrics },
        { signal: "logs", ...this.#logs },
      ],
      log_records_lost: this.#lost,
      last_error: this.#lastError,
    };
  }

  /** Applies a config; lines for a former receiver have this time to be sent. */
  configure(config: OtelConfig | null, timeoutMs: number): void {
    if (JSON.stringify(config) === JSON.stringify(this.#config)) return;
    void this.#export?.end(timeoutMs);
    this.#config = config;
    this.#lastError = null;
    this.#export =
      config &&
      new Export(config, this.#sources, this.#process, {
        lost: (lines) => (this.#lost += lines),
        sent: (signal, sent) => this.#sent(config, signal, sent),
      });
  }

  /** Sends the last lines and metrics, within `timeoutMs`. */
  async stop(timeoutMs: number): Promise<void> {
    await this.#export?.end(timeoutMs);
    this.#export = null;
  }

  #sent({ endpoint }: OtelConfig, signal: "metrics" | "logs", sent: Sent): void {
    const counts = signal === "metrics" ? this.#metrics : this.#logs;
    const { log } = this.#sources;
    if (sent.ok) {
      counts.success++;
      if (this.#lastError !== null)
        log.info("the OpenTelemetry receiver takes exports again", { endpoint, log_records_lost: this.#lost });
      this.#lastError = null;
      return;
    }
    counts.failure++;
    if (this.#lastError === null) log.warn("export to OpenTelemetry fails", { endpoint, signal, error: sent.why });
    this.#lastError = sent.why;
  }
}

interface ExportHost {
  lost(lines: number): void;
  sent(signal: "metrics" | "logs", sent: Sent): void;
}

/** The exports to one receiver, until `end`. */
class Export implements LineSink {
  readonly #sources: OtelSources;
  readonly #process: Process;
  readonly #host: ExportHost;
  readonly #metricsSender: OtlpSender;
  readonly #logsSender: OtlpSender;
  readonly #unfollow: () => void;
  readonly #timers: ReturnType<typeof setInterval>[];
  #lines: string[] = [];
  #characters = 0;
  #sendingMetrics: Promise<void> | null = null;
  #sendingLines: Promise<void> | null = null;

  constructor(config: OtelConfig, sources: OtelSources, process: Process, host: ExportHost) {
    this.#sources = sources;
    this.#process = process;
    this.#host = host;
    this.#metricsSender = new OtlpSender(config, (sent) => host.sent("metrics", sent));
    this.#logsSender = new OtlpSender(config, (sent) => host.sent("logs", sent));
    this.#unfollow = sources.followers.add("json", EVERY_LINE, this);
    this.#timers = [
      setInterval(() => void this.#exportMetrics(config.interval), config.interval),
      setInterval(() => void this.#exportLines(), LINES_EVERY_MS),
    ];
  }

  take(text: string, lost: number): void {
    const lines = text.split("\n");
    lines.pop();
    if (lost > 0) this.#host.lost(lost);
    if (this.#characters + text.length > OTEL_PENDING_MAX) return this.#host.lost(lines.length);
    this.#characters += text.length;
    this.#lines.push(...lines);
    if (this.#lines.length >= LINES_MAX) void this.#exportLines();
  }

  async end(timeoutMs: number): Promise<void> {
    for (const timer of this.#timers) clearInterval(timer);
    this.#unfollow();
    const timer = setTimeout(() => {
      this.#metricsSender.end();
      this.#logsSender.end();
    }, timeoutMs);
    await Promise.all([
      (this.#sendingMetrics ?? Promise.resolve()).then(() => this.#exportMetrics(timeoutMs)),
      (this.#sendingLines ?? Promise.resolve()).then(() => this.#exportLines()),
    ]);
    clearTimeout(timer);
    if (this.#lines.length > 0) this.#host.lost(this.#lines.length);
    this.#lines = [];
  }

  // The next interval's metrics replace unsent ones, because all are cumulative.
  #exportMetrics(withinMs: number): Promise<void> {
    this.#sendingMetrics ??= this.#sendMetrics(withinMs).finally(() => (this.#sendingMetrics = null));
    return this.#sendingMetrics;
  }

  async #sendMetrics(withinMs: number): Promise<void> {
    const untilMs = performance.now() + withinMs;
    for (const request of metricsRequests(this.#sources.snapshot(), this.#process, Date.now())) {
      const sent = await this.#metricsSender.send("/v1/metrics", JSON.stringify(request), untilMs);
      if (!sent.ok) return;
    }
  }

  #exportLines(): Promise<void> {
    this.#sendingLines ??= this.#sendLines().finally(() => (this.#sendingLines = null));
    return this.#sendingLines;
  }

  async #sendLines(): Promise<void> {
    while (this.#lines.length > 0) {
      const lines = this.#lines.splice(0, LINES_MAX);
      const request = logsRequest(
        lines.map((line) => JSON.parse(line) as JsonAccessLine),
        this.#process,
        Date.now(),
      );
      const sent = await this.#logsSender.send("/v1/logs", JSON.stringify(request), Infinity);
      this.#characters -= lines.reduce((sum, { length }) => sum + length + 1, 0);
      if (!sent.ok) this.#host.lost(lines.length);
      else if (sent.rejected > 0) this.#host.lost(sent.rejected);
    }
  }
}
