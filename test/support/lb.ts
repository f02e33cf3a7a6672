// The compiled binary under test: started with a config in a folder of its own, observed through its two logs and its admin endpoint, and
// ended in any case. Knows no more of the product than a user.
import { spawn, type ChildProcess } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll } from "vitest";
import type { Snapshot } from "../../src/observe/snapshot.ts";
import { eventually } from "./eventually.ts";
import { standsStill } from "./proc.ts";

const repository = join(import.meta.dirname, "../..");

/** The executable of all these tests: built by `npm test`, or the one that LB_BINARY names. */
export const binary = process.env["LB_BINARY"] ?? join(repository, "dist/lb");

const START_MS = 30_000;
/** A process with live connections may take its shutdown_timeout; tests do not wait for that. */
const STOP_MS = 1000;
const WAIT_MS = 40_000;
/** If nothing has come for this long, nothing more will come. */
const STILL_MS = 100;

/** One line of the access log, format = "json". */
export interface AccessEntry {
  time: string;
  id: number;
  listener: string;
  client: string;
  peer?: string;
  pool?: string;
  backend?: string;
  sni?: string;
  tls?: string;
  client_cert?: string;
  queue_ms?: number;
  connect_ms?: number;
  duration_ms: number;
  bytes_in: number;
  bytes_out: number;
  retries: number;
  dry_run?: string;
  worker: number;
  end: string;
  end_by: string;
  error?: string;
}

/** One line of the process log, format = "json". */
export interface LogEntry {
  time: string;
  level: string;
  event: string;
  [field: string]: string | number | boolean;
}

export interface LbOptions {
  /** Open files, soft and hard. */
  ulimit?: number;
  env?: Record<string, string>;
  /** Put before the binary's own command line; must exec it in the end, so that the pid is the binary's. */
  wrapper?: string[];
  /** The text is complete: neither [admin] nor [log] is added. */
  asItIs?: boolean;
}

/**
 * Starts `lb FILE` and waits until it listens. Unless the text has them, [admin] is on a free port (with a wrapper: on a unix socket, which
 * is reachable from any network namespace) and [log] writes JSON, the access log to stdout. Throws with the whole output if it exits early.
 */
export async function startLb(toml: string, options: LbOptions = {}): Promise<Lb> {
  const dir = await mkdtemp(join(tmpdir(), "lb-test-"));
  const admin = options.wrapper === undefined ? `127.0.0.1:${await freePort()}` : `unix:${join(dir, "admin.sock")}`;
  const lb = new Lb(dir, admin, options);
  try {
    await lb.start(toml);
  } catch (error) {
    await lb.stop();
    throw error;
  }
  return lb;
}

/** The running processes. A test that is abandoned at its timeout never reaches the end of its `await using`. */
const running = new Set<Lb>();
afterAll(async () => {
  await Promise.all([...running].map((lb) => lb.stop()));
});

// However this process ends, by a kill too, the processes that it has started end with it: a shell waits for the end of its input, and then
// kills those that were not reported as ended.
const GUARD = `trap "" INT TERM; pids=" "
while read -r what pid; do
  case $what in started) pids="$pids$pid " ;; ended) pids="\${pids%% $pid *} \${pids#* $pid }" ;; esac
done
[ "$pids" = " " ] || kill -9 $pids 2>&-`;
let guard: ChildProcess | null = null;

function guarded(child: ChildProcess): void {
  if (guard === null) {
    guard = spawn("sh", ["-c", GUARD], { stdio: ["pipe", "ignore", "ignore"], detached: true });
    guard.unref();
    guard.stdin!.on("error", () => undefined);
  }
  const { stdin } = guard;
  stdin!.write(`started ${child.pid}\n`);
  child.once("close", () => stdin!.write(`ended ${child.pid}\n`));
}

