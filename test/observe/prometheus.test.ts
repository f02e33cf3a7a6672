import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { END_NAMES } from "../../src/core/ends.ts";
import { METRICS } from "../../src/observe/metrics.ts";
import { prometheusText } from "../../src/observe/prometheus.ts";
import { filledSnapshot } from "../support/snapshot.ts";

/** Every series with its value. */
function series(text: string): Map<string, number> {
  const found = new Map<string, number>();
  for (const line of text.split("\n")) {
    if (line === "" || line.startsWith("#")) continue;
    const space = line.lastIndexOf(" ");
    expect(found.has(line.slice(0, space)), `${line} is there twice`).toBe(false);
    found.set(line.slice(0, space), Number(line.slice(space + 1)));
  }
  return found;
}

describe("the metrics", () => {
  const text = prometheusText(filledSnapshot());
  const values = series(text);

  test("have the values of the snapshot", () => {
    const backend = `pool="app",backend="big",address="unix:/run/app.sock"`;
    const expected: Record<string, number> = {
      'lb_build_info{version="1.2.3"}': 1,
      process_start_time_seconds: 1767323045.5,
      process_cpu_seconds_total: 12.5,
      process_resident_memory_bytes: 70_000_000,
      process_open_fds: 33,
      process_max_fds: 4096,
      'lb_tls_certificate_expiry_timestamp_seconds{listener="web",cert="/etc/lb/site.pem"}': 1798761600,
      'lb_admin_certificate_expiry_timestamp_seconds{cert="/etc/lb/admin.pem"}': 1798848000,
      'lb_worker_event_loop_delay_seconds_bucket{worker="0",le="0.0025"}': 4,
      'lb_worker_event_loop_delay_seconds_bucket{worker="0",le="+Inf"}': 23,
      'lb_worker_event_loop_delay_seconds_sum{worker="0"}': 0.26,
      'lb_worker_event_loop_blocked_seconds{worker="0"}': 1.5,
      'lb_worker_event_loop_blocked_seconds{worker="1"}': 0,
      lb_ready: 1,
      lb_config_generation: 3,
      lb_config_last_reload_successful: 0,
      lb_config_last_reload_success_timestamp_seconds: 1767323100,
      'lb_config_reloads_total{result="success"}': 2,
      'lb_config_reloads_total{result="failure"}': 1,
      lb_connections_open: 7,
      lb_connections_limit: 1000,
      'lb_listener_ready{listener="web"}': 1,
      'lb_listener_connections_total{listener="web"}': 42,
      'lb_listener_connections_open{listener="web"}': 7,
      'lb_listener_connections_limit{listener="web"}': 0,
      'lb_listener_received_bytes_total{listener="web"}': 1010,
      'lb_listener_sent_bytes_total{listener="web"}': 2020,
      [`lb_backend_up{${backend}}`]: 0,
      [`lb_backend_weight{${backend}}`]: 3,
      [`lb_backend_ramp_ratio{${backend}}`]: 0.55,
      [`lb_backend_ejected{${backend}}`]: 1,
      [`lb_backend_drained{${backend}}`]: 0,
      [`lb_backend_ejections_total{${backend},reason="connect"}`]: 6,
      'lb_pool_panic{pool="app"}': 1,
      [`lb_backend_connections_open{${backend}}`]: 2,
      [`lb_backend_connections_limit{${backend}}`]: 500,
      [`lb_backend_connections_ended_total{${backend}}`]: 8,
      [`lb_backend_connect_attempts_total{${backend}}`]: 16,
      [`lb_backend_connect_failures_total{${backend},reason="refused"}`]: 3,
      [`lb_backend_connect_failures_total{${backend},reason="timeout"}`]: 2,
      [`lb_backend_connect_failures_total{${backend},reason="failed"}`]: 1,
      [`lb_backend_retries_total{${backend}}`]: 4,
      [`lb_backend_sent_bytes_total{${backend}}`]: 111,
      [`lb_backend_received_bytes_total{${backend}}`]: 222,
      [`lb_backend_health_checks_total{${backend},result="success"}`]: 20,
      [`lb_backend_health_checks_total{${backend},result="failure"}`]: 3,
      [`lb_backend_health_check_failures_total{${backend},reason="refused"}`]: 2,
      [`lb_backend_health_check_failures_total{${backend},reason="tls"}`]: 0,
      'lb_worker_connections_total{worker="0"}': 30,
      'lb_worker_connections_open{worker="1"}': 3,
      'lb_worker_received_bytes_total{worker="0"}': 1000,
      'lb_worker_sent_bytes_total{worker="0"}': 2000,
      'lb_worker_restarts_total{worker="0"}': 1,
      'lb_worker_log_lines_lost_total{worker="0"}': 5,
    };
    for (const [name, value] of Object.entries(expected)) expect(values.get(name), name).toBe(value);
  });

  test("show every end of the closed list, with 0 if it has not occurred", () => {
    const ended = (end: string, by: string) =>
      values.get(`lb_listener_connections_ended_total{listener="web",end="${end}",end_by="${by}"}`);
    for (const end of END_NAMES) {
      const counts = ["client", "backend", "lb"].map((by) => ended(end, by)).filter((count) => count !== undefined);
      expect(counts.length, end).toBeGreaterThan(0);
    }
    expect(ended("eof", "client")).toBe(30);
    expect(ended("eof", "backend")).toBe(0);
    expect(ended("connect_refused", "backend")).toBe(2);
    // An unusual combination is shown only when it is observed.
    expect(ended("idle_timeout", "client")).toBe(1);
    expect(ended("idle_timeout", "backend")).toBeUndefined();
  });

  test("give the connect times as cumulative buckets in seconds", () => {
    const labels = `pool="app",backend="app.example:80",address="10.0.0.2:80"`;
    const name = "lb_backend_connect_duration_seconds";
    const bucket = (le: string) => values.get(`${name}_bucket{${labels},le="${le}"}`);
    expect(bucket("0.00025")).toBe(1);
    expect(bucket("0.0005")).toBe(2);
    expect(bucket("0.1")).toBe(9);
    expect(bucket("5")).toBe(9);
    expect(bucket("+Inf")).toBe(10);
    expect(values.get(`${name}_count{${labels}}`)).toBe(10);
    expect(values.get(`${name}_sum{${labels}}`)).toBe(6.25);
  });

  test("leave out what there is not, instead of a 0", () => {
    const { process, pools, ...rest } = filledSnapshot();
    const [pool] = pools;
    const without = prometheusText({
      ...rest,
      process: { ...process, open_files: null },
      admin: { certificate: null },
      otel: null,
      pools: [{ ...pool!, queue: null, hash_table_fingerprint: null, backends: [] }],
    });
    const missing = [
      "process_open_fds",
      "lb_admin_certificate_expiry_timestamp_seconds",
      "lb_otel_exports_total",
      "lb_otel_log_records_lost_total",
      "lb_pool_queue_connections",
      "lb_pool_hash_table_fingerprint",
      "lb_backend_up",
    ];
    for (const name of missing) {
      expect(text).toMatch(new RegExp(`^${name}[ {]`, "m"));
      expect(without).not.toMatch(new RegExp(`^${name}[ {]`, "m"));
    }
  });

  test.each(["ready", "drain", "maint"] as const)("count a backend as drained if its agent says so: %s", (state) => {
    const { pools, ...rest } = filledSnapshot();
    const [pool] = pools;
    const backends = pool!.backends.map((backend) => {
      const agent = { up: true, state, percent: 100, last_error: null };
      return { ...backend, state: "ready" as const, health: { ...backend.health, agent } };
    });
    const found = series(prometheusText({ ...rest, pools: [{ ...pool!, backends }] }));
    const drained = [...found].flatMap(([name, value]) => (name.startsWith("lb_backend_drained{") ? value : []));
    expect(drained).toEqual(backends.map(() => (state === "ready" ? 0 : 1)));
  });

  test("escape backslashes, quotes and line feeds in labels", () => {
    const snapshot = filledSnapshot();
    snapshot.version = 'a\\b"c\nd';
    expect(prometheusText(snapshot)).toContain('lb_build_info{version="a\\\\b\\"c\\nd"} 1\n');
  });

  test("have a HELP and a TYPE line each, before their samples, also without samples", () => {
    const snapshot = { ...filledSnapshot(), pools: [], listeners: [], workers: [] };
    for (const shown of [text, prometheusText(snapshot)]) {
      for (const { name, type } of METRICS) {
        expect(shown).toMatch(new RegExp(`^# HELP ${name} \\S.*\\n# TYPE ${name} ${type}$`, "m"));
      }
    }
    expect(text.endsWith("\n")).toBe(true);
  });

  const hasPromtool = spawnSync("promtool", ["--version"]).status === 0;
  test.skipIf(!hasPromtool)("pass promtool check metrics without a complaint (needs promtool)", () => {
    const { status, stdout, stderr } = spawnSync("promtool", ["check", "metrics"], { input: text, encoding: "utf8" });
    expect(stdout + stderr).toBe("");
    expect(status).toBe(0);
  });
});

test("docs/metrics.md lists exactly the existing metrics", () => {
  const page = readFileSync(join(import.meta.dirname, "../../docs/metrics.md"), "utf8");
  const rows = page.split("\n").filter((line) => line.startsWith("| `"));
  const cells = rows.map((row) => row.split("|").map((cell) => cell.trim().replaceAll("`", "")));
  expect(cells.map(([, name, type, labels, help]) => ({ name, type, labels, help }))).toEqual(
    METRICS.map(({ name, type, labels, help }) => ({ name, type, labels: labels.join(", "), help })),
  );
});
