// Active health checks: a connect to every backend of every pool, at its interval, from the supervisor alone. Says when a
// backend goes up or down (rise and fall), and keeps what the status shows of each.
import type { Socket, SocketHandler } from "bun";
import { formatEndpoint, parseEndpoint } from "../core/address.ts";
import type { PoolConfig } from "../config/schema.ts";
import {
  adoptConnecting,
  connectByAddress,
  upgradeToClient,
  type ClientTls,
  type TlsHandler,
} from "../platform/bun.ts";
import { errnoName } from "../platform/libc.ts";
import { beginConnect, ownSockets, sockaddr } from "../platform/sockets.ts";
import { TlsClient, type TlsClientPlan } from "../platform/tls-client.ts";
import { record, startRiseFall, type RiseFall } from "../policy/rise-fall.ts";
import { proxyHeaderV1, proxyHeaderV2 } from "../wire/proxy-protocol.ts";
import { shares } from "./budget.ts";
import { clientTlsPlan, hostOf, type BackendRecord, type PoolRecord } from "./registry.ts";

/** Checks under way at once: their share of the open files. More wait for their turn. */
export const CHECKS_AT_ONCE_MAX = shares().healthChecks;

/** Part of the interval by which each is longer or shorter at random. */
const JITTER = 0.1;

type HealthConfig = PoolConfig["health"];

export interface HealthFacts {
  sinceMs: number;
  success: number;
  failure: number;
  lastError: string | null;
}

/** A backend went up or down. */
export type OnChange = (backendId: number, up: boolean, reason: string) => void;

class Check {
  readonly facts: HealthFacts = { sinceMs: Date.now(), success: 0, failure: 0, lastError: null };
  backend: BackendRecord;
  config: HealthConfig;
  #asked: Asked;
  #state: RiseFall;
  #timer: ReturnType<typeof setTimeout> | null = null;
  #probe: Probe | null = null;
  readonly #checks: HealthChecks;

  constructor(backend: BackendRecord, pool: PoolRecord, checks: HealthChecks) {
    const { health: config } = pool.config;
    this.backend = backend;
    this.config = config;
    this.#asked = asked(pool, backend);
    this.#checks = checks;
    this.#state = { ...startRiseFall(config.rise, config.fall), up: backend.up };
    this.#schedule(Math.random() * JITTER * config.interval);
  }

  /** The same backend after a reload; its history goes on if the rules are the same. */
  reconfigure(backend: BackendRecord, pool: PoolRecord): void {
    const { health: config } = pool.config;
    this.backend = backend;
    this.#asked = asked(pool, backend);
    const before = this.config;
    this.config = config;
    if (config.rise !== before.rise || config.fall !== before.fall) {
      this.#state = { ...startRiseFall(config.rise, config.fall), up: backend.up };
    }
    if (JSON.stringify(config) !== JSON.stringify(before)) this.#schedule(Math.random() * JITTER * config.interval);
  }

  stop(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#probe?.cancel();
    this.#checks.finished(this);
  }

  /** Its turn has come. */
  begin(): void {
    this.#probe = new Probe(
      target(this.backend.address, this.config.port),
      this.config.timeout,
      this.#asked,
      (error) => {
        this.#probe = null;
        this.#checks.finished(this);
        this.#record(error);
        const { interval } = this.config;
        this.#schedule(interval * (1 - JITTER + 2 * JITTER * Math.random()));
      },
    );
  }

  #schedule(ms: number): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      if (this.#probe === null) this.#checks.enqueue(this);
    }, ms);
  }

  #record(error: string | null): void {
    const { facts } = this;
    facts.lastError = error;
    if (error === null) facts.success++;
    else facts.failure++;
    const change = record(this.#state, error === null);
    if (change === null) return;
    facts.sinceMs = Date.now();
    this.#checks.changed(this.backend.id, change === "up", error ?? "");
  }
}

export class HealthChecks {
  readonly #checks = new Map<number, Check>();
  readonly #onChange: OnChange;
  readonly #waiting: Check[] = [];
  readonly #running = new Set<Check>();

  constructor(onChange: OnChange) {
    this.#onChange = onChange;
  }

  /** Checks exactly the backends of these pools from now on; those checked before keep their history. */
  follow(pools: readonly PoolRecord[]): void {
    const wanted = new Set<number>();
    for (const pool of pools) {
      if (pool.config.health.type === "off") continue;
      for (const backend of pool.backends) {
        wanted.add(backend.id);
        const check = this.#checks.get(backend.id);
        if (check === undefined) this.#checks.set(backend.id, new Check(backend, pool, this));
        else check.reconfigure(backend, pool);
      }
    }
    for (const [id, check] of this.#checks) {
      if (wanted.has(id)) continue;
      check.stop();
      this.#checks.delete(id);
    }
  }

  stop(): void {
    this.follow([]);
  }

  facts(backendId: number): HealthFacts | null {
    return this.#checks.get(backendId)?.facts ?? null;
  }

  enqueue(check: Check): void {
    this.#waiting.push(check);
    this.#next();
  }

  finished(check: Check): void {
    this.#running.delete(check);
    const at = this.#waiting.indexOf(check);
    if (at >= 0) this.#waiting.splice(at, 1);
    this.#next();
  }

  changed(backendId: number, up: boolean, reason: string): void {
    this.#onChange(backendId, up, reason);
  }

  #next(): void {
    while (this.#running.size < CHECKS_AT_ONCE_MAX) {
      const check = this.#waiting.shift();
      if (check === undefined) return;
      this.#running.add(check);
      check.begin();
    }
  }
}

