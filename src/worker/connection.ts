// One proxied connection, from accept to its one line in the access log. It owns the two sockets, the two flows between
// them and the claims that its row of the ledger names; it decides what an event means, and ends exactly once. What happens
// before the backend is chosen stands in opening.ts, the way to the backend in dial.ts, one direction in flow.ts, what
// becomes of sockets and claims at the end in ending.ts.
import type { Socket } from "bun";
import type { End, EndedBy } from "../core/ends.ts";
import type { TimerNode } from "../core/timer-wheel.ts";
import { FIN_NEXT, NO_END, RESET_NEXT, setKeepalive } from "../platform/sockets.ts";
import type { PickContext } from "../policy/candidate.ts";
import { BACKEND, LISTENER, WORKER } from "../shared/counters.ts";
import { ROW, ROW_FLOAT, ROW_FLOATS, ROW_WORDS } from "../shared/ledger.ts";
import type { ProxyEnd } from "../wire/proxy-protocol.ts";
import { LATE_MS } from "./clock.ts";
import type { Ciphertext } from "./ciphertext.ts";
import type { ClientCertificate } from "./client-certificate.ts";
import { attemptFailed, connected } from "./dial.ts";
import { conclude, stopLingering } from "./ending.ts";
import { Flow } from "./flow.ts";
import type { Head } from "./head.ts";
import type { Listener } from "./listener.ts";
import { clientGone, handshakeTimedOut, readHead } from "./opening.ts";
import { Pace } from "./pace.ts";
import type { DataPlane } from "./plane.ts";
import type { Backend, Pool } from "./pool.ts";
import { follow, pump, PUMP_FROM_BYTES } from "./pump.ts";
import { holdForFin, letGo } from "./short-reply.ts";
import { allowBackendFin, allowClientFin, RESET_BACKEND_AFTER_MS, resetBackendOnClose } from "./reset-on-close.ts";
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

