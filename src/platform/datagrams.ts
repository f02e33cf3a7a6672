// Datagrams to one receiver, over UDP or to a unix socket: Bun has no unix datagrams, and its UDP socket loses a packet for each error.
import { errno, errnoName, requireLibc } from "./libc.ts";
import { familyOf } from "./sockets.ts";

const SOCK_DGRAM = 2;
const SOCK_NONBLOCK = 0o4000;
const SOCK_CLOEXEC = 0o2000000;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;

/** A descriptor whose datagrams go to the sockaddr `to`, or the name of the errno. */
export function connectDatagrams(to: Uint8Array): number | string {
  const c = requireLibc();
  const fd = c.socket(familyOf(to), SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return errnoName(errno(c));
  if (c.connect(fd, to, to.length) === 0) return fd;
  const code = errnoName(errno(c));
  c.close(fd);
  return code;
}

/**
 * Sends one datagram. Returns null, or the name of the errno, in which case nothing was sent. ECONNREFUSED of UDP is the answer to an
 * earlier datagram (udp(7)), and is reported once.
 */
export function sendDatagram(fd: number, bytes: Uint8Array): string | null {
  const c = requireLibc();
  return Number(c.send(fd, bytes, bytes.length, MSG_DONTWAIT | MSG_NOSIGNAL)) < 0 ? errnoName(errno(c)) : null;
}
