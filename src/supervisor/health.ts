// Active health checks of every backend, from the supervisor alone: which backends are checked and when, when one goes up or down,
// and what the status shows of each. One check stands in probe.ts, whose turn it is in policy/check-queue.ts.
import { PlanCache } from "../core/plan-cache.ts";
import { formatHostPort, parseAddress, parseEndpoint, type Endpoint } from "../core/address.ts";
import type { PoolConfig } from "../config/schema.ts";
import { ownSockets, sockaddr } from "../platform/sockets.ts";
import { TlsClient, type TlsClientPlan } from "../platform/tls-client.ts";
import { CheckQueue, type Queued } from "../policy/check-queue.ts";
import { isChanging, record, startRiseFall, type RiseFall } from "../policy/rise-fall.ts";
import { proxyHeaderV1, proxyHeaderV2 } from "../wire/proxy-protocol.ts";
import { exchangeOf, tlsOfChecks } from "./check-exchange.ts";
import { Probe, type Outcome, type ProbeOwner, type ProbeSpec } from "./probe.ts";
import { clientTlsPlan, hostOf } from "./plans.ts";
import type { BackendRecord, PoolRecord } from "./registry.ts";

/** Part of the interval by which each is longer or shorter at random. */
const JITTER = 0.1;

/** Between two reports that this machine could not check. */
const UNKNOWN_SAID_EVERY_MS = 60_000;

export interface HealthFacts {
  sinceMs: number;
  success: number;
  failure: number;
  lastError: string | null;
}

export interface HealthOptions {
  /** Checks under way at once: their share of the open files. More wait for their turn. */
  places: number;
  /** A backend went up or down. */
  onChange: (backendId: number, up: boolean, reason: string) => void;
  /** A check could not be made for a reason on this machine; said once a minute at most. */
  onUnknown: (backendId: number, reason: string) => void;
}

/** A pool with what all its checks share. */
interface Checked {
  readonly record: PoolRecord;
  /** The settings of its checks, to see whether a reload has changed them; `question` is those that say what a backend is asked. */
  readonly settings: string;
  readonly question: string;
  /** The TLS of its checks, or null. */
  readonly tls: TlsClient | null;
}

export class HealthChecks {
  readonly #options: HealthOptions;
  readonly #queue: CheckQueue<Check>;
  readonly #checks = new Map<number, Check>();
  #tls: PlanCache<TlsClientPlan, TlsClient> | null = null;
  #unknownSaidMs = -Infinity;

  constructor(options: HealthOptions) {
    this.#options = options;
    this.#queue = new CheckQueue(options.places);
  }

