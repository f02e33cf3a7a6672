import { expect, test } from "vitest";
import { ConnectionIds, ID_BLOCK } from "../../src/shared/connection-ids.ts";

test("no two workers use the same id, nor does one that replaces another", () => {
  const taken = new Int32Array(new SharedArrayBuffer(4));
  const seen = new Set<number>();
  const first = new ConnectionIds(taken);
  expect(first.next()).toBe(1);
  const second = new ConnectionIds(taken);
  for (let i = 0; i < ID_BLOCK + 10; i++) seen.add(second.next());
  const third = new ConnectionIds(taken);
  for (let i = 0; i < 10; i++) seen.add(third.next()).add(first.next());
  expect(seen.size).toBe(ID_BLOCK + 30);
  expect(seen.has(1)).toBe(false);
});

test("ids stay exact when the cell has become negative", () => {
  const taken = Int32Array.of(-1);
  const ids = new ConnectionIds(taken);
  expect(ids.next()).toBe((2 ** 32 - 1) * ID_BLOCK + 1);
  expect(Number.isSafeInteger(ids.next())).toBe(true);
});
