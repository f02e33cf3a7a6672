// One connection to a syslog receiver: datagrams (UDP, unix) or a stream (TCP, TLS, unix). syslog-output.ts decides what is sent, when to
// connect again, and what is lost.
import type { Socket, SocketHandler } from "bun";
import type { SyslogConfig } from "../config/schema.ts";
import { formatEndpoint, type Endpoint } from "../core/address.ts";
import { descriptorOf, upgradeToClient, type TlsHandler } from "../platform/bun.ts";
import { Connector, isSelfConnected } from "../platform/connector.ts";
import { connectDatagrams, sendDatagram } from "../platform/datagrams.ts";
import { errnoName } from "../platform/libc.ts";
import { closeDescriptor, ownSockets, sockaddr } from "../platform/sockets.ts";
import { TlsClient } from "../platform/tls-client.ts";
import { lookUp } from "./lookup.ts";
import { lineFramed, octetCounted } from "../wire/syslog.ts";

/** The user of a receiver. Its methods are called later, never from within a call of the receiver, except `lost`. */
export interface ReceiverOwner {
  /** Connected: `send` may be called. */
  opened(): void;
  /** Takes messages again, after it has not taken all. */
  ready(): void;
  /** The connection is over. `code` is an errno or the name of another reason. Called at most once. */
  failed(code: string): void;
  /** This many messages were not received. The connection stays open. */
  lost(messages: number, code: string): void;
}

export interface Receiver {
  /** Sends from the message with this index on. Returns how many it has taken. */
  send(messages: readonly Uint8Array[], from: number): number;
  /** Closes after delivering the messages that it has taken, as far as this machine can. The owner is not called any more. */
  close(): void;
}

/** Timeout of the TCP connect and the TLS handshake together. */
const CONNECT_MS = 10_000;
/** A receiver that takes nothing for this long is abandoned. */
const STALL_MS = 60_000;

/** The address to connect to, or why there is none; the addresses of a name are used in turn. */
export async function receiverAddress(endpoint: Endpoint, attempt: number): Promise<Endpoint | string> {
  if (endpoint.kind !== "name") return endpoint;
  try {
    const addresses = await lookUp(endpoint.host);
    const address = addresses[attempt % addresses.length];
    return address === undefined ? "ENOTFOUND" : { kind: "ip", address, port: endpoint.port };
  } catch (error) {
    return error instanceof Error ? error.message : "ENOTFOUND";
  }
}

/** Why a receiver cannot be connected to, or null. With UDP this detects little. */
export async function receiverTrouble(config: SyslogConfig): Promise<string | null> {
  const address = await receiverAddress(config.endpoint, 0);
  if (typeof address === "string") return address;
  const { promise, resolve } = Promise.withResolvers<string | null>();
  const owner = { opened: () => resolve(null), failed: resolve, ready: () => undefined, lost: () => undefined };
  const receiver = openReceiver(config, address, owner);
  return promise.finally(() => receiver.close());
}

/** `address` has the transport's own form, without a host name. */
export function openReceiver(config: SyslogConfig, address: Endpoint, owner: ReceiverOwner): Receiver {
  const { transport } = config;
  if (transport === "tcp" || transport === "tls") return new StreamReceiver(config, address, owner, octetCounted);
  if (!ownSockets()) return new NoReceiver(owner, "datagrams need Linux");
  const fd = connectDatagrams(sockaddr(address));
  // unix(7): the socket is a stream.
  if (fd === "EPROTOTYPE" && transport === "unix") return new StreamReceiver(config, address, owner, lineFramed);
  return typeof fd === "string" ? new NoReceiver(owner, fd) : new DatagramReceiver(fd, transport === "udp", owner);
}

/** A receiver that is unreachable. */
class NoReceiver implements Receiver {
  #owner: ReceiverOwner | null;

