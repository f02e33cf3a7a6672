// Imports point downward. The table below is the order of the folders; a file may import from its own folder and from the rows below it,
// never from a neighbour in its row. Inside a folder no file may import itself through others.
import { readdirSync, readFileSync } from "node:fs";
import { join, posix } from "node:path";
import { describe, expect, test } from "vitest";
import { parseAst } from "vitest/node";

/** Top to bottom. A name with `.ts` is a file in src/, any other a folder. */
const ROWS = [
  ["main.ts", "worker.ts"],
  ["cli", "dashboard"],
  ["supervisor", "worker"],
  ["admin"],
  ["observe"],
  ["messages.ts"],
  ["shared"],
  ["config", "policy", "wire", "platform"],
  ["core"],
];

/** Folders of pure code: no package, no `node:` module, no `bun`, and not the `Bun` global. */
const PURE = ["core", "policy", "wire"];

/** Things that only one folder may use. */
const RESERVED_MODULES = { "bun:ffi": "platform" };
const RESERVED_GLOBALS = { Atomics: "shared" };

/** Imports that the table forbids but that are allowed; each with its reason. */
const EXCEPTIONS: { file: string; imports: string; reason: string }[] = [];

/** A source file as the rules see it: its imports (as written) and every identifier in it. */
interface Source {
  file: string;
  imports: string[];
  identifiers: Set<string>;
}

describe("the layers of src/", () => {
  const sources = readSources(join(import.meta.dirname, "../src"));

  test("every import points downward", () => {
    expect(violations(sources, EXCEPTIONS)).toEqual([]);
  });

  test("there are no import cycles, type imports included", () => {
    expect(circles(sources)).toEqual([]);
  });

  test("every exception is still needed", () => {
    const found = violations(sources, []);
    for (const { file, imports } of EXCEPTIONS) {
      expect(found).toContainEqual(expect.stringContaining(`${file} imports ${imports}:`));
    }
  });
});

describe("the rules", () => {
  const check = (file: string, code: string) => violations([parse(file, code)], []);

  test.each([
    ["a lower row", "worker/relay.ts", 'import { END_CODES } from "../core/ends.ts";'],
    ["its own folder", "core/lease.ts", 'import { hash } from "./hash.ts";'],
    ["a file in src/ that stands lower", "supervisor/fleet.ts", 'import type { Plan } from "../messages.ts";'],
    ["a package, where code is not pure", "config/load.ts", 'import { parse } from "smol-toml";'],
    ["bun:ffi in platform/", "platform/libc.ts", 'import { dlopen } from "bun:ffi";'],
  ])("allow a file to import from %s", (_what, file, code) => {
    expect(check(file, code)).toEqual([]);
  });

  test.each([
    ["upward", "core/queue.ts", 'import { a } from "../worker/relay.ts";', "worker does not stand below core"],
    ["upward in a type", "core/a.ts", 'import type { A } from "../config/b.ts";', "config does not stand below core"],
    ["upward in an export", "core/a.ts", 'export * from "../wire/b.ts";', "wire does not stand below core"],
    ["upward at run time", "core/a.ts", 'await import("../wire/b.ts");', "wire does not stand below core"],
    ["upward for its effects", "core/a.ts", 'import "../wire/b.ts";', "wire does not stand below core"],
    ["upward in a type query", "core/a.ts", 'type A = import("../wire/b.ts").A;', "wire does not stand below core"],
    ["a neighbour", "worker/a.ts", 'import { a } from "../supervisor/b.ts";', "supervisor does not stand below worker"],
    ["a neighbour", "supervisor/a.ts", 'import { a } from "../worker/b.ts";', "worker does not stand below supervisor"],
    ["an entry point", "cli/run.ts", 'import { a } from "../main.ts";', "main.ts does not stand below cli"],
    ["a folder that is not in the table", "cli/run.ts", 'import { a } from "../util/b.ts";', "util is in no row"],
    ["out of src/", "cli/run.ts", 'import manifest from "../../package.json";', "it is not in src/"],
    ["bun:ffi elsewhere", "supervisor/a.ts", 'import { ptr } from "bun:ffi";', "only platform may"],
    ["a package in pure code", "policy/a.ts", 'import * as v from "valibot";', "policy is pure"],
    ["a node: module in pure code", "core/a.ts", 'import { isIP } from "node:net";', "core is pure"],
  ])("refuse an import that goes %s", (_what, file, code, why) => {
    expect(check(file, code)).toEqual([expect.stringContaining(why)]);
  });

  test("refuse Atomics outside of shared/", () => {
    const code = "export const open = (cell: Int32Array) => Atomics.load(cell, 0);";
    expect(check("worker/listener.ts", code)).toEqual(["worker/listener.ts uses Atomics: only shared may"]);
    expect(check("shared/caps.ts", code)).toEqual([]);
    expect(check("worker/listener.ts", "// Atomics are for shared/.\nexport {};")).toEqual([]);
  });

  test("refuse the Bun global in pure code", () => {
    expect(check("core/hash.ts", "export const hash = (text: string) => Bun.hash(text);")).toEqual([
      "core/hash.ts uses Bun: core is pure",
    ]);
  });

  test("refuse a file in a folder that is not in the table", () => {
    expect(check("util/a.ts", "export {};")).toEqual(["util/a.ts is in no row of the table"]);
  });

  test("refuse a cycle of two or more files, also of types only, and name its files", () => {
    const files = (codes: Record<string, string>) => Object.entries(codes).map(([file, code]) => parse(file, code));
    const two = { "core/a.ts": 'import { b } from "./b.ts";', "core/b.ts": 'import type { A } from "./a.ts";' };
    expect(circles(files(two))).toEqual(["core/a.ts, core/b.ts"]);
    const three = {
      "core/a.ts": 'import "./b.ts";',
      "core/b.ts": 'import "./c.ts"; import "./d.ts";',
      "core/c.ts": 'export * from "./a.ts";',
      "core/d.ts": 'import "./e.ts";',
      "core/e.ts": "export {};",
    };
    expect(circles(files(three))).toEqual(["core/a.ts, core/b.ts, core/c.ts"]);
    expect(circles(files({ ...three, "core/c.ts": 'import "./d.ts";' }))).toEqual([]);
  });

  test("apply an exception only to its own import", () => {
    const source = parse("core/a.ts", 'import "../wire/b.ts"; import "../cli/c.ts";');
    const exception = { file: "core/a.ts", imports: "wire/b.ts", reason: "for this test" };
    expect(violations([source], [exception])).toEqual(["core/a.ts imports cli/c.ts: cli does not stand below core"]);
  });
});

