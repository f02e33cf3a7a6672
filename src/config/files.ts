// The files that a config names: read once each, with a size limit, and recorded for the watch.
import { closeSync, constants, fstatSync, openSync, readSync, statSync } from "node:fs";
import { createHash } from "node:crypto";
import { absolutePath } from "./paths.ts";

/** The file system operations that loading needs. */
export interface Disk {
  /** The first `most` bytes of a file; throws as node:fs does. */
  readFile: (path: string, most: number) => Uint8Array;
  /** The permission bits of a file, or null if they are not known. */
  modeOf: (path: string) => number | null;
}

/** A digest of a file's content; a file that does not exist, cannot be read, or is empty has no content. */
export type Content = string | null;

/** The digest of these bytes: equal for equal bytes. */
export function contentOf(bytes: Uint8Array): Content {
  return bytes.byteLength === 0 ? null : `${bytes.byteLength} ${createHash("sha256").update(bytes).digest("base64")}`;
}

/** The real file system. */
export const disk: Disk = {
  readFile: readBytes,
  modeOf: (path) => statSync(path, { throwIfNoEntry: false })?.mode ?? null,
};

/** `why` continues "the file …": "cannot be read: there is no such file". */
export type FileRead = { is: "bytes"; bytes: Uint8Array } | { is: "bad"; why: string };

/** The files of one config, by the names in the config. */
export class NamedFiles {
  /** Absolute, each once, in the order of first use, files that cannot be read included. */
  readonly paths: string[];
  /** The content that was read, by absolute path. Without files that are too large to be read completely. */
  readonly contents = new Map<string, Content>();
  private readonly folder: string;
  private readonly disk: Disk;
  private readonly seen = new Map<string, FileRead>();

  /** `paths` begins with the config itself, and grows. */
  constructor(folder: string, paths: string[], from: Disk) {
    this.folder = folder;
    this.paths = paths;
    this.disk = from;
  }

  pathOf(name: string): string {
    return absolutePath(this.folder, name);
  }

  /** A file of at most `most` bytes. It is read once, so that all options that name it get the same content. */
  read(name: string, most: number): FileRead {
    const path = this.pathOf(name);
    let read = this.seen.get(path);
    if (read === undefined) {
      if (!this.paths.includes(path)) this.paths.push(path);
      this.seen.set(path, (read = this.readAnew(path, most)));
    }
    return read;
  }

  exists(name: string): boolean {
    return this.disk.modeOf(this.pathOf(name)) !== null;
  }

  /** Whether every user of the machine may read it. */
  isOpenToAll(name: string): boolean {
    return ((this.disk.modeOf(this.pathOf(name)) ?? 0) & 0o004) !== 0;
  }

  private readAnew(path: string, most: number): FileRead {
    try {
      const bytes = this.disk.readFile(path, most + 1);
      if (bytes.byteLength <= most) {
        this.contents.set(path, contentOf(bytes));
        return { is: "bytes", bytes };
      }
      return { is: "bad", why: `is larger than ${most >= 2 ** 20 ? `${most / 2 ** 20} MiB` : `${most / 1024} KiB`}` };
    } catch (error) {
      this.contents.set(path, null);
      return { is: "bad", why: `cannot be read: ${reasonOf(error)}` };
    }
  }
}

/**
 * The first `most` bytes of a regular file, as they were at one moment. Other kinds of files are refused: opening a pipe or a device can
 * block for ever, and its content can be read only once.
 */
export function readBytes(path: string, most: number): Uint8Array {
  for (let attempt = 0; attempt < READS_MAX; attempt++) {
    if (!statSync(path).isFile()) throw new ReadError(statSync(path).isDirectory() ? "EISDIR" : NOT_REGULAR);
    // The file may have been replaced a moment ago.
    const descriptor = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      const before = fstatSync(descriptor, { bigint: true });
      if (!before.isFile()) continue;
      const bytes = readUpTo(descriptor, most);
      const after = fstatSync(descriptor, { bigint: true });
      if (before.size === after.size && before.mtimeNs === after.mtimeNs) return bytes;
    } finally {
      closeSync(descriptor);
    }
  }
  throw new ReadError(CHANGING);
}

/** The first `most` bytes of any kind of file; waits for the writer of a pipe. For a config that is read only once. */
export function readOnce(path: string, most: number): Uint8Array {
  if (statSync(path).isFile()) return readBytes(path, most);
  const descriptor = openSync(path, "r");
  try {
    return readUpTo(descriptor, most);
  } finally {
    closeSync(descriptor);
  }
}

/** Maximum number of times that a file is read while it is being written. */
const READS_MAX = 5;
const NOT_REGULAR = "NOT_REGULAR";
const CHANGING = "CHANGING";

class ReadError extends Error {
  readonly code: string;

  constructor(code: string) {
    super(code);
    this.code = code;
  }
}

function readUpTo(descriptor: number, most: number): Uint8Array {
  const chunks: Uint8Array[] = [];
  let left = most;
  while (left > 0) {
    const chunk = new Uint8Array(Math.min(left, 65536));
    const count = readSync(descriptor, chunk, 0, chunk.byteLength, null);
    if (count === 0) break;
    chunks.push(chunk.subarray(0, count));
    left -= count;
  }
  return Buffer.concat(chunks);
}

/** "there is no such file", or the code of a less common error. */
export function reasonOf(error: unknown): string {
  const code = error instanceof Error && "code" in error ? String(error.code) : "unknown error";
  const words: Record<string, string> = {
    ENOENT: "there is no such file",
    EACCES: "permission denied",
    EISDIR: "it is a directory",
    ENOTDIR: "a part of its path is not a directory",
    ELOOP: "its links go in a circle",
    ENAMETOOLONG: "its name is too long",
    [NOT_REGULAR]:
      "it is not a regular file; a pipe or a device serves once at most, as the config that lb starts with",
    [CHANGING]: "it changes while it is read; try again when it is written",
  };
  return words[code] ?? code;
}

/** The text, or null if the bytes are not UTF-8. */
export function decode(bytes: Uint8Array): string | null {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return null;
  }
}
