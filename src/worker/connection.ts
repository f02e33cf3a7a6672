// One proxied TCP connection, from accept to its line in the access log. It owns the two sockets, the two flows between them and the
// current phase, to which it passes each event. The files of the phases say what events mean, in the order of life: reading.ts,
// client-tls.ts, dialing.ts (with the wait in queueing.ts), relaying.ts. After the end there is `closed` below.
import type { Socket } from "bun";
import { dryRunBit } from "../core/dry-run.ts";
import type { End, EndedBy } from "../core/ends.ts";
import { GOLDEN_RATIO } from "../core/golden-ratio.ts";
import type { TimerNode } from "../core/timer-wheel.ts";
import { tlsFacts } from "../platform/bun.ts";
import type { PickContext } from "../policy/candidate.ts";
import type { Direction } from "../shared/bandwidth.ts";
import { monotonicMs } from "../platform/clock.ts";
import { BACKEND, countTime, FIRST_BYTE_TIMES, LISTENER, WORKER } from "../shared/counters.ts";
import { FIRST_END, PHASES, ROW, ROW_FLOAT, ROW_FLOATS, ROW_WORDS, type PhaseName } from "../shared/ledger.ts";
import { noteDryRun } from "./admission.ts";
import { LATE_MS } from "./clock.ts";
import { abortsWithFin, closePeers, stopLingering, type Peers } from "./closing.ts";
import { conclude } from "./ending.ts";
import { Flow } from "./flow.ts";
import type { Listener } from "./listener.ts";
import type { Backend, Pool } from "./pool.ts";
import { ClientFacts, type Host, type Session } from "./session.ts";
import type { BackendSide, ClientSide } from "./socket-events.ts";
import type { Times } from "./timeouts.ts";
import type { TlsObserver } from "./tls-observer.ts";
import type { Sleeper } from "./wakes.ts";

/** The phases that may follow each phase. A retry dials again, possibly after another wait. */
const NEXT: Readonly<Record<PhaseName, readonly PhaseName[]>> = {
  accepted: ["reading", "handshaking", "queued", "dialing", "closed"],
  reading: ["handshaking", "queued", "dialing", "closed"],
  handshaking: ["queued", "dialing", "closed"],
  queued: ["dialing", "closed"],
  dialing: ["queued", "dialing", "relaying", "closed"],
  relaying: ["closed"],
  closed: [],
};

/** The meaning of events while a connection is in a phase. There is one object per phase; the state belongs to the connection. */
export interface Phase {
  readonly name: PhaseName;
  /** Its index in PHASES. */
  readonly code: number;
  /** Bit n is set if the phase with code n may follow. */
  readonly next: number;
  clientData(connection: Connection, chunk: Uint8Array): void;
  clientDrained(connection: Connection): void;
  clientEnded(connection: Connection): void;
  /** The client's socket has closed, and the connection no longer has it. */
  clientClosed(connection: Connection, error: Error | undefined): void;
  clientHandshake(connection: Connection, socket: Socket<unknown>, done: boolean, error: Error | null): void;
  clientTlsFailed(connection: Connection, error: Error): void;
  backendOpened(connection: Connection, socket: Socket<unknown>): void;
  /** Only the connection's current socket causes these events. */
  backendData(connection: Connection, chunk: Uint8Array): void;
  backendDrained(connection: Connection): void;
  backendEnded(connection: Connection): void;
  backendClosed(connection: Connection, error: Error | undefined): void;
  backendHandshake(connection: Connection, done: boolean, error: Error | null): void;
  backendTlsFailed(connection: Connection, error: Error): void;
  timer(connection: Connection, nowMs: number): void;
  /** A place at this backend is claimed for the connection. */
  placed(connection: Connection, backend: Backend): void;
  /** The time for which a flow has waited has come. */
  wake(connection: Connection, flow: Flow): void;
  /** `stopAtWheelMs` has changed. */
  stopping(connection: Connection): void;
}

// Facts that few connections need are in `facts` or in an observer, and short-lived state is in the row of the ledger: 26 fields are the
// most that fit into 224 bytes, and one more costs 32. test/worker/connection.test.ts measures it.
export class Connection implements Session, Peers, Times, TimerNode, PickContext, Sleeper, ClientSide, BackendSide {
  timerNext: TimerNode | null = null;
  timerPrev: TimerNode | null = null;
  timerSlot = -1;
  timerAt = 0;

