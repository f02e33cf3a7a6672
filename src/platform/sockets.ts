// Sockets below Bun's API: listening sockets that the supervisor owns, connects that can be cancelled, and socket options that Bun does
// not offer. Every function takes and returns plain descriptors.
// Numbers are those of Linux's uapi headers (asm-generic/socket.h, linux/tcp.h), the same on x64 and arm64.
import { isIPv4, type Address, type Endpoint } from "../core/address.ts";
import { errno, errnoName, openLibc, requireLibc, type Libc } from "./libc.ts";

const AF_UNIX = 1;
const AF_INET = 2;
const AF_INET6 = 10;
const SOCK_STREAM = 1;
const SOCK_NONBLOCK = 0o4000;
const SOCK_CLOEXEC = 0o2000000;
const SOL_SOCKET = 1;
const SO_REUSEADDR = 2;
const SO_KEEPALIVE = 9;
const SO_LINGER = 13;
const SO_REUSEPORT = 15;
const MSG_PEEK = 0x2;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const MSG_MORE = 0x8000;
const SOL_IP = 0;
const IP_TRANSPARENT = 19;
const IP_BIND_ADDRESS_NO_PORT = 24;
const SOL_TCP = 6;
const TCP_CORK = 3;
const TCP_KEEPIDLE = 4;
const TCP_KEEPINTVL = 5;
const TCP_KEEPCNT = 6;
const TCP_INFO = 11;
const TCP_QUICKACK = 12;
/** Index in words of 64 bits. */
const TCP_INFO_BYTES_RECEIVED = 16;
const SOL_IPV6 = 41;
const IPV6_TRANSPARENT = 75;
const IPV6_V6ONLY = 26;
const F_DUPFD_CLOEXEC = 1030;
const EAGAIN = 11;
const EINPROGRESS = 115;
const EAFNOSUPPORT = 97;

/** A failed system call: its name and the name of the errno, such as { call: "bind", code: "EADDRINUSE" }. */
export interface SocketError {
  call: string;
  code: string;
}

/** Whether this process can make its own sockets (FFI on Linux). If not, it listens and connects with Bun's API. */
export function ownSockets(): boolean {
  return openLibc() !== null;
}

/** The sockaddr of an endpoint for bind(2) and connect(2). A name has none: look it up first. */
export function sockaddr(endpoint: Endpoint): Uint8Array {
  switch (endpoint.kind) {
    case "ip":
      return inetSockaddr(endpoint.address, endpoint.port);
    case "any":
      return inetSockaddr([0, 0, 0, 0], endpoint.port);
    case "unix":
      return unixSockaddr(endpoint.path, false);
    case "abstract":
      return unixSockaddr(`\0${endpoint.name}`, true);
    case "name":
      throw new Error(`the name ${endpoint.host} has no sockaddr before it is looked up`);
  }
}

function inetSockaddr(address: Address, port: number): Uint8Array {
  const [w0, w1, w2, w3] = address;
  const v4 = isIPv4(w0, w1, w2);
  const bytes = new Uint8Array(v4 ? 16 : 28);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, v4 ? AF_INET : AF_INET6, true);
  view.setUint16(2, port);
  if (v4) {
    view.setUint32(4, w3);
  } else {
    [w0, w1, w2, w3].forEach((word, i) => view.setUint32(8 + 4 * i, word));
  }
  return bytes;
}

function unixSockaddr(path: string, abstract: boolean): Uint8Array {
  const name = new TextEncoder().encode(path);
  // unix(7): the length of an abstract name follows from the address length; a path ends with a zero byte.
  const bytes = new Uint8Array(2 + name.length + (abstract ? 0 : 1));
  new DataView(bytes.buffer).setUint16(0, AF_UNIX, true);
  bytes.set(name, 2);
  return bytes;
}

/** The address family of a sockaddr. */
export function familyOf(address: Uint8Array): number {
  return (address[0] ?? 0) | ((address[1] ?? 0) << 8);
}

const flag = new Int32Array(1);

function setInt(fd: number, level: number, option: number, value: number): boolean {
  flag[0] = value;
  return requireLibc().setsockopt(fd, level, option, flag, 4) === 0;
}

