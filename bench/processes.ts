// Starts and ends every process of the bench, however the bench ends: on which CPUs they run, and how much CPU time they have used.
import { cpuNanosecondsOfTree, treeOf } from "./procstat.ts";

export interface Order {
  command: string[];
  /** The CPUs on which it may run; undefined = any. */
  cpus: number[] | undefined;
}

/** How long a process may take to end before it is asked again, or killed. */
const patienceMs = 250;

const live = new Set<Process>();
let nanosecondsOfEnded = 0;

export class Process {
  readonly #child: Bun.Subprocess<"pipe", "pipe", "pipe">;
  readonly #lines: AsyncIterator<string>;
  readonly #complaints: string[] = [];
  readonly #complained: Promise<void>;
  #newComplaint = Promise.withResolvers<void>();
  #nanosecondsAtStop = 0;

  constructor(order: Order) {
    const pin = order.cpus === undefined ? [] : ["taskset", "-c", order.cpus.join(",")];
    this.#child = Bun.spawn([...pin, ...order.command], { stdin: "pipe", stdout: "pipe", stderr: "pipe" });
    this.#lines = linesOf(this.#child.stdout);
    this.#complained = this.#gatherComplaints();
    live.add(this);
    void this.#child.exited.then(() => {
      live.delete(this);
      // A killed master has not waited for its children, so their CPU time is missing from its account.
      const account = Number(this.#child.resourceUsage()?.cpuTime.total ?? 0) * 1e3;
      nanosecondsOfEnded += Math.max(account, this.#nanosecondsAtStop);
    });
  }

  get pid(): number {
    return this.#child.pid;
  }

  get hasEnded(): boolean {
    return this.#child.exitCode !== null || this.#child.signalCode !== null;
  }

  /** The next line that it prints; throws its error output if it ends instead, or if the line does not come in time. */
  async line(withinSeconds = 60): Promise<string> {
    const next = await within(withinSeconds, this.#lines.next(), `no answer from ${this.#child.pid}`);
    if (next.done) throw new Error(`a process ended early: ${await this.complaint()}`);
    return next.value;
  }

  say(line: string): void {
    void this.#child.stdin.write(`${line}\n`);
    void this.#child.stdin.flush();
  }

  /** All that it prints until it ends, which must be a success. */
  async output(withinSeconds = 120): Promise<string> {
    let text = "";
    const all = (async () => {
      for (let next = await this.#lines.next(); !next.done; next = await this.#lines.next()) text += `${next.value}\n`;
      return await this.#child.exited;
    })();
    const code = await within(withinSeconds, all, `process ${this.#child.pid} did not end`);
    if (code !== 0) throw new Error(`a process failed with ${code}: ${await this.complaint()}`);
    return text;
  }

  /** Its error output, once it has ended. */
  async complaint(): Promise<string> {
    await this.#complained;
    return this.#complaints.join("\n").trim();
  }

  /** Waits until this many lines of its error output contain a word. */
  async hasComplained(word: string, times: number, withinSeconds = 10): Promise<void> {
    const wait = async () => {
      while (this.#complaints.filter((line) => line.includes(word)).length < times) {
        if (this.hasEnded) throw new Error(`a process ended early: ${await this.complaint()}`);
        await this.#newComplaint.promise;
      }
    };
    await within(withinSeconds, wait(), `process ${this.#child.pid} did not say "${word}"`);
  }

  interrupt(): void {
    this.#child.kill("SIGINT");
  }

  async ended(withinSeconds = 10): Promise<void> {
    await within(withinSeconds, this.#child.exited, `process ${this.#child.pid} did not end`);
  }

  /** Ends it and its descendants: with a signal first, so that a master waits for its children, and soon by force. */
  async stop(): Promise<void> {
    if (!this.hasEnded) this.#nanosecondsAtStop = cpuNanosecondsOfTree(this.#child.pid);
    for (let asked = 0; asked < 2 && !this.hasEnded; asked++) {
      this.#child.kill("SIGTERM");
      await Promise.race([this.#child.exited, Bun.sleep(patienceMs)]);
    }
    this.killNow();
    await this.#child.exited;
  }

  killNow(): void {
    killTree(this.#child.pid, this.hasEnded);
  }

  async #gatherComplaints(): Promise<void> {
    for await (const line of linesOf(this.#child.stderr)) {
      this.#complaints.push(line);
      this.#newComplaint.resolve();
      this.#newComplaint = Promise.withResolvers();
    }
    this.#newComplaint.resolve();
  }
}

/** Nanoseconds of CPU time of the bench and all processes that it ever started. */
export function ownNanoseconds(): number {
  const { user, system } = process.cpuUsage();
  const running = [...live].reduce((sum, child) => sum + cpuNanosecondsOfTree(child.pid), 0);
  return (user + system) * 1e3 + running + nanosecondsOfEnded;
}

/** Runs a task and leaves no process behind: not at its end, not after an error, not after Ctrl-C. */
export async function leavingNothingBehind(deadlineMinutes: number, task: () => Promise<void>, clean: () => void) {
  const giveUp = (why: string, code: number) => {
    for (const child of live) child.killNow();
    clean();
    console.error(`bench: ${why}`);
    process.exit(code);
  };
  process.once("SIGINT", () => giveUp("interrupted", 130));
  process.once("SIGTERM", () => giveUp("terminated", 143));
  process.once("SIGHUP", () => giveUp("hung up", 129));
  const deadline = setTimeout(() => giveUp(`not done after ${deadlineMinutes} minutes`, 1), deadlineMinutes * 60_000);
  try {
    await task();
  } finally {
    clearTimeout(deadline);
    await Promise.all([...live].map((child) => child.stop()));
    clean();
  }
}

export async function within<T>(seconds: number, promise: Promise<T>, otherwise: string): Promise<T> {
  let timer: Timer | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${otherwise} within ${seconds} s`)), seconds * 1000);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

function killTree(pid: number, hasEnded: boolean): void {
  if (hasEnded) return;
  for (const member of treeOf(pid)) {
    try {
      process.kill(member, "SIGKILL");
    } catch {
      // It ended between the check and the signal.
    }
  }
}

async function* linesOf(stream: ReadableStream<Uint8Array>): AsyncGenerator<string, undefined> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const chunk of stream) {
    const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n");
    rest = lines.pop() ?? "";
    yield* lines;
  }
  if (rest !== "") yield rest;
  return undefined;
}
