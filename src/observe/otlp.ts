// The snapshot and access lines as requests of OTLP/HTTP with JSON (https://opentelemetry.io/docs/specs/otlp/). The metrics are those of
// /metrics, from the same table. This file neither counts nor sends.
import type { JsonAccessLine } from "./access-line.ts";
import { METRICS, type Metric, type Sample } from "./metrics.ts";
import type { Snapshot } from "./snapshot.ts";

/** Maximum number of data points per request, so that no request is too large for a receiver. */
export const POINTS_MAX = 5000;

/** SEVERITY_NUMBER_INFO. */
const INFO = 9;
/** AGGREGATION_TEMPORALITY_CUMULATIVE. */
const CUMULATIVE = 2;

/** The sender, as attributes of the resource. */
export interface Process {
  version: string;
  hostname: string;
  pid: number;
}

type Value = { stringValue: string } | { intValue: string } | { doubleValue: number };
type Attribute = { key: string; value: Value };

/** The bodies of the requests for /v1/metrics; each is made when it is needed. */
export function* metricsRequests(snapshot: Snapshot, process: Process, nowMs: number): Generator<object> {
  const times = {
    startTimeUnixNano: nanoseconds(Date.parse(snapshot.started_at)),
    timeUnixNano: nanoseconds(nowMs),
  };
  let metrics: object[] = [];
  let room = POINTS_MAX;
  for (const metric of METRICS) {
    const samples = metric.samples(snapshot);
    for (let from = 0; from < samples.length;) {
      const part = samples.slice(from, from + room);
      metrics.push(metricOf(metric, part, times));
      from += part.length;
      room -= part.length;
      if (room > 0) continue;
      yield metricsRequest(metrics, process);
      metrics = [];
      room = POINTS_MAX;
    }
  }
  if (metrics.length > 0) yield metricsRequest(metrics, process);
}

function metricsRequest(metrics: object[], process: Process): object {
  const scopeMetrics = [{ scope: scopeOf(process), metrics }];
  return { resourceMetrics: [{ resource: resourceOf(process), scopeMetrics }] };
}

interface Times {
  startTimeUnixNano: string;
  timeUnixNano: string;
}

function metricOf({ name, type, labels, help }: Metric, samples: Sample[], times: Times): object {
  const described = { name, description: help, ...unitOf(name) };
  const dataPoints = samples.map((sample) => ({
    ...(labels.length > 0 && { attributes: labels.map((label, i) => attribute(label, sample.labels[i] ?? "")) }),
    ...times,
    ...valueOf(name, sample.value),
  }));
  if (type === "gauge") return { ...described, gauge: { dataPoints } };
  const aggregated = { aggregationTemporality: CUMULATIVE, dataPoints };
  return type === "counter"
    ? { ...described, sum: { ...aggregated, isMonotonic: true } }
    : { ...described, histogram: aggregated };
}

/** UCUM units, as OpenTelemetry uses them. */
function unitOf(name: string): { unit?: string } {
  if (/_seconds(_total)?$/.test(name)) return { unit: "s" };
  if (/_bytes(_total)?$/.test(name)) return { unit: "By" };
  return name.endsWith("_ratio") ? { unit: "1" } : {};
}

// 64-bit integers are strings in JSON. Each metric always has the same type of value.
function valueOf(name: string, value: Sample["value"]): object {
  if (typeof value === "number")
    return /_(seconds|ratio)(_total)?$/.test(name) ? { asDouble: value } : { asInt: String(value) };
  const { sumSeconds, buckets, boundsMs } = value;
  return {
    count: String(buckets.reduce((sum, count) => sum + count, 0)),
    sum: sumSeconds,
    bucketCounts: Array.from({ length: boundsMs.length + 1 }, (_, i) => String(buckets[i] ?? 0)),
    explicitBounds: boundsMs.map((bound) => bound / 1000),
  };
}

/** The body of a request for /v1/logs. */
export function logsRequest(lines: readonly JsonAccessLine[], process: Process, nowMs: number): object {
  const observedTimeUnixNano = nanoseconds(nowMs);
  const logRecords = lines.map(({ time, ...line }) => ({
    timeUnixNano: nanoseconds(Date.parse(time)),
    observedTimeUnixNano,
    severityNumber: INFO,
    severityText: "INFO",
    body: { stringValue: sentenceOf(line) },
    attributes: Object.entries(line).map(([key, value]) => attribute(key, value ?? "")),
  }));
  return {
    resourceLogs: [{ resource: resourceOf(process), scopeLogs: [{ scope: scopeOf(process), logRecords }] }],
  };
}

/** "web 192.0.2.7:45134 -> 10.0.0.11:80: eof by backend". */
function sentenceOf({ listener, client, backend, end, end_by }: Omit<JsonAccessLine, "time">): string {
  return `${listener} ${client}${backend === undefined ? "" : ` -> ${backend}`}: ${end} by ${end_by}`;
}

function resourceOf({ version, hostname, pid }: Process): object {
  return {
    attributes: [
      attribute("service.name", "lb"),
      attribute("service.version", version),
      attribute("host.name", hostname),
      attribute("process.pid", pid),
    ],
  };
}

function scopeOf({ version }: Process): object {
  return { name: "lb", version };
}

function attribute(key: string, value: string | number): Attribute {
  if (typeof value === "string") return { key, value: { stringValue: value } };
  // Times are always fractions, so that an attribute has one type.
  if (key.endsWith("_ms")) return { key, value: { doubleValue: value } };
  return { key, value: { intValue: String(value) } };
}

function nanoseconds(ms: number): string {
  return `${Math.floor(ms)}000000`;
}
