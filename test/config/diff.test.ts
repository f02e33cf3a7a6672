import { readFileSync } from "node:fs";
import { basename } from "node:path";
import { describe, expect, it } from "vitest";
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

it("reports nothing if both configs mean the same", () => {
  expect(summarize(config(base), config(`${base}retries = 2 # the default\n`))).toEqual([]);
});

it("names the changed options, including those of sections", () => {
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

it("names backends that were added, removed and changed", () => {
  const next = base.replace('"10.0.0.1:80"', '"10.0.0.3:80"').replace('name = "big"', 'name = "big", weight = 3');
  expect(summarize(config(base), config(next))).toEqual([
    "pools.app: backend 10.0.0.3:80 added",
    "pools.app: backend big: weight changed",
    "pools.app: backend 10.0.0.1:80 removed",
  ]);
  const moved = base.replace("10.0.0.2", "10.0.0.9");
  expect(summarize(config(base), config(moved))).toEqual(["pools.app: backend big: address changed"]);
});

it("names listeners and pools that were added and removed", () => {
  const next = base.replaceAll("web", "api").replaceAll("app", "other");
  expect(summarize(config(base), config(next))).toEqual([
    "listeners.api: added",
    "listeners.web: removed",
    "pools.other: added",
    "pools.app: removed",
  ]);
});

it("reports that the token changed, without showing it", () => {
  const text = `admin.token_file = "t"\n${base}`;
  expect(summarize(config(text, "old-token"), config(text, "new-token"))).toEqual(["admin.token changed"]);
});

describe("TLS", () => {
  /** `files` maps names to fixtures. */
  function withTls(tls: string, files: Record<string, string> = {}, pool = ""): Config {
    const fixture = (path: string) => files[path] ?? files[basename(path)] ?? basename(path);
    const text = `${base}${pool}[listeners.web.tls]\n${tls}`;
    const result = parseConfig(text, {
      file: "/lb/lb.toml",
      env: {},
      readFile: (path) => readFileSync(new URL(`fixtures/${fixture(path)}`, import.meta.url)),
    });
    if (!result.ok) throw new Error(JSON.stringify(result.problems));
    return result.config;
  }
  const site = '{ cert = "site.pem", key = "site.key" }';
  const other = '{ cert = "other.pem", key = "other.key" }';
  const rsa = { "site.pem": "site-rsa.pem", "site.key": "site-rsa.key" };

  it("names a certificate that changed on disk, without its content", () => {
    const tls = `certificates = [${site}, ${other}]`;
    expect(summarize(withTls(tls), withTls(tls))).toEqual([]);
    expect(summarize(withTls(tls), withTls(tls, rsa))).toEqual(["listeners.web: certificate site.pem changed"]);
    // The same certificate with another chain.
    expect(summarize(withTls(tls), withTls(tls, { "site.pem": "gap.pem" }))).toEqual([
      "listeners.web: certificate site.pem changed",
    ]);
  });

  it("names certificates that were added and removed, with their paths if their names are equal", () => {
    const a = '{ cert = "a/site.pem", key = "site.key" }';
    const old = withTls(`certificates = [${site}]`);
    expect(summarize(old, withTls(`certificates = [${other}]`))).toEqual([
      "listeners.web: certificate other.pem added",
      "listeners.web: certificate site.pem removed",
    ]);
    expect(summarize(old, withTls(`certificates = [${site}, ${a}]`))).toEqual([
      "listeners.web: certificate /lb/a/site.pem added",
    ]);
    expect(
      summarize(withTls(`certificates = [${site}, ${other}]`), withTls(`certificates = [${other}, ${site}]`)),
    ).toEqual(["listeners.web: certificates in another order"]);
  });

  it("names other changes in its files, once", () => {
    const tls = `certificates = [${site}]\nclient_auth = "required"\nclient_ca = "ca.pem"\nclient_crl = "clients.crl"`;
    const pool = '[pools.app.tls]\nca = "ca.pem"\ncert = "other.pem"\nkey = "other.key"\n';
    const next = { "ca.pem": "site.pem", "clients.crl": "old.crl", "other.pem": "cn-only.pem" };
    expect(summarize(withTls(tls, {}, pool), withTls(tls, next, pool))).toEqual([
      "listeners.web: tls.client_ca changed",
      "listeners.web: tls.client_crl changed",
      "pools.app: tls.ca changed",
      "pools.app: tls.cert changed",
    ]);
    const elsewhere = tls.replace('"ca.pem"', '"site.pem"');
    expect(summarize(withTls(tls), withTls(elsewhere))).toEqual(["listeners.web: tls.client_ca changed"]);
  });

  it("reports that TLS is enabled or disabled", () => {
    const lines = [summarize(config(base), withTls(`certificates = [${site}]`))];
    lines.push(summarize(withTls(`certificates = [${site}]`), config(base)));
    expect(lines).toEqual([["listeners.web: tls changed"], ["listeners.web: tls changed"]]);
  });
});

it("names routes and trusted proxies", () => {
  const next = base.replace("pool =", 'proxy_protocol = "required"\ntrusted_proxies = ["10.0.0.0/8"]\npool =');
  const routes = '[[listeners.web.routes]]\nsni = ["a.example"]\npool = "app"\n';
  expect(summarize(config(base), config(next + routes))).toEqual([
    "listeners.web: proxy_protocol changed",
    "listeners.web: trusted_proxies changed",
    "listeners.web: routes changed",
  ]);
});
