// Whether a standard stream goes to systemd's journal, which reads a priority at the start of each line and stores its own time.
import { fstatSync } from "node:fs";

/**
 * Whether a descriptor is the stream whose device and inode the service manager names in JOURNAL_STREAM (sd-daemon(3), systemd.exec(5)).
 * The variable alone is not enough: a child inherits it even if its streams go elsewhere.
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
