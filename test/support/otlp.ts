// A receiver's view of an OpenTelemetry request: it must pass through the official protobuf definitions unchanged, so that unknown names
// and types are found. And an HTTP receiver whose answers a test chooses.
import { createServer, type IncomingMessage } from "node:http";
import { createServer as createTlsServer } from "node:https";
import { readFileSync } from "node:fs";
import type { AddressInfo } from "node:net";
import { createRequire } from "node:module";
import { expect } from "vitest";
import { eventually } from "./eventually.ts";

interface MessageType {
  fromObject(value: object): object;
  toObject(message: object, options: object): object;
  verify(message: object): string | null;
}

const { opentelemetry } = createRequire(import.meta.url)(
  "@opentelemetry/otlp-transformer/build/src/generated/root.js",
) as {
  opentelemetry: {
    proto: {
      collector: {
        metrics: { v1: { ExportMetricsServiceRequest: MessageType } };
        logs: { v1: { ExportLogsServiceRequest: MessageType } };
      };
    };
  };
};
const { metrics, logs } = opentelemetry.proto.collector;

type Scalar = { stringValue?: string; intValue?: string; doubleValue?: number };
type Attributes = { key: string; value: Scalar }[];

interface Point {
  attributes?: Attributes;
  startTimeUnixNano: string;
  timeUnixNano: string;
  asInt?: string;
  asDouble?: number;
  count?: string;
  sum?: number;
  bucketCounts?: string[];
  explicitBounds?: number[];
}

interface OtlpMetric {
  name: string;
  unit?: string;
  gauge?: { dataPoints: Point[] };
  sum?: { dataPoints: Point[]; aggregationTemporality: number; isMonotonic: boolean };
  histogram?: { dataPoints: Point[]; aggregationTemporality: number };
}

interface MetricsRequest {
  resourceMetrics: { resource: { attributes: Attributes }; scopeMetrics: { metrics: OtlpMetric[] }[] }[];
}

export interface LogRecord {
  timeUnixNano: string;
  observedTimeUnixNano: string;
  severityNumber: number;
  severityText: string;
  body: Scalar;
  attributes: Attributes;
}

interface LogsRequest {
  resourceLogs: { resource: { attributes: Attributes }; scopeLogs: { logRecords: LogRecord[] }[] }[];
}

/** Attributes as a plain object. */
export function plain(attributes: Attributes): Record<string, string | number> {
  return Object.fromEntries(
    attributes.map(({ key, value: { stringValue, intValue, doubleValue } }) => [
      key,
      stringValue ?? (intValue === undefined ? doubleValue! : Number(intValue)),
    ]),
  );
}

/** The request in the form of the definitions. */
function official(type: MessageType, request: object): void {
  const message = type.fromObject(request);
  expect(type.verify(message)).toBeNull();
  expect(type.toObject(message, { longs: String, arrays: false })).toEqual(request);
}

export class Metrics {
  readonly resource: Record<string, string | number>;
  readonly metrics: OtlpMetric[];

  constructor(body: unknown) {
    official(metrics.v1.ExportMetricsServiceRequest, body as object);
    const [only] = (body as MetricsRequest).resourceMetrics;
    this.resource = plain(only!.resource.attributes);
    this.metrics = only!.scopeMetrics[0]!.metrics;
  }

  /** As lines of Prometheus' text format, such as `name{a="b"} 1`. */
  lines(): string[] {
    return this.metrics.flatMap(({ name, gauge, sum, histogram }) => {
      const points = (gauge ?? sum ?? histogram)!.dataPoints;
      return points.flatMap((point) => (histogram === undefined ? [simple(name, point)] : buckets(name, point)));
    });
  }
}

function labelled(name: string, labels: [string, string][], value: number): string {
  const pairs = labels.map(([key, text]) => `${key}=${JSON.stringify(text)}`).join(",");
  return `${name}${pairs === "" ? "" : `{${pairs}}`} ${value}`;
}

