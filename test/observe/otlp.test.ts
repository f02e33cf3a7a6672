import { describe, expect, test } from "vitest";
import { formatAccess, type JsonAccessLine } from "../../src/observe/access-line.ts";
import { logsRequest, metricsRequests, POINTS_MAX } from "../../src/observe/otlp.ts";
import { METRICS } from "../../src/observe/metrics.ts";
import { prometheusText } from "../../src/observe/prometheus.ts";
import { logRecords, Metrics, plain } from "../support/otlp.ts";
import { filledSnapshot } from "../support/snapshot.ts";

const sender = { version: "1.2.3", hostname: "edge-1", pid: 4711 };
const NOW_MS = Date.parse("2026-11-22T19:47:00.084Z");

/** In the form of the request on the wire. */
const sent = (request: object): unknown => JSON.parse(JSON.stringify(request));

describe("metrics for OpenTelemetry", () => {
  const taken = filledSnapshot();
  const [request, ...others] = [...metricsRequests(taken, sender, NOW_MS)].map((one) => new Metrics(sent(one)));
  const metrics = request!.metrics;

  test("are those of /metrics, each with the same labels and value", () => {
    expect(others).toEqual([]);
    const lines = prometheusText(taken)
      .split("\n")
      .filter((line) => line !== "" && !line.startsWith("#"));
    expect(request!.lines().toSorted()).toEqual(lines.toSorted());
  });

  test("are sums, gauges and histograms as their table says, cumulative since the start of the process", () => {
    for (const { name, type } of METRICS) {
      const metric = metrics.find((one) => one.name === name)!;
      const { gauge, sum, histogram } = metric;
      expect([name, { gauge, counter: sum, histogram }[type] !== undefined]).toEqual([name, true]);
      if (sum !== undefined) expect([name, sum.isMonotonic, sum.aggregationTemporality]).toEqual([name, true, 2]);
      if (histogram !== undefined) expect(histogram.aggregationTemporality).toBe(2);
      for (const point of (gauge ?? sum ?? histogram)!.dataPoints) {
        expect(BigInt(point.startTimeUnixNano)).toBe(BigInt(Date.parse(taken.started_at)) * 1_000_000n);
        expect(point.timeUnixNano).toBe("1795376820084000000");
      }
    }
  });

  test("have units, and one type of value however the value looks", () => {
    const of = (name: string) => metrics.find((one) => one.name === name)!;
    expect(of("process_cpu_seconds_total")).toMatchObject({
      unit: "s",
      sum: { dataPoints: [{ asDouble: expect.any(Number) }] },
    });
    expect(of("process_resident_memory_bytes")).toMatchObject({
      unit: "By",
      gauge: { dataPoints: [{ asInt: expect.any(String) }] },
    });
    expect(of("lb_backend_ramp_ratio").unit).toBe("1");
    expect(of("lb_connections_open")).not.toHaveProperty("unit");
  });

  test("name the service, its version, the machine and the process", () => {
    expect(request!.resource).toEqual({
      "service.name": "lb",
      "service.version": "1.2.3",
      "host.name": "edge-1",
      "process.pid": 4711,
    });
  });

  test("of many backends are several requests, none with more points than a receiver takes", () => {
    const many = filledSnapshot();
    const [pool] = many.pools;
    pool!.backends = Array.from({ length: POINTS_MAX + 1 }, (_, i) => ({ ...pool!.backends[0]!, name: `b${i}` }));
    const requests = [...metricsRequests(many, sender, NOW_MS)];
    const pointsIn = (one: object) => JSON.stringify(one).split('"timeUnixNano"').length - 1;
    const counts = requests.map(pointsIn);
    expect(counts.slice(0, -1).every((count) => count === POINTS_MAX)).toBe(true);
    expect(counts.at(-1)).toBeLessThanOrEqual(POINTS_MAX);
    const ups = requests.flatMap((one) => JSON.stringify(one).match(/"lb_backend_up"/g) ?? []);
    expect(ups.length).toBeGreaterThan(1);
    const samples = METRICS.reduce((sum, metric) => sum + metric.samples(many).length, 0);
    expect(counts.reduce((sum, count) => sum + count, 0)).toBe(samples);
  });
});

test("an access line is a log record with the line's keys as attributes and its time in nanoseconds", () => {
  const line = formatAccess("json", {
    timeMs: NOW_MS,
    id: 7,
    listener: "web",
    client: "192.0.2.7:45134",
    peer: "",
    pool: "app",
    backend: "10.0.0.11:80",
    sni: "",
    tls: "",
    clientCert: "Zoë",
    queueMs: 0,
    connectMs: 1,
    durationMs: 12.345,
    bytesIn: 2 ** 40,
    bytesOut: 0,
    retries: 0,
    dryRun: "",
    worker: 1,
    end: "eof",
    endBy: "backend",
    error: "",
  });
  const parsed = JSON.parse(line) as JsonAccessLine;
  const [record, ...others] = logRecords(sent(logsRequest([parsed], sender, NOW_MS + 1000)));
  expect(others).toEqual([]);
  expect(record).toMatchObject({
    timeUnixNano: "1795376820084000000",
    observedTimeUnixNano: "1795376821084000000",
    severityNumber: 9,
    severityText: "INFO",
    body: { stringValue: "web 192.0.2.7:45134 -> 10.0.0.11:80: eof by backend" },
  });
  const { time: _, ...rest } = parsed;
  expect(plain(record!.attributes)).toEqual(rest);
  expect(record!.attributes).toContainEqual({ key: "bytes_in", value: { intValue: "1099511627776" } });
  expect(record!.attributes).toContainEqual({ key: "connect_ms", value: { doubleValue: 1 } });
});
