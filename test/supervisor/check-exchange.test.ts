import { expect, test } from "vitest";
import { tlsOfChecks } from "../../src/supervisor/check-exchange.ts";
import { configOf } from "../support/config.ts";

const PLAIN = "";
const TLS = "tls = { verify = false }";

function when(health: string, tls: string): string {
  const toml = `listeners.web = { bind = ":1", pool = "p" }\n[pools.p]\nbackends = ["10.0.0.1:1"]\nhealth = { ${health} }\n${tls}`;
  return tlsOfChecks(configOf(toml).pools[0]!);
}

test.each([
  ['type = "tcp"', PLAIN, "never"],
  ['type = "tcp"', TLS, "never"],
  ['type = "tls"', PLAIN, "first"],
  ['type = "http"', PLAIN, "never"],
  ['type = "http", tls = true', PLAIN, "first"],
  // Like connections; but another port is another service.
  ['type = "http"', TLS, "first"],
  ['type = "http", port = 8008', TLS, "never"],
  ['type = "http", port = 8008, tls = true', TLS, "first"],
  ['type = "redis"', TLS, "first"],
  ['type = "postgres"', PLAIN, "asked"],
  ['type = "postgres", tls = true', PLAIN, "asked"],
  ['type = "postgres"', TLS, "first"],
  ['type = "postgres", port = 6432', TLS, "asked"],
  ['type = "ssh", tls = true', PLAIN, "never"],
  ['type = "mysql"', TLS, "first"],
])("{ %s } with %j speaks TLS: %s", (health, tls, expected) => {
  expect(when(health, tls)).toBe(expected);
});
