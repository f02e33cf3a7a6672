// What one check of a backend does, according to the config of its pool: its destination, TLS or not, and the exchange.
import { formatHostPort, parseAddress, parseEndpoint, type Endpoint } from "../core/address.ts";
import type { PoolConfig } from "../config/schema.ts";
import { ownSockets, sockaddr } from "../platform/sockets.ts";
import type { TlsClient, TlsClientPlan } from "../platform/tls-client.ts";
import type { Exchange } from "../wire/exchange.ts";
import { proxyHeaderV1, proxyHeaderV2 } from "../wire/proxy-protocol.ts";
import { exchangeOf, tlsOfChecks } from "./check-exchange.ts";
import { clientTlsPlan, hostOf } from "./plans.ts";
import type { ProbeSpec } from "./probe.ts";
import type { BackendRecord } from "./registry.ts";

const UNVERIFIED: TlsClientPlan = {
  verify: false,
  ca: null,
  serverName: "",
  alpn: [],
  minVersion: "1.2",
  cert: null,
  key: null,
};

/**
 * The TLS settings of a pool's checks, or null. They are those of the pool; if the pool does not use TLS, a check over TLS verifies
 * nothing.
 */
export function tlsPlan(config: PoolConfig): TlsClientPlan | null {
  const when = tlsOfChecks(config);
  if (when === "never") return null;
  const plan = config.tls === null || when === "asked" ? UNVERIFIED : clientTlsPlan(config.tls);
  if (config.health.type !== "http") return plan;
  const serverName = plan.serverName || config.health.host.replace(/:\d+$/, "");
  return { ...plan, serverName, alpn: ["http/1.1"] };
}

/** Specifies a check of the backend's health. */
export function healthSpec(backend: BackendRecord, config: PoolConfig, tls: TlsClient | null): ProbeSpec {
  const { health } = config;
  const to = destination(backend, health.port);
  const header = proxyHeader(config.send_proxy);
  const when = tlsOfChecks(config);
  const exchange = exchangeOf(config, urlHost(backend, to, when === "first" ? 443 : 80));
  return {
    ...plainSpec(to, config, exchange),
    // After a TLS handshake a reset is worse for the backend than an orderly end.
    visibility: health.type === "tcp" && header.length === 0 && ownSockets() ? "unseen" : "visible",
    header,
    tls:
      when === "never" || tls === null ? null : { client: tls, host: hostOf(backend), address: backend.address, when },
  };
}

/** Whether the backend has an agent. A unix socket has none, because it has no address to combine with the port. */
export function hasAgent({ address }: BackendRecord, { agent_port }: PoolConfig["health"]): boolean {
  return agent_port > 0 && parseEndpoint(address).kind === "ip";
}

/** Specifies a request to the backend's agent. */
export function agentSpec(backend: BackendRecord, config: PoolConfig, exchange: Exchange): ProbeSpec {
  return plainSpec(destination(backend, config.health.agent_port), config, exchange);
}

function plainSpec(to: Endpoint, { health, source_address }: PoolConfig, exchange: Exchange): ProbeSpec {
  const source = source_address === "" ? null : parseAddress(source_address);
  return {
    to: { endpoint: to, sockaddr: sockaddr(to) },
    source: source === null ? null : sockaddr({ kind: "ip", address: source, port: 0 }),
    timeoutMs: health.timeout,
    visibility: "visible",
    header: NO_HEADER,
    tls: null,
    exchange,
  };
}

/** `port` 0 = the backend's own port. */
function destination(backend: BackendRecord, port: number): Endpoint {
  const endpoint = parseEndpoint(backend.address);
  if (endpoint.kind === "bad") throw new Error(`${backend.address}: ${endpoint.why}`);
  return endpoint.kind === "ip" && port > 0 ? { ...endpoint, port } : endpoint;
}

/** Host and port in the form of a URL, without the scheme's default port. */
function urlHost(backend: BackendRecord, to: Endpoint, schemePort: number): string {
  if (to.kind !== "ip") return "localhost";
  const name = hostOf(backend);
  const full = name === "" ? formatHostPort(to.address, to.port) : `${name}:${to.port}`;
  return to.port === schemePort ? full.slice(0, full.lastIndexOf(":")) : full;
}

const NO_HEADER = new Uint8Array(0);

function proxyHeader(version: PoolConfig["send_proxy"]): Uint8Array {
  switch (version) {
    case "off":
      return NO_HEADER;
    case "v1":
      return proxyHeaderV1(null, null);
    case "v2":
      return proxyHeaderV2({ command: "local", source: null, destination: null });
  }
}
