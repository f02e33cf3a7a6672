// Who uses an address: the listening TCP sockets of this machine, whether one of them belongs to this process, and whether a
// process listens on a unix socket's file. Linux only; elsewhere nothing is found.
import { closeSync, openSync, readdirSync, readlinkSync, readSync } from "node:fs";
import { isIPv4, type Address, type Endpoint } from "../core/address.ts";
import { errnoName } from "./libc.ts";
import { beginConnect, closeDescriptor, sockaddr } from "./sockets.ts";

/** A listening TCP socket. */
export interface Listening {
  readonly address: Address;
  /** The inode, as fstat(2) reports it for the socket's descriptors; 0 = no descriptor is left. */
  readonly inode: number;
}

/** The listening sockets whose address overlaps with the endpoint's. */
export function listeningWith(endpoint: Endpoint): Listening[] {
  if (endpoint.kind !== "ip" && endpoint.kind !== "any") return [];
  const wanted = endpoint.kind === "any" ? null : endpoint.address;
  const isV6Alone = wanted !== null && !isIPv4(wanted[0], wanted[1], wanted[2]);
  const found = isV6Alone ? [] : listeningIn("/proc/self/net/tcp", endpoint.port);
  found.push(...listeningIn("/proc/self/net/tcp6", endpoint.port));
  return found.filter(({ address }) => wanted === null || overlap(wanted, address));
}

// "::" may include IPv4 (IPV6_V6ONLY is not visible), and "0.0.0.0" does not include IPv6.
function overlap(wanted: Address, listening: Address): boolean {
  if (isSame(wanted, listening) || isAnyV6(listening)) return true;
  const [isV4, isListeningV4] = [
    isIPv4(wanted[0], wanted[1], wanted[2]),
    isIPv4(listening[0], listening[1], listening[2]),
  ];
  return isV4 === isListeningV4 && (isAny(wanted) || isAny(listening));
}

export function isSame(a: Address, b: Address): boolean {
  return a.every((word, i) => word === b[i]);
}

function isAnyV6(address: Address): boolean {
  return address.every((word) => word === 0);
}

function isAny(address: Address): boolean {
  return isAnyV6(address) || (isIPv4(address[0], address[1], address[2]) && address[3] === 0);
}

const LISTEN = "0A";
const CHUNK_BYTES = 64 * 1024;

// Listening sockets come first in the table (tcp_seq_start in net/ipv4/tcp_ipv4.c), so only they are read, also on a machine with a
// million connections. Columns as in proc(5): number, local address, remote address, state, …, inode.
function listeningIn(table: string, port: number): Listening[] {
  const found: Listening[] = [];
  const suffix = `:${port.toString(16).toUpperCase().padStart(4, "0")}`;
  for (const line of linesOf(table)) {
    const columns = line.trim().split(/\s+/);
    const [number = "", local = "", , state] = columns;
    if (!/^\d+:$/.test(number)) continue;
    if (state !== LISTEN) break;
    if (local.endsWith(suffix)) found.push({ address: addressIn(local), inode: Number(columns[9]) });
  }
  return found;
}

function* linesOf(path: string): Generator<string> {
  let file: number;
  try {
    file = openSync(path, "r");
  } catch {
    return;
  }
  try {
    const chunk = new Uint8Array(CHUNK_BYTES);
    let rest = "";
    for (let count = readSync(file, chunk); count > 0; count = readSync(file, chunk)) {
      const lines = (rest + Buffer.from(chunk.buffer, 0, count).toString("latin1")).split("\n");
      rest = lines.pop() ?? "";
      yield* lines;
    }
  } finally {
    closeSync(file);
  }
}

// "0100007F:1F90" is 127.0.0.1:8080: words of 32 bits in the machine's byte order, which is little-endian on x64 and arm64.
function addressIn(local: string): Address {
  const hex = Buffer.from(local.slice(0, local.indexOf(":")), "hex");
  const word = (i: number): number => hex.readUInt32LE(4 * i);
  return hex.length === 4 ? [0, 0, 0xffff, word(0)] : [word(0), word(1), word(2), word(3)];
}

/** Whether a descriptor of this process is the socket of this inode. */
export function isOwnSocket(inode: number): boolean {
  const link = `socket:[${inode}]`;
  return readdirSync("/proc/self/fd").some((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`) === link;
    } catch {
      return false;
    }
  });
}

/**
 * The result of a connect to a unix socket's file: "listening" also if its queue is full (EAGAIN), "abandoned" if nobody will ever accept
 * (only ECONNREFUSED means that, unix(7)), else the errno's name.
 */
export function stateOfSocketFile(path: string): string {
  const connected = beginConnect(sockaddr({ kind: "unix", path }), null);
  if (connected >= 0) {
    closeDescriptor(connected);
    return "listening";
  }
  const code = errnoName(-connected);
  if (code === "ECONNREFUSED") return "abandoned";
  return code === "EAGAIN" ? "listening" : code;
}
