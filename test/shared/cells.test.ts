import { describe, expect, test } from "vitest";
import {
  add,
  Arena,
  claim,
  claimAt,
  claimed,
  giveBack,
  int32At,
  int32Index,
  OpenCells,
  Pieces,
} from "../../src/shared/cells.ts";
import { runThreads } from "../support/threads.ts";
import type { CapJob, CapResult } from "./claiming-thread.ts";

const thread = new URL("./claiming-thread.ts", import.meta.url);
const CACHE_LINE = 64;

describe("Arena", () => {
  test("allocates zeroed cells of shared memory with a cache line of their own", () => {
    const arena = new Arena();
    const given = [arena.int32(1), arena.float64(1), arena.int32(17), arena.float64(100), arena.int32(1)];
    const lines = new Map<SharedArrayBuffer, Set<number>>();
    for (const cells of given) {
      expect(cells.buffer).toBeInstanceOf(SharedArrayBuffer);
      expect([...cells].every((cell) => cell === 0)).toBe(true);
      const taken = lines.get(cells.buffer) ?? new Set();
      lines.set(cells.buffer, taken);
      const last = cells.byteOffset + cells.byteLength - 1;
      for (let line = Math.floor(cells.byteOffset / CACHE_LINE); line <= Math.floor(last / CACHE_LINE); line++) {
        expect(taken.has(line)).toBe(false);
        taken.add(line);
      }
    }
  });

  test("continues when a piece of its memory is used up", () => {
    const arena = new Arena();
    const given = Array.from({ length: 70_000 }, () => arena.int32(1));
    given.forEach((cell, i) => (cell[0] = i));
    expect(given.every((cell, i) => cell[0] === i)).toBe(true);
    expect(new Set(given.map(({ buffer }) => buffer)).size).toBeGreaterThan(1);
  });

  test("has room for cells that are larger than a piece of its memory", () => {
    const arena = new Arena();
    const before = arena.int32(1);
    const large = arena.float64(1_000_000);
    const after = arena.int32(1);
    large.fill(7);
    expect(large).toHaveLength(1_000_000);
    expect([before[0], after[0]]).toEqual([0, 0]);
  });

  test("reuses freed cells, zeroed and only once", () => {
    const arena = new Arena();
    const first = arena.float64(20);
    first.fill(3);
    arena.free(first);
    const [second, third] = [arena.float64(20), arena.float64(20)];
    expect([second.buffer, second.byteOffset]).toEqual([first.buffer, first.byteOffset]);
    expect([...second].every((cell) => cell === 0)).toBe(true);
    expect(third.byteOffset).not.toBe(second.byteOffset);
  });

  test("does not grow when the same sizes are allocated and freed repeatedly", () => {
    const arena = new Arena();
    const buffers = new Set<SharedArrayBuffer>();
    for (let i = 0; i < 100_000; i++) {
      const [cell, row] = [arena.int32(1), arena.float64(300)];
      buffers.add(cell.buffer).add(row.buffer);
      arena.free(cell);
      arena.free(row);
    }
    expect(buffers.size).toBe(1);
  });
});

