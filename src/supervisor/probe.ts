// One health check of one backend: connects, sends the PROXY header, does the TLS handshake, runs the exchange, and leaves. When
// to check, and what the results mean, is decided in health.ts.
import type { Socket, SocketHandler } from "bun";
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
  /** "unseen": the check is over when TCP is connected, and the backend's program never hears of it where the platform can do that. */
  visibility: Visibility;
  /** Sent first: a PROXY header that says that the connection is our own; empty = none. */
  header: Uint8Array;
  /** TLS with the backend that has this name and address, or null; `when`: first of all, or where the exchange asks for it. */
  tls: { client: TlsClient; host: string; address: string; when: "first" | "asked" } | null;
  exchange: Exchange;
}

export interface Outcome {
  result: CheckResult;
  /** What went wrong; null = nothing. */
  why: string | null;
  /** There was no answer within the timeout. */
  silent: boolean;
}

/** Whoever started a probe: hears its outcome first, and then that its descriptor is free. Each is told once, and later. */
export interface ProbeOwner {
  probed(outcome: Outcome): void;
  probeClosed(): void;
}

type Phase = "connecting" | "handshake" | "exchange" | "leaving" | "closed";

/** What a backend may still say when its check is over; one that says more is reset. */
const LEAVING_BYTES_MAX = 256 * 1024;

/** What the handlers of a probe's sockets call. */
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
  readonly #timer: ReturnType<typeof setTimeout>;
  #phase: Phase = "connecting";
  #socket: Socket<SocketUser> | null = null;
  /** What the exchange wants behind the TLS handshake; null = to begin. */
  #secured: Step | null = null;
  #leavingBytes = 0;

  /** Begins at once. */
  constructor(spec: ProbeSpec, owner: ProbeOwner) {
    this.#spec = spec;
    this.#owner = owner;
    this.#timer = setTimeout(() => this.#timedOut(), spec.timeoutMs);
    const fd = connector.connect(spec.to, spec.source, this, spec.visibility);
    // Not from here, because the owner has no probe yet.
    if (fd < 0) queueMicrotask(() => this.#fail(connectFailure(errnoName(-fd), spec.to)));
  }

  /** Ends it without an outcome; the owner hears nothing more. */
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
      this.#tell({ result: "success", why: null, silent: false });
      return this.#closeNow();
    }
    // The buffer of a socket that has just been connected is larger than any header.
    if (header.length > 0) socket.write(header);
    if (tls?.when === "first") this.#beginTls(socket);
    else this.#beginExchange(socket);
  }

  handshaken(socket: Socket<SocketUser>, done: boolean, error: Error | null): void {
    const { tls } = this.#spec;
    if (this.#phase !== "handshake" || tls === null) return;
    const fault = tls.client.verdict(tls.host, tls.address, socket, done, error);
    if (fault === null) this.#beginExchange(socket);
    else this.#fail({ result: "failure", why: `TLS handshake failed: ${fault}`, silent: false });
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
        return this.#fail({ result: "failure", why: `TLS handshake failed: ${code ?? "closed"}`, silent: false });
      case "exchange":
        return this.#fail({ result: "failure", why: `closed before the answer: ${code ?? "end"}`, silent: false });
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
      return this.#fail({ result: "failure", why: "the backend does not read", silent: false });
    }
    if (step.is !== "more") this.#leave(socket, outcomeOf(step, false));
  }

  // FIN, and then the backend's: to close with an answer unread would be a reset, which some servers log as an error. With TLS the
  // descriptor lives until the backend's close_notify. Both end at the timeout.
  #leave(socket: Socket<SocketUser>, outcome: Outcome): void {
    this.#phase = "leaving";
    this.#tell(outcome);
    if (this.#spec.exchange === connectOnly) socket.end();
    else socket.shutdown();
  }

  // ---------------------------------------------------------------- the end

  #timedOut(): void {
    if (this.#phase === "leaving") return this.#closeNow();
    if (this.#phase === "closed") return;
    if (this.#phase === "exchange") this.#fail(outcomeOf(this.#spec.exchange.end("timeout"), true));
    else this.#fail({ result: "failure", why: TIMED_OUT[this.#phase], silent: true });
  }

  /** Ends it at once, with a reset. */
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

  // A TLS socket in the middle of its handshake would not end, but wait for the other side.
  #close(): void {
    this.#phase = "closed";
    clearTimeout(this.#timer);
    const socket = this.#socket;
    this.#socket = null;
    socket?.terminate();
  }
}

const TIMED_OUT = { connecting: "connect timed out", handshake: "TLS handshake timed out" } as const;

function outcomeOf(verdict: Verdict, silent: boolean): Outcome {
  if (verdict.is === "ok") return { result: "success", why: null, silent };
  return { result: "failure", why: verdict.why, silent };
}

function connectFailure(code: string, { endpoint }: Destination): Outcome {
  const failure = { result: "failure", silent: false } as const;
  if (code === "ECONNREFUSED") return { ...failure, why: "connection refused" };
  // unix(7): to a unix socket EAGAIN speaks of the backend.
  if (code === "EAGAIN" && endpoint.kind !== "ip")
    return { ...failure, why: "connect failed: the accept queue is full" };
  if (LOCAL_ERRORS.has(code)) return { result: "unknown", why: `not checked: ${code} on this machine`, silent: false };
  return { ...failure, why: `connect failed: ${code}` };
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
  // Of a TLS socket: before the handshake is done there is nothing to hear but its end.
  drain: ignore,
  handshake: (socket, done, error) => socket.data.handshaken(socket, done, error),
  error: (socket, error) => {
    socket.data.handshaken(socket, false, error);
    socket.data.closed(error);
  },
};

const connector = new Connector(events);

/** Hears the ciphertext of a socket that has become TLS; the TLS socket says all that counts. */
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
