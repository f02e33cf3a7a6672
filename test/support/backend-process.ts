// A backend (greeting-backend.ts) in a process of its own, so that a test can kill it or stop it as a machine or a bug would.
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { freePort } from "./lb.ts";
import { standsStill } from "./proc.ts";
import { eventually } from "./eventually.ts";

export class BackendProcess {
  readonly port: number;
  readonly #greeting: string;
  #child: ChildProcess | null = null;

  /** Starts one on a free port and waits until it listens. */
  static async start(greeting: string): Promise<BackendProcess> {
    const backend = new BackendProcess(await freePort(), greeting);
    await backend.restart();
    return backend;
  }

  private constructor(port: number, greeting: string) {
    this.port = port;
    this.#greeting = greeting;
  }

  /** In the form of a config. */
  get address(): string {
    return `127.0.0.1:${this.port}`;
  }

  /** Starts it on its port; the former process must be gone. */
  async restart(): Promise<void> {
    const args = [join(import.meta.dirname, "greeting-backend.ts"), String(this.port), this.#greeting];
    const child = spawn(process.execPath, args, { stdio: ["pipe", "pipe", "inherit"] });
    child.stdin.on("error", () => undefined);
    this.#child = child;
    const ended = once(child, "exit").then(() => Promise.reject(new Error("the backend ended at its start")));
    ended.catch(() => undefined);
    await Promise.race([once(child.stdout, "data"), ended]);
  }

  /** The first line that new connections get from now on. */
  async greet(greeting: string): Promise<void> {
    const { stdin, stdout } = this.#child!;
    const noted = once(stdout!, "data");
    stdin!.write(`${greeting}\n`);
    await noted;
  }

  /** SIGKILL; resolves with the time, on Date.now(), when the process is gone. */
  async kill(): Promise<number> {
    const gone = once(this.#child!, "exit");
    this.#child!.kill("SIGKILL");
    await gone;
    return Date.now();
  }

  /** Stops the process: the kernel still accepts for it, but nothing answers. */
  async hang(): Promise<void> {
    this.#child!.kill("SIGSTOP");
    await eventually("the backend stands still", () => standsStill(this.#child!.pid!));
  }

  goOn(): void {
    this.#child!.kill("SIGCONT");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const child = this.#child;
    if (child !== null && child.exitCode === null && child.signalCode === null) await this.kill();
  }
}
