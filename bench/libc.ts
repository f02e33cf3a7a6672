// The bench's only access to the C library: blocking sockets and epoll for the load generators, and the CPU clock of another process. Bun's
// own sockets allocate a buffer for each event, which costs too much in a generator that shares its CPU with the backend. Linux with glibc
// only, x64 and arm64.
import { dlopen, FFIType, ptr, type Pointer } from "bun:ffi";

const libc = dlopen("libc.so.6", {
  socket: { args: ["i32", "i32", "i32"], returns: "i32" },
  connect: { args: ["i32", "ptr", "u32"], returns: "i32" },
  send: { args: ["i32", "ptr", FFIType.u64_fast, "i32"], returns: FFIType.i64_fast },
  recv: { args: ["i32", "ptr", FFIType.u64_fast, "i32"], returns: FFIType.i64_fast },
  close: { args: ["i32"], returns: "i32" },
  fcntl: { args: ["i32", "i32", "i32"], returns: "i32" },
  setsockopt: { args: ["i32", "i32", "i32", "ptr", "u32"], returns: "i32" },
  epoll_create1: { args: ["i32"], returns: "i32" },
  epoll_ctl: { args: ["i32", "i32", "i32", "ptr"], returns: "i32" },
  epoll_pwait2: { args: ["i32", "ptr", "i32", "ptr", "ptr"], returns: "i32" },
  prctl: { args: ["i32", FFIType.u64_fast, FFIType.u64_fast, FFIType.u64_fast, FFIType.u64_fast], returns: "i32" },
  clock_getcpuclockid: { args: ["i32", "ptr"], returns: "i32" },
  clock_gettime: { args: ["i32", "ptr"], returns: "i32" },
}).symbols;

const AF_UNIX = 1;
const AF_INET = 2;
const SOCK_STREAM = 1;
const IPPROTO_TCP = 6;
const TCP_NODELAY = 1;
const MSG_NOSIGNAL = 0x4000;
const F_SETFL = 4;
const O_NONBLOCK = 0o4000;
const EPOLL_CTL_ADD = 1;
const EPOLLIN = 1;
const PR_SET_TIMERSLACK = 29;

/** A blocking TCP connection to a port, with TCP_NODELAY; throws if the connect fails. */
export function connectTo(port: number, host = "127.0.0.1"): number {
  const fd = libc.socket(AF_INET, SOCK_STREAM, 0);
  if (fd < 0) throw new Error("socket() failed; is the limit of open files too low?");
  const address = new DataView(new ArrayBuffer(16));
  address.setUint16(0, AF_INET, true);
  address.setUint16(2, port, false);
  host.split(".").forEach((byte, i) => address.setUint8(4 + i, Number(byte)));
  if (libc.connect(fd, new Uint8Array(address.buffer), 16) !== 0) {
    libc.close(fd);
    throw new Error(`connect() to ${host}:${port} failed`);
  }
  libc.setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, new Int32Array([1]), 4);
  return fd;
}

/** Makes blocking connections to unix sockets at these paths, one after the other. */
export function inTurn(paths: string[]): () => number {
  const names = paths.map((path) => new TextEncoder().encode(path));
  const lengths = Int32Array.from(names, (name) => 2 + name.length + 1);
  const stride = Math.max(...lengths);
  // One buffer for all, so that the generator itself touches little memory for each.
  const addresses = new Uint8Array(new ArrayBuffer(stride * names.length));
  names.forEach((name, i) => {
    addresses[stride * i] = AF_UNIX;
    addresses.set(name, stride * i + 2);
  });
  const begin = ptr(addresses);
  let next = 0;
  return () => {
    const i = next;
    next = i + 1 === paths.length ? 0 : i + 1;
    const fd = libc.socket(AF_UNIX, SOCK_STREAM, 0);
    if (libc.connect(fd, (begin + stride * i) as Pointer, lengths[i] ?? 0) === 0) return fd;
    throw new Error(`connect() to ${paths[i]} failed`);
  };
}

/** Makes the socket non-blocking. */
export function neverBlock(fd: number): void {
  if (libc.fcntl(fd, F_SETFL, O_NONBLOCK) !== 0) throw new Error("fcntl() failed");
}

/** Sends all of it; the kernel always has room for a generator's requests. */
export function sendAll(fd: number, bytes: Uint8Array): void {
  const sent = Number(libc.send(fd, bytes, bytes.length, MSG_NOSIGNAL));
  if (sent !== bytes.length) throw new Error(`send() took ${sent} of ${bytes.length} bytes`);
}

/** The number of received bytes; 0 at the end of the stream; throws if the connection was reset. */
export function receive(fd: number, into: Uint8Array): number {
  const count = Number(libc.recv(fd, into, into.length, 0));
  if (count < 0) throw new Error("recv() failed: the connection was reset");
  return count;
}

export function closeSocket(fd: number): void {
  libc.close(fd);
}

/** Waits for readable sockets, which are identified by the small number with which they were added. */
export class Readiness {
  readonly #epoll = libc.epoll_create1(0);
  // struct epoll_event is packed on x64 and naturally aligned elsewhere.
  readonly #dataOffset = process.arch === "x64" ? 4 : 8;
  readonly #eventBytes = process.arch === "x64" ? 12 : 16;
  readonly #eventsMax = 64;
  readonly #events = new Uint8Array(this.#eventBytes * this.#eventsMax);
  readonly #view = new DataView(this.#events.buffer);
  readonly #timeout = new BigInt64Array(2);

  add(fd: number, index: number): void {
    const event = new Uint8Array(this.#eventBytes);
    const view = new DataView(event.buffer);
    view.setUint32(0, EPOLLIN, true);
    view.setUint32(this.#dataOffset, index, true);
    if (libc.epoll_ctl(this.#epoll, EPOLL_CTL_ADD, fd, event) !== 0) throw new Error("epoll_ctl() failed");
  }

  constructor() {
    if (this.#poll(0) < 0) throw new Error("epoll_pwait2() failed; it needs Linux 5.11");
  }

  /** The number of readable sockets after at most this many nanoseconds, less than a second. */
  wait(nanoseconds: number): number {
    return Math.max(0, this.#poll(nanoseconds)); // the runtime's own signals interrupt a wait: nothing is readable then
  }

  /** The number of the nth readable socket of the last wait. */
  index(n: number): number {
    return this.#view.getUint32(n * this.#eventBytes + this.#dataOffset, true);
  }

  #poll(nanoseconds: number): number {
    this.#timeout[1] = BigInt(Math.max(0, Math.trunc(nanoseconds)));
    return libc.epoll_pwait2(this.#epoll, this.#events, this.#eventsMax, this.#timeout, null);
  }
}

/** Makes this thread's sleeps end on time: otherwise the kernel adds up to 50 µs. */
export function sleepPrecisely(): void {
  libc.prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);
}

/** Nanoseconds of CPU time of all threads of a process, including threads that have ended; undefined if the process is gone. */
export function cpuNanosecondsOf(pid: number): number | undefined {
  const clock = new Int32Array(1);
  if (libc.clock_getcpuclockid(pid, clock) !== 0) return undefined;
  const time = new BigInt64Array(2);
  if (libc.clock_gettime(clock[0] ?? 0, time) !== 0) return undefined;
  return Number(time[0] ?? 0n) * 1e9 + Number(time[1] ?? 0n);
}
