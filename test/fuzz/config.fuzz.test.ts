// Damaged configs of every kind: there is always an answer, with places that exist. LB_FUZZ_SEED repeats a run.
import { readdirSync, readFileSync } from "node:fs";
import { parse, stringify } from "smol-toml";
import { describe, expect, it } from "vitest";
import { parseConfig } from "../../src/config/load.ts";
import { locator, syntaxTree } from "../../src/config/locate.ts";
import type { KeyPath } from "../../src/config/problem.ts";
import { readToml } from "../../src/config/toml.ts";
import { threadCpuMs } from "../support/proc.ts";

const seed = Number(process.env["LB_FUZZ_SEED"] ?? Date.now() % 1e9);
const golden = new URL("../config/golden/", import.meta.url);
const texts = [
  readFileSync(new URL("../../lb.toml", import.meta.url), "utf8"),
  ...readdirSync(golden)
    .filter((name) => name.endsWith(".toml"))
    .map((name) => readFileSync(new URL(name, golden), "utf8")),
];

const oddValues = [
  "0",
  "-1",
  "1e400",
  "nan",
  "9007199254740991",
  '""',
  '"x"',
  '"0s"',
  '"${A}"',
  '"${"',
  "[]",
  "[[]]",
  "{}",
  "{ a = 1 }",
  "true",
  "1979-05-27",
  "07:32:00",
  '[""]',
  "[{}]",
  '":80"',
  '"unix:"',
  '"10.0.0.1:80"',
  '"\\u0000"',
  '"[::1]:80"',
  '"10.0.0.0/8"',
  "'''\n'''",
  // TOML 1.1.
  "{ a = 1, }",
  "{ a = 1,\n b = 2 }",
  "{ a = {},\n b = '}' } # }",
  "07:32",
  "[07:32,\n1979-05-27 07:32]",
  '"\\x41"',
  '"\\e"',
];