function target(address: string, port: number): string {
  const endpoint = parseEndpoint(address);
  return port > 0 && endpoint.kind === "ip" ? formatEndpoint({ ...endpoint, port }) : address;
}

/** What a check is to do beside connecting. */
interface Asked {
  /** Sent first: a PROXY header that says the connection is our own; empty = none. */
  greeting: Uint8Array;
  /** A TLS handshake with these options, or null. */
  tls: ClientTls | null;
  /** What is wrong with the backend that the handshake was done with, or null. */
  verdict: (socket: Socket<unknown>, done: boolean, error: Error | null) => string | null;
}

const UNVERIFIED: TlsClientPlan = {
  verify: false,
  ca: null,
  serverName: "",
  alpn: [],
  minVersion: "1.2",
  cert: null,
  key: null,
};

const NO_GREETING = new Uint8Array(0);

// The pool's TLS serves its checks; a check by TLS of a pool without it asks for a handshake and verifies nothing.
function asked({ config }: PoolRecord, backend: BackendRecord): Asked {
  const greeting =
    config.send_proxy === "off"
      ? NO_GREETING
      : config.send_proxy === "v1"
        ? proxyHeaderV1(null, null)
        : proxyHeaderV2({ command: "local", source: null, destination: null });
  if (config.health.type !== "tls") return { greeting, tls: null, verdict: () => null };
  const client = new TlsClient(config.tls === null ? UNVERIFIED : clientTlsPlan(config.tls));
  const host = hostOf(backend);
  return {
    greeting,
    tls: client.options(host, backend.address),
    verdict: (socket, done, error) => client.verdict(host, backend.address, socket, done, error),
  };
}

/** One check of a backend, and what became of it: null for success, else what was wrong. Tells once. */
class Probe {
  #socket: Socket<Probe> | null = null;
  #done: ((error: string | null) => void) | null;
  readonly #timer: ReturnType<typeof setTimeout>;
  readonly #asked: Asked;
  #securing = false;

  constructor(address: string, timeoutMs: number, what: Asked, done: (error: string | null) => void) {
    this.#done = done;
    this.#asked = what;
    this.#timer = setTimeout(
      () => this.end(this.#securing ? "TLS handshake timed out" : "connect timed out"),
      timeoutMs,
    );
    const endpoint = parseEndpoint(address);
    if (endpoint.kind === "bad") throw new Error(`${address}: ${endpoint.why}`);
    if (!ownSockets()) {
      connectByAddress(endpoint, this, portableEvents);
      return;
    }
    const fd = beginConnect(sockaddr(endpoint), null);
    if (fd >= 0) adoptConnecting(fd, this, probeEvents);
    else queueMicrotask(() => this.end(`connect failed: ${errnoName(-fd)}`));
  }

  opened(socket: Socket<Probe>): void {
    if (this.#done === null) socket.terminate();
    else this.#socket = socket;
  }

  /** TCP is connected. */
  connected(socket: Socket<Probe>): void {
    if (this.#done === null || this.#securing || socket !== this.#socket) return;
    const { greeting, tls } = this.#asked;
    if (greeting.length > 0) socket.write(greeting);
    if (tls === null) {
      this.end(null);
      return;
    }
    this.#securing = true;
    upgradeToClient(socket, { tls, data: this, twin: deaf, handlers: tlsProbeEvents });
  }

  handshake(socket: Socket<unknown>, done: boolean, error: Error | null): void {
    const fault = this.#asked.verdict(socket, done, error);
    this.end(fault === null ? null : `TLS handshake failed: ${fault}`);
  }

  end(error: string | null): void {
    const done = this.#done;
    if (done === null) return;
    this.#close(error === null);
    done(error);
  }

  cancel(): void {
    this.#close(false);
  }

  #close(orderly: boolean): void {
    this.#done = null;
    clearTimeout(this.#timer);
    const socket = this.#socket;
    this.#socket = null;
    // A TLS socket in the middle of its handshake would not end, but wait for the other side.
    if (orderly) socket?.end();
    else socket?.terminate();
  }
}

function failed(error: Error | undefined): string {
  const code = (error as { code?: string } | undefined)?.code ?? "closed";
  return code === "ECONNREFUSED" ? "connection refused" : `connect failed: ${code}`;
}

const probeEvents: SocketHandler<Probe, "uint8array"> = {
  binaryType: "uint8array",
  open: (socket) => socket.data.opened(socket),
  drain: (socket) => socket.data.connected(socket),
  data: (socket) => socket.data.connected(socket),
  end: (socket) => socket.data.connected(socket),
  close: (socket, error) => socket.data.end(failed(error)),
  connectError: (socket, error) => socket.data.end(failed(error)),
  error: (socket, error) => socket.data.end(failed(error)),
};

const tlsProbeEvents: TlsHandler<Probe> = {
  binaryType: "uint8array",
  open: (socket) => socket.data.opened(socket),
  handshake: (socket, done, error) => socket.data.handshake(socket, done, error),
  // Bun will not have a table without it.
  data: ignore,
  close: (socket) => socket.data.end("TLS handshake failed: closed"),
  error: (socket, error) => socket.data.handshake(socket, false, error),
};

const portableEvents: SocketHandler<Probe, "uint8array"> = {
  ...probeEvents,
  open: (socket) => {
    socket.data.opened(socket);
    socket.data.connected(socket);
  },
};

/** Hears the ciphertext of a socket that has become TLS. */
const deaf = { opened: ignore, connected: ignore, end: ignore } as unknown as Probe;

function ignore(): void {
  // The TLS socket says all that counts.
}
