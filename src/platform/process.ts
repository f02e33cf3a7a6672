// The system's figures of this process, as Prometheus' client libraries report them.
import { readdirSync, statSync } from "node:fs";

interface ProcessFigures {
  /** Of all threads, user and system. */
  cpu_seconds: number;
  resident_bytes: number;
  /** null without /proc. */
  open_files: number | null;
}

export function processFigures(): ProcessFigures {
  const { user, system } = process.cpuUsage();
  return {
    cpu_seconds: (user + system) / 1e6,
    resident_bytes: process.memoryUsage.rss(),
    open_files: openFiles(),
  };
}

const DESCRIPTORS = "/proc/self/fd";

// Linux 6.2 and later reports the number as the size of the folder; listing 100,000 of them would block the thread.
function openFiles(): number | null {
  try {
    const { size } = statSync(DESCRIPTORS);
    return size > 0 ? size : readdirSync(DESCRIPTORS).length - 1;
  } catch {
    return null;
  }
}