  phase: Phase = accepted;
  readonly host: Host;
  readonly listener: Listener;
  readonly row: number;
  client: Socket<unknown> | null;
  /** The socket to the backend: connecting in the phase dialing, connected in the phase relaying. */
  backendSocket: Socket<unknown> | null = null;
  /** The pool of the connection: the listener's, or a route's. */
  pool: Pool | null;
  backend: Backend | null = null;
  /** Ids of backends that failed and are not tried again. */
  tried: number[] | null = null;
  readonly toBackend = new Flow();
  readonly toClient = new Flow();

  facts: ClientFacts | null = null;
  /** Follows the TLS records from the backend, if TLS is used with it. */
  backendTlsObserver: TlsObserver | null = null;

  /** When a byte or FIN last arrived, or waiting bytes were last sent. */
  activeWheelMs: number;
  readonly startedWheelMs: number;
  stopAtWheelMs = Infinity;
  /** On performance.now(). */
  dialStartedMs = 0;
  connectMs = -1;
  /** TCP keepalive that is still to be set on the backend's socket; 0 = none. */
  keepaliveMs = 0;
  resetsBackend = false;
  lingering = 0;

  constructor(host: Host, listener: Listener, client: Socket<unknown>, row: number) {
    this.host = host;
    this.listener = listener;
    this.pool = listener.pool;
    this.row = row;
    this.client = client;
    this.toBackend.from = client;
    this.toClient.to = client;
    this.activeWheelMs = host.wheel.now + LATE_MS;
    this.startedWheelMs = this.activeWheelMs;
  }

  // ---------------------------------------------------------------- what is known

  /** The descriptors of the two sockets; -1 = none, or none of lb's own. */
  get clientFd(): number {
    return this.host.words[this.row * ROW_WORDS + ROW.clientFd]!;
  }

  get backendFd(): number {
    return this.host.words[this.row * ROW_WORDS + ROW.backendFd]!;
  }

  get sni(): string {
    return this.facts === null ? "" : this.facts.sni;
  }

  get isRelaying(): boolean {
    return this.phase.code === RELAYING;
  }

  /**
   * Within the last tenth of `lifetime`, so that clients whose connections were opened together do not all reconnect at once. Multiples of
   * the golden ratio are evenly spread, however many there are.
   */
  get lifetimeEndsWheelMs(): number {
    const { lifetime } = this.listener.plan.timeoutsMs;
    if (lifetime === 0) return Infinity;
    const spread = (this.host.floats[this.row * ROW_FLOATS + ROW_FLOAT.id]! * GOLDEN_RATIO) % 1;
    return this.startedWheelMs + lifetime * (0.9 + 0.1 * spread);
  }

  get halfClosed(): boolean {
    return this.toBackend.state !== "open" || this.toClient.state !== "open";
  }

  get clientSpeaksTls(): boolean {
    return this.facts !== null && this.facts.tlsVersion !== "";
  }

  get speaksTls(): boolean {
    return this.clientSpeaksTls || this.backendTlsObserver !== null;
  }

  /** See PickContext. */
  hashKey(): number {
    const by = this.pool?.plan.hashKey ?? "client";
    return this.listener.prefix.hashOf(this.host.words, this.row * ROW_WORDS + ROW.address, by, this.sni);
  }

  /** The facts of the client, created when there is one. */
  ensureFacts(): ClientFacts {
    return (this.facts ??= new ClientFacts());
  }

  noteSni(name: string): void {
    if (name === "") return;
    this.ensureFacts().sni = name;
    this.host.ledger.noteSni(this.row, name);
  }

  // ---------------------------------------------------------------- events of the client's socket; hot path

  /** The accepted socket has become this TLS socket. */
  clientOpened(socket: Socket<unknown>): void {
    this.client = socket;
    this.toBackend.from = socket;
    this.toClient.to = socket;
  }

  clientData(chunk: Uint8Array): void {
    this.phase.clientData(this, chunk);
  }

  clientDrained(): void {
    this.phase.clientDrained(this);
  }

  clientEnded(): void {
    this.phase.clientEnded(this);
  }

  clientClosed(error: Error | undefined): void {
    this.client = null;
    this.toBackend.from = null;
    this.phase.clientClosed(this, error);
  }

  clientHandshake(socket: Socket<unknown>, done: boolean, error: Error | null): void {
    this.phase.clientHandshake(this, socket, done, error);
  }

  clientTlsFailed(error: Error): void {
    this.phase.clientTlsFailed(this, error);
  }

  // ---------------------------------------------------------------- events of the backend's socket; hot path

  backendOpened(socket: Socket<unknown>): void {
    this.phase.backendOpened(this, socket);
  }

  backendData(socket: Socket<unknown>, chunk: Uint8Array): void {
    if (socket === this.backendSocket) this.phase.backendData(this, chunk);
  }