export class Connection implements TimerNode, PickContext {
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
  /** The row of the backend that relays, which counts each byte as it passes; null before. */
  #backendCounters: Float64Array | null = null;
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
  /** The certificate that the client has shown and that was accepted. */
  clientCertificate: ClientCertificate | null = null;

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
  dialStartedMs = 0;
  /** From dial to connected; -1 = not yet. */
  connectMs = -1;
  /** Who has cut TLS short, for the log; "" = nobody. */
  truncated = "";
  /** A close of the backend's socket is a reset, whoever closes it. */
  resetsBackend = false;
  /** Descriptors that wait for the peers' FINs after the end. */
  lingering = 0;
  #firstEnd: EndedBy | null = null;
  #keepaliveMs = 0;

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
    if (upload > 0) this.up.pace = new Pace(upload, this.startedAtMs);
    if (download > 0) this.down.pace = new Pace(download, this.startedAtMs);
  }

  /** See PickContext. */
  hashKey(): number {
    const by = this.pool?.plan.hashKey ?? "client";
    return this.listener.hashOf(this.plane.words, this.row, by, this.sni);
  }

  get halfClosed(): boolean {
    return this.up.state !== "open" || this.down.state !== "open";
  }

  // On one side at least.
  get speaksTls(): boolean {
    return this.tlsVersion !== "" || this.backendCiphertext !== null;
  }

  // ---------------------------------------------------------------- events of the client's socket; hot path

  clientData(chunk: Uint8Array): void {
    if (this.phase === "reading") readHead(this, chunk);
    else if (this.phase !== "closed") this.fromClient(chunk);
  }

  /** Bytes of the client that are the backend's. */
  fromClient(chunk: Uint8Array): void {
    const { length } = chunk;
    this.countIn(length);
    if (!this.up.forward(chunk)) this.finish("reset", "backend");
    else if (length >= PUMP_FROM_BYTES || this.up.pace !== null) follow(this, this.up, length);
  }

  countIn(bytes: number): void {
    this.plane.floats[this.row * ROW_FLOATS + ROW_FLOAT.bytesIn]! += bytes;
    this.listener.counters[LISTENER.bytesIn]! += bytes;
    this.plane.counters[WORKER.bytesIn]! += bytes;
    if (this.#backendCounters !== null) this.#backendCounters[BACKEND.bytesIn]! += bytes;
    this.touch();
  }

  clientDrained(): void {
    if (this.phase === "relaying" && (this.down.paused || this.down.queue !== null)) pump(this, this.down);
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
    this.passEnds();
  }

  clientClosed(error: Error | undefined): void {
    this.client = null;
    this.up.from = null;
    if (this.phase === "closed") {
      if (this.backendSocket === null) stopLingering(this);
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
    if (this.phase === "dialing") connected(this, socket);
    if (this.phase !== "relaying") return;
    const { length } = chunk;
    const isFirst = this.plane.floats[this.row * ROW_FLOATS + ROW_FLOAT.bytesOut] === 0;
    this.countOut(length);
    const next = isFirst ? holdForFin(this) : NO_END;
    if (!this.down.forward(chunk)) this.finish("reset", "client");
    else if (next === FIN_NEXT) this.#sendWithFin();
    else if (next === RESET_NEXT) this.finish("reset", "backend");
    else if (length >= PUMP_FROM_BYTES || this.down.pace !== null) follow(this, this.down, length);
  }

  // The backend's first words are its last. A write to a TLS socket may have run the handler of its end.
  #sendWithFin(): void {
    if (this.phase !== "relaying") return;
    if (this.down.drained) this.#backendFinished();
    else letGo(this);
  }

  countOut(bytes: number): void {
    this.plane.floats[this.row * ROW_FLOATS + ROW_FLOAT.bytesOut]! += bytes;
    this.listener.counters[LISTENER.bytesOut]! += bytes;
    this.plane.counters[WORKER.bytesOut]! += bytes;
    if (this.#backendCounters !== null) this.#backendCounters[BACKEND.bytesOut]! += bytes;
    this.touch();
  }

  /** A byte has come or gone: bytes that leave a queue are activity as much as those that come. */
  touch(): void {
    this.activeMs = this.plane.wheel.now + LATE_MS;
  }

  backendDrained(socket: Socket<unknown>): void {
    if (socket !== this.backendSocket || this.phase === "closed") return;
    if (this.phase === "dialing") connected(this, socket);
    else if (this.up.paused || this.up.queue !== null) pump(this, this.up);
  }

  backendEnded(socket: Socket<unknown>): void {
    if (socket !== this.backendSocket || this.phase === "closed") return;
    if (this.phase === "dialing") connected(this, socket);
    this.#backendFinished();
  }

  #backendFinished(): void {
    if (this.phase !== "relaying" || this.down.state !== "open") return;
    this.down.state = "ending";
    this.activeMs = this.plane.wheel.now + LATE_MS;
    this.#firstEnd ??= "backend";
    if (this.backendCiphertext?.cut && this.backend !== null)
      this.#countTruncated("backend", this.backend.counters, BACKEND.tlsTruncated);
    this.passEnds();
  }

  backendClosed(socket: Socket<unknown>, error: Error | undefined): void {
    if (socket !== this.backendSocket) return;
    if (this.phase === "dialing") {
      attemptFailed(this, (error as { code?: string } | undefined)?.code ?? "ECONNREFUSED");
      return;
    }
    if (this.phase === "closed") {
      this.backendSocket = null;
      if (this.client === null) stopLingering(this);
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

  // ---------------------------------------------------------------- relaying

  /** The backend is ready for the client's bytes on this socket. */
  relay(backendSocket: Socket<unknown>): void {
    this.backendSocket = backendSocket;
    this.enter("relaying");
    this.activeMs = this.plane.wheel.now + LATE_MS;
    this.down.from = backendSocket;
    this.up.to = backendSocket;
    this.#countForBackend();
    this.#keepaliveMs = this.pool?.plan.keepaliveMs ?? 0;
    this.#scheduleRelay();
    if (this.up.paused || this.up.queue !== null) pump(this, this.up);
    else if (this.up.state === "ending") this.passEnds();
  }

  // What the client has said before counts for the backend that gets it, not for those that were tried.
  #countForBackend(): void {
    if (this.backend === null) return;
    this.#backendCounters = this.backend.counters;
    this.#backendCounters[BACKEND.bytesIn]! += this.plane.floats[this.row * ROW_FLOATS + ROW_FLOAT.bytesIn]!;
  }

  /**
   * Passes on each FIN whose bytes have gone before it. Where both directions are at their end, a socket that has not heard
   * of it yet is closed in one step instead of a shutdown and a close.
   */
  passEnds(): void {
    if (this.phase !== "relaying") return;
    const { up, down } = this;
    if (up.state === "ending" && up.drained) {
      if (down.state === "done" || (down.state === "ending" && down.drained)) return this.#finishEof();
      up.state = "done";
      allowBackendFin(this);
      this.backendSocket?.shutdown();
      this.#scheduleRelay();
    }
    if (down.state === "ending" && down.drained) {
      if (up.state === "done") return this.#finishEof();
      down.state = "done";
      allowClientFin(this);
      this.client?.shutdown();
      this.#scheduleRelay();
    }
  }

  // A FIN that no close_notify went before: passed on like any other, but not in silence.
  #countTruncated(by: EndedBy, counters: Float64Array, cell: number): void {
    counters[cell]!++;
    this.truncated = this.truncated === "" ? `truncated by ${by}` : "truncated by both";
  }

  #finishEof(): void {
    this.finish("eof", this.#firstEnd ?? "client");
  }

  // ---------------------------------------------------------------- time

  onTimer(nowMs: number): void {
    switch (this.phase) {
      case "closed":
        this.client?.terminate();
        this.backendSocket?.terminate();
        stopLingering(this);
        return;
      case "accepted":
        return;
      case "reading":
      case "securing":
        handshakeTimedOut(this);
        return;
      case "dialing":
        attemptFailed(this, "ETIMEDOUT");
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
    if (nowMs >= this.startedMs + RESET_BACKEND_AFTER_MS) resetBackendOnClose(this);
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
    if (!this.resetsBackend && this.up.state !== "done") at = Math.min(at, this.startedMs + RESET_BACKEND_AFTER_MS);
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
    if (this.phase !== "closed") conclude(this, { end, by, error });
  }

  /** The worker ends: both peers are reset, and everything else is left to the supervisor, who finds it in the ledger. */
  abandon(): void {
    // Closed already where its own end is what broke.
    if (this.phase !== "closed") this.enter("closed");
    this.client?.terminate();
    this.backendSocket?.terminate();
  }

  /** The only place where the phase changes. */
  enter(phase: Phase): void {
    if (!(NEXT[this.phase] as readonly Phase[]).includes(phase))
      throw new Error(`${this.phase} cannot become ${phase}`);
    this.phase = phase;
  }
}
