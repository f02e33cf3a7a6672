// One health check of one backend: connects, sends the PROXY header, does the TLS handshake, runs the exchange, and leaves. health.ts
// decides when to check and what the results mean.
import type { Socket, SocketHandler } from "bun";
import type { CheckFailure } from "../core/check-failures.ts";
import { descriptorOf, upgradeToClient, type TlsHandler } from "../platform/bun.ts";
import { Connector, isSelfConnected, type Destination } from "../platform/connector.ts";
import { errnoName, LOCAL_ERRORS } from "../platform/libc.ts";
import type { Visibility } from "../platform/sockets.ts";
import type { TlsClient } from "../platform/tls-client.ts";
import type { CheckResult } from "../policy/rise-fall.ts";
import { connectOnly, type Exchange, type Step, type Verdict } from "../wire/exchange.ts";

/** What one check does. */
export interface ProbeSpec {
  to: Destination;
  /** The sockaddr of the local address, or null. */
  source: Uint8Array | null;
  timeoutMs: number;
  /**
   * "unseen": the check ends when TCP is connected, and the backend's program does not see the connection if the platform supports that.
   */
  visibility: Visibility;
  /** Sent first: a PROXY header that says that the connection is lb's own; empty = none. */
  header: Uint8Array;
  /** TLS with the backend of this name and address, or null. `when`: before anything else, or when the exchange asks for it. */
  tls: { client: TlsClient; host: string; address: string; when: "first" | "asked" } | null;
  exchange: Exchange;
}

export interface Outcome {
  result: CheckResult;
  /** Why the check failed or could not be made; null = it succeeded. */
  why: string | null;
  /** The kind of failure; null = it succeeded, or it could not be made on this machine. */
  failure: CheckFailure | null;
  /** There was no answer within the timeout. */
  silent: boolean;
}

/** The owner of a probe: is told its outcome, and then that its descriptor is free. Both are called once, and never from within the constructor. */
export interface ProbeOwner {
  probed(outcome: Outcome): void;
  probeClosed(): void;
}

type Phase = "connecting" | "handshake" | "exchange" | "leaving" | "closed";

/** A timeout that ends this much later than it should was delayed by a blocked thread. */
const LATE_MS = 10;

/** Maximum number of bytes that a backend may send after its check is over; beyond that it is reset. */
const LEAVING_BYTES_MAX = 256 * 1024;

/** Called by the handlers of a probe's sockets. */
interface SocketUser {
  opened(socket: Socket<SocketUser>): void;
  connected(socket: Socket<SocketUser>): void;
  received(socket: Socket<SocketUser>, bytes: Uint8Array): void;
  peerEnded(socket: Socket<SocketUser>): void;
  handshaken(socket: Socket<SocketUser>, done: boolean, error: Error | null): void;
  closed(error: Error | null | undefined): void;
}

export class Probe implements SocketUser {
  readonly #spec: ProbeSpec;
  readonly #owner: ProbeOwner;
  #timer: ReturnType<typeof setTimeout>;
  /** When the timeout is over, on performance.now(). */
  readonly #endMs: number;
  #isProlonged = false;
  #phase: Phase = "connecting";
  #socket: Socket<SocketUser> | null = null;
  /** What the exchange does after the TLS handshake; null = it begins. */
  #secured: Step | null = null;
  #leavingBytes = 0;

