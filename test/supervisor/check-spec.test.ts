import { describe, expect, test } from "vitest";
import { parseAddress } from "../../src/core/address.ts";
import { sockaddr } from "../../src/platform/sockets.ts";
import { TlsClient } from "../../src/platform/tls-client.ts";
import { agentSpec, hasAgent, healthSpec, tlsPlan } from "../../src/supervisor/check-spec.ts";
import type { ProbeSpec } from "../../src/supervisor/probe.ts";
import { Registry, type BackendRecord, type PoolRecord } from "../../src/supervisor/registry.ts";
import { connectOnly } from "../../src/wire/exchange.ts";
import { proxyHeaderV1, proxyHeaderV2 } from "../../src/wire/proxy-protocol.ts";
import { configOf } from "../support/config.ts";
import { endpoint } from "../support/endpoints.ts";

/** A pool with these settings and one backend; "app.example" resolves to 10.0.0.7. */
function poolOf(settings: string, address = "10.0.0.1:8080"): { pool: PoolRecord; backend: BackendRecord } {
  const registry = new Registry();
  const toml = `[listeners.web]\nbind = ":8080"\npool = "p"\n[pools.p]\nbackends = ["${address}"]\n${settings}\n`;
  registry.commit(registry.draft(configOf(toml), 1000, () => [parseAddress("10.0.0.7")!]));
  const [pool] = registry.pools;
  return { pool: pool!, backend: pool!.backends[0]! };
}

function specOf(settings: string, address?: string): ProbeSpec {
  const { pool, backend } = poolOf(settings, address);
  const plan = tlsPlan(pool.config);
  return healthSpec(backend, pool.config, plan && new TlsClient(plan));
}

function hostField(settings: string, address?: string): string {
  const step = specOf(settings, address).exchange.begin();
  if (step.is !== "more" || step.send === null) throw new Error("it sends no request");
  return /\r\nHost: (.*)\r\n/.exec(new TextDecoder().decode(step.send))![1]!;
}

describe("the TLS of checks", () => {
  const plan = (settings: string) => tlsPlan(poolOf(settings).pool.config);

  test("is none for a check that does not use it", () => {
    expect(plan('health = { type = "tcp" }')).toBeNull();
    expect(plan('health = { type = "http" }')).toBeNull();
  });

  test("is the pool's own if its connections use TLS", () => {
    expect(
      plan('health = { type = "tls" }\ntls = { server_name = "a.example", min_version = "1.3", alpn = ["h2"] }'),
    ).toMatchObject({
      verify: true,
      serverName: "a.example",
      minVersion: "1.3",
      alpn: ["h2"],
    });
  });

  test("verifies nothing if the pool does not use TLS, or if the exchange asks for it", () => {
    expect(plan('health = { type = "tls" }')).toMatchObject({ verify: false, serverName: "", alpn: [] });
    expect(plan('health = { type = "postgres" }')).toMatchObject({ verify: false });
  });

  test("offers http/1.1 in an HTTP check, with the name in its Host field if the pool sets none", () => {
    const health = 'health = { type = "http", tls = true, host = "b.example:8443" }';
    expect(plan(health)).toMatchObject({ serverName: "b.example", alpn: ["http/1.1"] });
    expect(plan(`${health}\ntls = { server_name = "a.example", alpn = ["h2"] }`)).toMatchObject({
      serverName: "a.example",
      alpn: ["http/1.1"],
    });
  });
});