/** One sentence per broken rule. */
function violations(sources: Source[], exceptions: typeof EXCEPTIONS): string[] {
  const found: string[] = [];
  for (const { file, imports, identifiers } of sources) {
    const home = layerOf(file);
    if (rowOf(home) < 0) {
      found.push(`${file} is in no row of the table`);
      continue;
    }
    for (const specifier of imports) {
      const target = specifier.startsWith(".") ? posix.join(posix.dirname(file), specifier) : specifier;
      const why = target === specifier ? refusalOutside(home, target) : refusalInside(home, target);
      const excepted = exceptions.some((exception) => exception.file === file && exception.imports === target);
      if (why !== null && !excepted) found.push(`${file} imports ${target}: ${why}`);
    }
    for (const [name, owner] of Object.entries(RESERVED_GLOBALS)) {
      if (identifiers.has(name) && home !== owner) found.push(`${file} uses ${name}: only ${owner} may`);
    }
    if (identifiers.has("Bun") && PURE.includes(home)) found.push(`${file} uses Bun: ${home} is pure`);
  }
  return found;
}

/** The files of each import cycle: those that import each other, directly or through others (Tarjan 1972). */
function circles(sources: Source[]): string[] {
  const imports = new Map(sources.map((source) => [source.file, targetsOf(source)]));
  const order = new Map<string, number>();
  const open: string[] = [];
  const found: string[] = [];
  /** The earliest open file that is reached from this one. */
  const walk = (file: string): number => {
    const mine = order.size;
    order.set(file, mine);
    open.push(file);
    let earliest = mine;
    for (const target of imports.get(file) ?? []) {
      const seen = order.get(target);
      if (seen === undefined) earliest = Math.min(earliest, walk(target));
      else if (open.includes(target)) earliest = Math.min(earliest, seen);
    }
    if (earliest < mine) return earliest;
    const circle = open.splice(open.indexOf(file));
    if (circle.length > 1) found.push(circle.toSorted().join(", "));
    return earliest;
  };
  for (const { file } of sources) if (!order.has(file)) walk(file);
  return found;
}

function targetsOf({ file, imports }: Source): string[] {
  return imports.filter((name) => name.startsWith(".")).map((name) => posix.join(posix.dirname(file), name));
}

/** Why a file of layer `home` may not import the file `target` of src/, or null if it may. */
function refusalInside(home: string, target: string): string | null {
  const layer = layerOf(target);
  if (layer === "..") return "it is not in src/";
  if (rowOf(layer) < 0) return `${layer} is in no row of the table`;
  return layer === home || rowOf(layer) > rowOf(home) ? null : `${layer} does not stand below ${home}`;
}

/** Why a file of layer `home` may not import the package or built-in module `name`, or null if it may. */
function refusalOutside(home: string, name: string): string | null {
  if (PURE.includes(home)) return `${home} is pure`;
  for (const [reserved, owner] of Object.entries(RESERVED_MODULES)) {
    if (name === reserved && home !== owner) return `only ${owner} may`;
  }
  return null;
}

/** "core/ends.ts" → "core", "main.ts" → "main.ts". */
function layerOf(file: string): string {
  return file.split("/")[0]!;
}

function rowOf(layer: string): number {
  return ROWS.findIndex((row) => row.includes(layer));
}

function readSources(src: string): Source[] {
  const files = readdirSync(src, { recursive: true, encoding: "utf8" }).filter((file) => file.endsWith(".ts"));
  return files.map((file) => parse(file, readFileSync(join(src, file), "utf8")));
}

function parse(file: string, code: string): Source {
  const source: Source = { file, imports: [], identifiers: new Set() };
  visit(parseAst(code, { lang: "ts" }), (node) => {
    if (node.type === "Identifier") source.identifiers.add(String(node["name"]));
    // Import and export declarations, import() at run time, and import() in a type all keep the module in `source`.
    const from = node["source"];
    if (isNode(from) && from.type === "Literal") source.imports.push(String(from["value"]));
  });
  return source;
}

interface Node {
  type: string;
  [key: string]: unknown;
}

function isNode(value: unknown): value is Node {
  return typeof value === "object" && value !== null && typeof (value as Node).type === "string";
}

function visit(value: unknown, each: (node: Node) => void): void {
  if (isNode(value)) each(value);
  if (typeof value === "object" && value !== null) for (const child of Object.values(value)) visit(child, each);
}