  /** The check begins at once. */
  constructor(spec: ProbeSpec, owner: ProbeOwner) {
    this.#spec = spec;
    this.#owner = owner;
    this.#endMs = performance.now() + spec.timeoutMs;
    this.#timer = setTimeout(() => this.#timedOut(), spec.timeoutMs);
    const fd = connector.connect(spec.to, spec.source, this, spec.visibility);
    // Deferred, because the owner has no probe yet.
    if (fd < 0) queueMicrotask(() => this.#fail(connectFailure(errnoName(-fd), spec.to)));
  }

  /** Ends it without an outcome; the owner is not called any more. */
  cancel(): void {
    this.#close();
  }

  // ---------------------------------------------------------------- events

  opened(socket: Socket<SocketUser>): void {
    if (this.#phase === "closed") socket.terminate();
    else this.#socket = socket;
  }

  connected(socket: Socket<SocketUser>): void {
    if (this.#phase !== "connecting") return;
    const { to, visibility, header, tls } = this.#spec;
    if (to.endpoint.kind === "ip" && isSelfConnected(socket, descriptorOf(socket), to.endpoint.port)) {
      return this.#fail(connectFailure("ECONNREFUSED", to));
    }
    if (visibility === "unseen") {
      this.#tell(SUCCESS);
      return this.#closeNow();
    }
    // The send buffer of a new connection is larger than any header.
    if (header.length > 0) socket.write(header);
    if (tls?.when === "first") this.#beginTls(socket);
    else this.#beginExchange(socket);
  }

  handshaken(socket: Socket<SocketUser>, done: boolean, error: Error | null): void {
    const { tls } = this.#spec;
    if (this.#phase !== "handshake" || tls === null) return;
    const fault = tls.client.verdict(tls.host, tls.address, socket, done, error);
    if (fault === null) this.#beginExchange(socket);
    else this.#fail(failed("tls", `TLS handshake failed: ${fault}`));
  }

  received(socket: Socket<SocketUser>, bytes: Uint8Array): void {
    this.connected(socket);
    if (this.#phase === "exchange") return this.#take(socket, this.#spec.exchange.push(bytes));
    if (this.#phase !== "leaving") return;
    this.#leavingBytes += bytes.length;
    if (this.#leavingBytes > LEAVING_BYTES_MAX) this.#closeNow();
  }

  peerEnded(socket: Socket<SocketUser>): void {
    this.connected(socket);
    if (this.#phase === "exchange") this.#take(socket, this.#spec.exchange.end("closed"));
    else if (this.#phase === "handshake") this.closed(null);
  }

  closed(error: Error | null | undefined): void {
    this.#socket = null;
    const code = (error as { code?: string } | null | undefined)?.code;
    switch (this.#phase) {
      case "connecting":
        return this.#fail(connectFailure(code ?? "closed", this.#spec.to));
      case "handshake":
        return this.#fail(failed("tls", `TLS handshake failed: ${code ?? "closed"}`));
      case "exchange":
        return this.#fail(failed("answer", `closed before the answer: ${code ?? "end"}`));
      case "leaving":
        return this.#closeNow();
      case "closed":
    }
  }

  // ---------------------------------------------------------------- the exchange

  #beginTls(socket: Socket<SocketUser>): void {
    const { tls } = this.#spec;
    if (tls === null) throw new Error("a check that speaks TLS has no context for it");
    this.#phase = "handshake";
    const options = tls.client.options(tls.host, tls.address);
    upgradeToClient(socket, { tls: options, data: this, twin: nobody, handlers: tlsEvents });
  }

  #beginExchange(socket: Socket<SocketUser>): void {
    this.#phase = "exchange";
    const step = this.#secured ?? this.#spec.exchange.begin();
    this.#secured = null;
    this.#take(socket, step);
  }

  #take(socket: Socket<SocketUser>, step: Step): void {
    if (step.is === "tls") {
      this.#secured = step.next;
      return this.#beginTls(socket);
    }
    if (step.send !== null && socket.write(step.send) !== step.send.length) {
      return this.#fail(failed("answer", "the backend does not read"));
    }
    if (step.is !== "more") this.#leave(socket, outcomeOf(step, "answer"));
  }

  // Sends FIN and waits for the backend's: a close with an unread answer would be a reset, which some servers log as an error. With TLS the
  // descriptor stays open until the backend's close_notify. Both end at the timeout.
  #leave(socket: Socket<SocketUser>, outcome: Outcome): void {
    this.#phase = "leaving";
    this.#tell(outcome);
    if (this.#spec.exchange === connectOnly) socket.end();
    else socket.shutdown();
  }

  // ---------------------------------------------------------------- the end

  #timedOut(): void {
    if (this.#phase === "leaving") return this.#closeNow();
    if (this.#phase === "closed" || this.#prolong()) return;
    if (this.#phase === "exchange") this.#fail(outcomeOf(this.#spec.exchange.end("timeout"), "timeout"));
    else this.#fail(failed("timeout", TIMED_OUT[this.#phase]));
  }

  // A timer that fires late means that this thread was blocked: the answer may have arrived, and timers run before sockets are read. The
  // backend gets back, once, the time in which it was not listened to.
  #prolong(): boolean {
    const lateMs = performance.now() - this.#endMs;
    if (this.#isProlonged || lateMs < LATE_MS) return false;
    this.#isProlonged = true;
    this.#timer = setTimeout(() => this.#timedOut(), Math.min(lateMs, this.#spec.timeoutMs));
    return true;
  }

  /** Ends it at once with a reset. */
  #fail(outcome: Outcome): void {
    if (this.#phase === "leaving" || this.#phase === "closed") return;
    this.#tell(outcome);
    this.#closeNow();
  }

  #tell(outcome: Outcome): void {
    this.#owner.probed(outcome);
  }

  #closeNow(): void {
    if (this.#phase === "closed") return;
    this.#close();
    this.#owner.probeClosed();
  }

  // In the middle of its handshake a TLS socket would not close, but wait for the peer.
  #close(): void {
    this.#phase = "closed";
    clearTimeout(this.#timer);
    const socket = this.#socket;
    this.#socket = null;
    socket?.terminate();
  }
}

const TIMED_OUT = { connecting: "connect timed out", handshake: "TLS handshake timed out" } as const;

const SUCCESS: Outcome = { result: "success", why: null, failure: null, silent: false };

function failed(failure: CheckFailure, why: string): Outcome {
  return { result: "failure", why, failure, silent: failure === "timeout" };
}

/** `failure`: what a bad verdict is. */
function outcomeOf(verdict: Verdict, failure: "answer" | "timeout"): Outcome {
  if (verdict.is === "ok") return { ...SUCCESS, silent: failure === "timeout" };
  return failed(failure, verdict.why);
}

function connectFailure(code: string, { endpoint }: Destination): Outcome {
  if (code === "ECONNREFUSED") return failed("refused", "connection refused");
  // unix(7): for a unix socket, EAGAIN is a state of the backend.
  if (code === "EAGAIN" && endpoint.kind !== "ip") return failed("failed", "connect failed: the accept queue is full");
  if (LOCAL_ERRORS.has(code)) {
    return { result: "unknown", why: `not checked: ${code} on this machine`, failure: null, silent: false };
  }
  return failed("failed", `connect failed: ${code}`);
}

// ---------------------------------------------------------------------- handlers

const events: SocketHandler<SocketUser, "uint8array"> = {
  binaryType: "uint8array",
  open: (socket) => socket.data.opened(socket),
  drain: (socket) => socket.data.connected(socket),
  data: (socket, bytes) => socket.data.received(socket, bytes),
  end: (socket) => socket.data.peerEnded(socket),
  close: (socket, error) => socket.data.closed(error),
  connectError: (socket, error) => socket.data.closed(error),
  error: (socket, error) => socket.data.closed(error),
};

const tlsEvents: TlsHandler<SocketUser> = {
  ...events,
  // For a TLS socket: before the end of the handshake the only possible event is its close.
  drain: ignore,
  handshake: (socket, done, error) => socket.data.handshaken(socket, done, error),
  error: (socket, error) => {
    socket.data.handshaken(socket, false, error);
    socket.data.closed(error);
  },
};

const connector = new Connector(events);

/** The ciphertext events of a socket that has become TLS are ignored; the TLS socket reports everything. */
const nobody: SocketUser = {
  opened: ignore,
  connected: ignore,
  received: ignore,
  peerEnded: ignore,
  handshaken: ignore,
  closed: ignore,
};

function ignore(): void {
  // See above.
}