describe("cells that all workers write", () => {
  test("lie side by side in one cache line, in the order of their allocation", () => {
    const arena = new Arena();
    const cells = Array.from({ length: 17 }, () => arena.takeCell());
    expect(cells.map((address) => address - cells[0]!)).toEqual(Array.from({ length: 17 }, (_, i) => 4 * i));
    expect(cells[0]! % CACHE_LINE).toBe(0);
    // What only one thread writes is elsewhere.
    expect(Math.floor(arena.take(8) / CACHE_LINE)).toBe(Math.floor(cells[16]! / CACHE_LINE) + 1);
  });

  test("are reused when they are freed, zeroed and only once", () => {
    const arena = new Arena();
    const cells = Array.from({ length: 16 }, () => arena.takeCell());
    int32At(arena.memory, cells[5]!, 1)[0] = 7;
    arena.freeCell(cells[5]!);
    expect(arena.takeCell()).toBe(cells[5]);
    expect(int32At(arena.memory, cells[5]!, 1)[0]).toBe(0);
    expect(cells).not.toContain(arena.takeCell());
  });

  test("are read by number, whatever piece of memory they are in", () => {
    const arena = new Arena();
    const addresses = Array.from({ length: 3 }, () => {
      const address = arena.takeCell();
      // The rest of the line and of the piece.
      for (let i = 1; i < 16; i++) arena.takeCell();
      arena.take(4 * 1024 * 1024 - 64);
      return address;
    });
    expect(arena.memory).toHaveLength(3);
    const pieces = new Pieces(arena.memory);
    const caps = [0, 2, 1];
    const open = new OpenCells(
      pieces,
      addresses.map((openAt, i) => ({ openAt, maxConnections: caps[i]! })),
    );
    expect(addresses.map((_, i) => [open.openCount(i), open.full(i)])).toEqual([
      [0, false],
      [0, false],
      [0, false],
    ]);
    for (const address of addresses) claimAt(pieces.int32With(address), int32Index(address), 0);
    expect(addresses.map((address) => claimed(int32At(arena.memory, address, 1)))).toEqual([1, 1, 1]);
    expect(addresses.map((_, i) => [open.openCount(i), open.full(i)])).toEqual([
      [1, false],
      [1, false],
      [1, true],
    ]);
  });
});

describe("claim", () => {
  const cell = (): Int32Array => new Int32Array(new SharedArrayBuffer(4));

  test("admits up to the cap, and again after a release", () => {
    const open = cell();
    expect([claim(open, 2), claim(open, 2), claim(open, 2)]).toEqual([true, true, false]);
    expect(claimed(open)).toBe(2);
    giveBack(open);
    expect([claim(open, 2), claim(open, 2)]).toEqual([true, false]);
  });

  test("counts and never refuses without a cap", () => {
    const open = cell();
    for (let i = 0; i < 100; i++) expect(claim(open, 0)).toBe(true);
    expect(claimed(open)).toBe(100);
  });

  test("refuses until enough is released after the cap was lowered below the claims", () => {
    const open = cell();
    for (let i = 0; i < 5; i++) claim(open, 5);
    for (const held of [5, 4, 3]) {
      expect(claimed(open)).toBe(held);
      expect(claim(open, 3)).toBe(false);
      giveBack(open);
    }
    expect(claim(open, 3)).toBe(true);
  });

  test("refuses to release an unclaimed place, and the cap stays exact", () => {
    const open = cell();
    expect(() => giveBack(open)).toThrow("given back twice");
    expect(claim(open, 1)).toBe(true);
    giveBack(open);
    expect(() => giveBack(open)).toThrow("given back twice");
    expect(claimed(open)).toBe(0);
    expect([claim(open, 1), claim(open, 1)]).toEqual([true, false]);
  });

  test("changes a sum only by what is added", () => {
    const sum = cell();
    add(sum, 1000);
    add(sum, -400);
    expect(claimed(sum)).toBe(600);
  });

  test("is exact when several threads claim and release at once", async () => {
    const open = cell();
    const inside = cell();
    const job: CapJob = { kind: "cap", cell: open, inside, max: 2, times: 300_000 };
    const results = await runThreads<CapResult>(thread, [job, job, job, job]);
    expect(results.map(({ broken }) => broken)).toEqual([0, 0, 0, 0]);
    for (const { admitted, refused } of results) expect(admitted + refused).toBe(job.times);
    // Without a refusal the threads never competed, and the test shows nothing.
    expect(results.reduce((sum, { refused }) => sum + refused, 0)).toBeGreaterThan(0);
    expect(claimed(open)).toBe(0);
  });

  test("loses no claim of several threads", async () => {
    const open = cell();
    const inside = cell();
    const job: CapJob = { kind: "cap", cell: open, inside, max: 1_000_000, times: 300_000 };
    const results = await runThreads<CapResult>(thread, [job, job, job, job]);
    expect(results.map(({ admitted }) => admitted)).toEqual([300_000, 300_000, 300_000, 300_000]);
    expect(claimed(open)).toBe(0);
  });
});
