// A hanging thread: one of another process, stopped from outside.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

/** The worker threads of a process, in the order of their start. */
export function workerThreads(pid: number): number[] {
  const tasks = readdirSync(`/proc/${pid}/task`).map(Number);
  return tasks
    .filter((tid) => readFileSync(`/proc/${pid}/task/${tid}/comm`, "utf8").trim() === "Worker")
    .toSorted((a, b) => a - b);
}

/** Stops the thread until the process ends or the result is disposed. Null = not permitted here. */
export async function holdThread(tid: number): Promise<Disposable | null> {
  const child = spawn("python3", [join(import.meta.dirname, "held_thread.py"), String(tid)], {
    stdio: ["ignore", "pipe", "ignore"],
  });
  const exited = Promise.race([once(child, "exit"), once(child, "error")]).then(() => null);
  if ((await Promise.race([once(child.stdout, "data"), exited])) === null) return null;
  return { [Symbol.dispose]: () => void child.kill("SIGKILL") };
}
