// One proxied connection, from accept to its one line in the access log. It owns the two sockets, the two flows between
// them and the claims that its row of the ledger names; it decides what an event means, and ends exactly once. What happens
// before the backend is chosen stands in opening.ts, a single attempt to connect in dial.ts, one direction in flow.ts.
import type { Socket } from "bun";
import { END_CODES, ENDED_BY, type End, type EndedBy } from "../core/ends.ts";
import type { TimerNode } from "../core/timer-wheel.ts";
import { setKeepalive } from "../platform/sockets.ts";
import { RECEIVER_FAILED, SENDER_FAILED, UNABLE } from "../platform/splice.ts";
import { giveBack } from "../shared/cells.ts";
import { BACKEND, CONNECT_BUCKETS_MS, LISTENER, WORKER } from "../shared/counters.ts";
import { CLAIM, ROW, ROW_FLOAT, ROW_FLOATS, ROW_WORDS } from "../shared/ledger.ts";
import type { ProxyEnd } from "../wire/proxy-protocol.ts";
import { TICK_MS } from "./clock.ts";
import type { Ciphertext } from "./ciphertext.ts";
import { beginDial, failureOf, greet } from "./dial.ts";
import { Flow } from "./flow.ts";
import type { Head } from "./head.ts";
import type { Listener } from "./listener.ts";
import { clientGone, handshakeTimedOut, readHead } from "./opening.ts";
import { Pace } from "./pace.ts";
import type { DataPlane } from "./plane.ts";
import type { Backend, Pool } from "./pool.ts";
import { dueEnd, nextDueMs } from "./timeouts.ts";

/**
 * The phases of a connection and where each may lead; nothing but `enter` sets the phase. `reading`: the PROXY header or
 * the ClientHello. `securing`: the TLS handshake with the client. `dialing`: connecting to a backend, TLS with it included.
 */
const NEXT = {
  accepted: ["reading", "securing", "dialing", "closed"],
  reading: ["securing", "dialing", "closed"],
  securing: ["dialing", "closed"],
  dialing: ["dialing", "relaying", "closed"],
  relaying: ["closed"],
  closed: [],
} as const;

export type Phase = keyof typeof NEXT;

const BY_CODE = { client: 0, backend: 1, lb: 2 } as const satisfies Record<EndedBy, number>;

/** A connection in which nothing waits and nothing has moved for this long is closed with FIN, any other one with RST. */
const QUIET_MS = 1000;

/** `wheel.now` is up to a tick behind, so a timeout counts from a tick later: it may end late, never early. */
const LATE_MS = TICK_MS;

/** Of at least so many bytes is a chunk that more has come behind; at most about so many follow it in one go. */
const SPLICE_FROM_BYTES = 16 * 1024;
const SPLICE_BYTES_MAX = 1024 * 1024;

/** The client's socket outlives a refusal with FIN by at most this long, so that the FIN is not overtaken by a RST. */
export const LINGER_MS = 1000;

export class Connection implements TimerNode {
  timerNext: TimerNode | null = null;
  timerPrev: TimerNode | null = null;
  timerSlot = -1;
  timerAt = 0;

  phase: Phase = "accepted";
  readonly plane: DataPlane;
  readonly listener: Listener;
  /** Row of the ledger. */
  readonly row: number;
  client: Socket<unknown> | null;
  /** The socket to the backend: being connected while dialing, connected while relaying. */
  backendSocket: Socket<unknown> | null = null;
  /** Where the connection goes: the listener's pool, or a route's. */
  pool: Pool | null;
  backend: Backend | null = null;
  /** Backends that failed, not to be tried again. */
  tried: number[] | null = null;
  /** Client → backend, and back. */
  readonly up = new Flow();
  readonly down = new Flow();

  /** While reading. */
  head: Head | null = null;
  /** Whom the client addressed, where a PROXY header said so. */
  addressed: ProxyEnd | null = null;
  /** What the client's TLS told; "" = nothing. */
  sni = "";
  alpn = "";
  tlsVersion = "";
  /** The client has presented a certificate that was verified. */
  clientCertificate = false;

