// The kernel's view of a process and its sockets (proc(5)).
import { readFileSync, readdirSync } from "node:fs";
import { readFile } from "node:fs/promises";

/** CPU seconds of all threads of a process so far, in steps of 10 ms. */
export function cpuSeconds(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  // After the name, which may contain anything: the state, and ten fields later the times, in ticks of USER_HZ = 100.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

/**
 * CPU milliseconds of this thread so far: the cost of what a test computes, also while other programs use the cores. The kernel counts at
 * its ticks, so a difference of some milliseconds may be 0.
 */
export function threadCpuMs(): number {
  const { user, system } = process.threadCpuUsage();
  return (user + system) / 1000;
}

/** Whether a signal has stopped a process, all its threads. */
export function standsStill(pid: number): boolean {
  return readdirSync(`/proc/${pid}/task`).every((thread) => {
    const stat = readFileSync(`/proc/${pid}/task/${thread}/stat`, "utf8");
    return stat[stat.lastIndexOf(")") + 2] === "T";
  });
}

/** Open files of a process. */
export function descriptors(pid: number): number {
  return readdirSync(`/proc/${pid}/fd`).length;
}

/** Resident memory of a process in bytes. */
export function residentBytes(pid: number): number {
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]) * 1024;
}

/** Number of sockets that have sent a SYN to a port of 127.0.0.1 and wait for the answer. */
export async function synSent(port: number): Promise<number> {
  const remote = ` 0100007F:${port.toString(16).toUpperCase().padStart(4, "0")} 02 `;
  // Long after a load, and slow to read then: not in this thread, which may serve a backend.
  const table = await readFile("/proc/net/tcp", "latin1");
  let count = 0;
  for (let at = table.indexOf(remote); at >= 0; at = table.indexOf(remote, at + 1)) count++;
  return count;
}

/** SYNs that this network namespace has sent again because nobody answered. */
export function repeatedSyns(): number {
  const [names, values] = readFileSync("/proc/net/netstat", "utf8")
    .split("\n")
    .filter((line) => line.startsWith("TcpExt:"))
    .map((line) => line.split(" "));
  return Number(values![names!.indexOf("TCPSynRetrans")]);
}
