// Detects whether a process has a file open for writing.
import { closeSync, constants, openSync } from "node:fs";
import { constants as os } from "node:os";
import { errno, openLibc } from "./libc.ts";

const F_SETSIG = 10;
const F_SETLEASE = 1024;
const F_RDLCK = 0;
const F_UNLCK = 2;

/**
 * Whether any process has a file open for writing; null if that cannot be determined. The kernel grants a read lease only if there is
 * none (fcntl(2), F_SETLEASE); the lease is released at once. It needs Linux, a local file system, and a file that this user owns or
 * CAP_LEASE.
 */
export function isOpenForWriting(path: string): boolean | null {
  const libc = openLibc();
  if (libc === null) return null;
  let descriptor: number;
  try {
    descriptor = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch {
    return null;
  }
  try {
    // A process that opens it for writing in between waits for the lease, and the kernel notifies us by a signal that is ignored by default.
    libc.fcntl(descriptor, F_SETSIG, os.signals.SIGURG);
    if (libc.fcntl(descriptor, F_SETLEASE, F_RDLCK) !== 0) return errno(libc) === os.errno.EAGAIN ? true : null;
    libc.fcntl(descriptor, F_SETLEASE, F_UNLCK);
    return false;
  } finally {
    closeSync(descriptor);
  }
}