/**
 * A bound and listening socket, non-blocking and closed on exec: a TCP socket with SO_REUSEPORT, so that more can join its group (unless
 * `share` is false), or a unix socket. With the backlog null it is bound only. ":port" listens on IPv6 and IPv4 with one dual-stack socket, or on IPv4 if there is no IPv6.
 */
export function listenOn(endpoint: Endpoint, backlog: number | null, share = true): number | SocketError {
  const address = sockaddr(endpoint);
  const dualStack = endpoint.kind === "any";
  const made = listenAt(address, { backlog, dualStack, share });
  if (typeof made !== "number" && endpoint.kind === "any" && made.code === errnoName(EAFNOSUPPORT)) {
    return listenAt(inetSockaddr([0, 0, 0xffff, 0], endpoint.port), { backlog, dualStack: false, share });
  }
  return made;
}

interface ListenOptions {
  backlog: number | null;
  dualStack: boolean;
  share: boolean;
}

function listenAt(address: Uint8Array, { backlog, dualStack, share }: ListenOptions): number | SocketError {
  const c = requireLibc();
  const family = familyOf(address);
  const fd = c.socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return failed("socket");
  if (family !== AF_UNIX) {
    setInt(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (share) setInt(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    if (family === AF_INET6) setInt(fd, SOL_IPV6, IPV6_V6ONLY, dualStack ? 0 : 1);
  }
  if (c.bind(fd, address, address.length) !== 0) return failedAndClosed("bind", fd);
  if (backlog !== null && c.listen(fd, backlog) !== 0) return failedAndClosed("listen", fd);
  return fd;
}

function failed(call: string): SocketError {
  return { call, code: errnoName(errno(requireLibc())) };
}

function failedAndClosed(call: string, fd: number): SocketError {
  const error = failed(call);
  closeDescriptor(fd);
  return error;
}

/** Another descriptor of the same socket, closed on exec. */
export function duplicate(fd: number): number | SocketError {
  const copy = requireLibc().fcntl(fd, F_DUPFD_CLOEXEC, 0);
  return copy < 0 ? failed("fcntl") : copy;
}

/**
 * Replaces a listening socket by an unconnected one under the same descriptor. A thread that still accepts on the descriptor
 * gets EINVAL. The listening socket and its queue stay open through their other descriptors.
 */
export function replaceListeningFd(fd: number): void {
  const c = requireLibc();
  const unconnected = c.socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (unconnected < 0) return;
  c.dup3(unconnected, fd, SOCK_CLOEXEC);
  c.close(unconnected);
}

export function closeDescriptor(fd: number): void {
  requireLibc().close(fd);
}

/** Sets the length of a listening socket's accept queue; the kernel caps it at net.core.somaxconn. */
export function setBacklog(fd: number, backlog: number): void {
  requireLibc().listen(fd, backlog);
}

/**
 * TCP keepalive on a socket: the first probe after `idleMs` without traffic, three probes a third of that apart, and a reset if none is
 * answered. Accepted sockets inherit it from a listening socket (tcp(7)) without a call for each.
 */
export function setKeepalive(fd: number, idleMs: number): void {
  if (idleMs === 0) {
    setInt(fd, SOL_SOCKET, SO_KEEPALIVE, 0);
    return;
  }
  const seconds = Math.max(1, Math.round(idleMs / 1000));
  setInt(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  setInt(fd, SOL_TCP, TCP_KEEPIDLE, seconds);
  setInt(fd, SOL_TCP, TCP_KEEPINTVL, Math.max(1, Math.round(seconds / 3)));
  setInt(fd, SOL_TCP, TCP_KEEPCNT, 3);
}

// struct linger: l_onoff, l_linger.
const LINGER_ZERO = new Int32Array([1, 0]);
const NO_LINGER = new Int32Array([0, 0]);

/**
 * When this descriptor is closed, also by the end of the process, the peer of the TCP socket gets RST and not FIN (socket(7), SO_LINGER
 * of zero). Accepted sockets inherit it from a listening socket.
 */
export function resetOnClose(fd: number): void {
  requireLibc().setsockopt(fd, SOL_SOCKET, SO_LINGER, LINGER_ZERO, 8);
}

/**
 * Makes a close send FIN again. Call it before a shutdown or a close that must send FIN: a close with SO_LINGER of zero discards what was
 * written before it (tcp_disconnect in net/ipv4/tcp.c). Hot path.
 */
export function finOnClose(fd: number): void {
  openLibc()?.setsockopt(fd, SOL_SOCKET, SO_LINGER, NO_LINGER, 8);
}

// ---------------------------------------------------------------------- connected sockets

const name = new Uint8Array(28);
const nameView = new DataView(name.buffer);
const nameLength = new Uint32Array(1);

/**
 * Writes the peer's address of a connected socket into five words of `out` from `at`: the address's four, then the port. A unix
 * peer is all zeros. False = the socket is not connected any more. Hot path: one system call, no allocation.
 */
export function peerAddress(fd: number, out: Int32Array, at: number): boolean {
  nameLength[0] = 28;
  if (requireLibc().getpeername(fd, name, nameLength) !== 0) return false;
  readName(out, at);
  return true;
}

/** The local address of a connected socket, in the same form. */
export function localAddress(fd: number, out: Int32Array, at: number): boolean {
  nameLength[0] = 28;
  if (requireLibc().getsockname(fd, name, nameLength) !== 0) return false;
  readName(out, at);
  return true;
}

function readName(out: Int32Array, at: number): void {
  const family = name[0];
  out[at + 4] = family === AF_UNIX ? 0 : nameView.getUint16(2);
  if (family === AF_INET) {
    out[at] = 0;
    out[at + 1] = 0;
    out[at + 2] = 0xffff;
    out[at + 3] = nameView.getInt32(4);
  } else {
    const offset = family === AF_INET6 ? 8 : -1;
    for (let i = 0; i < 4; i++) out[at + i] = offset < 0 ? 0 : nameView.getInt32(offset + 4 * i);
  }
}

const tcpInfo = new BigUint64Array(32);
const tcpInfoLength = new Uint32Array(1);

/**
 * Whether a TCP peer has sent only its FIN and no byte before it, also if bytes would have been read already. False too if the kernel
 * cannot tell: on a unix socket, or before Linux 4.1. Reads tcpi_bytes_received (linux/tcp.h), in which the FIN counts as one.
 */
export function hasOnlySentFin(fd: number): boolean {
  const c = openLibc();
  if (c === null) return false;
  tcpInfoLength[0] = tcpInfo.byteLength;
  if (c.getsockopt(fd, SOL_TCP, TCP_INFO, tcpInfo, tcpInfoLength) !== 0) return false;
  return tcpInfoLength[0] > 8 * TCP_INFO_BYTES_RECEIVED && tcpInfo[TCP_INFO_BYTES_RECEIVED] === 1n;
}

const own = new Int32Array(10);

/**
 * Whether a TCP socket that is connected to this port is its own peer: local and remote address are equal. Hot path for backends on this
 * machine: one system call if the ports differ, as they nearly always do.
 */
export function isConnectedToItself(fd: number, port: number): boolean {
  if (!localAddress(fd, own, 0) || own[4] !== port || !peerAddress(fd, own, 5)) return false;
  for (let i = 0; i < 5; i++) {
    if (own[i] !== own[5 + i]) return false;
  }
  return true;
}

/** Whether the listening program sees a connection that is closed as soon as it is established. */
export type Visibility = "visible" | "unseen";

/**
 * Begins a connect without waiting for it. Returns a descriptor whose connect is in progress (Bun.connect({ fd }) adopts it), or the
 * negative errno. `source` is the sockaddr of the local address, with port 0 where the kernel chooses it, or null; one of another family
 * than the destination is ignored. With `transparent`, the source may be an address of another machine (EPERM without CAP_NET_RAW). Hot path.
 *
 * "unseen": if the TCP socket is closed within the kernel's delay of an acknowledgement (200 ms) after it is connected, a reset is sent in
 * place of the ACK. The handshake is then never completed, and accept(2) on the other side never returns the connection.
 */
export function beginConnect(
  to: Uint8Array,
  source: Uint8Array | null,
  visibility: Visibility = "visible",
  transparent = false,
): number {
  const c = requireLibc();
  const family = familyOf(to);
  const fd = c.socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return -errno(c);
  if (source !== null && familyOf(source) === family) {
    if (transparent && !setTransparent(fd, family)) return abandoned(c, fd);
    // ip(7): the port is chosen at connect, so that one local port can be used for many destinations.
    if (source[2] === 0 && source[3] === 0) setInt(fd, SOL_IP, IP_BIND_ADDRESS_NO_PORT, 1);
    // A client may come back from a port whose former connection to the backend is in TIME_WAIT.
    else setInt(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (c.bind(fd, source, source.length) !== 0) return abandoned(c, fd);
  }
  if (visibility === "unseen" && family !== AF_UNIX) {
    // tcp_rcv_synsent_state_process in net/ipv4/tcp_input.c delays the last ACK of the handshake where quick ACKs are off.
    setInt(fd, SOL_TCP, TCP_QUICKACK, 0);
    resetOnClose(fd);
  }
  if (c.connect(fd, to, to.length) === 0) return fd;
  const error = errno(c);
  if (error === EINPROGRESS) return fd;
  c.close(fd);
  return -error;
}

/** Lets a socket bind to addresses of other machines (ip(7), ipv6(7)). False = this process may not. */
function setTransparent(fd: number, family: number): boolean {
  if (family === AF_INET6) return setInt(fd, SOL_IPV6, IPV6_TRANSPARENT, 1);
  return setInt(fd, SOL_IP, IP_TRANSPARENT, 1);
}

/** Whether this process may connect from addresses of other machines; always false without sockets of our own. */
export function mayBindForeign(): boolean {
  if (!ownSockets()) return false;
  const c = requireLibc();
  const fd = c.socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return false;
  const may = setTransparent(fd, AF_INET);
  c.close(fd);
  return may;
}

function abandoned(c: Libc, fd: number): number {
  const error = errno(c);
  c.close(fd);
  return -error;
}

const oneByte = new Uint8Array(1);

/** Results of peekNext: data or nothing yet, a FIN, or a reset. */
export const NO_END = 0;
export const FIN_NEXT = 1;
export const RESET_NEXT = 2;

/**
 * Peeks at what a read of a connected socket would return next. RESET_NEXT is returned once: a later read finds no error and
 * looks like a FIN (sock_error in net/core/sock.h clears the error). Hot path.
 */
export function peekNext(fd: number): typeof NO_END | typeof FIN_NEXT | typeof RESET_NEXT {
  const c = requireLibc();
  const bytes = Number(c.recv(fd, oneByte, 1, MSG_PEEK | MSG_DONTWAIT));
  if (bytes > 0) return NO_END;
  if (bytes === 0) return FIN_NEXT;
  return errno(c) === EAGAIN ? NO_END : RESET_NEXT;
}

/**
 * Writes to a connected socket as much as it takes: 0 when it is full, -1 when it is closed. The kernel holds back what does not fill
 * a segment for what follows at once (MSG_MORE, send(2)): another write, or a shutdown, whose FIN goes into the same segment. No
 * effect on a unix socket. Nothing may wait in the runtime for the socket. Hot path.
 */
export function sendHeldBack(fd: number, bytes: Uint8Array): number {
  const c = requireLibc();
  const taken = Number(c.send(fd, bytes, bytes.length, MSG_MORE | MSG_DONTWAIT | MSG_NOSIGNAL));
  return taken < 0 && errno(c) === EAGAIN ? 0 : taken;
}

/**
 * Sets or clears TCP_CORK (tcp(7)): while it is set, the kernel sends full segments only. A shutdown sends the rest and the FIN
 * in one segment. No effect on a unix socket. Hot path.
 */
export function cork(fd: number, held: boolean): void {
  setInt(fd, SOL_TCP, TCP_CORK, held ? 1 : 0);
}

const RLIMIT_NOFILE = 7;

/** The soft limit of open files of this process (getrlimit(2)); Bun raises it to the hard limit at its start. */
export function openFilesLimit(): number {
  const limits = new BigUint64Array(2);
  if (!ownSockets() || requireLibc().getrlimit(RLIMIT_NOFILE, limits) !== 0) return 1024;
  return Number(limits[0] ?? 1024n) > 2 ** 31 ? 2 ** 31 : Number(limits[0]);
}

/** Whether this process can open this many more descriptors now. Opens and closes them. */
export function hasDescriptors(count: number): boolean {
  const c = openLibc();
  if (c === null) return true;
  const taken: number[] = [];
  while (taken.length < count) {
    const fd = c.socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) break;
    taken.push(fd);
  }
  for (const fd of taken) c.close(fd);
  return taken.length === count;
}
