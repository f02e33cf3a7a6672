// The metrics in Prometheus' text format 0.0.4.
// https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
import { METRICS, type Metric } from "./metrics.ts";
import type { Snapshot } from "./snapshot.ts";

export const PROMETHEUS_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8";

/** The page that GET /metrics answers. */
export function prometheusText(snapshot: Snapshot): string {
  let text = "";
  for (const metric of METRICS) {
    const { name, type, help, samples } = metric;
    text += `# HELP ${name} ${help.replaceAll("\\", "\\\\").replaceAll("\n", "\\n")}\n# TYPE ${name} ${type}\n`;
    for (const { labels, value } of samples(snapshot)) {
      if (typeof value === "number") text += line(name, metric.labels, labels, value);
      else text += histogram(metric, labels, value);
    }
  }
  return text;
}

function histogram(
  metric: Metric,
  labels: readonly string[],
  value: { sumSeconds: number; buckets: readonly number[]; boundsMs: readonly number[] },
) {
  const names = [...metric.labels, "le"];
  let text = "";
  let count = 0;
  // The buckets are cumulative, and the last one, +Inf, is the count.
  value.boundsMs.forEach((boundMs, i) => {
    count += value.buckets[i] ?? 0;
    text += line(`${metric.name}_bucket`, names, [...labels, String(boundMs / 1000)], count);
  });
  count += value.buckets[value.boundsMs.length] ?? 0;
  text += line(`${metric.name}_bucket`, names, [...labels, "+Inf"], count);
  text += line(`${metric.name}_sum`, metric.labels, labels, value.sumSeconds);
  return text + line(`${metric.name}_count`, metric.labels, labels, count);
}

function line(name: string, labels: readonly string[], values: readonly string[], value: number): string {
  const pairs = labels.map((label, i) => `${label}="${escapeLabel(values[i] ?? "")}"`).join(",");
  return `${name}${pairs === "" ? "" : `{${pairs}}`} ${value}\n`;
}

function escapeLabel(value: string): string {
  return value.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n");
}