describe(`configs of seed ${seed}`, () => {
  it("always get an answer, with problems in lines that exist", () => {
    const random = randomFrom(seed);
    const until = performance.now() + 2500;
    for (let round = 0; round < 4000 && performance.now() < until; round++) {
      let text = pick(random, texts);
      for (let times = 1 + Math.floor(random() * 4); times > 0; times--) text = damaged(text, random);
      const started = threadCpuMs();
      const result = parseConfig(text, { file: "lb.toml", env: { A: "10.0.0.1:1" }, readFile: noFile });
      expect(threadCpuMs() - started, text).toBeLessThan(3000);
      if (result.ok) continue;
      expect(result.problems.length, text).toBeGreaterThan(0);
      const lines = text.split("\n");
      for (const { line, column, message } of result.problems) {
        expect(message, text).not.toContain("could not be checked");
        expect(message.length, text).toBeGreaterThan(0);
        expect(lines[line - 1], `line ${line} of ${text}`).toBeDefined();
        expect(column, text).toBeLessThanOrEqual((lines[line - 1] ?? "").length + 1);
      }
    }
  });

  it("are TOML 1.0 exactly if the parser with positions says so", () => {
    const random = randomFrom(seed + 2);
    for (let round = 0; round < 2000; round++) {
      let text = pick(random, texts);
      for (let times = Math.floor(random() * 4); times > 0; times--) text = damaged(text, random);
      // Omitted: what lb refuses beyond the standard, and a CR alone, which only smol-toml refuses, as the standard says.
      if (text.startsWith("\uFEFF") || /(\.a){9}|\[{33}|\r(?!\n)/.test(text)) continue;
      let isValid = true;
      try {
        syntaxTree(text);
      } catch {
        isValid = false;
      }
      expect(readToml(text).is, JSON.stringify(text)).toBe(isValid ? "tree" : "bad");
    }
  });

  it("have each key at the position of the locator, in documents of any shape", () => {
    const random = randomFrom(seed + 1);
    for (let round = 0; round < 300; round++) {
      const text = written(randomTable(random, 3), random);
      const lines = text.split("\n");
      const locate = locator(text);
      const document = parse(text);
      for (const path of pathsOf(document)) {
        const { line, column } = locate(path);
        const here = (lines[line - 1] ?? "").slice(column - 1);
        const told = `${JSON.stringify(path)} at ${here}\n${text}`;
        const last = path[path.length - 1];
        if (typeof last === "string") expect(here, told).toMatch(new RegExp(`^["']?${last}\\b`));
        else expect(here, told).toMatch(elementForm(valueAt(document, path)));
      }
    }
  });
});

/** The start of an array's element; for an array of tables, the place of the key in its header. */
function elementForm(value: unknown): RegExp {
  if (typeof value === "string") return /^"/;
  if (Array.isArray(value)) return /^\[/;
  return typeof value === "object" ? /^(\{|k\d)/ : new RegExp(`^${JSON.stringify(value)}\\b`);
}

function noFile(): never {
  throw Object.assign(new Error("no such file"), { code: "ENOENT" });
}

function damaged(text: string, random: () => number): string {
  const at = Math.floor(random() * (text.length + 1));
  const lines = text.split("\n");
  const line = Math.floor(random() * lines.length);
  switch (Math.floor(random() * 8)) {
    case 0:
      return text.slice(0, at) + String.fromCharCode(Math.floor(random() * 128)) + text.slice(at + 1);
    case 1:
      return text.slice(0, at) + text.slice(at + Math.floor(random() * 20));
    case 2:
      return [...lines.slice(0, line), lines[line], ...lines.slice(line)].join("\n");
    case 3:
      return [...lines.slice(0, line), ...lines.slice(line + 1)].join("\n");
    case 4:
      return (
        text.slice(0, at) +
        pick(random, ["[", "]", "{", "}", '"', "'", '"""', "=", ".", ",", "#", "\r", "\u0000", "ü", "😀"]) +
        text.slice(at)
      );
    case 5:
      return text.replace(
        new RegExp(`^((?:[^\n]*\n){${line}}[^\n=]*=)[^\n]*`),
        `$1 ${pick(random, oddValues).replaceAll("$", "$$$$")}`,
      );
    case 6:
      return `${text}\n${pick(random, texts)}`;
    default:
      return lines.with(line, (lines[line] ?? "").replace(/[a-z](?=[a-z_]* *=)/, "q")).join("\n");
  }
}

/** A table whose keys are k1, k2, … and whose scalars are distinct numbers. */
function randomTable(random: () => number, depth: number, counter = { next: 1 }): Record<string, unknown> {
  const table: Record<string, unknown> = {};
  for (let keys = 1 + Math.floor(random() * 4); keys > 0; keys--)
    table[`k${counter.next++}`] = randomValue(random, depth, counter);
  return table;
}

function randomValue(random: () => number, depth: number, counter: { next: number }): unknown {
  const kind = depth === 0 ? 0 : Math.floor(random() * 6);
  if (kind === 1) return randomTable(random, depth - 1, counter);
  if (kind === 2)
    return Array.from({ length: Math.floor(random() * 3) }, () => randomTable(random, depth - 1, counter));
  if (kind === 3)
    return Array.from({ length: Math.floor(random() * 4) }, () => randomValue(random, depth - 1, counter));
  if (kind === 4) return `\n[k0]\n'''k0 = ${counter.next++} # " \\ ]}`;
  return counter.next++;
}

/** As smol-toml writes it, or with inline tables, dotted and quoted keys, comments and line breaks. */
function written(table: Record<string, unknown>, random: () => number): string {
  if (random() < 0.4) return stringify(table);
  return Object.entries(table)
    .map(([key, value]) => {
      const dotted = typeof value === "object" && !Array.isArray(value) && random() < 0.5;
      if (!dotted) return `${quoted(key, random)}${space(random)}=${space(random)}${inline(value, random)} # [x] "\n`;
      const below = Object.entries(value as object);
      return below.map(([k, v]) => `${key} .${space(random)}${quoted(k, random)} = ${inline(v, random)}\n`).join("");
    })
    .join(random() < 0.5 ? "\n# = [\n" : "");
}

function inline(value: unknown, random: () => number): string {
  if (typeof value === "string")
    return random() < 0.5 ? JSON.stringify(value) : `"""${value.replaceAll("\\", "\\\\").replaceAll('"', '\\"')}"""`;
  if (Array.isArray(value)) {
    const gap = random() < 0.5 ? "\n # ]\n " : " ";
    return `[${gap}${value.map((item) => inline(item, random)).join(`,${gap}`)}${gap}]`;
  }
  if (typeof value !== "object" || value === null) return String(value);
  const pairs = Object.entries(value).map(([key, below]) => `${quoted(key, random)} = ${inline(below, random)}`);
  return `{ ${pairs.join(", ")} }`;
}

function quoted(key: string, random: () => number): string {
  const form = random();
  if (form < 0.6) return key;
  return form < 0.8 ? `"${key}"` : `'${key}'`;
}

function space(random: () => number): string {
  return pick(random, ["", " ", "\t "]);
}

function pathsOf(value: unknown, path: KeyPath = []): KeyPath[] {
  if (typeof value !== "object" || value === null) return [];
  const keys = Array.isArray(value) ? value.keys() : Object.keys(value);
  return [...keys].flatMap((key) => [
    [...path, key],
    ...pathsOf((value as Record<string | number, unknown>)[key], [...path, key]),
  ]);
}

function valueAt(value: unknown, path: KeyPath): unknown {
  return path.reduce((at, key) => (at as Record<string | number, unknown>)[key], value);
}

function pick<T>(random: () => number, from: readonly T[]): T {
  return from[Math.floor(random() * from.length)] as T;
}

/** mulberry32: numbers in [0, 1) that a seed repeats. */
function randomFrom(start: number): () => number {
  let state = start >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}
