// A listener in one generation of the config, as one worker sees it: what it expects of clients, where they go, and the limits
// that admission.ts enforces.
import { cidrHasAt } from "../core/cidr-set.ts";
import { addressAt, isUnixPeerAt } from "../core/address.ts";
import { ClientPrefix } from "../core/client-prefix.ts";
import type { ListenerPlan, RoutePlan } from "../messages.ts";
import type { ServerTls } from "../platform/bun.ts";
import { ownSockets } from "../platform/sockets.ts";
import { chooseRoute } from "../policy/route.ts";
import { tokenIntervalNs } from "../policy/token-bucket.ts";
import { ClientTable, type ClientLimits } from "../shared/clients.ts";
import { LISTENER } from "../shared/counters.ts";
import { ROW, ROW_WORDS } from "../shared/ledger.ts";
import { ListenerBandwidth } from "./listener-bandwidth.ts";
import type { Pool } from "./pool.ts";
import type { TlsServer } from "./tls-server.ts";

/** Connections keep the one they began with. */
export class Listener {
  readonly plan: ListenerPlan;
  readonly pool: Pool | null;
  /** This worker's row of LISTENER.size cells. */
  readonly counters: Float64Array;
  readonly clients: ClientTable | null;
  readonly routes: readonly RoutePlan[];
  readonly tls: TlsServer | null;
  /**
   * How the listening socket itself speaks TLS; null = it does not. It does where the client has no say in the handshake: no
   * PROXY header before it, and one choice of certificates. Not without sockets of our own, which a change of certificates
   * leaves with their queues.
   */
  readonly acceptsTls: ServerTls | null;
  readonly #pools: ReadonlyMap<number, Pool>;
  readonly #readsHello: boolean;
  /** What one client may have; null = what it likes. */
  readonly limits: ClientLimits | null;
  /** A limit is enforced for which each client needs its entry in the table. */
  readonly needsEntry: boolean;
  /** null = unlimited. */
  readonly bandwidth: ListenerBandwidth | null;
  /** What counts as one client. */
  readonly prefix: ClientPrefix;

  /** Throws where the runtime refuses what the listener's TLS asks for. */
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

  /** Whether anything of the client must be read before the route is known. */
  get readsHello(): boolean {
    return this.#readsHello;
  }

  /** What comes first from the peer whose address stands in the row: by the listener's setting and whom it trusts. */
  expectsProxyHeader(words: Int32Array, row: number): "no" | "optional" | "required" | "untrusted" {
    const { proxyProtocol, trustedProxies } = this.plan;
    if (proxyProtocol === "off") return "no";
    const at = row * ROW_WORDS + ROW.address;
    // Who may connect to a unix socket is decided by the file's mode: such a peer is trusted.
    const trusted = isUnixPeerAt(words, at) || (trustedProxies !== null && cidrHasAt(trustedProxies, words, at));
    if (trusted) return proxyProtocol;
    return proxyProtocol === "required" ? "untrusted" : "no";
  }

  /** The pool of the first route that takes the client whose address stands in the row, else the listener's. */
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
  return {
    maxOpen: maxConnectionsPerClient,
    intervalNs: rateLimit === null ? 0n : tokenIntervalNs(rateLimit.rate),
    burst: rateLimit?.burst ?? 1,
    holds,
    dryRunOpen: dryRun.includes("max_connections_per_client"),
    dryRunRate: dryRun.includes("rate_limit"),
  };
}
