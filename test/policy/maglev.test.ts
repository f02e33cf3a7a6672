import { describe, expect, test } from "vitest";
import { MAGLEV_SLOTS, maglevFingerprint, maglevTable, type MaglevEntry } from "../../src/policy/maglev.ts";
import { forSeeds } from "../support/random.ts";

const entries = (count: number, weight: (i: number) => number = () => 1): MaglevEntry[] =>
  Array.from({ length: count }, (_, i) => ({ name: `10.0.${i >> 8}.${i & 255}:80`, weight: weight(i) }));

function slotsOf(table: Uint32Array, count: number): number[] {
  const slots = Array.from({ length: count }, () => 0);
  for (const number of table) slots[number]!++;
  return slots;
}

/** The fraction of slots with different names. */
function moved(a: [MaglevEntry[], Uint32Array], b: [MaglevEntry[], Uint32Array]): number {
  let different = 0;
  for (let i = 0; i < MAGLEV_SLOTS; i++) if (a[0][a[1][i]!]!.name !== b[0][b[1][i]!]!.name) different++;
  return different / MAGLEV_SLOTS;
}

const withTable = (all: MaglevEntry[]): [MaglevEntry[], Uint32Array] => [all, maglevTable(all)];

/** Of three backends of the same weight, 10.0.0.0:80 and so on. */
const FINGERPRINT = 3189987144;

describe("maglevTable", () => {
  test("gives equal backends equally many slots, to within one", () => {
    for (const count of [1, 2, 3, 10, 1000]) {
      const slots = slotsOf(maglevTable(entries(count)), count);
      expect(Math.max(...slots) - Math.min(...slots)).toBeLessThanOrEqual(1);
    }
  });

  test("gives slots by weight, to within one per cent of the share", () => {
    const all = entries(20, (i) => 1 + ((i * 37) % 256));
    const total = all.reduce((sum, { weight }) => sum + weight, 0);
    slotsOf(maglevTable(all), 20).forEach((slots, i) => {
      const share = (MAGLEV_SLOTS * all[i]!.weight) / total;
      expect(Math.abs(slots - share)).toBeLessThanOrEqual(Math.max(2, share * 0.01));
    });
  });

  test("leaves no backend out if the weights add up to more than the slots", () => {
    const all = entries(1000, () => 256);
    expect(Math.min(...slotsOf(maglevTable(all), 1000))).toBeGreaterThanOrEqual(65);
  });

  test("does not depend on the order of the list", () => {
    const all = entries(50, (i) => 1 + (i % 3));
    expect(moved(withTable(all), withTable(all.toReversed()))).toBe(0);
  });

  test("is the same on every machine: the fingerprint of a known table", () => {
    const all = entries(3);
    expect(maglevFingerprint(all, maglevTable(all))).toBe(FINGERPRINT);
    const reversed = all.toReversed();
    expect(maglevFingerprint(reversed, maglevTable(reversed))).toBe(FINGERPRINT);
    expect(maglevFingerprint(entries(4), maglevTable(entries(4)))).not.toBe(FINGERPRINT);
  });

  // Section 5.3 of the paper, figure 12: with 65,537 slots and 1,000 backends the loss of one changes about 0.5 % of the slots
  // besides its own.
  test("moves few other clients when one of a thousand is removed", () => {
    const all = entries(1000);
    const before = withTable(all);
    forSeeds(3, (random) => {
      const gone = random.below(1000);
      const after = withTable(all.filter((_, i) => i !== gone));
      expect(moved(before, after)).toBeLessThan(0.001 + 0.01);
    });
  });

  test("moves at most 1/N plus two per cent when one of N is added or removed", () => {
    for (const count of [2, 3, 5, 10, 100]) {
      const all = entries(count, (i) => 1 + (i % 2));
      const total = all.reduce((sum, { weight }) => sum + weight, 0);
      for (const gone of [0, count - 1]) {
        const share = all[gone]!.weight / total;
        const part = moved(withTable(all), withTable(all.filter((_, i) => i !== gone)));
        expect(part).toBeGreaterThanOrEqual(share - 0.01);
        expect(part, `${gone} of ${count}`).toBeLessThan(share + 0.02);
      }
    }
  });

  test("is empty without backends", () => {
    expect(maglevTable([])).toHaveLength(0);
  });
});
