// Text to a descriptor that may be full, slow or closed. The kernel is real: files, named pipes and /dev/full.
import { spawnSync } from "node:child_process";
import { closeSync, constants, mkdtempSync, openSync, readFileSync, readSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { Output, type Batch } from "../../src/supervisor/output.ts";
import { eventually } from "../support/eventually.ts";

let folder: string;
let files = 0;
const fds: number[] = [];

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "lb-output-"));
});
afterEach(() => {
  for (const fd of fds.splice(0)) closeSync(fd);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const newPath = (): string => join(folder, `file-${files++}`);

function opened(path: string, flags: number): number {
  const fd = openSync(path, flags, 0o600);
  fds.push(fd);
  return fd;
}

/** A named pipe: its path, and a descriptor to read from it. */
function pipe(): { path: string; reader: number } {
  const path = newPath();
  if (spawnSync("mkfifo", [path]).status !== 0) throw new Error("mkfifo failed");
  return { path, reader: openSync(path, constants.O_RDONLY | constants.O_NONBLOCK) };
}

function batch(text: string, settled: () => void = () => undefined): Batch {
  return { bytes: Buffer.from(text), lines: text.split("\n").length - 1, settled };
}

function output(fd: number) {
  const lost: [lines: number, code: string][] = [];
  return { out: new Output(fd, (lines, code) => lost.push([lines, code])), lost };
}

test("writes batches in order and settles each once", async () => {
  const path = newPath();
  const { out, lost } = output(opened(path, constants.O_WRONLY | constants.O_CREAT));
  const settled: string[] = [];
  for (const text of ["one\n", "two\nthree\n", "four\n"]) out.push(batch(text, () => settled.push(text)));
  expect(out.idle).toBe(false);
  await out.drained();
  expect(readFileSync(path, "utf8")).toBe("one\ntwo\nthree\nfour\n");
  expect(settled).toEqual(["one\n", "two\nthree\n", "four\n"]);
  expect([lost, out.idle, out.broken]).toEqual([[], true, false]);
});

test("waits for a full pipe and loses nothing", async () => {
  const { path, reader } = pipe();
  fds.push(reader);
  const { out, lost } = output(opened(path, constants.O_WRONLY | constants.O_NONBLOCK));
  const text = `${"x".repeat(99)}\n`.repeat(5000);
  let isSettled = false;
  out.push(batch(text, () => (isSettled = true)));
  const read = Buffer.alloc(1024 * 1024);
  let bytes = 0;
  await eventually("the pipe is full", () => (bytes += tryRead(reader, read.subarray(bytes), 4096)) >= 4096);
  expect(isSettled).toBe(false);
  await eventually(
    "everything is read",
    () => (bytes += tryRead(reader, read.subarray(bytes), 65_536)) === text.length,
  );
  await out.drained();
  expect(read.toString("latin1", 0, bytes)).toBe(text);
  expect([isSettled, lost]).toEqual([true, []]);
});

function tryRead(fd: number, into: Uint8Array, most: number): number {
  try {
    return readSync(fd, into, 0, most, null);
  } catch (error) {
    if ((error as { code?: string }).code === "EAGAIN") return 0;
    throw error;
  }
}

test("counts lines that a full disk loses, and writes again later", async () => {
  const { out, lost } = output(opened("/dev/full", constants.O_WRONLY));
  let settled = 0;
  out.push(batch("one\ntwo\n", () => settled++));
  await out.drained();
  out.push(batch("three\n", () => settled++));
  await out.drained();
  expect(lost).toEqual([
    [2, "ENOSPC"],
    [1, "ENOSPC"],
  ]);
  expect([settled, out.broken]).toEqual([2, false]);
});

test("is broken when the reader is gone: the queue is lost and settled", async () => {
  const { path, reader } = pipe();
  const { out, lost } = output(opened(path, constants.O_WRONLY | constants.O_NONBLOCK));
  closeSync(reader);
  let settled = 0;
  // More than one write takes, so that some batches wait.
  for (let i = 0; i < 3; i++) out.push(batch(`${"x".repeat(200_000)}\n`, () => settled++));
  await out.drained();
  expect([out.broken, settled]).toEqual([true, 3]);
  expect(lost).toEqual([[3, "EPIPE"]]);
});

test("writes the queue at once when the process exits", () => {
  const path = newPath();
  const { out } = output(opened(path, constants.O_WRONLY | constants.O_CREAT));
  out.push(batch("last\n"));
  out.writeRestSync();
  expect(readFileSync(path, "utf8")).toBe("last\n");
});
