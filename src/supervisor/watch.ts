// Hears of changes to a set of files, in whatever way they come about: written in place, renamed over by an editor, deleted
// and made again, or swapped by a symlink as Kubernetes does with a ConfigMap. A change is one of content, not of time.
import { createHash } from "node:crypto";
import { closeSync, openSync, readSync, realpathSync, statSync, watch as watchFolder, type FSWatcher } from "node:fs";
import { dirname } from "node:path";

export interface WatchOptions {
  /** A change counts when the content has been the same for so long. */
  debounceMs?: number;
  /** The files are also looked at so often: not every file system tells of changes (NFS, some overlays). */
  pollMs?: number;
}

export interface Watch {
  stop(): void;
  /** The set of files may be another one. What is new in it is taken as it is now, without a call of `onChange`. */
  refresh(): void;
}

/** Bytes of a file that are looked at; its size counts all the same. */
const FILE_BYTES_MAX = 16 * 1024 * 1024;
/** A file changed this short a time ago may change again without its times showing it: they are coarse (stat(2)). */
const COARSE_TIME_MS = 2000;

/** What stands for a file's content; a file that is not there, or is empty, has none. */
type Content = string | null;

/**
 * Calls `onChange` when the content of the files that `files` names has changed and is stable. A file that is missing is not
 * a change, for it may be about to be made again; nor is an empty one, for it may be about to be written.
 */
export function watchFiles(files: () => readonly string[], onChange: () => void, options: WatchOptions = {}): Watch {
  const { debounceMs = 150, pollMs = 1000 } = options;
  const readers = new Map<string, FileReader>();
  /** What onChange was last called with. */
  const known = new Map<string, Content>();
  const folders = new Map<string, FSWatcher>();
  /** A change that must prove stable: every content in one text. */
  let candidate: string | null = null;
  let timer: ReturnType<typeof setTimeout> | null = null;

  const lookSoon = (): void => {
    timer ??= setTimeout(() => {
      timer = null;
      look();
    }, debounceMs);
  };

  const look = (): void => {
    let changed = false;
    let seen = "";
    for (const [path, reader] of readers) {
      const content = reader.read();
      seen += `${content ?? ""}\n`;
      if (content !== null && content !== known.get(path)) changed = true;
    }
    if (!changed) {
      candidate = null;
      return;
    }
    if (seen !== candidate) {
      candidate = seen;
      lookSoon();
      return;
    }
    candidate = null;
    // A file that is missing now is a change when it comes back: whoever reads the set now does so without it.
    for (const [path, reader] of readers) known.set(path, reader.content);
    watchFolders();
    onChange();
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
        // No such folder for the moment, or no inotify instance left: the poll serves.
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
      if (readers.has(path)) continue;
      const reader = new FileReader(path);
      readers.set(path, reader);
      known.set(path, reader.read());
    }
    watchFolders();
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

/** Reads one file again only where stat(2) says that it may be another. */
class FileReader {
  readonly #path: string;
  #stat = "";
  content: Content = null;

  constructor(path: string) {
    this.#path = path;
  }

  read(): Content {
    try {
      const { dev, ino, size, mtimeNs, ctimeNs, isPlain } = statOf(this.#path);
      // To open anything but a plain file could wait for ever, or change what it is about.
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
  const descriptor = openSync(path, "r");
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
 * The folders whose entries say which content a path has: where the path is, and where its links lead. By folder and inode,
 * because a watch on a folder goes deaf when the folder is made anew.
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
      // Not there for the moment.
    }
  }
  return folders;
}
