// The C library through bun:ffi: the symbols that the socket code needs, and errno. Linux only, glibc and musl. Elsewhere, and where
// FFI is forbidden, `openLibc` returns null and Bun's own sockets are used (see sockets.ts).
import { dlopen, FFIType, ptr as addressOf, read } from "bun:ffi";
import { constants } from "node:os";

const { i32, u32, ptr, i64_fast, u64_fast } = FFIType;

const symbols = {
  socket: { args: [i32, i32, i32], returns: i32 },
  bind: { args: [i32, ptr, u32], returns: i32 },
  listen: { args: [i32, i32], returns: i32 },
  connect: { args: [i32, ptr, u32], returns: i32 },
  setsockopt: { args: [i32, i32, i32, ptr, u32], returns: i32 },
  getsockopt: { args: [i32, i32, i32, ptr, ptr], returns: i32 },
  getpeername: { args: [i32, ptr, ptr], returns: i32 },
  getsockname: { args: [i32, ptr, ptr], returns: i32 },
  ioctl: { args: [i32, u64_fast, ptr], returns: i32 },
  fcntl: { args: [i32, i32, i32], returns: i32 },
  dup3: { args: [i32, i32, i32], returns: i32 },
  close: { args: [i32], returns: i32 },
  recv: { args: [i32, ptr, u64_fast, i32], returns: i64_fast },
  send: { args: [i32, ptr, u64_fast, i32], returns: i64_fast },
  pipe2: { args: [ptr, i32], returns: i32 },
  read: { args: [i32, ptr, u64_fast], returns: i64_fast },
  splice: { args: [i32, ptr, i32, ptr, u64_fast, u32], returns: i64_fast },
  clock_gettime: { args: [i32, ptr], returns: i32 },
  getrlimit: { args: [i32, ptr], returns: i32 },
  __errno_location: { args: [], returns: ptr },
} as const;

export type Libc = ReturnType<typeof open>["symbols"];

function open(path: string) {
  return dlopen(path, symbols);
}

let opened: Libc | null | undefined;

/** The C library's functions for this thread, or null. Opens the library at the first call. */
export function openLibc(): Libc | null {
  if (opened !== undefined) return opened;
  opened = null;
  if (process.platform !== "linux") return opened;
  const machine = process.arch === "arm64" ? "aarch64" : "x86_64";
  for (const path of ["libc.so.6", `libc.musl-${machine}.so.1`]) {
    try {
      opened = open(path).symbols;
      break;
    } catch {
      // The other C library, or a sandbox that forbids FFI.
    }
  }
  return opened;
}

/** The same for code that runs only if there is such a library. */
export function requireLibc(): Libc {
  const libc = openLibc();
  if (libc === null) throw new Error("sockets of our own need Linux and bun:ffi");
  return libc;
}

/** errno of this thread's last failed call. Read it at once: any later call may change it. */
export function errno(libc: Libc): number {
  const location = libc.__errno_location();
  return location === null ? 0 : read.i32(location);
}

// Where a number has two names, such as EAGAIN and EWOULDBLOCK, the first is the one used in manuals.
const names = new Map(
  Object.entries(constants.errno)
    .toReversed()
    .map(([name, number]) => [number, name]),
);

/** "ECONNREFUSED" for 111, and so on; "E<number>" for a number without a name on this platform. */
export function errnoName(number: number): string {
  return names.get(number) ?? `E${number}`;
}

/** Errors of connect(2) and socket(2) that mean that this machine lacks a resource and say nothing about the peer. */
export const LOCAL_ERRORS: ReadonlySet<string> = new Set([
  "EMFILE",
  "ENFILE",
  "ENOBUFS",
  "ENOMEM",
  "EADDRNOTAVAIL",
  "EAGAIN",
]);

/** The address of a typed array's memory. The caller must keep the array alive while the address is used. */
export function pointerTo(array: Uint8Array): number {
  return addressOf(array);
}