  /** Where TLS is spoken, what tells an end from a cut. */
  clientCiphertext: Ciphertext | null = null;
  backendCiphertext: Ciphertext | null = null;

  /** All times are on the wheel's clock. When a byte, or a FIN, last came. */
  activeMs: number;
  readonly startedMs: number;
  /** The same moment on performance.now(), which is exact. */
  readonly startedAtMs = performance.now();
  readonly lifetimeEndsMs: number;
  stopAtMs = Infinity;
  #dialStartedMs = 0;
  #connectMs = -1;
  #firstEnd: EndedBy | null = null;
  #truncated = "";
  #keepaliveMs = 0;
  #lingers = false;

  constructor(plane: DataPlane, listener: Listener, client: Socket<unknown>, row: number) {
    this.plane = plane;
    this.listener = listener;
    this.pool = listener.pool;
    this.row = row;
    this.client = client;
    this.up.from = client;
    this.down.to = client;
    this.activeMs = plane.wheel.now + LATE_MS;
    this.startedMs = this.activeMs;
    const { lifetime } = listener.plan.timeoutsMs;
    // Within the last tenth at random, so that connections opened together do not all come back together.
    this.lifetimeEndsMs = lifetime === 0 ? Infinity : this.startedMs + lifetime * (0.9 + 0.1 * Math.random());
    const { upload, download } = listener.plan.bandwidth;
    if (upload > 0) this.up.pace = new Pace(upload);
    if (download > 0) this.down.pace = new Pace(download);
  }

  get halfClosed(): boolean {
    return this.up.state !== "open" || this.down.state !== "open";
  }

