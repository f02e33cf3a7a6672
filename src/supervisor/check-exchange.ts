// The exchange of a pool's health checks: what it sends and expects, and whether it runs over TLS.
import { TYPES_WITH_TLS } from "../config/check-health.ts";
import type { HealthStep, PoolConfig } from "../config/schema.ts";
import { parseStatusRanges } from "../core/http-status.ts";
import { compilePattern } from "../core/pattern.ts";
import { connectOnly, type Exchange } from "../wire/exchange.ts";
import { HttpCheck } from "../wire/http-check.ts";
import { MysqlCheck } from "../wire/mysql-check.ts";
import { redisExchange, smtpExchange, sshExchange } from "../wire/named-exchanges.ts";
import { PostgresCheck } from "../wire/postgres-check.ts";
import { StepExchange, type Expectation, type ExchangeStep } from "../wire/step-exchange.ts";

/**
 * When a check does a TLS handshake: before anything else ("first"), when its exchange asks for it ("asked"), or never. A check of the port
 * that connections use speaks TLS if they do.
 */
export function tlsOfChecks({ tls, health }: PoolConfig): "first" | "asked" | "never" {
  const { type, port } = health;
  if (type === "off" || type === "tcp") return "never";
  if (type === "tls" || (health.tls && TYPES_WITH_TLS.includes(type)) || (tls !== null && port === 0)) return "first";
  return type === "postgres" ? "asked" : "never";
}

/** A new exchange for one check. `host` is the backend's host and port in the form of a URL. */
export function exchangeOf(config: PoolConfig, host: string): Exchange {
  const { health } = config;
  switch (health.type) {
    case "off":
    case "tcp":
    case "tls":
      return connectOnly;
    case "http":
      return new HttpCheck({ ...health, host: health.host || host, status: parseStatusRanges(health.status) ?? [] });
    case "exchange":
      return new StepExchange(stepsOf(health));
    case "redis":
      return redisExchange(health.role);
    case "smtp":
      return smtpExchange();
    case "ssh":
      return sshExchange();
    case "postgres":
      return new PostgresCheck({ user: health.user, isSecured: tlsOfChecks(config) === "first" });
    case "mysql":
      return new MysqlCheck(health.user);
  }
}

function stepsOf({ steps, send, expect }: PoolConfig["health"]): ExchangeStep[] {
  if (steps.length === 0) return [{ send: textOf(send), expect: bytesExpected(textOf(expect), expect) }];
  return steps.map((step) => ({ send: textOf(step.send) ?? bytesOfHex(step.send_hex), expect: expectationOf(step) }));
}

function expectationOf({ expect, expect_hex, expect_regex }: HealthStep): Expectation | null {
  if (expect_regex !== "") {
    const pattern = compilePattern(expect_regex);
    if ("bad" in pattern) throw new Error(`${expect_regex}: ${pattern.bad}`);
    return { is: "pattern", pattern, words: `/${expect_regex}/` };
  }
  return bytesExpected(textOf(expect), expect) ?? bytesExpected(bytesOfHex(expect_hex), expect_hex);
}

function bytesExpected(bytes: Uint8Array | null, words: string): Expectation | null {
  return bytes && { is: "bytes", bytes, words: JSON.stringify(words) };
}

function textOf(text: string): Uint8Array | null {
  return text === "" ? null : new TextEncoder().encode(text);
}

function bytesOfHex(hex: string): Uint8Array | null {
  return hex === "" ? null : Uint8Array.fromHex(hex.replaceAll(" ", ""));
}
