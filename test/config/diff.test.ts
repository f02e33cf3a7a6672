import { expect, it } from "vitest";
import { summarize } from "../../src/config/diff.ts";
import { parseConfig } from "../../src/config/load.ts";
import type { Config } from "../../src/config/schema.ts";

function config(text: string, token = "a"): Config {
  const result = parseConfig(text, { file: "lb.toml", env: {}, readFile: () => new TextEncoder().encode(token) });
  if (!result.ok) throw new Error(JSON.stringify(result.problems));
  return result.config;
}

const base = `
[listeners.web]
bind = ":8080"
pool = "app"
[pools.app]
backends = ["10.0.0.1:80", { address = "10.0.0.2:80", name = "big" }]
`;

it("says nothing where nothing means anything else", () => {
  expect(summarize(config(base), config(`${base}retries = 2 # the default\n`))).toEqual([]);
});

it("names the options that changed, those of sections too", () => {
  const next = base
    .replace("pool =", 'rate_limit.rate = "1/s"\ntimeouts.idle = "1h"\npool =')
    .replace("[listeners", 'workers = 2\nlog.access = "off"\nadmin.bind = "unix:a.sock"\n[listeners');
  expect(summarize(config(base), config(next))).toEqual([
    "workers changed",
    "admin.bind changed",
    "log.access changed",
    "listeners.web: rate_limit changed",
    "listeners.web: timeouts.idle changed",
  ]);
});

it("names backends that came, went and changed", () => {
  const next = base.replace('"10.0.0.1:80"', '"10.0.0.3:80"').replace('name = "big"', 'name = "big", weight = 3');
  expect(summarize(config(base), config(next))).toEqual([
    "pools.app: backend 10.0.0.3:80 added",
    "pools.app: backend big: weight changed",
    "pools.app: backend 10.0.0.1:80 removed",
  ]);
  const moved = base.replace("10.0.0.2", "10.0.0.9");
  expect(summarize(config(base), config(moved))).toEqual(["pools.app: backend big: address changed"]);
});

it("names listeners and pools that came and went", () => {
  const next = base.replaceAll("web", "api").replaceAll("app", "other");
  expect(summarize(config(base), config(next))).toEqual([
    "listeners.api: added",
    "listeners.web: removed",
    "pools.other: added",
    "pools.app: removed",
  ]);
});

it("tells that the token changed, and not what it is", () => {
  const text = `admin.token_file = "t"\n${base}`;
  expect(summarize(config(text, "old-token"), config(text, "new-token"))).toEqual(["admin.token changed"]);
});
