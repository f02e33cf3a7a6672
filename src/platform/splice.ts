// Moves bytes from socket to socket inside the kernel (splice(2)), without copying them into this process. Linux only.
import { constants } from "node:os";
import { errno, openLibc, type Libc } from "./libc.ts";

const { EAGAIN, EINVAL, ENOSYS, EPERM } = constants.errno;
const O_NONBLOCK = 0o4000;
const O_CLOEXEC = 0o2000000;
const F_SETPIPE_SZ = 1031;
const SPLICE_F_MOVE = 1;
const SPLICE_F_NONBLOCK = 2;

/** This kind of descriptor cannot be spliced, or the kernel or a sandbox has no splice(2). */
const CANNOT: readonly number[] = [EINVAL, ENOSYS, EPERM];

/** Size of the pipe between two sockets: as much as the runtime reads at once. A smaller pipe works too. */
export const PIPE_BYTES = 512 * 1024;

/**
 * The result of a move: bytes were moved, and there may be more; the sender has none now; the sender has none and has sent its FIN; the
 * receiver is full, and `rest` is what it did not take; the sender or the receiver failed; these descriptors cannot be spliced.
 */
export const MOVED = 0;
export const EMPTY = 1;
export const ENDED = 2;
export const FULL = 3;
export const SENDER_FAILED = 4;
export const RECEIVER_FAILED = 5;
export const UNABLE = 6;

export type Moved =
  | typeof MOVED
  | typeof EMPTY
  | typeof ENDED
  | typeof FULL
  | typeof SENDER_FAILED
  | typeof RECEIVER_FAILED
  | typeof UNABLE;

/** A pipe that belongs to one thread and is empty between two moves. */
export class Splice {
  readonly #libc: Libc;
  readonly #reads: number;
  readonly #writes: number;
  /** Bytes that the receiver took in the last move. */
  moved = 0;
  /** Bytes of the last move that the receiver did not take, or null: the caller must send them before all others. */
  rest: Uint8Array | null = null;

  private constructor(libc: Libc, reads: number, writes: number) {
    this.#libc = libc;
    this.#reads = reads;
    this.#writes = writes;
  }

  /** Null if there is no splice(2), or no descriptor left for the pipe. */
  static open(): Splice | null {
    const libc = openLibc();
    const ends = new Int32Array(2);
    if (libc === null || libc.pipe2(ends, O_NONBLOCK | O_CLOEXEC) !== 0) return null;
    libc.fcntl(ends[1]!, F_SETPIPE_SZ, PIPE_BYTES);
    return new Splice(libc, ends[0]!, ends[1]!);
  }

  /**
   * Moves at most `maxBytes`, and at most a pipe full, from the socket `from` to the socket `to`. No bytes of this direction may be waiting
   * in this process for either. After ENDED the next reader of the sender sees the FIN.
   */
  move(from: number, to: number, maxBytes: number): Moved {
    const c = this.#libc;
    const flags = SPLICE_F_MOVE | SPLICE_F_NONBLOCK;
    this.moved = 0;
    this.rest = null;
    const came = Number(c.splice(from, null, this.#writes, null, Math.min(PIPE_BYTES, maxBytes), flags));
    if (came === 0) return ENDED;
    if (came < 0) {
      const error = errno(c);
      if (error === EAGAIN) return EMPTY;
      return CANNOT.includes(error) ? UNABLE : SENDER_FAILED;
    }
    while (this.moved < came) {
      const went = Number(c.splice(this.#reads, null, to, null, came - this.moved, flags));
      if (went <= 0) {
        const error = went < 0 ? errno(c) : EAGAIN;
        this.#takeBack(came - this.moved);
        if (error === EAGAIN) return FULL;
        return CANNOT.includes(error) ? UNABLE : RECEIVER_FAILED;
      }
      this.moved += went;
    }
    return MOVED;
  }

  close(): void {
    this.#libc.close(this.#reads);
    this.#libc.close(this.#writes);
  }

  #takeBack(bytes: number): void {
    const rest = new Uint8Array(bytes);
    for (let at = 0; at < bytes;) {
      const got = Number(this.#libc.read(this.#reads, rest.subarray(at), bytes - at));
      if (got <= 0) throw new Error(`${bytes - at} bytes are missing in the pipe`);
      at += got;
    }
    this.rest = rest;
  }
}
