// The metrics in packaging/: the alerts in the real promtool, and that lb has every metric that is named.
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { grafanaText } from "../scripts/grafana.ts";
import { METRICS } from "../src/observe/metrics.ts";
import { missingOf } from "./support/server.ts";

const packaging = join(import.meta.dirname, "../packaging");

test("the alerts fire and stay quiet as their tests say, in promtool", async (context) => {
  const missing = await missingOf("promtool");
  if (missing !== null) return context.skip(missing);
  const { status, stdout, stderr } = spawnSync("promtool", ["test", "rules", "lb.rules.test.yml"], {
    cwd: join(packaging, "prometheus"),
    encoding: "utf8",
  });
  expect({ status, said: `${stdout}${stderr}` }).toEqual({ status: 0, said: expect.stringContaining("SUCCESS") });
});

test("every alert has a test", () => {
  const names = (file: string, pattern: RegExp): Set<string> => {
    const text = readFileSync(join(packaging, "prometheus", file), "utf8");
    return new Set([...text.matchAll(pattern)].map(([, name]) => name!));
  };
  expect(names("lb.rules.test.yml", /alertname: (\w+)/g)).toEqual(names("lb.rules.yml", /alert: (\w+)/g));
});

test("the Grafana dashboard is the generated one", () => {
  expect(readFileSync(join(packaging, "grafana/lb.json"), "utf8")).toBe(grafanaText());
});

test.each(["prometheus/lb.rules.yml", "grafana/lb.json"])("every metric in %s exists", (file) => {
  const known = new Set(METRICS.map(({ name }) => name));
  const text = readFileSync(join(packaging, file), "utf8");
  const named = [...text.matchAll(/\b(?:lb|process)_[a-z_]+/g)]
    .map(([name]) => name.replace(/_bucket$/, ""))
    .filter((name) => name !== "process_full");
  expect(named.length).toBeGreaterThan(10);
  expect(named.filter((name) => !known.has(name))).toEqual([]);
});