  // On one side at least.
  get #speaksTls(): boolean {
    return this.tlsVersion !== "" || this.backendCiphertext !== null;
  }

  // ---------------------------------------------------------------- events of the client's socket; hot path

  clientData(chunk: Uint8Array): void {
    if (this.phase === "reading") readHead(this, chunk);
    else if (this.phase !== "closed") this.fromClient(chunk);
  }

  /** Bytes of the client that are the backend's. */
  fromClient(chunk: Uint8Array): void {
    this.#countIn(chunk.length);
    if (!this.up.forward(chunk)) this.finish("reset", "backend");
    else if (chunk.length >= SPLICE_FROM_BYTES) this.#splice(this.up);
  }

  #countIn(bytes: number): void {
    this.plane.floats[this.row * ROW_FLOATS + ROW_FLOAT.bytesIn]! += bytes;
    this.listener.counters[LISTENER.bytesIn]! += bytes;
    this.plane.counters[WORKER.bytesIn]! += bytes;
    this.activeMs = this.plane.wheel.now + LATE_MS;
  }

  clientDrained(): void {
    if (this.phase !== "relaying") return;
    if (!this.#flush(this.down)) this.finish("reset", "client");
    else if (this.down.state === "ending") this.#passEnds();
  }

  /** From now on the client is heard through this TLS socket. */
  clientSecuring(socket: Socket<unknown>): void {
    this.client = socket;
    this.up.from = socket;
    this.down.to = socket;
  }

  clientEnded(): void {
    if (this.phase === "closed" || this.up.state !== "open") return;
    if (this.phase === "reading" || this.phase === "securing") return clientGone(this);
    this.up.state = "ending";
    this.activeMs = this.plane.wheel.now + LATE_MS;
    this.#firstEnd ??= "client";
    if (this.clientCiphertext?.cut) this.#countTruncated("client", this.listener.counters, LISTENER.tlsTruncated);
    this.#passEnds();
  }

  clientClosed(error: Error | undefined): void {
    this.client = null;
    this.up.from = null;
    if (this.phase === "closed") {
      if (this.backendSocket === null) this.#stopLingering();
      return;
    }
    // The number may be another socket's from now on.
    this.plane.words[this.row * ROW_WORDS + ROW.clientFd] = -1;
    // After our own FIN the peer's arrives as a close without error: an end like any other.
    if (error === undefined) this.clientEnded();
    else this.finish("reset", "client");
  }

  // ---------------------------------------------------------------- events of the backend's socket; hot path

  /** A socket whose attempt was given up may still speak; only the current one counts. */
  backendOpened(socket: Socket<unknown>): void {
    if (this.phase === "dialing") this.backendSocket = socket;
    else socket.terminate();
  }

  backendData(socket: Socket<unknown>, chunk: Uint8Array): void {
    if (socket !== this.backendSocket || this.phase === "closed") return;
    if (this.phase === "dialing") this.#connected(socket);
    if (this.phase !== "relaying") return;
    this.#countOut(chunk.length);
    if (!this.down.forward(chunk)) this.finish("reset", "client");
    else if (chunk.length >= SPLICE_FROM_BYTES) this.#splice(this.down);
  }

  #countOut(bytes: number): void {
    this.plane.floats[this.row * ROW_FLOATS + ROW_FLOAT.bytesOut]! += bytes;
    this.listener.counters[LISTENER.bytesOut]! += bytes;
    this.plane.counters[WORKER.bytesOut]! += bytes;
    this.activeMs = this.plane.wheel.now + LATE_MS;
  }

  backendDrained(socket: Socket<unknown>): void {
    if (socket !== this.backendSocket || this.phase === "closed") return;
    if (this.phase === "dialing") this.#connected(socket);
    else if (!this.#flush(this.up)) this.finish("reset", "backend");
    else if (this.up.state === "ending") this.#passEnds();
  }

  // Bytes that leave a queue are activity as much as those that come.
  #flush(flow: Flow): boolean {
    const before = flow.waiting;
    const there = flow.flush();
    if (flow.waiting < before) this.activeMs = this.plane.wheel.now + LATE_MS;
    return there;
  }

  backendEnded(socket: Socket<unknown>): void {
    if (socket !== this.backendSocket || this.phase === "closed") return;
    if (this.phase === "dialing") this.#connected(socket);
    this.#backendFinished();
  }

  #backendFinished(): void {
    if (this.phase !== "relaying" || this.down.state !== "open") return;
    this.down.state = "ending";
    this.activeMs = this.plane.wheel.now + LATE_MS;
    this.#firstEnd ??= "backend";
    if (this.backendCiphertext?.cut && this.backend !== null)
      this.#countTruncated("backend", this.backend.counters, BACKEND.tlsTruncated);
    this.#passEnds();
  }

  backendClosed(socket: Socket<unknown>, error: Error | undefined): void {
    if (socket !== this.backendSocket) return;
    if (this.phase === "dialing") {
      this.attemptFailed((error as { code?: string } | undefined)?.code ?? "ECONNREFUSED");
      return;
    }
    if (this.phase === "closed") {
      this.backendSocket = null;
      if (this.client === null) this.#stopLingering();
      return;
    }
    if (error !== undefined) {
      this.finish("reset", "backend");
      return;
    }
    this.down.from = null;
    this.backendSocket = null;
    this.plane.words[this.row * ROW_WORDS + ROW.backendFd] = -1;
    this.#backendFinished();
  }

  // ---------------------------------------------------------------- dialing

  /** Picks a backend and connects to it; ends the connection where there is none. */
  dial(): void {
    const { pool } = this;
    if (pool === null) {
      this.finish("no_route", "lb");
      return;
    }
    const backend = pool.pick(this.tried);
    if (backend === null) {
      this.finish(pool.hasBackendUp ? "queue_full" : "no_backend", "lb");
      return;
    }
    this.plane.words[this.row * ROW_WORDS + ROW.pool] = pool.id;
    this.#dialBackend(backend, pool);
  }

  #dialBackend(backend: Backend, pool: Pool): void {
    this.backend = backend;
    const at = this.row * ROW_WORDS;
    const { words } = this.plane;
    words[at + ROW.backend] = backend.id;
    words[at]! |= CLAIM.backend;
    backend.counters[BACKEND.dials]!++;
    this.enter("dialing");
    this.#dialStartedMs = performance.now();
    this.#connectMs = -1;
    const error = beginDial(backend, pool, this);
    if (error !== null) {
      this.attemptFailed(error);
      return;
    }
    this.plane.wheel.schedule(this, this.plane.wheel.now + LATE_MS + pool.plan.connectTimeoutMs);
  }

  /** The attempt has failed for this reason (an errno's name, or dial.ts's): another backend if there is one, else the end. */
  attemptFailed(code: string): void {
    const { backend, pool, backendSocket } = this;
    if (backend === null || pool === null) return;
    this.backendSocket = null;
    this.plane.words[this.row * ROW_WORDS + ROW.backendFd] = -1;
    backendSocket?.terminate();
    const failure = failureOf(code);
    backend.counters[failure.cell]!++;
    const at = this.row * ROW_WORDS;
    const { words } = this.plane;
    const retries = words[at + ROW.retries] ?? 0;
    this.tried = this.tried === null ? [backend.id] : [...this.tried, backend.id];
    const next = retries < pool.plan.retries ? pool.pick(this.tried) : null;
    if (next === null) {
      this.finish(failure.end, "backend", code);
      return;
    }
    this.#giveBackBackend();
    backend.counters[BACKEND.retriedAway]!++;
    words[at + ROW.retries] = retries + 1;
    this.#dialBackend(next, pool);
  }

  // TCP is connected; what the pool wants said first is said, and TLS goes before the client's bytes.
  #connected(socket: Socket<unknown>): void {
    const { backend, pool } = this;
    if (backend === null || pool === null || this.#connectMs >= 0) return;
    this.#connectMs = performance.now() - this.#dialStartedMs;
    countConnect(backend.counters, this.#connectMs);
    if (pool.plain) this.relay(socket);
    else greet(this, backend, pool, socket);
  }

  // ---------------------------------------------------------------- relaying

  /** The backend is ready for the client's bytes on this socket. */
  relay(backendSocket: Socket<unknown>): void {
    this.backendSocket = backendSocket;
    this.enter("relaying");
    this.activeMs = this.plane.wheel.now + LATE_MS;
    this.down.from = backendSocket;
    this.up.to = backendSocket;
    if (this.up.pace !== null || this.down.pace !== null) this.plane.pace(this);
    this.#keepaliveMs = this.pool?.plan.keepaliveMs ?? 0;
    this.#scheduleRelay();
    if (!this.up.flush()) this.finish("reset", "backend");
    else if (this.up.state === "ending") this.#passEnds();
  }

  // A large chunk has company: what else has come goes over inside the kernel, where nothing waits before it, no limit holds
  // it back and neither side speaks TLS with us.
  #splice(flow: Flow): void {
    const { plane } = this;
    if (this.#speaksTls || this.phase !== "relaying" || flow.pace !== null || !flow.drained) return;
    const at = this.row * ROW_WORDS;
    const client = plane.words[at + ROW.clientFd]!;
    const backend = plane.words[at + ROW.backendFd]!;
    const { splice } = plane;
    if (splice === null || client < 0 || backend < 0) return;
    const upwards = flow === this.up;
    const outcome = upwards
      ? splice.move(client, backend, SPLICE_BYTES_MAX)
      : splice.move(backend, client, SPLICE_BYTES_MAX);
    const { moved, rest } = splice;
    const bytes = moved + (rest === null ? 0 : rest.length);
    if (bytes > 0) {
      if (upwards) this.#countIn(bytes);
      else this.#countOut(bytes);
    }
    if (outcome === SENDER_FAILED) this.finish("reset", upwards ? "client" : "backend");
    else if (outcome === RECEIVER_FAILED || (rest !== null && !flow.forward(rest)))
      this.finish("reset", upwards ? "backend" : "client");
    else if (outcome === UNABLE) plane.spliceNoMore();
  }

  /**
   * Passes on each FIN whose bytes have gone before it. Where both directions are at their end, a socket that has not heard
   * of it yet is closed in one step instead of a shutdown and a close.
   */
  #passEnds(): void {
    if (this.phase !== "relaying") return;
    const { up, down } = this;
    if (up.state === "ending" && up.drained) {
      if (down.state === "done" || (down.state === "ending" && down.drained)) return this.#finishEof();
      up.state = "done";
      this.backendSocket?.shutdown();
      this.#scheduleRelay();
    }
    if (down.state === "ending" && down.drained) {
      if (up.state === "done") return this.#finishEof();
      down.state = "done";
      this.client?.shutdown();
      this.#scheduleRelay();
    }
  }

  // A FIN that no close_notify went before: passed on like any other, but not in silence.
  #countTruncated(by: EndedBy, counters: Float64Array, cell: number): void {
    counters[cell]!++;
    this.#truncated = this.#truncated === "" ? `truncated by ${by}` : "truncated by both";
  }

  #finishEof(): void {
    this.finish("eof", this.#firstEnd ?? "client");
  }

  /** A tick of the worker's clock for a connection with a bandwidth limit. */
  paceTick(elapsedMs: number): void {
    if (this.phase !== "relaying") return;
    const before = this.up.waiting + this.down.waiting;
    if (!this.up.flushPaced(elapsedMs)) this.finish("reset", "backend");
    else if (!this.down.flushPaced(elapsedMs)) this.finish("reset", "client");
    else {
      if (this.up.waiting + this.down.waiting < before) this.activeMs = this.plane.wheel.now + LATE_MS;
      this.#passEnds();
    }
  }

  // ---------------------------------------------------------------- time

  onTimer(nowMs: number): void {
    switch (this.phase) {
      case "closed":
        this.client?.terminate();
        this.backendSocket?.terminate();
        this.#stopLingering();
        return;
      case "accepted":
        return;
      case "reading":
      case "securing":
        handshakeTimedOut(this);
        return;
      case "dialing":
        this.attemptFailed("ETIMEDOUT");
        return;
      case "relaying":
        this.#relayTimer(nowMs);
    }
  }

  #relayTimer(nowMs: number): void {
    const end = dueEnd(this, this.listener.plan.timeoutsMs, nowMs);
    if (end !== null) {
      this.finish(end, "lb");
      return;
    }
    this.#startKeepalive(nowMs);
    this.#scheduleRelay();
  }

  // A short connection never pays for keepalive: it is set when half of its time has passed. The client's side has it from
  // the listening socket.
  #startKeepalive(nowMs: number): void {
    if (this.#keepaliveMs === 0 || nowMs < this.startedMs + this.#keepaliveMs / 2) return;
    const fd = this.plane.words[this.row * ROW_WORDS + ROW.backendFd] ?? -1;
    if (fd >= 0 && this.backendSocket !== null) setKeepalive(fd, this.#keepaliveMs);
    this.#keepaliveMs = 0;
  }

  #scheduleRelay(): void {
    let at = nextDueMs(this, this.listener.plan.timeoutsMs);
    if (this.#keepaliveMs > 0) at = Math.min(at, this.startedMs + this.#keepaliveMs / 2);
    if (at !== Infinity) this.plane.wheel.schedule(this, at);
  }

  /** The handshake's deadline runs from accept, over every phase before the backend is dialled. */
  scheduleHandshake(): void {
    this.plane.wheel.schedule(this, this.startedMs + this.listener.plan.timeoutsMs.handshake);
  }

  /** The worker is to stop: this connection may go on until then (on the wheel's clock). */
  stopAt(atMs: number): void {
    this.stopAtMs = atMs;
    if (this.phase === "relaying") this.#scheduleRelay();
  }

  // ---------------------------------------------------------------- the end

  /**
   * Ends the connection: claims end, counters move, one line of access log says why. Safe to call twice; only the first
   * counts. `error` is the reason behind the end where it has a name, such as an errno's.
   */
  finish(end: End, by: EndedBy, error = ""): void {
    if (this.phase === "closed") return;
    const relayed = this.phase === "relaying";
    const waits = this.up.queue !== null || this.down.queue !== null;
    // Idle is quiet however short; after half of a close somebody waits for an answer that did not come whole.
    const still = end === "idle_timeout" || this.plane.wheel.now - this.activeMs >= QUIET_MS;
    const quiet = !waits && still && end !== "half_close_timeout";
    this.enter("closed");
    this.plane.wheel.cancel(this);
    this.#count(end, by);
    this.plane.accessLog.write(this, end, by, this.#connectMs, error === "" ? this.#truncated : error);
    this.#giveBackAll();
    this.up.clear();
    this.down.clear();
    this.head = null;
    const { client, backendSocket } = this;
    const orderly = relayed && by === "lb" && quiet;
    // A TLS socket that we end waits for the peer's close_notify, ten seconds long (Bun 1.4.5).
    if (orderly && this.#speaksTls) return this.#linger();
    this.backendSocket = null;
    if (end === "eof" || orderly) {
      this.client = null;
      closeOrderly(client, this.#speaksTls);
      closeOrderly(backendSocket, this.#speaksTls);
      return;
    }
    backendSocket?.terminate();
    // An alert must reach the client; a reset could overtake it.
    const told = end === "handshake_failed" && by !== "backend";
    if (told || (!relayed && by !== "client" && this.listener.plan.overLimit === "close")) {
      this.#linger();
      return;
    }
    this.client = null;
    client?.terminate();
  }

  /** The worker ends: both peers are reset, and everything else is left to the supervisor, who finds it in the ledger. */
  abandon(): void {
    this.enter("closed");
    this.client?.terminate();
    this.backendSocket?.terminate();
  }

  #count(end: End, by: EndedBy): void {
    const { plane, listener, backend } = this;
    listener.counters[LISTENER.ends + END_CODES[end] * ENDED_BY.length + BY_CODE[by]]!++;
    plane.counters[WORKER.ended]!++;
    if (backend === null) return;
    const at = this.row * ROW_FLOATS;
    backend.counters[BACKEND.ended]!++;
    backend.counters[BACKEND.bytesIn]! += plane.floats[at + ROW_FLOAT.bytesIn] ?? 0;
    backend.counters[BACKEND.bytesOut]! += plane.floats[at + ROW_FLOAT.bytesOut] ?? 0;
  }

  #giveBackBackend(): void {
    const { words } = this.plane;
    const at = this.row * ROW_WORDS;
    if (this.backend === null || ((words[at] ?? 0) & CLAIM.backend) === 0) return;
    words[at]! &= ~CLAIM.backend;
    this.backend.giveBack();
  }

  #giveBackAll(): void {
    const { plane, listener } = this;
    const at = this.row * ROW_WORDS;
    this.#giveBackBackend();
    const claims = plane.words[at] ?? 0;
    if (claims & CLAIM.client) listener.clients?.release(plane.words[at + ROW.clientEntry] ?? 0);
    if (claims & CLAIM.listener) giveBack(listener.plan.open);
    if (claims & CLAIM.process) giveBack(plane.open);
    plane.forget(this);
  }

  // A close while bytes of the peer are unread would send RST in spite of us (RFC 1122, 4.2.2.13), so what is left of the
  // sockets stays, its bytes ignored, until the peer's own FIN or for a second.
  #linger(): void {
    const { client, backendSocket } = this;
    if (client === null && backendSocket === null) return;
    if (!this.plane.mayLinger()) {
      client?.terminate();
      backendSocket?.terminate();
      return;
    }
    this.#lingers = true;
    client?.shutdown();
    backendSocket?.shutdown();
    this.plane.startClock();
    this.plane.wheel.schedule(this, this.plane.wheel.now + LINGER_MS);
  }

  #stopLingering(): void {
    if (!this.#lingers) return;
    this.#lingers = false;
    this.plane.wheel.cancel(this);
    this.plane.lingered();
  }

  /** The only place where the phase changes. */
  enter(phase: Phase): void {
    if (!(NEXT[this.phase] as readonly Phase[]).includes(phase))
      throw new Error(`${this.phase} cannot become ${phase}`);
    this.phase = phase;
  }
}

// `close` spares `end`'s flush of a buffer that there is none of; only `end` sends a close_notify.
function closeOrderly(socket: Socket<unknown> | null, tls: boolean): void {
  if (tls) socket?.end();
  else socket?.close();
}

function countConnect(counters: Float64Array, ms: number): void {
  counters[BACKEND.connected]!++;
  counters[BACKEND.connectSumMs]! += ms;
  let bucket = 0;
  while (bucket < CONNECT_BUCKETS_MS.length && ms > CONNECT_BUCKETS_MS[bucket]!) bucket++;
  counters[BACKEND.connectBuckets + bucket]!++;
}
