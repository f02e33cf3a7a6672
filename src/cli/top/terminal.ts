// The terminal of `lb top`: raw mode, the alternate screen, keys, size. The terminal is restored however the process ends. Escape
// sequences: ECMA-48 and xterm's "XTerm Control Sequences".
import type { ReadStream, WriteStream } from "node:tty";
import type { Key } from "./state.ts";

/** The alternate screen, with the cursor hidden and line wrap off. */
const ENTER = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J";
const LEAVE = "\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l";
const HOME = "\x1b[H";
const ERASE_LINE = "\x1b[K";

export interface TerminalEvents {
  key: (key: Key) => void;
  resized: () => void;
  /** Called on a signal that asks to exit, or at the end of the input. */
  ended: () => void;
}

export class Terminal {
  readonly #input: ReadStream;
  readonly #output: WriteStream;
  readonly #events: TerminalEvents;
  #isOpen = false;
  /** The lines on the screen, so that only changed lines are written. */
  #lines: string[] = [];

  constructor(input: ReadStream, output: WriteStream, events: TerminalEvents) {
    this.#input = input;
    this.#output = output;
    this.#events = events;
  }

  get columns(): number {
    return this.#output.columns || 80;
  }

  get rows(): number {
    return this.#output.rows || 24;
  }

  /** Switches the terminal to the screen of `lb top`. */
  open(): void {
    const { key, resized, ended } = this.#events;
    this.#resume();
    this.#input.on("data", (data) => {
      for (const pressed of keysOf(String(data))) {
        const name = "name" in pressed ? pressed.name : "";
        if (name === "redraw") this.#lines = [];
        if (name === "suspend") this.#suspend();
        else key(pressed);
      }
    });
    this.#input.on("end", ended);
    this.#output.on("resize", () => {
      this.#lines = [];
      resized();
    });
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, ended);
    process.on("SIGTSTP", () => this.#suspend());
    process.on("SIGCONT", () => {
      this.#resume();
      resized();
    });
    // A message on the alternate screen would be gone with it.
    for (const fault of ["uncaughtException", "unhandledRejection"] as const)
      process.on(fault, (error: unknown) => {
        this.close();
        console.error(error);
        process.exit(1);
      });
    // The last chance to restore, also after an exception or an exit.
    process.on("exit", () => this.close());
  }

  /** Restores the terminal. */
  close(): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    // A terminal that has closed cannot be restored.
    try {
      this.#input.setRawMode(false);
      this.#output.write(LEAVE);
    } catch {
      return;
    }
    this.#input.pause();
  }

  /** Shows these lines, none of which is wider than the screen. */
  show(lines: readonly string[]): void {
    if (!this.#isOpen) return;
    let text = "";
    lines.forEach((line, i) => {
      if (line !== this.#lines[i]) text += `\x1b[${i + 1};1H${line}${ERASE_LINE}`;
    });
    if (text !== "") this.#output.write(text + HOME);
    this.#lines = [...lines];
  }

  // Suspends until the shell continues the process. In raw mode Ctrl-Z causes no signal.
  #suspend(): void {
    this.close();
    process.kill(process.pid, "SIGSTOP");
  }

  #resume(): void {
    this.#isOpen = true;
    this.#lines = [];
    this.#input.setRawMode(true);
    this.#input.resume();
    this.#output.write(ENTER);
  }
}

type KeyName = Extract<Key, { name: string }>["name"];

const SEQUENCES: Record<string, KeyName> = {
  "\x1b[A": "up",
  "\x1b[B": "down",
  "\x1b[C": "right",
  "\x1b[D": "left",
  "\x1bOA": "up",
  "\x1bOB": "down",
  "\x1bOC": "right",
  "\x1bOD": "left",
  "\x1b[H": "home",
  "\x1b[F": "end",
  "\x1bOH": "home",
  "\x1bOF": "end",
  "\x1b[1~": "home",
  "\x1b[4~": "end",
  "\x1b[7~": "home",
  "\x1b[8~": "end",
  "\x1b[5~": "pageUp",
  "\x1b[6~": "pageDown",
  "\x1b[Z": "backTab",
  "\t": "tab",
  "\r": "enter",
  "\n": "enter",
  "\x1b": "escape",
  "\x7f": "backspace",
  "\b": "backspace",
  "\x03": "interrupt",
  "\x04": "interrupt",
  "\x0c": "redraw",
  "\x1a": "suspend",
};

/** The keys in the terminal's input. Unknown sequences are ignored. */
export function keysOf(data: string): Key[] {
  const keys: Key[] = [];
  // oxlint-disable-next-line no-control-regex -- what a terminal sends begins with ESC
  for (const [part] of data.matchAll(/\x1b\[[0-9;?]*[ -/]*[@-~]|\x1bO[@-~]|[^]/gu)) {
    const name = SEQUENCES[part];
    if (name !== undefined) keys.push({ name });
    else if (!/[\p{Cc}]/u.test(part)) keys.push({ char: part });
  }
  return keys;
}
