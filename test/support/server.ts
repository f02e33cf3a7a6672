// Real servers for tests: system programs, each in a folder of its own that is removed with it, with their logs kept for the test.
import { execFile, spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { chown, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";

export const run = promisify(execFile);

/** An unprivileged user that every system has: some servers refuse to run as root. */
export const NOBODY = 65534;

/** The command of a program that is not to run as root. */
export function unprivileged(command: string, args: string[]): [string, string[]] {
  const asNobody = ["--reuid", String(NOBODY), "--regid", String(NOBODY), "--clear-groups"];
  return process.getuid?.() === 0 ? ["setpriv", [...asNobody, command, ...args]] : [command, args];
}

/** The first of these programs that is missing, or null. */
export async function missingOf(...commands: string[]): Promise<string | null> {
  for (const command of commands) {
    const found = await run("sh", ["-c", `command -v "$0"`, command]).catch(() => null);
    if (found === null) return `${command} is not installed`;
  }
  return null;
}

export class Server {
  readonly dir: string;
  #child: ChildProcess | null = null;
  #output = "";

  /** Makes only the folder: the server needs files in it. */
  static async make(name: string): Promise<Server> {
    const dir = await mkdtemp(join(tmpdir(), `lb-${name}-`));
    if (process.getuid?.() === 0) await chown(dir, NOBODY, NOBODY);
    return new Server(dir);
  }

  private constructor(dir: string) {
    this.dir = dir;
  }

  /** Starts the program in the foreground; the end of the former one, if any, must have been awaited. */
  start([command, args]: [string, string[]]): void {
    const child = spawn(command, args, { cwd: this.dir, stdio: ["ignore", "pipe", "pipe"] });
    this.#child = child;
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding("utf8").on("data", (text: string) => (this.#output += text));
    }
  }

  /** Everything written to stdout and stderr, and to a file of the folder where one is named. */
  log(file?: string): string {
    return file === undefined ? this.#output : readFileSync(join(this.dir, file), "utf8");
  }

  async end(signal: NodeJS.Signals): Promise<void> {
    const child = this.#child;
    if (child === null || child.exitCode !== null || child.signalCode !== null) return;
    const gone = once(child, "exit");
    child.kill(signal);
    await gone;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.end("SIGKILL");
    await rm(this.dir, { recursive: true, force: true });
  }
}
