// Whether a standard stream goes to systemd's journal, which takes a priority at the beginning of each line and has a time of its own.
import { fstatSync } from "node:fs";

/**
 * Whether a descriptor is the stream whose device and inode the service manager names in JOURNAL_STREAM (sd-daemon(3), systemd.exec(5)).
 * The variable alone says nothing: a child inherits it, also where its streams go elsewhere.
 */
export function isJournal(fd: number, { JOURNAL_STREAM: stream = "" }: NodeJS.ProcessEnv): boolean {
  if (stream === "") return false;
  try {
    const { dev, ino } = fstatSync(fd, { bigint: true });
    return stream === `${dev}:${ino}`;
  } catch {
    return false;
  }
}