  backendDrained(socket: Socket<unknown>): void {
    if (socket === this.backendSocket) this.phase.backendDrained(this);
  }

  backendEnded(socket: Socket<unknown>): void {
    if (socket === this.backendSocket) this.phase.backendEnded(this);
  }

  backendClosed(socket: Socket<unknown>, error: Error | undefined): void {
    if (socket === this.backendSocket) this.phase.backendClosed(this, error);
  }

  /** A socket that never opened is not stored yet; one whose attempt was abandoned does not count. */
  backendRefused(socket: Socket<unknown>, error: Error): void {
    if (this.backendSocket === null) this.backendOpened(socket);
    this.backendClosed(socket, error);
  }

  backendTlsOpened(socket: Socket<unknown>): void {
    this.backendSocket = socket;
    const session = this.backend === null ? null : this.pool?.tls?.session(this.backend.host, this.backend.address);
    if (session) tlsFacts(socket).setSession(session);
  }

  backendHandshake(socket: Socket<unknown>, done: boolean, error: Error | null): void {
    if (socket === this.backendSocket) this.phase.backendHandshake(this, done, error);
  }

  backendSession(session: Uint8Array): void {
    if (this.backend !== null) this.pool?.tls?.keep(this.backend.host, this.backend.address, session);
  }

  backendTlsFailed(socket: Socket<unknown>, error: Error): void {
    if (socket === this.backendSocket) this.phase.backendTlsFailed(this, error);
  }

  // ---------------------------------------------------------------- other events

  onTimer(nowMs: number): void {
    this.phase.timer(this, nowMs);
  }

  placed(backend: Backend): void {
    this.phase.placed(this, backend);
  }

  wake(flow: Flow): void {
    this.phase.wake(this, flow);
  }

  stopAt(wheelMs: number): void {
    this.stopAtWheelMs = wheelMs;
    this.phase.stopping(this);
  }

  // ---------------------------------------------------------------- what phases do

  /** The only place where the phase changes. */
  enter(phase: Phase): void {
    const { code } = phase;
    if ((this.phase.next & (1 << code)) === 0) throw new Error(`${this.phase.name} cannot become ${phase.name}`);
    this.phase = phase;
    this.host.words[this.row * ROW_WORDS + ROW.phase] = code;
  }

  /** A byte or a FIN has arrived, or waiting bytes were sent. */
  touch(): void {
    this.activeWheelMs = this.host.wheel.now + LATE_MS;
  }

  /** Passes on bytes of the client to the backend. False = the connection has ended, because the backend is gone. Hot path. */
  forwardToBackend(chunk: Uint8Array): boolean {
    this.countIn(chunk.length);
    if (this.toBackend.forward(chunk)) return true;
    this.finish("reset", "backend");
    return false;
  }

  countIn(bytes: number): void {
    this.host.floats[this.row * ROW_FLOATS + ROW_FLOAT.bytesIn]! += bytes;
    this.listener.counters[LISTENER.bytesIn]! += bytes;
    this.host.counters[WORKER.bytesIn]! += bytes;
    if (this.backend !== null && this.isRelaying) this.backend.count(BACKEND.bytesIn, bytes);
    if (this.facts !== null) this.tryBandwidth(this.facts, "upload", bytes);
    this.touch();
  }

  countOut(bytes: number): void {
    const { floats } = this.host;
    const at = this.row * ROW_FLOATS;
    if (floats[at + ROW_FLOAT.bytesOut] === 0 && this.isRelaying) {
      countTime(this.listener.counters, FIRST_BYTE_TIMES, monotonicMs() - floats[at + ROW_FLOAT.startedMs]!);
    }
    floats[at + ROW_FLOAT.bytesOut]! += bytes;
    this.listener.counters[LISTENER.bytesOut]! += bytes;
    this.host.counters[WORKER.bytesOut]! += bytes;
    if (this.backend !== null && this.isRelaying) this.backend.count(BACKEND.bytesOut, bytes);
    if (this.facts !== null) this.tryBandwidth(this.facts, "download", bytes);
    this.touch();
  }

  /** Records whether a bandwidth limit that is not enforced would have delayed these bytes. */
  tryBandwidth({ triedBandwidth }: ClientFacts, direction: Direction, bytes: number): void {
    if (triedBandwidth === null) return;
    const isOver = triedBandwidth[direction]?.exceededBy(bytes, performance.now());
    if (isOver) noteDryRun(this.host, this.listener, this.row, DRY_RUN_BANDWIDTH);
  }

