// Declarations of Bun's undeclared APIs: no name here is in a type declaration of Bun 1.4.5, and each has a test in test/platform/, so
// that an upgrade of Bun that breaks one is noticed at once.
import type { Socket, SocketHandler } from "bun";
import { formatAddress, parseAddress, type Endpoint } from "../core/address.ts";
import { ownSockets, peerAddress } from "./sockets.ts";

/** The part of Bun's listener that lb uses. */
export interface Listening {
  stop(closeActiveConnections?: boolean): void;
}

interface AdoptOptions<Data> {
  fd: number;
  allowHalfOpen: true;
  data: Data;
  socket: SocketHandler<Data, "uint8array">;
}

/**
 * Serves a listening descriptor, in any thread. `stop` closes the descriptor and no accepted socket. Bun calls listen(2) again with a
 * backlog of 511. With `tls` the accepted sockets speak TLS, and `handshake` reports the result of the handshake.
 */
export function listenOnDescriptor<Data>(
  fd: number,
  data: Data,
  socket: SocketHandler<Data, "uint8array">,
  tls: ServerTls | null = null,
): Listening {
  const options: AdoptOptions<Data> = { fd, allowHalfOpen: true, data, socket };
  return Bun.listen({ ...options, ...(tls && { tls: withoutEmpty(tls) }) } as never) as Listening;
}

/** Listens with Bun's own API and SO_REUSEPORT: the portable way, without FFI. */
export function listenOnAddress<Data>(
  hostname: string,
  port: number,
  data: Data,
  socket: SocketHandler<Data, "uint8array">,
): Listening {
  return Bun.listen({ hostname, port, reusePort: true, allowHalfOpen: true, data, socket } as never) as Listening;
}

/**
 * Adopts a descriptor whose connect(2) is in progress. `open` is called before this returns, whatever the result of the connect will be:
 * the first `drain` or `data` means that it is connected, `close` with an error that it failed and why.
 */
export function adoptConnecting<Data>(fd: number, data: Data, socket: SocketHandler<Data, "uint8array">): void {
  const options: AdoptOptions<Data> = { fd, allowHalfOpen: true, data, socket };
  // The table has a `connectError`, so the promise's rejection is never unhandled.
  void Bun.connect(options as never);
}

/**
 * Connects with Bun's own API: the portable way. No deadline cancels the attempt before the kernel gives up, and every failure is
 * reported as ECONNREFUSED. A caller that has given up the attempt must ignore its socket. `open` comes when it is connected.
 */
export function connectByAddress<Data>(
  endpoint: Endpoint,
  data: Data,
  socket: SocketHandler<Data, "uint8array">,
): void {
  const where =
    endpoint.kind === "ip"
      ? { hostname: formatAddress(...endpoint.address), port: endpoint.port }
      : { unix: endpoint.kind === "unix" ? endpoint.path : `\0${endpoint.kind === "abstract" ? endpoint.name : ""}` };
  void Bun.connect({ ...where, allowHalfOpen: true, data, socket } as never);
}

/**
 * Writes the peer's address into five words of `out` from `at`, as peerAddress does; false = the peer is gone already, and its address,
 * which the kernel no longer tells, is 0.0.0.0 with port 0.
 */
export function readPeer(socket: Socket<unknown>, fd: number, out: Int32Array, at: number): boolean {
  if (ownSockets()) {
    if (peerAddress(fd, out, at)) return true;
    out.fill(0, at, at + 5);
    out[at + 2] = 0xffff;
    return false;
  }
  const address = parseAddress(socket.remoteAddress);
  for (let i = 0; i < 4; i++) out[at + i] = address?.[i] ?? 0;
  out[at + 4] = socket.remotePort;
  return true;
}

/** The descriptor of an open socket, -1 once it is closed. */
export function descriptorOf(socket: Socket<unknown>): number {
  return (socket as unknown as { fd: number }).fd;
}

// ---------------------------------------------------------------------- TLS