export class Lb {
  readonly dir: string;
  readonly file: string;
  /** The URL that answers GET /live: "http://127.0.0.1:1234"; behind a unix socket "http://localhost", see `fetch`. */
  readonly adminUrl: string;
  /** The unix socket of the admin endpoint, or null. */
  readonly adminSocket: string | null;
  readonly #adminBind: string;
  readonly #options: LbOptions;
  #child: ChildProcess | null = null;
  /** What was written to stdout and stderr so far, line by line. */
  readonly stdout: string[] = [];
  readonly stderr: string[] = [];
  readonly #access: AccessEntry[] = [];
  readonly #log: LogEntry[] = [];
  readonly #listeners = new Set<() => void>();
  /** The listeners of every config so far, by their ports. */
  readonly #ports = new Map<number, Set<string>>();
  #exit: { code: number | null; signal: NodeJS.Signals | null } | null = null;
  /** The process is gone and all its output was read. */
  readonly exited: Promise<{ code: number | null; signal: NodeJS.Signals | null }>;
  readonly #exited: (how: { code: number | null; signal: NodeJS.Signals | null }) => void;

  /** Use `startLb`. */
  constructor(dir: string, adminBind: string, options: LbOptions) {
    this.dir = dir;
    this.file = join(dir, "lb.toml");
    this.#adminBind = adminBind;
    this.#options = options;
    this.adminSocket = adminBind.startsWith("unix:") ? adminBind.slice(5) : null;
    this.adminUrl = this.adminSocket === null ? `http://${adminBind}` : "http://localhost";
    const { promise, resolve } = Promise.withResolvers<{ code: number | null; signal: NodeJS.Signals | null }>();
    this.exited = promise;
    this.#exited = resolve;
  }

