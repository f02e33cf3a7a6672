// The files that a config names: read with a limit, each once, and remembered for whoever watches them.
import { closeSync, openSync, readSync, statSync } from "node:fs";
import { absolutePath } from "./paths.ts";

/** What is asked of the disk. */
export interface Disk {
  /** The first `most` bytes of a file; throws as node:fs does. */
  readFile: (path: string, most: number) => Uint8Array;
  /** The permission bits of a file, or null where they are not known. */
  modeOf: (path: string) => number | null;
}

/** The real one. */
export const disk: Disk = {
  readFile: readBytes,
  modeOf: (path) => statSync(path, { throwIfNoEntry: false })?.mode ?? null,
};

/** `why` goes on from "the file …": "cannot be read: there is no such file". */
export type FileRead = { is: "bytes"; bytes: Uint8Array } | { is: "bad"; why: string };

/** The files of one config, by the names that stand there. */
export class NamedFiles {
  /** Absolute, each once, in the order of their first use: also of those that cannot be read. */
  readonly paths: string[];
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

  /** A file of at most `most` bytes. Read once, so that all who name it see one and the same content. */
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
      if (bytes.byteLength <= most) return { is: "bytes", bytes };
      return { is: "bad", why: `is larger than ${most >= 2 ** 20 ? `${most / 2 ** 20} MiB` : `${most / 1024} KiB`}` };
    } catch (error) {
      return { is: "bad", why: `cannot be read: ${reasonOf(error)}` };
    }
  }
}

/** The first `most` bytes of a file. */
export function readBytes(path: string, most: number): Uint8Array {
  const descriptor = openSync(path, "r");
  try {
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
  } finally {
    closeSync(descriptor);
  }
}

/** "there is no such file", or the code of an error that is less common. */
export function reasonOf(error: unknown): string {
  const code = error instanceof Error && "code" in error ? String(error.code) : "unknown error";
  const words: Record<string, string> = {
    ENOENT: "there is no such file",
    EACCES: "permission denied",
    EISDIR: "it is a directory",
    ENOTDIR: "a part of its path is not a directory",
    ELOOP: "its links go in a circle",
    ENAMETOOLONG: "its name is too long",
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
