// Listening sockets that a service manager passes to this process (sd_listen_fds(3)): LISTEN_FDS is the number of descriptors, from 3
// on, and LISTEN_PID the process that they are for. Linux only.
import type { Address, Endpoint } from "../core/address.ts";
import { openLibc, type Libc } from "./libc.ts";

const FIRST_FD = 3;
/** More than a service manager passes; a larger LISTEN_FDS is ignored. */
const INHERITED_MAX = 1024;

// asm-generic/socket.h, fcntl.h
const AF_UNIX = 1;
const AF_INET = 2;
const AF_INET6 = 10;
const SOL_SOCKET = 1;
const SO_TYPE = 3;
const SO_ACCEPTCONN = 30;
const SOL_IPV6 = 41;
const IPV6_V6ONLY = 26;
const SOCK_STREAM = 1;
const F_SETFD = 2;
const F_GETFL = 3;
const F_SETFL = 4;
const FD_CLOEXEC = 1;
const O_NONBLOCK = 0o4000;

export interface InheritedSocket {
  readonly fd: number;
  /** The address that it listens on; null = it is not a listening stream socket. */
  readonly endpoint: Endpoint | null;
}

/** The sockets passed to this process, set to be non-blocking and closed on exec. */
export function inheritedSockets(
  env: Readonly<Record<string, string | undefined>>,
  pid = process.pid,
): InheritedSocket[] {
  const libc = openLibc();
  const count = Number(env["LISTEN_FDS"] ?? 0);
  if (libc === null || Number(env["LISTEN_PID"] ?? 0) !== pid) return [];
  if (!Number.isInteger(count) || count < 0 || count > INHERITED_MAX) return [];
  return Array.from({ length: count }, (_, i) => {
    const fd = FIRST_FD + i;
    libc.fcntl(fd, F_SETFD, FD_CLOEXEC);
    // A service manager passes them in blocking mode.
    libc.fcntl(fd, F_SETFL, libc.fcntl(fd, F_GETFL, 0) | O_NONBLOCK);
    return { fd, endpoint: listeningEndpoint(libc, fd) };
  });
}

function listeningEndpoint(libc: Libc, fd: number): Endpoint | null {
  if (option(libc, fd, SOL_SOCKET, SO_TYPE) !== SOCK_STREAM) return null;
  if (option(libc, fd, SOL_SOCKET, SO_ACCEPTCONN) !== 1) return null;
  const name = new Uint8Array(110);
  const length = new Uint32Array([name.length]);
  if (libc.getsockname(fd, name, length) !== 0) return null;
  const view = new DataView(name.buffer);
  const port = view.getUint16(2);
  switch (view.getUint16(0, true)) {
    case AF_INET:
      return { kind: "ip", address: [0, 0, 0xffff, view.getUint32(4)], port };
    case AF_INET6: {
      const words: Address = [view.getUint32(8), view.getUint32(12), view.getUint32(16), view.getUint32(20)];
      // ":80" in a config is the wildcard of both families, "[::]:80" that of IPv6 alone.
      const isAny = words.every((word) => word === 0) && option(libc, fd, SOL_IPV6, IPV6_V6ONLY) === 0;
      return isAny ? { kind: "any", port } : { kind: "ip", address: words, port };
    }
    case AF_UNIX:
      return unixEndpoint(name.subarray(2, length[0]));
    default:
      return null;
  }
}

// unix(7): an abstract name begins with a zero byte and is as long as the address; a path ends with a zero byte.
function unixEndpoint(name: Uint8Array): Endpoint | null {
  if (name.length === 0) return null;
  const text = new TextDecoder();
  if (name[0] === 0) return { kind: "abstract", name: text.decode(name.subarray(1)) };
  const end = name.indexOf(0);
  return { kind: "unix", path: text.decode(end < 0 ? name : name.subarray(0, end)) };
}

const value = new Int32Array(1);
const valueLength = new Uint32Array(1);

function option(libc: Libc, fd: number, level: number, name: number): number | null {
  valueLength[0] = 4;
  return libc.getsockopt(fd, level, name, value, valueLength) === 0 ? value[0]! : null;
}