  /** For `startLb` alone. */
  async start(toml: string): Promise<void> {
    await this.write(toml);
    await built();
    const { ulimit, env, wrapper } = this.#options;
    const limited = ulimit === undefined ? [] : ["sh", "-c", 'ulimit -n "$0" && exec "$@"', String(ulimit)];
    const [command, ...args] = [...limited, ...(wrapper ?? []), binary, this.file];
    const child = spawn(command!, args, { stdio: ["ignore", "pipe", "pipe"], env: { ...process.env, ...env } });
    this.#child = child;
    running.add(this);
    guarded(child);
    eachLines(child.stdout!, (lines) => this.#take(lines, this.stdout, this.#access));
    eachLines(child.stderr!, (lines) => this.#take(lines, this.stderr, this.#log));
    child.once("error", (error) => this.stderr.push(String(error)));
    child.once("close", (code, signal) => {
      this.#exit = { code, signal };
      this.#exited(this.#exit);
      this.#changed();
    });
    await this.#until(
      "start",
      START_MS,
      () => this.#log.some(({ event }) => event === "started") || this.#saysStarted(),
    );
  }

  get pid(): number {
    return this.#child?.pid ?? -1;
  }

  get running(): boolean {
    return this.#exit === null;
  }

  // ---------------------------------------------------------------- the logs

  /** The lines of the access log so far. */
  accessLines(): readonly AccessEntry[] {
    return this.#access;
  }

  /** The lines of the process log so far. */
  log(): readonly LogEntry[] {
    return this.#log;
  }

  /** The first line of the access log, past or to come, of which `predicate` is true. */
  async waitLine(predicate: (line: AccessEntry) => boolean, ms = WAIT_MS): Promise<AccessEntry> {
    await this.#until("a line of the access log", ms, () => this.#access.some(predicate));
    return this.#access.find(predicate)!;
  }

  /**
   * The line of one client's connection; if only the address is known, the first one `from` it. The kernel may give a client the port of
   * another client of another listener, even while that one is open, so the destination port tells them apart.
   */
  lineOf(client: { address: string; to?: number } | { from: string }): Promise<AccessEntry> {
    if ("address" in client) {
      const { address, to = 0 } = client;
      const listeners = this.#ports.get(to);
      return this.waitLine((line) => line.client === address && listeners?.has(line.listener) !== false);
    }
    return this.waitLine((line) => line.client.startsWith(`${client.from}:`));
  }

  /** `count` lines of the access log of which `predicate` is true. */
  async waitLines(count: number, predicate: (line: AccessEntry) => boolean, ms = WAIT_MS): Promise<AccessEntry[]> {
    const what = (): string => `${count} lines of the access log (${this.#access.filter(predicate).length} so far)`;
    await this.#until(what, ms, () => this.#access.filter(predicate).length >= count);
    return this.#access.filter(predicate);
  }

  /** The first line of the process log from the `from`th on, past or to come, of which `predicate` is true. */
  async waitLog(predicate: (line: LogEntry) => boolean, ms = WAIT_MS, from = 0): Promise<LogEntry> {
    await this.#until("a line of the log", ms, () => this.#log.slice(from).some(predicate));
    return this.#log.slice(from).find(predicate)!;
  }

  // ---------------------------------------------------------------- the admin endpoint

  /** A request to the admin endpoint, at any kind of address. */
  fetch(path: string, init: RequestInit = {}): Promise<Response> {
    const unix = this.adminSocket === null ? {} : { unix: this.adminSocket };
    return fetch(`${this.adminUrl}${path}`, { signal: AbortSignal.timeout(WAIT_MS), ...init, ...unix });
  }

  /** A request that changes something, or asks with a body: an object is sent as JSON, a string as it is. */
  send(method: string, path: string, body?: unknown): Promise<Response> {
    const json = body === undefined ? {} : { "Content-Type": "application/json" };
    const sent = body === undefined ? {} : { body: typeof body === "string" ? body : JSON.stringify(body) };
    return this.fetch(path, { method, headers: { "X-Lb-Admin": "1", ...json }, ...sent });
  }

  async status(): Promise<Snapshot> {
    const response = await this.fetch("/api/status");
    if (response.status !== 200) throw new Error(`/api/status: ${response.status} ${await response.text()}`);
    return (await response.json()) as Snapshot;
  }

  /** The first status for which `predicate` is true, by repeated requests. */
  async waitStatus(predicate: (status: Snapshot) => boolean, ms = WAIT_MS): Promise<Snapshot> {
    const deadline = performance.now() + ms;
    for (;;) {
      const status = await this.status();
      if (predicate(status)) return status;
      if (performance.now() > deadline)
        throw new Error(`the status did not become as expected: ${JSON.stringify(status)}`);
      await pause(20);
    }
  }

  /** The first status in which no connection is open. */
  waitIdle(): Promise<Snapshot> {
    return this.waitStatus(({ connections }) => connections.open === 0);
  }

  /** Waits until the first listener has accepted more than this many new connections. */
  async waitAccepted(more: number): Promise<void> {
    const before = (await this.status()).listeners[0]!.accepted;
    await this.waitStatus(({ listeners }) => listeners[0]!.accepted > before + more);
  }

  /** Waits until the first listener has got bytes and no more arrive; returns their number. */
  async waitStill(): Promise<{ bytes_in: number; bytes_out: number }> {
    let before = 0;
    for (const deadline = performance.now() + WAIT_MS; ;) {
      const { bytes_in, bytes_out } = (await this.status()).listeners[0]!;
      const now = bytes_in + bytes_out;
      if (now > 0 && now === before) return { bytes_in, bytes_out };
      if (performance.now() > deadline) throw new Error(`bytes still move after ${WAIT_MS} ms`);
      before = now;
      await pause(STILL_MS);
    }
  }

  /** The metrics as Prometheus text. */
  async metrics(): Promise<string> {
    return (await this.fetch("/metrics")).text();
  }

  /** The sum of all samples of a metric whose labels contain `labels`; null where there is none. */
  async metric(name: string, labels: Record<string, string> = {}): Promise<number | null> {
    const wanted = Object.entries(labels).map(([key, value]) => `${key}=${JSON.stringify(value)}`);
    let sum: number | null = null;
    for (const line of (await this.metrics()).split("\n")) {
      const [, of, given = "", value] = /^([a-zA-Z_:]+)(?:\{(.*)\})? (\S+)/.exec(line) ?? [];
      if (of === name && wanted.every((label) => given.includes(label))) sum = (sum ?? 0) + Number(value);
    }
    return sum;
  }

  /** The answer of /ready, or /ready/LISTENER. */
  async ready(listener?: string): Promise<{ status: number; text: string }> {
    const response = await this.fetch(listener === undefined ? "/ready" : `/ready/${listener}`);
    return { status: response.status, text: await response.text() };
  }

  /** Ends a worker thread as if it had crashed. */
  restartWorker(index: number): Promise<Response> {
    return this.send("POST", `/api/workers/${index}/restart`);
  }

  // ---------------------------------------------------------------- config and signals

  /** Writes the config in place, without waiting for the result. */
  async write(toml: string): Promise<void> {
    const text = this.configText(toml);
    this.#noteListeners(text);
    await writeFile(this.file, text);
  }

  #noteListeners(toml: string): void {
    let config;
    try {
      config = Bun.TOML.parse(toml) as { listeners?: { [name: string]: { bind?: unknown } } };
    } catch {
      // A test may want a config that cannot be read.
      return;
    }
    for (const [name, { bind }] of Object.entries(config.listeners ?? {})) {
      for (const address of [bind].flat()) {
        const port = /:(\d+)$/.exec(String(address))?.[1];
        if (port === undefined) continue;
        const names = this.#ports.get(Number(port)) ?? new Set();
        this.#ports.set(Number(port), names.add(name));
      }
    }
  }

