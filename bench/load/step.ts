// How a generator communicates with the bench: it prints "ready", and runs one step for each line of its input.
import { readSync } from "node:fs";

/** The task from the command line. */
export function task<T>(): T {
  return JSON.parse(process.argv[2] ?? "{}") as T;
}

export function ready(): void {
  process.stdout.write("ready\n");
}

/** Waits for the bench's command and returns what it says besides, or ""; ends the process if the bench is gone. */
export function awaitGo(): string {
  const line = new Uint8Array(16);
  const length = readSync(0, line);
  if (length === 0) process.exit(0);
  return new TextDecoder().decode(line.subarray("go".length, length)).trim();
}

export function answer(result: object): void {
  process.stdout.write(`${JSON.stringify(result)}\n`);
}

/** An HTTP request for a path of the backend. */
export function requestFor(path: string, close = false): Uint8Array {
  const header = close ? "Connection: close\r\n" : "";
  return new TextEncoder().encode(`GET ${path} HTTP/1.1\r\nHost: bench\r\n${header}\r\n`);
}
