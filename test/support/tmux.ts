// A terminal for programs under test: a tmux server of its own, with one window of a fixed size.
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { eventually } from "./eventually.ts";

/** Why tmux cannot be used here, or null. */
export const noTmux = spawnSync("tmux", ["-V"]).status === 0 ? null : "tmux is not installed";

/** A shell in a terminal of this size. */
export class Tmux implements Disposable {
  readonly #dir = mkdtempSync(join(tmpdir(), "lb-tmux-"));

  constructor(columns: number, rows: number, env: Record<string, string> = {}) {
    const variables = Object.entries({ PS1: "shell> ", ...env }).flatMap(([name, value]) => ["-e", `${name}=${value}`]);
    const size = ["-x", String(columns), "-y", String(rows)];
    this.#run("-f", "/dev/null", "new-session", "-d", ...size, ...variables, "sh", "-i");
  }

  /** Types text as it is. */
  type(text: string): void {
    this.#run("send-keys", "-l", "--", text);
  }

  /** Presses a key by tmux's name: "Enter", "Up", "C-c". */
  press(...keys: string[]): void {
    this.#run("send-keys", ...keys);
  }

  resize(columns: number, rows: number): void {
    this.#run("resize-window", "-x", String(columns), "-y", String(rows));
  }

  /** The content of the screen, without trailing spaces; with `escapes` also the attributes. */
  screen(escapes = false): string {
    return this.#run("capture-pane", "-p", ...(escapes ? ["-e"] : []));
  }

  /** Whether a program uses the alternate screen. */
  get isAlternate(): boolean {
    return this.#run("display-message", "-p", "#{alternate_on}").trim() === "1";
  }

  get isCursorShown(): boolean {
    return this.#run("display-message", "-p", "#{cursor_flag}").trim() === "1";
  }

  /** The process in the foreground, by the eighth field of /proc/PID/stat of the shell. */
  get foreground(): number {
    const pid = this.#run("display-message", "-p", "#{pane_pid}").trim();
    return Number(readFileSync(`/proc/${pid}/stat`, "utf8").split(" ")[7]);
  }

  /** Waits until the screen matches. */
  async shows(what: RegExp): Promise<string> {
    let last = "";
    try {
      return await eventually(`the screen shows ${what}`, () => what.test((last = this.screen())) && last);
    } catch (error) {
      throw new Error(`${String(error)}; it shows:\n${last}`, { cause: error });
    }
  }

  [Symbol.dispose](): void {
    this.#run("kill-server");
    rmSync(this.#dir, { recursive: true, force: true });
  }

  #run(...args: string[]): string {
    const { stdout, stderr, status } = spawnSync("tmux", ["-S", join(this.#dir, "socket"), ...args], {
      encoding: "utf8",
    });
    if (status !== 0) throw new Error(`tmux ${args.join(" ")}: ${stderr}`);
    return stdout;
  }
}
