// Detects changes of a set of files, however they are made: written in place, replaced by an editor's rename, deleted and created again, or
// swapped by a symlink as Kubernetes does with a ConfigMap. A change is a change of content, not of time.
import { createHash } from "node:crypto";
import type { Content } from "../config/files.ts";
import { isOpenForWriting } from "../platform/lease.ts";
import {
  closeSync,
  constants,
  openSync,
  readSync,
  realpathSync,
  statSync,
  watch as watchFolder,
  type FSWatcher,
} from "node:fs";
import { dirname } from "node:path";

export interface WatchOptions {
  /**
   * The content of a file that is in use, read when the watch begins and at each refresh: a different content is a change. undefined = the
   * current content of the file, or the content that is known already.
   */
  loadedContent?: (path: string) => Content | undefined;
  /** A change is reported when the content has been stable this long. */
  debounceMs?: number;
  /** Interval of polling: not every file system reports changes (NFS, some overlays). */
  pollMs?: number;
  /** The same for a file that may be half written. */
  settleMs?: number;
  /** The same for a file that a process has open for writing. */
  openMs?: number;
}

export interface Watch {
  stop(): void;
  /** Call it when the set of files or the content in use may have changed. */
  refresh(): void;
}

/** Longer than the pauses of programs that write a file in pieces, and short enough for a person who waits. */
export const SETTLE_MS = 2000;
/** A process that has had a file open for this long without a change is no longer waited for. */
export const OPEN_MS = 10_000;

/** Number of bytes of a file that are compared, in addition to its size. */
const FILE_BYTES_MAX = 16 * 1024 * 1024;
/** A file that changed less than this time ago may change again without a new mtime, because file times are coarse (stat(2)). */
const COARSE_TIME_MS = 2000;

/**
 * Calls `onChange` when the content of the files that `files` names has changed and is stable. A missing file is not a change, because it
 * may be created again soon; nor is an empty one, because it may be written soon.
 */
export function watchFiles(files: () => readonly string[], onChange: () => void, options: WatchOptions = {}): Watch {
  const { debounceMs = 150, pollMs = 1000, settleMs = SETTLE_MS, openMs = OPEN_MS, loadedContent } = options;
  const readers = new Map<string, FileReader>();
  /** The content in use, or the content at the last call of onChange. */
  const known = new Map<string, Known>();
  const folders = new Map<string, FSWatcher>();
  /** A change that is not stable yet: all contents in one string. */
  let candidate: string | null = null;
  let candidateSinceMs = 0;
  let timer: ReturnType<typeof setTimeout> | null = null;

  const lookSoon = (): void => {
    timer ??= setTimeout(() => {
      timer = null;
      look();
    }, debounceMs);
  };

  const look = (): void => {
    const changed: string[] = [];
    let seen = "";
    for (const [path, reader] of readers) {
      const content = reader.read();
      seen += `${content ?? ""}\n`;
      if (content !== null && content !== known.get(path)?.content) changed.push(path);
    }
    if (changed.length === 0) {
      candidate = null;
      return;
    }
    if (seen !== candidate) {
      candidate = seen;
      candidateSinceMs = performance.now();
      lookSoon();
      return;
    }
    const stillMs = performance.now() - candidateSinceMs;
    if (changed.some((path) => stillMs < neededMs(path))) {
      lookSoon();
      return;
    }
    candidate = null;
    // A missing file is a change when it returns, because the reload reads the set without it now.
    for (const [path, { content, inode }] of readers) known.set(path, { content, inode });
    watchFolders();
    onChange();
  };

  // A file that is renamed into place is complete. A file that is written in place may be incomplete at this moment, and its writer may
  // close and reopen it. The only reliable sign of that is that a process has the file open for writing.
  const neededMs = (path: string): number => {
    const reader = readers.get(path);
    const before = known.get(path);
    if (reader === undefined || before === undefined) return 0;
    const isOpen = isOpenForWriting(path);
    if (isOpen === true) return openMs;
    if (before.inode !== "" && before.inode !== reader.inode) return 0;
    return isOpen === null || sizeOf(reader.content) < sizeOf(before.content) ? settleMs : 0;
  };

  const watchFolders = (): void => {
    const wanted = foldersOf(readers.keys());
    for (const [key, watcher] of folders) {
      if (wanted.has(key)) continue;
      folders.delete(key);
      watcher.close();
    }
    for (const [key, folder] of wanted) {
      if (folders.has(key)) continue;
      try {
        const watcher = watchFolder(folder, { persistent: false }, lookSoon);
        folders.set(key, watcher);
        watcher.on("error", () => {
          if (folders.get(key) === watcher) folders.delete(key);
          watcher.close();
        });
      } catch {
        // The folder is missing at the moment, or no inotify instance is left: polling finds the change.
      }
    }
  };

  const refresh = (): void => {
    const paths = new Set(files());
    for (const path of [...readers.keys()]) {
      if (paths.has(path)) continue;
      readers.delete(path);
      known.delete(path);
    }
    for (const path of paths) {
      const reader = readers.get(path) ?? new FileReader(path);
      const isNew = !readers.has(path);
      readers.set(path, reader);
      const content = loadedContent?.(path);
      if (content !== undefined) known.set(path, { content, inode: reader.read() === content ? reader.inode : "" });
      else if (isNew) known.set(path, { content: reader.read(), inode: reader.inode });
    }
    watchFolders();
    // A change since the load has already raised its event.
    lookSoon();
  };

  refresh();
  const poll = setInterval(() => {
    watchFolders();
    if (timer === null) look();
  }, pollMs);
  poll.unref?.();

  return {
    refresh,
    stop: () => {
      clearInterval(poll);
      if (timer !== null) clearTimeout(timer);
      for (const watcher of folders.values()) watcher.close();
      folders.clear();
    },
  };
}