/** The type of tls.createSecureContext(…).context: certificates, CA, versions and ciphers, and the keys of session tickets. */
export type TlsContext = object & { readonly __tlsContext?: never };

/** Options of a handshake as server. */
export interface ServerTls {
  secureContext: TlsContext;
  /** In the form of alpnWire; "" = none. */
  ALPNProtocols: string;
  requestCert: boolean;
  rejectUnauthorized: boolean;
}

/** Options of a handshake as client. */
export interface ClientTls {
  secureContext: TlsContext;
  ALPNProtocols: string;
  rejectUnauthorized: boolean;
  serverName?: string;
}

/** Protocol names in the wire format of ALPN (RFC 7301 section 3.1): each after its length. Bun accepts no other form. */
export function alpnWire(protocols: readonly string[]): string {
  return protocols.map((protocol) => String.fromCharCode(protocol.length) + protocol).join("");
}

/** Methods of a TLS socket that Bun declares for no socket, or not for a server's. */
export interface TlsFacts {
  /** "TLSv1.3", also on a server's socket. */
  getTLSVersion(): string | null;
  /** The server name that the client asked for, on a server's socket. */
  getServername(): string | null | undefined;
  setSession(session: Uint8Array): void;
  /** With false the certificate has its chain in `issuerCertificate`; without an argument there is no chain. */
  getPeerCertificate(abbreviated: boolean): unknown;
}

/** The same socket, typed with these methods. */
export function tlsFacts(socket: Socket<unknown>): TlsFacts {
  return socket as unknown as TlsFacts;
}

/** The handlers of a TLS socket: `session` is called with each ticket that a server sends. */
export interface TlsHandler<Data> extends SocketHandler<Data, "uint8array"> {
  session?(socket: Socket<Data>, session: Uint8Array): void;
}

/**
 * Whether the `error` handler of a TLS socket was called for a fault of the connection: the runtime gives such a fault the name and the
 * number of an errno (EPROTO with BoringSSL's reason). The handler is also called with what another handler of the socket throws, which
 * has no code, or one such as ERR_INVALID_ARG_TYPE, and no number.
 */
export function isConnectionFault(error: Error): boolean {
  const { code, errno } = error as { code?: unknown; errno?: unknown };
  return typeof code === "string" && /^E[A-Z0-9]+$/.test(code) && typeof errno === "number";
}

/**
 * Turns an accepted socket into a TLS server that has already read `bytes`, at any time. The handlers' `open` is called before this
 * returns, and `handshake` may be. The socket itself must not be used afterwards; its plain twin continues to receive the ciphertext,
 * with `twin` as its data.
 */
export function upgradeToServer<Data>(
  socket: Socket<Data>,
  upgrade: { tls: ServerTls; bytes: Uint8Array; data: Data; twin: Data; handlers: TlsHandler<Data> },
): void {
  const { tls, bytes, data, twin, handlers } = upgrade;
  socket.data = twin;
  const [raw] = socket.upgradeTLS({
    isServer: true,
    initialData: bytes,
    tls: withoutEmpty(tls),
    data,
    socket: handlers,
  } as never);
  raw.data = twin;
}

/** Turns a connected socket into a TLS client; the rest as above. */
export function upgradeToClient<Data>(
  socket: Socket<Data>,
  upgrade: { tls: ClientTls; data: Data; twin: Data; handlers: TlsHandler<Data> },
): void {
  const { tls, data, twin, handlers } = upgrade;
  socket.data = twin;
  const [raw] = socket.upgradeTLS({ tls: withoutEmpty(tls), data, socket: handlers } as never);
  raw.data = twin;
}

function withoutEmpty<T extends { ALPNProtocols: string }>(tls: T): Partial<T> {
  if (tls.ALPNProtocols !== "") return tls;
  const { ALPNProtocols: _, ...rest } = tls;
  // TypeScript does not see that a T without one of its properties is a Partial<T>.
  return rest as unknown as Partial<T>;
}
