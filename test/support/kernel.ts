// The kernel's view of a socket, without the code under test: socket options and connection states.
import { readFileSync } from "node:fs";
import { openLibc } from "../../src/platform/libc.ts";

export const SOL_SOCKET = 1;
export const SO_KEEPALIVE = 9;
export const SOL_TCP = 6;
export const TCP_KEEPIDLE = 4;
export const TCP_KEEPINTVL = 5;
export const TCP_KEEPCNT = 6;
const TCP_INFO = 11;

export const ESTABLISHED = 1;
export const SYN_SENT = 2;
export const CLOSED = 7;
export const CLOSE_WAIT = 8;

/** A socket option that is an int. */
export function socketOption(fd: number, level: number, option: number): number {
  const value = new Int32Array(1);
  if (openLibc()!.getsockopt(fd, level, option, value, new Uint32Array([4])) !== 0)
    throw new Error("getsockopt failed");
  return value[0]!;
}

/** Makes the send buffer as small as the kernel does when its memory for TCP is used up, whatever is queued in it. */
export function cutSendBuffer(fd: number): void {
  const SO_SNDBUF = 7;
  if (openLibc()!.setsockopt(fd, SOL_SOCKET, SO_SNDBUF, new Int32Array([1]), 4) !== 0)
    throw new Error("setsockopt failed");
}

/** Whether a descriptor is gone in a program that this one starts. */
export function closedOnExec(fd: number): boolean {
  const F_GETFD = 1;
  const FD_CLOEXEC = 1;
  return (openLibc()!.fcntl(fd, F_GETFD, 0) & FD_CLOEXEC) !== 0;
}

/** The state of a TCP socket; for a listening one also the length of its accept queue, and its maximum. */
export function tcpInfo(fd: number): { state: number; queued: number; backlog: number } {
  const info = new Uint8Array(256);
  if (openLibc()!.getsockopt(fd, SOL_TCP, TCP_INFO, info, new Uint32Array([256])) !== 0) throw new Error("no TCP_INFO");
  const words = new Uint32Array(info.buffer);
  // linux/tcp.h, struct tcp_info: for a listening socket `unacked` and `sacked` are its queue.
  return { state: info[0]!, queued: words[6]!, backlog: words[7]! };
}

/** Segments that a TCP socket has sent (tcpi_segs_out in linux/tcp.h). */
export function segmentsSent(fd: number): number {
  const info = new Uint8Array(256);
  if (openLibc()!.getsockopt(fd, SOL_TCP, TCP_INFO, info, new Uint32Array([256])) !== 0) throw new Error("no TCP_INFO");
  return new Uint32Array(info.buffer)[34]!;
}

/**
 * How many TCP sockets of this network namespace are in a state, towards or from a port. The kernel's list is not read at one moment: a
 * socket that ends meanwhile and its successor may both be in it.
 */
export function countSockets(state: number, port: number, pid: number | "self" = "self"): number {
  return socketsOf(state, port, pid).length;
}

/** The same, of sockets that were all in the state at one moment: those in two lists, one after the other. */
export function countAtOnce(state: number, port: number): number {
  const before = new Set(socketsOf(state, port, "self"));
  return socketsOf(state, port, "self").filter((socket) => before.has(socket)).length;
}

/** Both addresses of each socket. */
function socketsOf(state: number, port: number, pid: number | "self"): string[] {
  const hexPort = port.toString(16).toUpperCase().padStart(4, "0");
  const hexState = state.toString(16).toUpperCase().padStart(2, "0");
  const rows = ["tcp", "tcp6"].flatMap((name) =>
    readFileSync(`/proc/${pid}/net/${name}`, "utf8").trim().split("\n").slice(1),
  );
  return rows.flatMap((row) => {
    const [, local, remote, of] = row.trim().split(/\s+/);
    const isMeant = of === hexState && (local!.endsWith(`:${hexPort}`) || remote!.endsWith(`:${hexPort}`));
    return isMeant ? [`${local} ${remote}`] : [];
  });
}