  /** The text that the process gets: with [admin] and [log] if they are missing. */
  configText(toml: string): string {
    if (this.#options.asItIs) return toml;
    const parts = [toml];
    if (!/^\s*\[?admin\b/m.test(toml)) parts.push(`[admin]\nbind = ${JSON.stringify(this.#adminBind)}\n`);
    if (!/^\s*\[?log\b/m.test(toml)) parts.push(`[log]\nformat = "json"\naccess = "stdout"\n`);
    return parts.join("\n");
  }

  /** Writes the config in place and waits until it is applied or refused; returns which. */
  async reload(toml: string): Promise<{ ok: boolean; generation: number; error: string | null }> {
    const before = await this.status();
    await this.write(toml);
    return this.reloaded(before);
  }

  /** Waits for the end of a reload that began after `before` was taken. */
  async reloaded(before: Snapshot, ms = WAIT_MS): Promise<{ ok: boolean; generation: number; error: string | null }> {
    const { success, failure } = before.config.reloads;
    const { config } = await this.waitStatus(
      ({ config: { reloads } }) => reloads.success > success || reloads.failure > failure,
      ms,
    );
    const ok = config.reloads.success > success;
    return { ok, generation: config.generation, error: config.last_reload_error };
  }

  /** The process is stopped meanwhile: bytes that peers send then wait in its sockets until it continues. */
  async whileHeld(task: () => Promise<unknown>): Promise<void> {
    this.signal("SIGSTOP");
    try {
      await eventually("every thread stands still", () => standsStill(this.pid));
      await task();
    } finally {
      this.signal("SIGCONT");
    }
  }

  signal(name: NodeJS.Signals): void {
    this.#child?.kill(name);
  }

  /** Ends the process, gently at first, and removes its folder. */
  async stop(): Promise<void> {
    running.delete(this);
    if (this.#child !== null && this.#exit === null) {
      this.signal("SIGTERM");
      await Promise.race([this.exited, pause(STOP_MS)]);
      if (this.running) {
        this.signal("SIGKILL");
        await this.exited;
      }
    }
    await rm(this.dir, { recursive: true, force: true });
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop();
  }

  // ---------------------------------------------------------------- within

  #take(lines: readonly string[], raw: string[], parsed: unknown[]): void {
    for (const line of lines) {
      raw.push(line);
      if (!line.startsWith("{")) continue;
      try {
        parsed.push(JSON.parse(line));
      } catch {
        // Not a complete line of lb: tests that care check the raw lines.
      }
    }
    this.#changed();
  }

  // With a log level above info, or a text log, no line reports it in a readable form.
  #saysStarted(): boolean {
    return this.stderr.some((line) => / started /.test(line));
  }

  #changed(): void {
    for (const listener of [...this.#listeners]) listener();
  }

  /** Resolves when `isSo` is true; rejects if the process exits first, or after `ms`. */
  #until(what: string | (() => string), ms: number, isSo: () => boolean): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const fail = (why: string): void => {
      const name = typeof what === "string" ? what : what();
      reject(new Error(`waiting for ${name}: ${why}\n${this.output()}`));
    };
    const look = (): void => {
      if (isSo()) resolve();
      else if (this.#exit !== null) fail(`the process has ended (${this.#exit.code ?? this.#exit.signal})`);
    };
    const timer = setTimeout(() => fail(`not within ${ms} ms`), ms);
    this.#listeners.add(look);
    look();
    return promise.finally(() => {
      clearTimeout(timer);
      this.#listeners.delete(look);
    });
  }

  /** The end of both outputs, for messages of failed tests. */
  output(): string {
    return ["--- stdout", ...this.stdout.slice(-20), "--- stderr", ...this.stderr.slice(-40)].join("\n");
  }
}

/** Runs a command line of the binary to its end. */
export async function runLb(
  args: string[],
  options: { env?: Record<string, string>; cwd?: string; ms?: number } = {},
): Promise<{ code: number | null; signal: NodeJS.Signals | null; stdout: string; stderr: string }> {
  await built();
  const { env, cwd = tmpdir(), ms = WAIT_MS } = options;
  const child = spawn(binary, args, { stdio: ["ignore", "pipe", "pipe"], cwd, env: { ...process.env, ...env } });
  guarded(child);
  let stdout = "";
  let stderr = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => (stdout += text));
  child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text));
  const timer = setTimeout(() => child.kill("SIGKILL"), ms);
  const { promise, resolve } = Promise.withResolvers<[number | null, NodeJS.Signals | null]>();
  child.once("close", (code, signal) => resolve([code, signal]));
  const [code, signal] = await promise;
  clearTimeout(timer);
  return { code, signal, stdout, stderr };
}

