// Load in a process of its own: a closed loop of short connections, each of which sends a line and must get it back, with failures counted
// by kind. `startLoad` is the test's side; run as a program this file is the generator.
import { spawn } from "node:child_process";
import { once } from "node:events";
import type { Socket } from "bun";
import { parseAddress } from "../../src/core/address.ts";
import { adoptConnecting } from "../../src/platform/bun.ts";
import { beginConnect, sockaddr } from "../../src/platform/sockets.ts";

export interface LoadTask {
  /** Each connection uses the next of these. */
  ports: number[];
  host?: string;
  /** Maximum number of open connections. */
  concurrency: number;
  /** Maximum number of new connections per second; unlimited by default. */
  rate?: number;
  /** Bind to these local addresses in turn. */
  from?: string[];
  /** A connection without an answer by then has failed. */
  timeoutMs?: number;
  /** If the backend greets with its name: connections are counted by that first line. */
  tagged?: boolean;
  /** Ends by itself after this many connections. */
  total?: number;
}

/** refused: the connect failed. reset, eof: it ended before the answer. timeout: no answer. wrong: another answer. */
export type Failure = "refused" | "reset" | "eof" | "timeout" | "wrong";

export interface LoadResult {
  started: number;
  ok: number;
  failures: Partial<Record<Failure, number>>;
  /** The first thousand failures: what happened, the local port and how long it took. */
  failed: { kind: Failure; port: number; target: number; ms: number; atMs: number }[];
  /** Its start, on Date.now(). `epochMs + atMs - ms` is the start of a failed connection. */
  epochMs: number;
  byTag: Record<string, number>;
  seconds: number;
  /** From connect to answer. */
  latencyMs: { median: number; p99: number; max: number };
}

export interface Load {
  /** Resolves when the first connection has been answered. */
  running: Promise<void>;
  /** Ends it: open connections are completed. */
  stop(): Promise<LoadResult>;
  /** For a task with a `total`: its end. */
  done: Promise<LoadResult>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** Starts the generator. It ends with its standard input, so it cannot outlive the test. */
export function startLoad(task: LoadTask, wrapper: string[] = []): Load {
  const [command, ...args] = [...wrapper, process.execPath, import.meta.filename, JSON.stringify(task)];
  const child = spawn(command!, args, { stdio: ["pipe", "pipe", "inherit"] });
  child.stdin.on("error", () => undefined);
  let output = "";
  const first = Promise.withResolvers<void>();
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    output += text;
    if (output.includes("\n")) first.resolve();
  });
  const closed = once(child, "close");
  const done = closed.then(() => {
    const lines = output.trim().split("\n");
    if (lines.length < 2) throw new Error(`the load generator died: ${output}`);
    return JSON.parse(lines[1]!) as LoadResult;
  });
  done.catch(() => first.resolve());
  return {
    running: first.promise,
    done,
    stop: () => {
      child.stdin.end();
      return done;
    },
    [Symbol.asyncDispose]: async () => {
      child.kill("SIGKILL");
      await closed;
    },
  };
}

// ---------------------------------------------------------------------- the generator

interface Attempt {
  number: number;
  beganMs: number;
  target: number;
  port: number;
  expected: string;
  heard: string;
  sent: boolean;
  over: boolean;
  timer: ReturnType<typeof setTimeout>;
}

