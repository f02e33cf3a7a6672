import { parse } from "smol-toml";
import { expect, it } from "vitest";
import type { RowInfo, Rows } from "../../src/config/rows.ts";
import { file } from "../../src/config/schema.ts";
import type { Kind } from "../../src/config/wording.ts";

type AnyKind = Kind<unknown, unknown> & { entries?: Rows; item?: AnyKind };

/** Every option of the file, with its path. */
function* options(kind: AnyKind, path: string): Generator<{ path: string; info: RowInfo }> {
  if (kind.item !== undefined) yield* options(kind.item, path);
  for (const [key, { row }] of Object.entries(kind.entries ?? {})) {
    const at = path === "" ? key : `${path}.${key}`;
    yield { path: at, info: row };
    yield* options(row.kind as AnyKind, at);
  }
}

const all = [...options(file as AnyKind, "")].filter(({ info }) => !info.later);

it.each(all.filter(({ info }) => info.kind.example !== undefined))("the example of $path is one", ({ info }) => {
  const { value } = parse(`value = ${info.kind.example}`);
  expect(info.kind["~run"]({ value } as never, {}).issues).toBe(undefined);
});

it("every option that is a table or an array has an example", () => {
  const isTables = (words: string) => words.startsWith("tables by");
  const without = all.filter(({ info }) => /^(table|array)/.test(info.kind.words) && info.kind.example === undefined);
  expect(without.filter(({ info }) => !isTables(info.kind.words)).map(({ path }) => path)).toEqual([]);
});
