// A listener in one generation of the config, as one worker sees it: what it expects of clients, where they are routed, and the limits that
// admission.ts enforces.
import { cidrHasAt } from "../core/cidr-set.ts";
import { addressAt, isUnixPeerAt } from "../core/address.ts";
import { ClientPrefix } from "../core/client-prefix.ts";
import type { ListenerPlan, RoutePlan } from "../messages.ts";
import type { ServerTls } from "../platform/bun.ts";
import { ownSockets } from "../platform/sockets.ts";
import { chooseRoute } from "../policy/route.ts";
import { bucketSize, tokenIntervalNs } from "../policy/token-bucket.ts";
import { ClientTable, type ClientLimits } from "../shared/clients.ts";
import { LISTENER } from "../shared/counters.ts";
import { ROW, ROW_WORDS } from "../shared/ledger.ts";
import { ListenerBandwidth } from "./listener-bandwidth.ts";
import type { Pool } from "./pool.ts";
import type { TlsServer } from "./tls-server.ts";

/** Connections keep the listener with which they began. */
export class Listener {
  readonly plan: ListenerPlan;
  readonly pool: Pool | null;
  /** This worker's row of LISTENER.size cells. */
  readonly counters: Float64Array;
  readonly clients: ClientTable | null;
  readonly routes: readonly RoutePlan[];
  readonly tls: TlsServer | null;
  /**
   * How the listening socket itself speaks TLS; null = it does not. It does if the client has no influence on the handshake: no PROXY
   * header before it, and only one choice of certificates. This needs lb's own sockets, because a change of certificates must keep their
   * accept queues.
   */
  readonly acceptsTls: ServerTls | null;
  readonly #pools: ReadonlyMap<number, Pool>;
  readonly #readsHello: boolean;
  /** The limits per client; null = none. */
  readonly limits: ClientLimits | null;
  /** A limit is enforced for which each client needs its entry in the table. */
  readonly needsEntry: boolean;
  /** null = unlimited. */
  readonly bandwidth: ListenerBandwidth | null;
  /** The prefix that counts as one client. */
  readonly prefix: ClientPrefix;

  /** Throws if the runtime rejects the listener's TLS settings. */
  constructor(plan: ListenerPlan, pools: ReadonlyMap<number, Pool>, tls: TlsServer | null, worker: number) {
    this.plan = plan;
    this.#pools = pools;
    this.pool = pools.get(plan.pool) ?? null;
    this.routes = plan.routes;
    this.tls = tls;
    this.acceptsTls = plan.proxyProtocol === "off" && ownSockets() ? (tls?.only ?? null) : null;
    const asksHello = plan.hashesSni || plan.routes.some(({ sni, alpn }) => sni.length + alpn.length > 0);
    this.#readsHello = this.acceptsTls === null && (tls !== null || asksHello);
    this.counters = plan.counters.subarray(worker * LISTENER.size, (worker + 1) * LISTENER.size);
    this.clients = plan.clients === null ? null : new ClientTable(plan.clients);
    const { bandwidth, dryRun } = plan;
    this.limits = clientLimits(plan);
    this.needsEntry =
      (plan.maxConnectionsPerClient > 0 && !dryRun.includes("max_connections_per_client")) ||
      (plan.rateLimit !== null && !dryRun.includes("rate_limit")) ||
      (bandwidth?.per === "client" && !dryRun.includes("bandwidth"));
    this.bandwidth = bandwidth && new ListenerBandwidth(bandwidth, dryRun.includes("bandwidth"));
    this.prefix = new ClientPrefix(plan.clientPrefix);
  }

  /** Whether bytes of the client must be read before the route is known. */
  get readsHello(): boolean {
    return this.#readsHello;
  }

  /** What the peer whose address is in the row sends first, by the listener's setting and its trusted proxies. */
  expectsProxyHeader(words: Int32Array, row: number): "no" | "optional" | "required" | "untrusted" {
    const { proxyProtocol, trustedProxies } = this.plan;
    if (proxyProtocol === "off") return "no";
    const at = row * ROW_WORDS + ROW.address;
    // The file's mode decides who may connect to a unix socket, so such a peer is trusted.
    const trusted = isUnixPeerAt(words, at) || (trustedProxies !== null && cidrHasAt(trustedProxies, words, at));
    if (trusted) return proxyProtocol;
    return proxyProtocol === "required" ? "untrusted" : "no";
  }

  /** The pool of the first route that matches the client whose address is in the row, else the listener's pool. */
  routeFor(words: Int32Array, row: number, sni: string, alpn: readonly string[]): Pool | null {
    const [w0, w1, w2, w3] = addressAt(words, row * ROW_WORDS + ROW.address);
    const chosen = chooseRoute(this.routes, {
      sni: sni === "" ? null : sni,
      alpn,
      w0,
      w1,
      w2,
      w3,
    });
    return chosen < 0 ? this.pool : (this.#pools.get(chosen) ?? null);
  }
}

function clientLimits({ maxConnectionsPerClient, rateLimit, bandwidth, dryRun }: ListenerPlan): ClientLimits | null {
  const holds = bandwidth?.per === "client";
  if (maxConnectionsPerClient === 0 && rateLimit === null && !holds) return null;
  const intervalNs = rateLimit === null ? 0 : tokenIntervalNs(rateLimit.rate);
  return {
    maxOpen: maxConnectionsPerClient,
    intervalNs,
    burst: rateLimit === null ? 1 : bucketSize(rateLimit.burst, intervalNs),
    holds,
    dryRunOpen: dryRun.includes("max_connections_per_client"),
    dryRunRate: dryRun.includes("rate_limit"),
  };
}