// ---------------------------------------------------------------------- ports

/** Below the kernel's range for outgoing ports, so that outgoing connections do not use them. */
const PORT_FIRST = 10_000;
const PORT_LAST = 32_000;
const given = new Set<number>();

/** Each test thread has one of this many neighbouring ports, so that no two find the same one free. */
const PORT_SHARES = 16;

/** A port on which nobody listens, on any address; never the same one twice. */
export async function freePort(): Promise<number> {
  const own = Number(process.env["VITEST_POOL_ID"] ?? 0) % PORT_SHARES;
  for (;;) {
    const at = PORT_FIRST + Math.floor(Math.random() * (PORT_LAST - PORT_FIRST));
    const port = at - (at % PORT_SHARES) + own;
    if (given.has(port)) continue;
    given.add(port);
    if (await isFree(port)) return port;
  }
}

/** As many numbers as `N` says, where it is known when types are checked. */
type Ports<N extends number, P extends number[] = []> = number extends N
  ? number[]
  : P["length"] extends N
    ? P
    : Ports<N, [...P, number]>;

/** `count` of them. */
export async function freePorts<N extends number>(count: N): Promise<Ports<N>> {
  const ports: number[] = [];
  while (ports.length < count) ports.push(await freePort());
  return ports as Ports<N>;
}

function isFree(port: number): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const server = createServer();
  server.once("error", () => resolve(false));
  server.listen({ port, host: "0.0.0.0", exclusive: true }, () => server.close(() => resolve(true)));
  return promise;
}

// ---------------------------------------------------------------------- parts

let building: Promise<void> | null = null;

/** Builds the binary if it is missing; `npm test` has built it before. */
function built(): Promise<void> {
  if (existsSync(binary)) return Promise.resolve();
  building ??= new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [join(repository, "scripts/build.ts")], {
      stdio: ["ignore", "pipe", "pipe"],
    });
    let output = "";
    child.stdout.on("data", (text) => (output += text));
    child.stderr.on("data", (text) => (output += text));
    child.once("close", (code) => (code === 0 ? resolve() : reject(new Error(`the build failed:\n${output}`))));
  });
  return building;
}

/** Passes on whole lines, as many as arrive at once. */
function eachLines(stream: NodeJS.ReadableStream, take: (lines: readonly string[]) => void): void {
  let rest = "";
  stream.setEncoding("utf8");
  stream.on("data", (text: string) => {
    const lines = (rest + text).split("\n");
    rest = lines.pop() ?? "";
    take(lines);
  });
  stream.on("end", () => {
    if (rest !== "") take([rest]);
  });
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => {
    setTimeout(resolve, ms);
  });
}
