// Classic BPF programs on listening sockets: which socket of a SO_REUSEPORT group gets a connection, and a filter that drops new
// connections. Numbers are those of Linux's uapi headers (linux/filter.h, linux/bpf_common.h, asm-generic/socket.h).
import { pointerTo, requireLibc } from "./libc.ts";

const SOL_SOCKET = 1;
const SO_ATTACH_FILTER = 26;
const SO_DETACH_FILTER = 27;
const SO_ATTACH_REUSEPORT_CBPF = 51;
const SO_DETACH_REUSEPORT_BPF = 68;
// setsockopt(2) takes a value for every option, also where the kernel does not read it.
const UNUSED = new Int32Array(1);

const LD_W_ABS = 0x20;
const LD_B_ABS = 0x30;
const TAX = 0x07;
const XOR_X = 0xac;
const RSH_K = 0x74;
const AND_K = 0x54;
const MUL_K = 0x24;
const MOD_K = 0x94;
const JEQ_K = 0x15;
const RET_A = 0x16;
const RET_K = 0x06;
const SKF_AD_OFF = -0x1000;
const SKF_AD_RANDOM = 56;
const SKF_NET_OFF = -0x100000;

/**
 * Tells the kernel, through one socket of a SO_REUSEPORT group, which socket of the group gets a connection. Sockets are numbered in the
 * order of their listen(2); the first `workers` of them get connections, and the rest get no more.
 * - "client": by source address alone (IPv4 whole, IPv6 by its /64), so that a client stays with one worker.
 * - "connection": the kernel's own hash of addresses and ports, or at random if only some sockets take part.
 */
export function setAffinity(fd: number, by: "connection" | "client", workers: number, sockets: number): boolean {
  if (by === "client") {
    return attach(fd, SO_ATTACH_REUSEPORT_CBPF, [
      [LD_B_ABS, SKF_NET_OFF],
      [RSH_K, 4],
      [JEQ_K, 4, 0, 2], // IP version: 4 goes on, else to the load of IPv6's first word
      [LD_W_ABS, SKF_NET_OFF + 12],
      [JEQ_K, 0, 4, 4], // both ways: to the hash
      [LD_W_ABS, SKF_NET_OFF + 8],
      [TAX, 0],
      [LD_W_ABS, SKF_NET_OFF + 12],
      [XOR_X, 0],
      ...spread(workers),
    ]);
  }
  if (workers === sockets) {
    requireLibc().setsockopt(fd, SOL_SOCKET, SO_DETACH_REUSEPORT_BPF, UNUSED, 4);
    return true;
  }
  return attach(fd, SO_ATTACH_REUSEPORT_CBPF, [
    [LD_W_ABS, SKF_AD_OFF + SKF_AD_RANDOM],
    [MOD_K, workers],
    [RET_A, 0],
  ]);
}

/**
 * Makes a listening TCP socket drop new connections while handshakes that have begun are completed, so that its accept queue can
 * be emptied before it is closed: closing a socket resets the connections in its queue. A socket filter drops segments with
 * SYN and without ACK. A client that connects meanwhile sends its SYN again a second later and is then refused. The filter
 * belongs to the socket, not to the descriptor: every other holder of the socket gets no connections either.
 */
export function dropNewConnections(fd: number): void {
  // The kernel runs a socket filter over the TCP header (tcp_filter in net/ipv4/tcp_ipv4.c): byte 13 holds the flags.
  attach(fd, SO_ATTACH_FILTER, [
    [LD_B_ABS, 13],
    [AND_K, 0x12],
    [JEQ_K, 0x02, 0, 1],
    [RET_K, 0],
    [RET_K, 0xffffffff],
  ]);
}

/** Undoes dropNewConnections. */
export function takeNewConnections(fd: number): void {
  requireLibc().setsockopt(fd, SOL_SOCKET, SO_DETACH_FILTER, UNUSED, 4);
}

type Instruction = readonly [code: number, k: number, jumpTrue?: number, jumpFalse?: number];

function attach(fd: number, option: number, program: readonly Instruction[]): boolean {
  const instructions = new Uint8Array(8 * program.length);
  const view = new DataView(instructions.buffer);
  program.forEach(([code, k, jumpTrue = 0, jumpFalse = 0], i) => {
    view.setUint16(8 * i, code, true);
    view.setUint8(8 * i + 2, jumpTrue);
    view.setUint8(8 * i + 3, jumpFalse);
    view.setUint32(8 * i + 4, k >>> 0, true);
  });
  // struct sock_fprog: a 16-bit length, six bytes of padding, a pointer.
  const header = new BigUint64Array([BigInt(program.length), BigInt(pointerTo(instructions))]);
  return requireLibc().setsockopt(fd, SOL_SOCKET, option, header, 16) === 0;
}

// A multiplicative hash (Knuth, TAOCP 6.4) spreads neighbouring addresses before the remainder is taken.
const spread = (workers: number): Instruction[] => [
  [MUL_K, 0x9e3779b1],
  [RSH_K, 15],
  [MOD_K, workers],
  [RET_A, 0],
];
