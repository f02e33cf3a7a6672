// A thread that hangs: one of another process's, held still from outside.
import { spawn } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

/** The worker threads of a process, in the order of their start. */
export function workerThreads(pid: number): number[] {
  const tasks = readdirSync(`/proc/${pid}/task`).map(Number);
  return tasks
    .filter((tid) => readFileSync(`/proc/${pid}/task/${tid}/comm`, "utf8").trim() === "Worker")
    .toSorted((a, b) => a - b);
}

/** Holds the thread still until the process ends or the answer is disposed of. */
export async function holdThread(tid: number): Promise<Disposable> {
  const child = spawn("python3", [join(import.meta.dirname, "held_thread.py"), String(tid)], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  let errors = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => (errors += text));
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  child.stdout.once("data", () => resolve());
  child.once("error", reject);
  child.once("close", () => reject(new Error(`the thread is not held: ${errors}`)));
  await promise;
  return { [Symbol.dispose]: () => void child.kill("SIGKILL") };
}