/** A content in use and the inode of its file; "" = unknown. */
interface Known {
  readonly content: Content;
  readonly inode: string;
}

/** The content of a file begins with its size. */
function sizeOf(content: Content): number {
  return content === null ? 0 : Number(content.slice(0, content.indexOf(" ")));
}

/** Reads a file again only if stat(2) says that it may have changed. */
class FileReader {
  readonly #path: string;
  #stat = "";
  content: Content = null;
  /** Identifies the file at the path: device and inode. */
  inode = "";

  constructor(path: string) {
    this.#path = path;
  }

  read(): Content {
    try {
      const { dev, ino, size, mtimeNs, ctimeNs, isPlain } = statOf(this.#path);
      // Opening anything but a regular file could block for ever or have side effects.
      this.inode = `${dev} ${ino}`;
      if (!isPlain || size === 0n) return this.#take("", null);
      const stat = [dev, ino, size, mtimeNs, ctimeNs].join(" ");
      if (stat === this.#stat) return this.content;
      const isRecent = Date.now() - Number(mtimeNs / 1_000_000n) < COARSE_TIME_MS;
      return this.#take(isRecent ? "" : stat, `${size} ${hashOf(this.#path)}`);
    } catch {
      return this.#take("", null);
    }
  }

  #take(stat: string, content: Content): Content {
    this.#stat = stat;
    this.content = content;
    return content;
  }
}

function statOf(path: string) {
  const stats = statSync(path, { bigint: true });
  const { dev, ino, size, mtimeNs, ctimeNs } = stats;
  return { dev, ino, size, mtimeNs, ctimeNs, isPlain: stats.isFile() };
}

function hashOf(path: string): string {
  const hash = createHash("sha256");
  const descriptor = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    const chunk = new Uint8Array(64 * 1024);
    for (let left = FILE_BYTES_MAX; left > 0;) {
      const count = readSync(descriptor, chunk, 0, Math.min(left, chunk.length), null);
      if (count === 0) break;
      hash.update(chunk.subarray(0, count));
      left -= count;
    }
  } finally {
    closeSync(descriptor);
  }
  return hash.digest("base64");
}

/**
 * The folders to watch for a path: its own, and that of its link target. Keyed by folder and inode, because a watch reports nothing more
 * after its folder is created again.
 */
function foldersOf(paths: Iterable<string>): Map<string, string> {
  const folders = new Map<string, string>();
  const add = (folder: string): void => {
    const { dev, ino } = statSync(folder);
    folders.set(`${dev} ${ino} ${folder}`, folder);
  };
  for (const path of paths) {
    try {
      add(dirname(path));
      add(dirname(realpathSync(path)));
    } catch {
      // Missing at the moment.
    }
  }
  return folders;
}
