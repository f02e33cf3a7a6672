// The machine and the programs of a run: the head of every report.
import { readFileSync } from "node:fs";
import { cpus, release, totalmem } from "node:os";
import { allowedCpus } from "./procstat.ts";

/** The CPUs for the proxy, and those for the backend and the load; undefined = the kernel decides. */
export interface Placement {
  proxy: number[] | undefined;
  load: number[] | undefined;
}

export function placementOn(pinned: boolean): Placement {
  const [first, ...others] = allowedCpus();
  if (!pinned || first === undefined || others.length === 0) return { proxy: undefined, load: undefined };
  return { proxy: [first], load: others };
}

export function describeMachine(): [string, string][] {
  return [
    ["Processor", `${cpus()[0]?.model.trim() ?? "unknown"}, ${allowedCpus().length} usable`],
    ["Memory", `${(totalmem() / 2 ** 30).toFixed(1)} GiB`],
    ["Kernel", `Linux ${release()}, ${process.arch}, TCP congestion control ${congestionControl()}`],
  ];
}

function congestionControl(): string {
  try {
    return readFileSync("/proc/sys/net/ipv4/tcp_congestion_control", "utf8").trim();
  } catch {
    return "unknown";
  }
}

/** A program's answer when asked for its version; undefined if it is not installed. */
export function versionOf(command: string[], pattern: RegExp): string | undefined {
  if (Bun.which(command[0] ?? "") === null) return undefined;
  const { stdout, stderr } = Bun.spawnSync(command);
  return pattern.exec(stdout.toString() + stderr.toString())?.[1] ?? "unknown version";
}
