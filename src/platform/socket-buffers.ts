// The kernel's buffers of a socket: the room to send, the bytes to read, and reads of a bounded size. Every function takes plain
// descriptors. Numbers are those of Linux's uapi headers (asm-generic/socket.h, linux/tcp.h, linux/sockios.h).
import { errno, openLibc } from "./libc.ts";

const SOL_SOCKET = 1;
const SO_MEMINFO = 55;
const SOL_TCP = 6;
const TCP_NOTSENT_LOWAT = 25;
const SIOCOUTQNSD = 0x894b;
const FIONREAD = 0x541b;
const MSG_PEEK = 0x2;
const MSG_DONTWAIT = 0x40;
const EAGAIN = 11;

/** Results of `receive` and `unread` without bytes. */
export const NOTHING_YET = -1;
export const RECEIVE_FAILED = -2;

/**
 * Reads what a socket has received, at most `maxBytes` and what fits into `into`. Returns the number of bytes, 0 at the peer's FIN,
 * NOTHING_YET, or RECEIVE_FAILED. The kernel reports a reset once: after RECEIVE_FAILED the runtime sees an orderly end (sock_error in
 * net/core/sock.h), so the caller must act on it.
 */
export function receive(fd: number, into: Uint8Array, maxBytes: number): number {
  const c = openLibc();
  if (c === null) return RECEIVE_FAILED;
  const bytes = Number(c.recv(fd, into, Math.min(maxBytes, into.length), MSG_DONTWAIT));
  if (bytes >= 0) return bytes;
  return errno(c) === EAGAIN ? NOTHING_YET : RECEIVE_FAILED;
}

/**
 * The number of received and unread bytes of a socket. 0 at the peer's FIN, NOTHING_YET, or RECEIVE_FAILED, which consumes the
 * error as in `receive`.
 */
export function unread(fd: number): number {
  const c = openLibc();
  if (c === null) return RECEIVE_FAILED;
  if (c.ioctl(fd, FIONREAD, value) === 0 && value[0]! > 0) return value[0]!;
  const bytes = Number(c.recv(fd, oneByte, 1, MSG_PEEK | MSG_DONTWAIT));
  if (bytes >= 0) return bytes;
  return errno(c) === EAGAIN ? NOTHING_YET : RECEIVE_FAILED;
}

const oneByte = new Uint8Array(1);
const value = new Int32Array(1);

// SK_MEMINFO_* (linux/sock_diag.h): indices into the result of SO_MEMINFO.
const memory = new Uint32Array(9);
const memoryLength = new Uint32Array(1);
const MEMORY_RECEIVE_MAX = 1;
const MEMORY_SENDING = 2;
const MEMORY_SEND_MAX = 3;
const MEMORY_SEND_QUEUED = 5;

function readMemory(fd: number): boolean {
  const c = openLibc();
  memoryLength[0] = memory.byteLength;
  return c !== null && c.getsockopt(fd, SOL_SOCKET, SO_MEMINFO, memory, memoryLength) === 0;
}

/**
 * A TCP socket takes no more bytes while this many wait to be sent for the first time (tcp(7), TCP_NOTSENT_LOWAT), whatever the size
 * of its send buffer. No effect on a unix socket.
 */
export function limitUnsent(fd: number, bytes: number): void {
  value[0] = bytes;
  openLibc()?.setsockopt(fd, SOL_TCP, TCP_NOTSENT_LOWAT, value, 4);
}

/**
 * Bytes that a socket's send buffer still takes after `limitUnsent(fd, unsentMax)`, as the kernel counts them, which includes its
 * overhead. Infinity if the buffer is empty or the kernel does not report it. A second call is made only if less than `enough` is sure.
 */
export function sendRoom(fd: number, unsentMax: number, enough: number): number {
  if (!readMemory(fd)) return Infinity;
  const queued = Math.max(memory[MEMORY_SENDING]!, memory[MEMORY_SEND_QUEUED]!);
  if (queued === 0) return Infinity;
  const room = Math.max(0, memory[MEMORY_SEND_MAX]! - queued);
  // Some of the queued bytes may be in flight.
  const sure = Math.min(room, unsentMax - queued);
  if (sure >= enough) return sure;
  if (openLibc()?.ioctl(fd, SIOCOUTQNSD, value) !== 0) return room;
  return Math.min(room, Math.max(0, unsentMax - value[0]!));
}

/**
 * Whether the kernel has made a TCP socket's send buffer smaller than what is queued in it. It does so when its memory for all of TCP
 * (net.ipv4.tcp_mem) is used up (sk_stream_moderate_sndbuf in include/net/sock.h).
 */
export function sendBufferCut(fd: number): boolean {
  return readMemory(fd) && memory[MEMORY_SEND_MAX]! < memory[MEMORY_SEND_QUEUED]! * 0.75;
}

/** Size of a socket's receive buffer, as the kernel counts it. */
export function receiveBuffer(fd: number): number {
  return readMemory(fd) ? memory[MEMORY_RECEIVE_MAX]! : Infinity;
}
