// Short connections by the hundred thousand: threads that only make blocking system calls, so that the code under test costs more than the
// test. `startAnswering` and `connectOften` are the test's side; run as a program this file does the work.
import { dlopen, FFIType } from "bun:ffi";
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { listenOn, sockaddr } from "../../src/platform/sockets.ts";

const LOOPBACK = [0, 0, 0xffff, 0x7f000001] as const;

function run(...args: (string | number)[]): ChildProcess {
  return spawn(process.execPath, [import.meta.filename, ...args.map(String)], { stdio: ["pipe", "pipe", "inherit"] });
}

async function firstLine(child: ChildProcess): Promise<string> {
  const [chunk] = (await Promise.race([
    once(child.stdout!, "data"),
    once(child, "exit").then(() => Promise.reject(new Error("it has ended"))),
  ])) as [Buffer];
  return String(chunk);
}

/** A backend on a port of 127.0.0.1 that answers one message per connection with this many bytes, and ends it. */
export async function startAnswering(port: number): Promise<AsyncDisposable> {
  const child = run("answer", port);
  await firstLine(child);
  return {
    [Symbol.asyncDispose]: async () => {
      const gone = once(child, "exit");
      child.kill("SIGKILL");
      await gone;
    },
  };
}

/** Connects this many times, sends something, waits for the answer and the end. Returns the number of successes. */
export async function connectOften(port: number, total: number): Promise<{ ok: number; seconds: number }> {
  const child = run("connect", port, total);
  return JSON.parse(await firstLine(child)) as { ok: number; seconds: number };
}

// ---------------------------------------------------------------------- the program

const THREADS = { answer: 4, connect: 8 };
const MESSAGE_BYTES = 64;

interface Work {
  kind: "answer" | "connect";
  /** The descriptor of the listening socket. */
  fd: number;
  port: number;
  total: number;
}

function libc() {
  const { i32, u64, ptr, i64 } = FFIType;
  return dlopen("libc.so.6", {
    socket: { args: [i32, i32, i32], returns: i32 },
    accept: { args: [i32, ptr, ptr], returns: i32 },
    connect: { args: [i32, ptr, i32], returns: i32 },
    recv: { args: [i32, ptr, u64, i32], returns: i64 },
    send: { args: [i32, ptr, u64, i32], returns: i64 },
    close: { args: [i32], returns: i32 },
    fcntl: { args: [i32, i32, i32], returns: i32 },
  }).symbols;
}

const F_SETFL = 4;
const MSG_NOSIGNAL = 0x4000;

function answerForEver(fd: number): void {
  const c = libc();
  const buffer = new Uint8Array(MESSAGE_BYTES);
  for (;;) {
    const socket = c.accept(fd, null, null);
    if (socket < 0) continue;
    const got = Number(c.recv(socket, buffer, MESSAGE_BYTES, 0));
    if (got > 0) c.send(socket, buffer, got, MSG_NOSIGNAL);
    c.close(socket);
  }
}

function connectTimes(port: number, total: number): number {
  const c = libc();
  const buffer = new Uint8Array(MESSAGE_BYTES);
  const message = new Uint8Array(MESSAGE_BYTES).fill(120);
  const address = sockaddr({ kind: "ip", address: LOOPBACK, port });
  let ok = 0;
  for (let i = 0; i < total; i++) {
    const socket = c.socket(2, 1, 0);
    if (c.connect(socket, address, address.length) === 0) {
      c.send(socket, message, MESSAGE_BYTES, MSG_NOSIGNAL);
      let got = 0;
      let more = 0;
      while ((more = Number(c.recv(socket, buffer, MESSAGE_BYTES, 0))) > 0) got += more;
      if (got === MESSAGE_BYTES && more === 0) ok++;
    }
    c.close(socket);
  }
  return ok;
}

function main(kind: "answer" | "connect", port: number, total: number): void {
  let fd = -1;
  if (kind === "answer") {
    fd = listenOn({ kind: "ip", address: LOOPBACK, port }, 4096) as number;
    libc().fcntl(fd, F_SETFL, 0);
  }
  const threads = THREADS[kind];
  const started = performance.now();
  let [running, ok] = [threads, 0];
  for (let i = 0; i < threads; i++) {
    const worker = new Worker(import.meta.url);
    worker.postMessage({ kind, fd, port, total: Math.floor((total + i) / threads) } satisfies Work);
    worker.addEventListener("message", ({ data }: { data: unknown }) => {
      ok += data as number;
      if (--running > 0) return;
      const text = JSON.stringify({ ok, seconds: (performance.now() - started) / 1000 });
      process.stdout.write(text, () => process.exit(0));
    });
  }
  if (kind === "answer") process.stdout.write("answering\n");
  // Ends with its parent.
  process.stdin.on("end", () => process.exit(0)).resume();
}

if (!Bun.isMainThread) {
  (globalThis as unknown as { onmessage: (event: MessageEvent<Work>) => void }).onmessage = ({ data }) => {
    if (data.kind === "answer") answerForEver(data.fd);
    else postMessage(connectTimes(data.port, data.total));
  };
} else if (import.meta.main) {
  main(process.argv[2] as "answer" | "connect", Number(process.argv[3]), Number(process.argv[4]));
}