  constructor(owner: ReceiverOwner, code: string) {
    this.#owner = owner;
    queueMicrotask(() => this.#owner?.failed(code));
  }

  send(): number {
    return 0;
  }

  close(): void {
    this.#owner = null;
  }
}

// ---------------------------------------------------------------------- datagrams

/**
 * Delay before another attempt when the queue of the receiver is full: doubles from the first to the second while the receiver takes
 * nothing. The queue of a unix socket has ten places by default (net.unix.max_dgram_qlen), and no event tells that there is room.
 */
const RETRY_MS_MIN = 1;
const RETRY_MS_MAX = 128;
/** unix(7) and ip(7): there is no room now. */
const FULL = new Set(["EAGAIN", "ENOBUFS"]);

class DatagramReceiver implements Receiver {
  readonly #isUdp: boolean;
  readonly #owner: ReceiverOwner;
  #fd: number;
  #retryMs = RETRY_MS_MIN;
  #timer: ReturnType<typeof setTimeout> | null = null;

  constructor(fd: number, isUdp: boolean, owner: ReceiverOwner) {
    this.#fd = fd;
    this.#isUdp = isUdp;
    this.#owner = owner;
    queueMicrotask(() => {
      if (this.#fd >= 0) owner.opened();
    });
  }

  send(messages: readonly Uint8Array[], from: number): number {
    for (let at = from; at < messages.length; at++) {
      const code = this.#sendOne(messages[at]!);
      if (code === null) continue;
      if (code === "EMSGSIZE") this.#owner.lost(1, code);
      else {
        if (at > from) this.#retryMs = RETRY_MS_MIN;
        if (FULL.has(code)) this.#retry();
        else this.#fail(code);
        return at - from;
      }
    }
    this.#retryMs = RETRY_MS_MIN;
    return messages.length - from;
  }

  // A missing UDP receiver has answered an earlier datagram. This one was not sent, and is sent now, because the receiver may be back.
  #sendOne(message: Uint8Array): string | null {
    const code = sendDatagram(this.#fd, message);
    if (code !== "ECONNREFUSED" || !this.#isUdp) return code;
    this.#owner.lost(1, code);
    const again = sendDatagram(this.#fd, message);
    return again === "ECONNREFUSED" ? null : again;
  }

  #retry(): void {
    this.#timer = setTimeout(() => this.#owner.ready(), this.#retryMs);
    this.#retryMs = Math.min(2 * this.#retryMs, RETRY_MS_MAX);
  }

  #fail(code: string): void {
    this.close();
    queueMicrotask(() => this.#owner.failed(code));
  }

  close(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    if (this.#fd >= 0) closeDescriptor(this.#fd);
    this.#fd = -1;
  }
}

// ---------------------------------------------------------------------- streams

class StreamReceiver implements Receiver {
  readonly #endpoint: Endpoint;
  readonly #owner: ReceiverOwner;
  readonly #framed: (message: Uint8Array) => Uint8Array;
  readonly #tls: { client: TlsClient; host: string } | null;
  #phase: "connecting" | "handshake" | "open" | "closed" = "connecting";
  #socket: Socket<StreamReceiver | null> | null = null;
  /** Number of bytes of the first message of the next `send` that are already written. */
  #writtenBytes = 0;
  #isFull = false;
  #timer: ReturnType<typeof setTimeout>;

  constructor(
    { transport, endpoint, ca_pem: ca }: SyslogConfig,
    address: Endpoint,
    owner: ReceiverOwner,
    framed: (message: Uint8Array) => Uint8Array,
  ) {
    this.#endpoint = address;
    this.#owner = owner;
    this.#framed = framed;
    const plan = { verify: true, ca, serverName: "", alpn: [], minVersion: "1.2", cert: null, key: null } as const;
    const host = endpoint.kind === "name" ? endpoint.host : "";
    this.#tls = transport === "tls" ? { client: new TlsClient({ ...plan, alpn: [] }), host } : null;
    this.#timer = setTimeout(() => this.fail("ETIMEDOUT"), CONNECT_MS);
    const fd = connector.connect({ endpoint: address, sockaddr: sockaddr(address) }, null, this);
    if (fd < 0) queueMicrotask(() => this.fail(errnoName(-fd)));
  }

  send(messages: readonly Uint8Array[], from: number): number {
    const socket = this.#socket;
    if (this.#phase !== "open" || socket === null || this.#isFull) return 0;
    const frames = messages.slice(from).map(this.#framed);
    let written = this.#writtenBytes + Math.max(0, socket.write(Buffer.concat(frames).subarray(this.#writtenBytes)));
    let taken = 0;
    for (const { length } of frames) {
      if (written < length) break;
      written -= length;
      taken++;
    }
    this.#writtenBytes = written;
    if (taken < frames.length) this.#waitForRoom();
    return taken;
  }

  close(): void {
    if (this.#phase === "closed") return;
    const isOpen = this.#phase === "open";
    this.#phase = "closed";
    clearTimeout(this.#timer);
    if (!isOpen) this.#socket?.terminate();
    else if (this.#tls === null) this.#socket?.end();
    // A close_notify and a FIN: `end` would wait for the receiver's close_notify.
    else this.#socket?.shutdown();
    this.#socket = null;
  }

  #waitForRoom(): void {
    this.#isFull = true;
    this.#timer = setTimeout(() => this.fail("ETIMEDOUT"), STALL_MS);
  }

  // ---------------------------------------------------------------- events

  fail(code: string): void {
    if (this.#phase === "closed") return;
    this.#phase = "closed";
    clearTimeout(this.#timer);
    this.#socket?.terminate();
    this.#socket = null;
    this.#owner.failed(code);
  }

  adopt(socket: Socket<StreamReceiver | null>): void {
    if (this.#phase === "closed") socket.terminate();
    else this.#socket = socket;
  }

  drained(socket: Socket<StreamReceiver | null>): void {
    if (this.#phase === "connecting") return this.#connected(socket);
    if (this.#phase !== "open" || !this.#isFull) return;
    this.#isFull = false;
    clearTimeout(this.#timer);
    this.#owner.ready();
  }

  #connected(socket: Socket<StreamReceiver | null>): void {
    const endpoint = this.#endpoint;
    if (endpoint.kind === "ip" && isSelfConnected(socket, descriptorOf(socket), endpoint.port))
      return this.fail("ECONNREFUSED");
    if (this.#tls === null) return this.#open();
    this.#phase = "handshake";
    const options = this.#tls.client.options(this.#tls.host, formatEndpoint(endpoint));
    upgradeToClient<StreamReceiver | null>(socket, { tls: options, data: this, twin: null, handlers: tlsEvents });
  }

  handshaken(socket: Socket<StreamReceiver | null>, done: boolean, error: Error | null): void {
    if (this.#phase !== "handshake" || this.#tls === null) return;
    const { client, host } = this.#tls;
    const fault = client.verdict(host, formatEndpoint(this.#endpoint), socket, done, error);
    if (fault === null) this.#open();
    else this.fail(fault);
  }

  #open(): void {
    clearTimeout(this.#timer);
    this.#phase = "open";
    this.#owner.opened();
  }
}

const events: SocketHandler<StreamReceiver | null, "uint8array"> = {
  binaryType: "uint8array",
  open: (socket) => socket.data?.adopt(socket),
  drain: (socket) => socket.data?.drained(socket),
  // Receivers send nothing.
  data: () => undefined,
  end: (socket) => socket.data?.fail("ECONNRESET"),
  close: (socket, error) => socket.data?.fail(codeOf(error)),
  connectError: (socket, error) => socket.data?.fail(codeOf(error)),
  error: (socket, error) => socket.data?.fail(codeOf(error)),
};

const tlsEvents: TlsHandler<StreamReceiver | null> = {
  ...events,
  handshake: (socket, done, error) => socket.data?.handshaken(socket, done, error),
  error: (socket, error) => {
    socket.data?.handshaken(socket, false, error);
    socket.data?.fail(codeOf(error));
  },
};

const connector = new Connector(events);

function codeOf(error: unknown): string {
  return (error as { code?: string } | null | undefined)?.code ?? "ECONNRESET";
}
