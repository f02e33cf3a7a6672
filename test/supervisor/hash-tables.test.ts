import { expect, test } from "vitest";
import { maglevTable } from "../../src/policy/maglev.ts";
import { HashTables, type HashMember } from "../../src/supervisor/hash-tables.ts";

const members = (...weights: number[]): HashMember[] =>
  weights.map((weight, i) => ({ id: 100 + i, name: `b${i}`, weight }));

test("a table is in shared memory, with the ids of its members", () => {
  const { table } = new HashTables().of(0, members(1, 2));
  expect(table.ids).toEqual([100, 101]);
  expect(table.slots.buffer).toBeInstanceOf(SharedArrayBuffer);
  expect([...table.slots]).toEqual([...maglevTable(members(1, 2))]);
});

test("the same members keep their table, each priority its own", () => {
  const tables = new HashTables();
  const [primaries, backups] = [tables.of(0, members(1, 1)), tables.of(1, members(1))];
  expect(tables.of(0, members(1, 1))).toBe(primaries);
  expect(tables.of(1, members(1))).toBe(backups);
});

test.each([
  ["weight", members(1, 2)],
  ["number of members", members(1, 1, 1)],
  ["id", members(1, 1).map((member) => ({ ...member, id: member.id + 1 }))],
  ["name", members(1, 1).map((member) => ({ ...member, name: `${member.name}x` }))],
])("another %s makes a new table", (_, changed) => {
  const tables = new HashTables();
  const before = tables.of(0, members(1, 1));
  const after = tables.of(0, changed);
  expect(after).not.toBe(before);
  expect(after.table.ids).toEqual(changed.map(({ id }) => id));
});