describe("a health check", () => {
  test("goes to the backend's own port, or to the port of the checks", () => {
    for (const [settings, to] of [
      ['health = { type = "tcp" }', "10.0.0.1:8080"],
      ['health = { type = "tcp", port = 9000 }', "10.0.0.1:9000"],
    ] as const) {
      expect(specOf(settings).to).toEqual({ endpoint: endpoint(to), sockaddr: sockaddr(endpoint(to)) });
    }
    expect(specOf('health = { type = "tcp" }', "unix:/run/a.sock").to.endpoint).toEqual(endpoint("unix:/run/a.sock"));
  });

  test("by a TCP connect is invisible to the backend, unless the pool sends a PROXY header", () => {
    expect(specOf('health = { type = "tcp" }')).toMatchObject({
      visibility: "unseen",
      tls: null,
      exchange: connectOnly,
    });
    expect(specOf('health = { type = "tcp" }\nsend_proxy = "v1"').visibility).toBe("visible");
    expect(specOf('health = { type = "tls" }').visibility).toBe("visible");
  });

  test("says in its PROXY header that the connection is lb's own", () => {
    const header = (version: string): Uint8Array =>
      specOf(`health = { type = "tcp" }\nsend_proxy = "${version}"`).header;
    expect(header("off")).toHaveLength(0);
    expect(header("v1")).toEqual(proxyHeaderV1(null, null));
    expect(header("v2")).toEqual(proxyHeaderV2({ command: "local", source: null, destination: null }));
  });

  test("has the timeout of the checks and the source address of the pool, with any port", () => {
    const spec = specOf('health = { type = "tcp", timeout = "700ms" }\nsource_address = "127.0.0.9"');
    expect(spec.timeoutMs).toBe(700);
    expect(spec.source).toEqual(sockaddr(endpoint("127.0.0.9:0")));
    expect(specOf('health = { type = "tcp" }').source).toBeNull();
  });

  test("does its TLS handshake under the backend's name, first or when the exchange asks for it", () => {
    const first = specOf('health = { type = "tls" }', "app.example:443").tls;
    expect(first).toMatchObject({ host: "app.example", address: "10.0.0.7:443", when: "first" });
    expect(specOf('health = { type = "postgres" }').tls).toMatchObject({ host: "", when: "asked" });
  });
});

describe("the Host field of an HTTP check", () => {
  const HTTP = 'health = { type = "http" }';
  const HTTPS = 'health = { type = "http", tls = true }';

  test.each([
    ["the host name of the config with the port", HTTP, "app.example:8080", "app.example:8080"],
    ["the address without a host name", HTTP, "10.0.0.1:8080", "10.0.0.1:8080"],
    ["the address in brackets", HTTP, "[2001:db8::1]:8080", "[2001:db8::1]:8080"],
    ["no port if it is HTTP's", HTTP, "app.example:80", "app.example"],
    ["no port if it is HTTPS's", HTTPS, "[2001:db8::1]:443", "[2001:db8::1]"],
    ["the port of the other scheme", HTTPS, "app.example:80", "app.example:80"],
    ["the port of the checks", 'health = { type = "http", port = 80 }', "app.example:8080", "app.example"],
    ["localhost for a unix socket", HTTP, "unix:/run/a.sock", "localhost"],
    ["the configured host", 'health = { type = "http", host = "b.example" }', "app.example:80", "b.example"],
  ])("has %s", (_, settings, address, expected) => {
    expect(hostField(settings, address)).toBe(expected);
  });
});

describe("the agent of a backend", () => {
  const AGENT = 'health = { type = "tcp", agent_port = 8081, timeout = "700ms" }';

  test("exists if the pool has a port for it and the backend has an IP address", () => {
    const has = (settings: string, address?: string): boolean => {
      const { pool, backend } = poolOf(settings, address);
      return hasAgent(backend, pool.config.health);
    };
    expect(has(AGENT)).toBe(true);
    expect(has(AGENT, "app.example:80")).toBe(true);
    expect(has('health = { type = "tcp" }')).toBe(false);
    expect(has(AGENT, "unix:/run/a.sock")).toBe(false);
  });

  test("is asked at its port, without TLS and without a PROXY header", () => {
    const { pool, backend } = poolOf(`${AGENT}\nsend_proxy = "v2"\ntls = { verify = false }`);
    expect(agentSpec(backend, pool.config, connectOnly)).toMatchObject({
      to: { endpoint: endpoint("10.0.0.1:8081") },
      timeoutMs: 700,
      visibility: "visible",
      header: new Uint8Array(0),
      tls: null,
      exchange: connectOnly,
    });
  });
});
