// The Grafana dashboard in packaging/grafana, from a table of panels, which is easier to review than a dashboard exported from the user
// interface.

/** A row of the table: [title, unit, [legend, expression]...]. */
type PanelRow = [title: string, unit: string, ...queries: [legend: string, expr: string][]];

const ROWS: Record<string, PanelRow[]> = {
  "The whole process": [
    ["Open connections", "short", ["{{instance}}", "lb_connections_open"], ["limit", "lb_connections_limit"]],
    ["New connections", "cps", ["{{listener}}", sumBy("listener", rate("lb_listener_connections_total"))]],
    [
      "Throughput",
      "Bps",
      ["from clients", `sum(${rate("lb_listener_received_bytes_total")})`],
      ["to clients", `sum(${rate("lb_listener_sent_bytes_total")})`],
    ],
    [
      "Why connections end",
      "cps",
      ["{{end}} by {{end_by}}", sumBy("end, end_by", rate("lb_listener_connections_ended_total"))],
    ],
    [
      "Life of connections, p50 and p99",
      "s",
      ["p50", quantile(0.5, "lb_connection_duration_seconds")],
      ["p99", quantile(0.99, "lb_connection_duration_seconds")],
    ],
    [
      "First byte for the client, p50 and p99",
      "s",
      ["p50", quantile(0.5, "lb_first_byte_seconds")],
      ["p99", quantile(0.99, "lb_first_byte_seconds")],
    ],
  ],
  Backends: [
    [
      "Backends up",
      "short",
      ["{{pool}}", sumBy("pool", selected("lb_backend_up"))],
      ["{{pool}}: all", `count by (pool) (${selected("lb_backend_up")})`],
    ],
    [
      "Open connections",
      "short",
      ["{{pool}}/{{backend}}", sumBy("pool, backend", selected("lb_backend_connections_open"))],
    ],
    [
      "Failed connects",
      "cps",
      ["{{pool}}/{{backend}} {{reason}}", sumBy("pool, backend, reason", rate("lb_backend_connect_failures_total"))],
    ],
    ["Connect time, p99", "s", ["{{pool}}", quantile(0.99, "lb_backend_connect_duration_seconds", "pool, ")]],
    ["Waiting in queues", "short", ["{{pool}}", sumBy("pool", selected("lb_pool_queue_connections"))]],
    [
      "Ejections",
      "cps",
      ["{{pool}}/{{backend}} {{reason}}", sumBy("pool, backend, reason", rate("lb_backend_ejections_total"))],
    ],
  ],
  "Inside lb": [
    ["CPU", "percentunit", ["{{instance}}", rate("process_cpu_seconds_total")]],
    ["Memory", "bytes", ["{{instance}}", selected("process_resident_memory_bytes")]],
    ["Open files", "short", ["{{instance}}", selected("process_open_fds")], ["limit", selected("process_max_fds")]],
    [
      "Event-loop delay, p99",
      "s",
      ["worker {{worker}}", quantile(0.99, "lb_worker_event_loop_delay_seconds", "worker, ")],
    ],
    [
      "Config: generation, and reloads that failed",
      "short",
      ["generation", selected("lb_config_generation")],
      ["failed", `increase(${selected("lb_config_reloads_total", 'result="failure"')}[1h])`],
    ],
    [
      "Certificates: time left",
      "s",
      ["{{listener}} {{cert}}", `${selected("lb_tls_certificate_expiry_timestamp_seconds")} - time()`],
    ],
  ],
};

function selected(metric: string, more = ""): string {
  return `${metric}{${['instance=~"$instance"', more].filter(Boolean).join(",")}}`;
}

function rate(metric: string): string {
  return `rate(${selected(metric)}[$__rate_interval])`;
}

function sumBy(labels: string, expr: string): string {
  return `sum by (${labels}) (${expr})`;
}

function quantile(part: number, metric: string, labels = ""): string {
  return `histogram_quantile(${part}, ${sumBy(`${labels}le`, rate(`${metric}_bucket`))})`;
}

/** The JSON that Grafana imports. */
export function grafanaText(): string {
  let id = 0;
  let y = 0;
  const panels: unknown[] = [];
  for (const [title, rows] of Object.entries(ROWS)) {
    panels.push({ id: ++id, type: "row", title, gridPos: { x: 0, y: y++, w: 24, h: 1 }, panels: [] });
    rows.forEach(([name, unit, ...queries], i) => {
      panels.push({
        id: ++id,
        type: "timeseries",
        title: name,
        datasource: DATASOURCE,
        gridPos: { x: (i % 3) * 8, y: y + Math.floor(i / 3) * 8, w: 8, h: 8 },
        fieldConfig: { defaults: { unit, min: 0, custom: { lineWidth: 1, fillOpacity: 8 } }, overrides: [] },
        options: { legend: { displayMode: "list", placement: "bottom" }, tooltip: { mode: "multi", sort: "desc" } },
        targets: queries.map(([legendFormat, expr], n) => ({
          refId: String.fromCharCode(65 + n),
          datasource: DATASOURCE,
          expr,
          legendFormat,
        })),
      });
    });
    y += Math.ceil(rows.length / 3) * 8;
  }
  const dashboard = {
    title: "lb",
    uid: "lb",
    tags: ["lb"],
    schemaVersion: 39,
    editable: true,
    refresh: "10s",
    time: { from: "now-1h", to: "now" },
    templating: {
      list: [
        { name: "datasource", type: "datasource", query: "prometheus" },
        {
          name: "instance",
          type: "query",
          datasource: DATASOURCE,
          query: "label_values(lb_build_info, instance)",
          multi: true,
          includeAll: true,
          allValue: ".*",
          refresh: 2,
        },
      ],
    },
    panels,
  };
  return `${JSON.stringify(dashboard, null, 2)}\n`;
}

const DATASOURCE = { type: "prometheus", uid: "${datasource}" };