  /** Checks exactly the backends of these pools from now on; those checked before keep their history. */
  follow(pools: readonly PoolRecord[]): void {
    const tls = new PlanCache(TlsClient, this.#tls);
    this.#tls = tls;
    const wanted = new Set<number>();
    for (const record of pools) {
      const { health } = record.config;
      if (health.type === "off") continue;
      const plan = tlsPlan(record.config);
      const pool: Checked = { record, ...settingsOf(health), tls: plan && tls.get(plan) };
      for (const backend of record.backends) {
        wanted.add(backend.id);
        const check = this.#checks.get(backend.id);
        if (check === undefined) this.#checks.set(backend.id, new Check(backend, pool, this));
        else check.reconfigure(backend, pool);
      }
    }
    for (const [id, check] of this.#checks) {
      if (wanted.has(id)) continue;
      this.#checks.delete(id);
      check.stop();
    }
  }

  stop(): void {
    this.follow([]);
  }

  facts(backendId: number): HealthFacts | null {
    return this.#checks.get(backendId)?.facts ?? null;
  }

  // ---------------------------------------------------------------- for the checks

  due(check: Check): void {
    this.#queue.add(check);
    this.#startNext();
  }

  closed(check: Check): void {
    this.#queue.remove(check);
    this.#startNext();
  }

  changed(backendId: number, up: boolean, reason: string): void {
    this.#options.onChange(backendId, up, reason);
  }

  unknown(backendId: number, reason: string): void {
    const nowMs = performance.now();
    if (nowMs < this.#unknownSaidMs + UNKNOWN_SAID_EVERY_MS) return;
    this.#unknownSaidMs = nowMs;
    this.#options.onUnknown(backendId, reason);
  }

  #startNext(): void {
    for (let check = this.#queue.next(); check !== null; check = this.#queue.next()) check.begin();
  }
}

/** The checks of one backend, one after the other. */
class Check implements ProbeOwner, Queued {
  readonly pool: number;
  silent = false;
  readonly facts: HealthFacts = { sinceMs: Date.now(), success: 0, failure: 0, lastError: null };
  readonly #checks: HealthChecks;
  #backend: BackendRecord;
  #checked: Checked;
  #state: RiseFall;
  /** Runs while the check is neither due nor under way. */
  #timer: ReturnType<typeof setTimeout> | null = null;
  #probe: Probe | null = null;
  #begunMs = 0;

  constructor(backend: BackendRecord, checked: Checked, checks: HealthChecks) {
    this.pool = checked.record.id;
    this.#backend = backend;
    this.#checked = checked;
    this.#checks = checks;
    const { rise, fall } = this.#config;
    this.#state = startRiseFall(rise, fall, backend.up);
    this.#scheduleFirst();
  }

  get #config(): PoolConfig["health"] {
    return this.#checked.record.config.health;
  }

  /** The same backend after a reload. Its history goes on if the rules are the same; the first answer to another question decides alone. */
  reconfigure(backend: BackendRecord, checked: Checked): void {
    const before = this.#checked;
    this.#backend = backend;
    this.#checked = checked;
    if (checked.settings === before.settings) return;
    const { rise, fall } = this.#config;
    const fresh = this.#state.fresh || checked.question !== before.question;
    if (fresh || rise !== this.#state.rise || fall !== this.#state.fall) {
      this.#state = { ...startRiseFall(rise, fall, backend.up), fresh };
    }
    if (this.#timer !== null) this.#scheduleFirst();
  }

  stop(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#probe?.cancel();
    this.#checks.closed(this);
  }

  /** Its turn has come. */
  begin(): void {
    this.#begunMs = performance.now();
    this.#probe = new Probe(probeSpec(this.#backend, this.#checked), this);
  }

  probed(outcome: Outcome): void {
    const { facts } = this;
    const { result, why, silent } = outcome;
    this.silent = silent;
    facts.lastError = why;
    if (result === "success") facts.success++;
    else if (result === "failure") facts.failure++;
    else this.#checks.unknown(this.#backend.id, why ?? result);
    const change = record(this.#state, result);
    if (change === null) return;
    facts.sinceMs = Date.now();
    this.#checks.changed(this.#backend.id, change === "up", why ?? "");
  }

  probeClosed(): void {
    this.#probe = null;
    this.#checks.closed(this);
    // The interval runs from one begin to the next, however long a check takes.
    const { interval, fast_interval } = this.#config;
    const meanMs = fast_interval > 0 && isChanging(this.#state) ? fast_interval : interval;
    const nextMs = this.#begunMs + meanMs * (1 - JITTER + 2 * JITTER * Math.random());
    this.#schedule(nextMs - performance.now());
  }

  #scheduleFirst(): void {
    this.#schedule(Math.random() * JITTER * this.#config.interval);
  }

  #schedule(ms: number): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = setTimeout(
      () => {
        this.#timer = null;
        this.#checks.due(this);
      },
      Math.max(0, ms),
    );
  }
}

function settingsOf(health: PoolConfig["health"]): { settings: string; question: string } {
  const { interval: _, fast_interval: _1, timeout: _2, rise: _3, fall: _4, initial: _5, ...question } = health;
  return { settings: JSON.stringify(health), question: JSON.stringify(question) };
}

// ---------------------------------------------------------------------- what a check does

const UNVERIFIED: TlsClientPlan = {
  verify: false,
  ca: null,
  serverName: "",
  alpn: [],
  minVersion: "1.2",
  cert: null,
  key: null,
};

// The pool's TLS serves its checks; a check by TLS of a pool without it verifies nothing.
function tlsPlan(config: PoolConfig): TlsClientPlan | null {
  const when = tlsOfChecks(config);
  if (when === "never") return null;
  const plan = config.tls === null || when === "asked" ? UNVERIFIED : clientTlsPlan(config.tls);
  if (config.health.type !== "http") return plan;
  const serverName = plan.serverName || config.health.host.replace(/:\d+$/, "");
  return { ...plan, serverName, alpn: ["http/1.1"] };
}

function probeSpec(backend: BackendRecord, { record: { config }, tls }: Checked): ProbeSpec {
  const { health, source_address } = config;
  const endpoint = parseEndpoint(backend.address);
  if (endpoint.kind === "bad") throw new Error(`${backend.address}: ${endpoint.why}`);
  const to = endpoint.kind === "ip" && health.port > 0 ? { ...endpoint, port: health.port } : endpoint;
  const source = source_address === "" ? null : parseAddress(source_address);
  const header = proxyHeader(config.send_proxy);
  const when = tlsOfChecks(config);
  const exchange = exchangeOf(config, urlHost(backend, to, when === "first" ? 443 : 80));
  return {
    to: { endpoint: to, sockaddr: sockaddr(to) },
    source: source === null ? null : sockaddr({ kind: "ip", address: source, port: 0 }),
    timeoutMs: health.timeout,
    // A reset that comes after the handshake would look worse than an end.
    visibility: health.type === "tcp" && header.length === 0 && ownSockets() ? "unseen" : "visible",
    header,
    tls:
      when === "never" || tls === null ? null : { client: tls, host: hostOf(backend), address: backend.address, when },
    exchange,
  };
}

/** Host and port as in a URL, where the port of the scheme is left out. */
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