function generate(task: LoadTask): void {
  const {
    ports,
    host = "127.0.0.1",
    concurrency,
    rate,
    from,
    timeoutMs = 30_000,
    tagged = false,
    total = Infinity,
  } = task;
  const startedMs = performance.now();
  const result: Omit<LoadResult, "seconds" | "latencyMs"> = {
    started: 0,
    ok: 0,
    failures: {},
    failed: [],
    byTag: {},
    epochMs: Date.now(),
  };
  const latencies: number[] = [];
  let underWay = 0;
  let stopping = false;

  const settle = (attempt: Attempt, failure: Failure | null): void => {
    if (attempt.over) return;
    attempt.over = true;
    clearTimeout(attempt.timer);
    underWay--;
    const now = performance.now();
    const ms = now - attempt.beganMs;
    if (failure === null) {
      if (result.ok++ === 0) process.stdout.write("running\n");
      latencies.push(ms);
    } else {
      result.failures[failure] = (result.failures[failure] ?? 0) + 1;
      const atMs = now - startedMs;
      if (result.failed.length < 1000)
        result.failed.push({ kind: failure, port: attempt.port, target: attempt.target, ms, atMs });
    }
    if (underWay === 0 && stopping) finish();
    else more();
  };

  const finish = (): void => {
    latencies.sort((a, b) => a - b);
    const at = (part: number): number =>
      latencies[Math.min(latencies.length - 1, Math.floor(latencies.length * part))] ?? 0;
    const latencyMs = { median: at(0.5), p99: at(0.99), max: at(1) };
    const seconds = (performance.now() - startedMs) / 1000;
    const text = `${result.ok === 0 ? "none\n" : ""}${JSON.stringify({ ...result, seconds, latencyMs })}\n`;
    process.stdout.write(text, () => process.exit(0));
  };

  const hear = (socket: Socket<Attempt>, chunk: Uint8Array): void => {
    const attempt = socket.data;
    attempt.heard += Buffer.from(chunk).toString("latin1");
    const lines = attempt.heard.split("\n");
    if (lines.length < (tagged ? 3 : 2)) return;
    const answer = lines[tagged ? 1 : 0];
    if (tagged) result.byTag[lines[0]!] = (result.byTag[lines[0]!] ?? 0) + 1;
    settle(attempt, answer === attempt.expected ? null : "wrong");
    socket.end();
  };

  const begin = (): void => {
    underWay++;
    const number = result.started++;
    const target = ports[number % ports.length]!;
    const expected = `connection ${number}`;
    const attempt: Attempt = {
      number,
      beganMs: performance.now(),
      target,
      port: 0,
      expected,
      heard: "",
      over: false,
      sent: false,
      timer: setTimeout(() => settle(attempt, "timeout"), timeoutMs),
    };
    // Bun.connect itself reports ECONNREFUSED for every failure; an adopted descriptor knows the errno.
    const source = from?.[number % from.length];
    const fd = beginConnect(addressOf(host, target), source === undefined ? null : addressOf(source, 0));
    if (fd < 0) settle(attempt, "refused");
    else adoptConnecting(fd, attempt, events);
  };

  const opened = (socket: Socket<Attempt>): void => {
    const attempt = socket.data;
    if (attempt.sent || attempt.over) return;
    attempt.sent = true;
    // A write after a reset loses its errno: the next event looks like an end.
    if (socket.write(`${attempt.expected}\n`) < 0) settle(attempt, "reset");
  };

  const events = {
    binaryType: "uint8array" as const,
    open: (socket: Socket<Attempt>) => {
      socket.data.port = socket.localPort;
    },
    drain: opened,
    data: (socket: Socket<Attempt>, chunk: Uint8Array) => {
      opened(socket);
      hear(socket, chunk);
    },
    end: (socket: Socket<Attempt>) => {
      settle(socket.data, "eof");
      socket.end();
    },
    close: (socket: Socket<Attempt>, error?: Error) => settle(socket.data, kindOf(error)),
    error: (socket: Socket<Attempt>, error: Error) => settle(socket.data, kindOf(error)),
    connectError: (socket: Socket<Attempt>, error: Error) => settle(socket.data, kindOf(error)),
  };

  const more = (): void => {
    const allowed = rate === undefined ? Infinity : ((performance.now() - startedMs) / 1000) * rate;
    while (!stopping && underWay < concurrency && result.started < allowed) {
      if (result.started >= total) {
        stop();
        return;
      }
      begin();
    }
  };

  const stop = (): void => {
    if (stopping) return;
    stopping = true;
    if (underWay === 0) finish();
  };

  if (rate !== undefined) setInterval(more, 2);
  process.stdin.on("end", stop).resume();
  more();
}

function kindOf(error: Error | undefined): Failure {
  const code = (error as { code?: string } | undefined)?.code;
  if (code === undefined) return "eof";
  return code === "ECONNREFUSED" ? "refused" : "reset";
}

const addresses = new Map<string, Uint8Array>();

function addressOf(host: string, port: number): Uint8Array {
  const key = `${host} ${port}`;
  const known = addresses.get(key);
  if (known !== undefined) return known;
  const address = parseAddress(host);
  if (address === null) throw new Error(`${host} is no address`);
  const made = sockaddr({ kind: "ip", address, port });
  addresses.set(key, made);
  return made;
}

if (import.meta.main) generate(JSON.parse(process.argv[2] ?? "{}") as LoadTask);
