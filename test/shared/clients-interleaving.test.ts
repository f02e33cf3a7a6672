// Every point at which another thread can change a client's entry during a claim. The other thread acts in one piece, before the first
// atomic operation of the claim, then before the second, and so on; tests with real threads are in clients.test.ts.
import { describe, expect, test } from "vitest";
import {
  CLIENT_OVER_CAP,
  CLIENT_OVER_RATE,
  clientMemory,
  ClientTable,
  WAYS,
  type ClientLimits,
} from "../../src/shared/clients.ts";
import { interruptions, uninterrupted } from "../support/interruptions.ts";

const SECOND = 1_000_000_000;
const none = { maxOpen: 0, intervalNs: 0, burst: 1, holds: false, dryRunOpen: false, dryRunRate: false };
const cap: ClientLimits = { ...none, maxOpen: 1 };

const A = 1000;
const B = 2000;
const claimAs = (table: ClientTable, client: number, limits: ClientLimits, nowNs: number): number =>
  table.claim(0, 0, 0xffff, client, limits, nowNs);
const peek = (table: ClientTable, client: number): { open: number; fullAtNs: number } =>
  table.peek(0, 0, 0xffff, client);

/** Two threads' views of a table of one set, in which A is the client that is evicted next. */
function fullTable(limits: ClientLimits, nowNs: number): { one: ClientTable; other: ClientTable } {
  const memory = clientMemory(WAYS);
  const one = new ClientTable(memory);
  claimAs(one, A, limits, nowNs);
  if (one.claimed) one.release(0);
  for (let client = 1; client < WAYS; client++) {
    claimAs(one, client, limits, nowNs + 10 * SECOND);
    if (one.claimed) one.release(client);
  }
  return { one, other: new ClientTable(memory) };
}

describe("a client whose entry is given to another client during its claim", () => {
  test("is counted in its own entry, and the other client in the other", () => {
    for (const interrupt of interruptions()) {
      const { one, other } = fullTable(cap, SECOND);
      interrupt(
        () => claimAs(one, A, cap, 20 * SECOND),
        () => other.release(claimAs(other, B, cap, 20 * SECOND)),
      );
      expect(peek(one, A).open).toBe(1);
      expect(claimAs(one, A, cap, 20 * SECOND)).toBe(CLIENT_OVER_CAP);
      expect(peek(one, B).open).toBe(0);
    }
  });

  test("takes no token of the other client", () => {
    const rate: ClientLimits = { ...none, intervalNs: SECOND, burst: 5 };
    for (const interrupt of interruptions()) {
      const { one, other } = fullTable(rate, SECOND);
      interrupt(
        () => claimAs(one, A, rate, 20 * SECOND),
        () => claimAs(other, B, rate, 20 * SECOND),
      );
      expect(peek(one, B).fullAtNs).toBe(21 * SECOND);
      // A has taken a token of its new entry, or of its former one before that was given away.
      expect([0, 21 * SECOND]).toContain(peek(one, A).fullAtNs);
    }
  });

  test("takes no token of the other client if neither has taken one, at the same time", () => {
    const rate: ClientLimits = { ...none, intervalNs: SECOND, burst: 5 };
    for (const interrupt of interruptions()) {
      const { one, other } = fullTable(cap, SECOND);
      interrupt(
        () => claimAs(one, A, rate, SECOND),
        () => other.release(claimAs(other, B, cap, SECOND)),
      );
      expect(peek(one, B).fullAtNs).toBeLessThanOrEqual(SECOND);
    }
  });

  test("is not refused for the tokens of the other client, if it gets its entry back in between", () => {
    const rate: ClientLimits = { ...none, intervalNs: 100 * SECOND, burst: 2 };
    /** The bucket is read, and then the tag: later than that, a claim makes an entry of its own. */
    const first = 5;
    let back = 0;
    for (const giveBack of interruptions()) {
      if (back++ === first) break;
      let away = 0;
      for (const giveAway of interruptions()) {
        if (away++ === first) break;
        const { one, other } = fullTable(none, SECOND);
        let entry = -1;
        const claim = (): void => void (entry = claimAs(one, A, rate, 20 * SECOND));
        // Idle for so long that its entry is the next to be replaced.
        const takeAll = (): void => {
          for (let i = 0; i < 2; i++) claimAs(other, B, rate, 5 * SECOND);
        };
        giveBack(
          () => giveAway(claim, () => uninterrupted(takeAll)),
          () => claimAs(other, A, rate, 20 * SECOND),
        );
        expect(entry).toBeGreaterThanOrEqual(0);
      }
    }
  });

  test("is counted if it opens a connection just as its entry is given away", () => {
    for (const interrupt of interruptions()) {
      const { one, other } = fullTable(cap, SECOND);
      interrupt(
        () => claimAs(one, B, cap, 20 * SECOND),
        () => claimAs(other, A, cap, 20 * SECOND),
      );
      expect([peek(one, A).open, peek(one, B).open]).toEqual([1, 1]);
      expect(claimAs(one, A, cap, 20 * SECOND)).toBe(CLIENT_OVER_CAP);
      expect(claimAs(one, B, cap, 20 * SECOND)).toBe(CLIENT_OVER_CAP);
    }
  });
});

describe("two claims of one client at once", () => {
  test("take two tokens where the time passes from one upper word to the next", () => {
    const rate: ClientLimits = { ...none, intervalNs: SECOND, burst: 3 };
    // The upper word changes at odd multiples of 2^31.
    const boundary = 2 ** 31 * 1001;
    for (let offset = -4; offset <= 1; offset += 0.5) {
      const now = boundary + offset * SECOND;
      for (const interrupt of interruptions()) {
        const memory = clientMemory(WAYS);
        const [one, other] = [new ClientTable(memory), new ClientTable(memory)];
        claimAs(one, A, rate, now);
        const admitted = interrupt(
          () => claimAs(one, A, rate, now),
          () => expect(claimAs(other, A, rate, now)).toBe(0),
        );
        expect(admitted).toBe(0);
        expect(peek(one, A).fullAtNs).toBe(now + 3 * SECOND);
        expect(claimAs(one, A, rate, now)).toBe(CLIENT_OVER_RATE);
        expect(claimAs(one, A, rate, now + SECOND)).toBe(0);
      }
    }
  });

  test("count two connections", () => {
    const two: ClientLimits = { ...none, maxOpen: 2 };
    for (const interrupt of interruptions()) {
      const memory = clientMemory(WAYS);
      const [one, other] = [new ClientTable(memory), new ClientTable(memory)];
      one.release(claimAs(one, A, two, SECOND));
      expect(
        interrupt(
          () => claimAs(one, A, two, SECOND),
          () => claimAs(other, A, two, SECOND),
        ),
      ).toBe(0);
      expect(peek(one, A).open).toBe(2);
    }
  });
});
