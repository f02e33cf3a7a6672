// What /proc reports on processes: the processes of a proxy, their memory, and the machine's utilization.
import { readFileSync } from "node:fs";
import { cpuNanosecondsOf } from "./libc.ts";

const clockTicksPerSecond = 100;

/** A process and its descendants, itself first: nginx works in a child of its master. */
export function treeOf(pid: number): number[] {
  const children = read(`/proc/${pid}/task/${pid}/children`) ?? "";
  return [pid, ...children.split(" ").filter(Boolean).map(Number).flatMap(treeOf)];
}

/** Nanoseconds of CPU time, user and kernel, that a process and its descendants have used so far. */
export function cpuNanosecondsOfTree(pid: number): number {
  return treeOf(pid).reduce((sum, member) => sum + (cpuNanosecondsOf(member) ?? 0), 0);
}

/** The result of a task, and the CPU time of a proxy's processes meanwhile. */
export async function cpuWhile<T>(proxy: { cpuNanoseconds(): number }, task: () => Promise<T>) {
  const before = { cpu: proxy.cpuNanoseconds(), at: Bun.nanoseconds() };
  const result = await task();
  const cpuNanoseconds = proxy.cpuNanoseconds() - before.cpu;
  return { result, cpuNanoseconds, busyShare: cpuNanoseconds / (Bun.nanoseconds() - before.at) };
}

/** Bytes of user-space memory of a process and its descendants. */
export interface Memory {
  /** Proportional set size: all of it, including program files. */
  total: number;
  /** Anonymous and shared memory: what grows with connections, without the pages of program files that are loaded later. */
  data: number;
}

export function memoryOfTree(pid: number): Memory {
  const memory = { total: 0, data: 0 };
  for (const member of treeOf(pid)) {
    const rollup = read(`/proc/${member}/smaps_rollup`) ?? "";
    const bytes = (field: string) => Number(new RegExp(`^${field}:\\s+(\\d+) kB`, "m").exec(rollup)?.[1] ?? 0) * 1024;
    memory.total += bytes("Pss");
    memory.data += bytes("Pss_Anon") + bytes("Pss_Shmem");
  }
  return memory;
}

/** Nanoseconds during which the machine's CPUs were not idle, including time stolen by the hypervisor. */
export function machineBusyNanoseconds(): number {
  const [user = 0, nice = 0, system = 0, , , irq = 0, softirq = 0, steal = 0] = (read("/proc/stat") ?? "")
    .split("\n", 1)[0]!
    .split(/\s+/)
    .slice(1)
    .map(Number);
  return ((user + nice + system + irq + softirq + steal) / clockTicksPerSecond) * 1e9;
}

/** The numbers of the CPUs that this process may use. */
export function allowedCpus(): number[] {
  const list = /^Cpus_allowed_list:\s+(.+)$/m.exec(read("/proc/self/status") ?? "")?.[1] ?? "0";
  return list.split(",").flatMap((range) => {
    const [first = 0, last = first] = range.split("-").map(Number);
    return Array.from({ length: last - first + 1 }, (_, i) => first + i);
  });
}

/** The number of files that a process of the bench may open at most. */
export function openFilesMax(): number {
  const hard = /^Max open files\s+\S+\s+(\S+)/m.exec(read("/proc/self/limits") ?? "")?.[1] ?? "1024";
  return hard === "unlimited" ? Number.MAX_SAFE_INTEGER : Number(hard);
}

function read(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return undefined; // the process has ended
  }
}