  /** The client's FIN, which is passed on after its last byte. */
  noteClientEnd(): void {
    if (this.toBackend.state !== "open") return;
    this.toBackend.state = "ending";
    this.touch();
    this.noteFirstEnd(FIRST_END.client);
    // A FIN without a close_notify is passed on like any other, counted and logged.
    if (this.facts?.tlsObserver?.noteEnd()) this.listener.counters[LISTENER.tlsTruncated]!++;
  }

  noteFirstEnd(by: number): void {
    const { words } = this.host;
    const at = this.row * ROW_WORDS + ROW.firstEnd;
    if (words[at] === FIRST_END.none) words[at] = by;
  }

  /** The side that truncated TLS, for the log; "" = none. */
  get truncated(): string {
    const byClient = this.facts?.tlsObserver?.truncated === true;
    const byBackend = this.backendTlsObserver?.truncated === true;
    if (byClient) return byBackend ? "truncated by both" : "truncated by client";
    return byBackend ? "truncated by backend" : "";
  }

  // ---------------------------------------------------------------- the end

  finish(end: End, by: EndedBy, error = ""): void {
    if (this.phase === closed) return;
    const relayed = this.isRelaying;
    const withFin = relayed && by === "lb" && abortsWithFin(this, end);
    if (relayed && end === "reset" && by === "backend") this.#noteReset();
    this.enter(closed);
    this.host.wheel.cancel(this);
    this.host.wakes.forget(this);
    const ended = { end, by, error: error === "" ? this.truncated : error };
    conclude(this, ended);
    this.toBackend.clear();
    this.toClient.clear();
    if (this.facts !== null) this.facts.head = null;
    closePeers(this, ended, relayed, withFin);
  }

  // While the row still belongs to this connection.
  #noteReset(): void {
    const answered = this.host.floats[this.row * ROW_FLOATS + ROW_FLOAT.bytesOut]! > 0;
    if (!answered && this.backend !== null) this.backend.passive?.resetEarly(this.backend.id);
  }

  abandon(): void {
    // Already closed if its own end was what failed.
    if (this.phase !== closed) this.enter(closed);
    // Other threads reuse the numbers before this one has ended.
    this.host.words[this.row * ROW_WORDS + ROW.clientFd] = -1;
    this.host.words[this.row * ROW_WORDS + ROW.backendFd] = -1;
    this.client?.terminate();
    this.backendSocket?.terminate();
  }
}

const RELAYING = PHASES.indexOf("relaying");
const DRY_RUN_BANDWIDTH = dryRunBit("bandwidth");

function ignore(): void {
  // A phase in which this event means nothing.
}

type Events = Omit<Phase, "name" | "code" | "next">;

/** The events of a phase before the end, unless the phase gives them another meaning. */
const LIVE: Events = {
  clientData: (connection, chunk) => void connection.forwardToBackend(chunk),
  clientDrained: ignore,
  clientEnded: (connection) => connection.noteClientEnd(),
  clientClosed(connection, error) {
    // The descriptor may be reused for another socket from now on.
    connection.host.words[connection.row * ROW_WORDS + ROW.clientFd] = -1;
    // After lb's own FIN, the peer's arrives as a close without error: it is an ordinary end.
    if (error === undefined) connection.clientEnded();
    else connection.finish("reset", "client");
  },
  clientHandshake: ignore,
  clientTlsFailed: (connection) => connection.finish("reset", "client", "tls"),
  backendOpened: (_connection, socket) => socket.terminate(),
  backendData: ignore,
  backendDrained: ignore,
  backendEnded: ignore,
  backendClosed: ignore,
  backendHandshake: ignore,
  backendTlsFailed: ignore,
  timer: ignore,
  placed() {
    throw new Error("a place is claimed for a connection that does not wait for one");
  },
  wake: ignore,
  stopping: ignore,
};

/** Defines a phase. All phases are made here, so that the engine sees one shape of object. */
export function definePhase(name: PhaseName, events: Partial<Events>): Phase {
  const next = NEXT[name].reduce((bits, follower) => bits | (1 << PHASES.indexOf(follower)), 0);
  return { name, code: PHASES.indexOf(name), next, ...LIVE, ...events };
}

/** The phase before accept.ts enters the first one. */
const accepted: Phase = definePhase("accepted", {});

/** After the end: only lingering sockets still have events. */
const closed: Phase = definePhase("closed", {
  clientData: ignore,
  clientEnded: ignore,
  clientTlsFailed: ignore,
  clientClosed(connection) {
    if (connection.backendSocket === null) stopLingering(connection);
  },
  backendClosed(connection) {
    connection.backendSocket = null;
    if (connection.client === null) stopLingering(connection);
  },
  timer(connection) {
    connection.client?.terminate();
    connection.backendSocket?.terminate();
    stopLingering(connection);
  },
});
