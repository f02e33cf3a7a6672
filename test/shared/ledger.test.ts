import { describe, expect, test } from "vitest";
import {
  CLAIM,
  Ledger,
  ledgerMemory,
  PHASES,
  PROXIED,
  ROW,
  ROW_FLOAT,
  ROW_FLOATS,
  ROW_WORDS,
  SNI_BYTES_MAX,
} from "../../src/shared/ledger.ts";
import { runThreads } from "../support/threads.ts";
import type { LedgerJob, ReaderResult } from "./ledger-thread.ts";

const ADDRESS_WORDS = 4;

describe("Ledger", () => {
  test("gives each connection a row of its own, and reuses released rows", () => {
    const ledger = new Ledger(ledgerMemory(10));
    const rows = [ledger.take(), ledger.take(), ledger.take()];
    expect(new Set(rows).size).toBe(3);
    ledger.release(rows[1]!);
    expect(ledger.take()).toBe(rows[1]!);
    expect(rows).not.toContain(ledger.take());
  });

  test("has exactly the given number of rows", () => {
    const ledger = new Ledger(ledgerMemory(3));
    const rows = [ledger.take(), ledger.take(), ledger.take()];
    expect(() => ledger.take()).toThrow("no free row");
    ledger.release(rows[2]!);
    expect(ledger.take()).toBe(rows[2]!);
    expect(() => ledger.take()).toThrow("no free row");
  });

  test("gives out a zeroed row, whatever the connection before has left there", () => {
    const ledger = new Ledger(ledgerMemory(1));
    const row = ledger.take();
    ledger.words.fill(-1, row * ROW_WORDS, (row + 1) * ROW_WORDS);
    ledger.release(row);
    ledger.take();
    const at = row * ROW_WORDS;
    expect(ledger.words[at + ROW.claims]).toBe(CLAIM.row);
    expect(ledger.words[at + ROW.pool]).toBe(0);
    expect(ledger.words[at + ROW.backend]).toBe(0);
    expect(ledger.words[at + ROW.retries]).toBe(0);
    // 0 is a descriptor.
    expect(ledger.words[at + ROW.backendFd]).toBe(-1);
    expect(ledger.floats[row * ROW_FLOATS + ROW_FLOAT.bytesIn]).toBe(0);
    expect(ledger.floats[row * ROW_FLOATS + ROW_FLOAT.bytesOut]).toBe(0);
  });

  test("tells a reader whether what it has read belongs to one connection", () => {
    const ledger = new Ledger(ledgerMemory(1));
    const row = ledger.take();
    // The worker has not written the address yet.
    expect(ledger.stamp(row)).toBe(0);
    ledger.floats[row * ROW_FLOATS + ROW_FLOAT.id] = 5;
    expect([ledger.stamp(row), ledger.isStill(row, 5)]).toEqual([5, true]);

    const at = row * ROW_WORDS + ROW.proxied;
    ledger.words[at] = PROXIED.changing;
    expect([ledger.stamp(row), ledger.isStill(row, 5)]).toEqual([0, false]);
    ledger.words[at] = PROXIED.yes;
    expect([ledger.isStill(row, 5), ledger.isStill(row, -5)]).toEqual([false, true]);

    // What was read of a connection that has ended since still belongs to it, until another connection gets the row.
    ledger.release(row);
    expect(ledger.isStill(row, -5)).toBe(true);
    ledger.take();
    expect(ledger.isStill(row, -5)).toBe(false);
    expect(ledger.stamp(row)).toBe(0);
  });

  test("has separate cells for every row", () => {
    const ledger = new Ledger(ledgerMemory(3));
    const rows = [ledger.take(), ledger.take(), ledger.take()];
    const owner = new Map<number, string>([[0, "the count of rows"]]);
    const own = (word: number, who: string): void => {
      expect(owner.get(word), who).toBeUndefined();
      owner.set(word, who);
    };
    for (const row of rows) {
      for (const [name, cell] of Object.entries(ROW)) {
        const words = name === "address" ? ADDRESS_WORDS : 1;
        for (let i = 0; i < words; i++) own(row * ROW_WORDS + cell + i, `row ${row}, ${name}`);
      }
      for (const [name, cell] of Object.entries(ROW_FLOAT)) {
        for (let i = 0; i < 2; i++) own(2 * (row * ROW_FLOATS + cell) + i, `row ${row}, ${name}`);
      }
    }
    expect(Math.max(...owner.keys())).toBeLessThan(ledger.words.length);
    // The writer of a peer's address writes the port after it.
    expect(ROW.port).toBe(ROW.address + ADDRESS_WORDS);
  });

  test("shows the rows in use, with their claims, to another reader of its memory", () => {
    const memory = ledgerMemory(5);
    const ledger = new Ledger(memory);
    const [first, second, third] = [ledger.take(), ledger.take(), ledger.take()];
    ledger.words[third * ROW_WORDS]! |= CLAIM.process | CLAIM.backend;
    ledger.release(second);
    const seen = new Ledger(memory);
    expect([...seen.rowsInUse()]).toEqual([first, third]);
    expect(seen.words[third * ROW_WORDS]).toBe(CLAIM.row | CLAIM.process | CLAIM.backend);
    ledger.release(first);
    ledger.release(third);
    expect([...seen.rowsInUse()]).toEqual([]);
  });

  test("shows the phase and the server name of each row to other threads, and clears both with the row", () => {
    const memory = ledgerMemory(3);
    const ledger = new Ledger(memory);
    const rows = [ledger.take(), ledger.take(), ledger.take()];
    const longest = "a".repeat(SNI_BYTES_MAX);
    ledger.noteSni(rows[0]!, "one.example");
    ledger.noteSni(rows[1]!, longest);
    ledger.noteSni(rows[2]!, `${longest}b`);
    ledger.words[rows[1]! * ROW_WORDS + ROW.phase] = PHASES.indexOf("relaying");
    const seen = new Ledger(memory);
    expect(rows.map((row) => seen.sni(row))).toEqual(["one.example", longest, longest]);
    expect(rows.map((row) => seen.phase(row))).toEqual(["accepted", "relaying", "accepted"]);
    for (const row of rows) ledger.release(row);
    const again = rows.map(() => ledger.take());
    expect(again.map((row) => seen.sni(row))).toEqual(["", "", ""]);
    expect(again.map((row) => seen.phase(row))).toEqual(["accepted", "accepted", "accepted"]);
  });

  test("has a bit of its own for each claim", () => {
    const bits = Object.values(CLAIM);
    expect(bits.reduce((all, bit) => all | bit, 0)).toBe(bits.reduce((sum, bit) => sum + bit, 0));
  });
});

describe("a reader in another thread", () => {
  test("never takes parts of two connections, or of two addresses, for one", async () => {
    const memory = ledgerMemory(8);
    const done = new Int32Array(new SharedArrayBuffer(4));
    const job = { memory, done };
    const [, seen] = await runThreads<ReaderResult | null>(new URL("ledger-thread.ts", import.meta.url), [
      { role: "worker", ...job },
      { role: "reader", ...job },
    ] satisfies LedgerJob[]);
    expect(seen!.torn).toBe(0);
    // It has read both kinds, and met rows that changed.
    expect(seen!.whole).toBeGreaterThan(0);
    expect(seen!.proxied).toBeGreaterThan(0);
    expect(seen!.changed).toBeGreaterThan(0);
  });
});
