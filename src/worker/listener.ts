// A listener in one generation of the config, as one worker sees it: what it expects of clients, where they go, and the limits
// that admission.ts enforces.
import { cidrHasAt } from "../core/cidr-set.ts";
import { addressAt, isIPv4, isUnixPeerAt, maskWord, type Address } from "../core/address.ts";
import type { HashKeyName } from "../core/balance.ts";
import { hashText, hashWords } from "../core/hash.ts";
import type { ListenerPlan, RoutePlan } from "../messages.ts";
import type { ServerTls } from "../platform/bun.ts";
import { ownSockets } from "../platform/sockets.ts";
import { chooseRoute } from "../policy/route.ts";
import { tokenIntervalNs } from "../policy/token-bucket.ts";
import { ClientTable, type ClientLimits } from "../shared/clients.ts";
import { LISTENER } from "../shared/counters.ts";
import { ROW, ROW_WORDS } from "../shared/ledger.ts";
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
  /** What one client may have. */
  readonly limits: ClientLimits;
  readonly #masksIPv4: Address;
  readonly #masksIPv6: Address;

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
    this.limits = {
      maxOpen: plan.maxConnectionsPerClient,
      intervalNs: plan.rateLimit === null ? 0n : tokenIntervalNs(plan.rateLimit.rate),
      burst: plan.rateLimit?.burst ?? 1,
    };
    this.#masksIPv4 = masksOf(96 + plan.clientPrefix.ipv4);
    this.#masksIPv6 = masksOf(plan.clientPrefix.ipv6);
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

  /**
   * Hash of what source_hash goes by, an unsigned 32-bit number that is the same on every machine: the client whose address stands
   * in the row, by `client_prefix`, with its port for "client_port", or the name of the ClientHello, where there is one.
   */
  hashOf(words: Int32Array, row: number, by: HashKeyName, sni: string): number {
    if (by === "sni" && sni !== "") return hashText(sni.toLowerCase(), 0);
    const at = row * ROW_WORDS + ROW.address;
    const port = by === "client_port" ? words[at + 4]! : 0;
    const client = this.clientPrefix(words, at);
    hashWords(UNKEYED, port, client.w0, client.w1, client.w2, client.w3, hashed);
    return hashed[0]! >>> 0;
  }

  /** The client's address in the cells from `at`, of which only the bits of `client_prefix` are left. Good until the next call. */
  clientPrefix(words: Int32Array, at: number): typeof prefix {
    const masks = isIPv4(words[at]!, words[at + 1]!, words[at + 2]!) ? this.#masksIPv4 : this.#masksIPv6;
    prefix.w0 = words[at]! & masks[0];
    prefix.w1 = words[at + 1]! & masks[1];
    prefix.w2 = words[at + 2]! & masks[2];
    prefix.w3 = words[at + 3]! & masks[3];
    return prefix;
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

/** A client gains nothing by choosing its hash: it chooses its backend only. */
const UNKEYED = new Int32Array(2);
const hashed = new Int32Array(2);

/** The masked words of a client's address, for one call at a time. */
const prefix = { w0: 0, w1: 0, w2: 0, w3: 0 };

/** The four words of the mask of a prefix. */
function masksOf(bits: number): Address {
  return [maskWord(-1, bits), maskWord(-1, bits - 32), maskWord(-1, bits - 64), maskWord(-1, bits - 96)];
}