function labelsOf({ attributes = [] }: Point): [string, string][] {
  return attributes.map(({ key, value }) => [key, value.stringValue!]);
}

function simple(name: string, point: Point): string {
  return labelled(name, labelsOf(point), Number(point.asInt ?? point.asDouble));
}

function buckets(name: string, point: Point): string[] {
  const labels = labelsOf(point);
  let count = 0;
  const lines = point.bucketCounts!.map((one, i) => {
    count += Number(one);
    return labelled(`${name}_bucket`, [...labels, ["le", String(point.explicitBounds![i] ?? "+Inf")]], count);
  });
  return [
    ...lines,
    labelled(`${name}_sum`, labels, point.sum!),
    labelled(`${name}_count`, labels, Number(point.count)),
  ];
}

export function logRecords(body: unknown): LogRecord[] {
  official(logs.v1.ExportLogsServiceRequest, body as object);
  return (body as LogsRequest).resourceLogs[0]!.scopeLogs[0]!.logRecords;
}

/** A received request, before it is parsed. */
export interface Export {
  path: string;
  headers: IncomingMessage["headers"];
  body: unknown;
  atMs: number;
}

export interface Answer {
  status: number;
  headers?: Record<string, string>;
  body?: string;
}

export class OtlpReceiver {
  readonly exports: Export[] = [];
  /** The answer, by the path of the request. */
  answer: (path: string) => Answer = () => ({ status: 200, body: "{}" });
  /** No answer comes before. */
  hold: Promise<void> = Promise.resolve();
  readonly url: string;
  readonly #close: () => void;

  static async start(tls?: { cert: string; key: string }): Promise<OtlpReceiver> {
    const listener: Parameters<typeof createServer>[1] = (request, response) => {
      let text = "";
      request.setEncoding("utf8").on("data", (part: string) => (text += part));
      request.on("end", () => {
        const path = request.url!;
        receiver.exports.push({ path, headers: request.headers, body: JSON.parse(text), atMs: performance.now() });
        void receiver.hold.then(() => {
          const { status, headers = {}, body = "" } = receiver.answer(path);
          response.writeHead(status, { "Content-Type": "application/json", ...headers }).end(body);
        });
      });
    };
    const server =
      tls === undefined
        ? createServer(listener)
        : createTlsServer({ cert: readFileSync(tls.cert), key: readFileSync(tls.key) }, listener);
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address() as AddressInfo;
    const url = tls === undefined ? `http://127.0.0.1:${port}` : `https://localhost:${port}`;
    const receiver: OtlpReceiver = new OtlpReceiver(url, () => {
      server.close();
      server.closeAllConnections();
    });
    return receiver;
  }

  private constructor(url: string, close: () => void) {
    this.url = url;
    this.#close = close;
  }

  /** The latest metrics after `count` exports. */
  async metrics(count = 0): Promise<Metrics> {
    const last = await eventually("metrics", () =>
      this.exports.slice(count).findLast(({ path }) => path === "/v1/metrics"),
    );
    return new Metrics(last.body);
  }

  /** How many access lines each request had, whatever they look like. */
  lineCounts(): number[] {
    const bodies = this.exports.filter(({ path }) => path === "/v1/logs").map(({ body }) => body as LogsRequest);
    return bodies.map(({ resourceLogs }) => resourceLogs[0]!.scopeLogs[0]!.logRecords.length);
  }

  /** All received access lines, as attributes. */
  lines(): Record<string, string | number>[] {
    const bodies = this.exports.filter(({ path }) => path === "/v1/logs").map(({ body }) => body);
    return bodies.flatMap((body) => logRecords(body).map(({ attributes }) => plain(attributes)));
  }

  line(client: string): Promise<Record<string, string | number>> {
    return eventually(`the line of ${client}`, () => this.lines().find((line) => line["client"] === client));
  }

  [Symbol.dispose](): void {
    this.#close();
  }
}
