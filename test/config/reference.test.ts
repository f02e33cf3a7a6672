// The output of `npm run generate` is current, and matches the schema.
import { readFileSync } from "node:fs";
import { basename } from "node:path";
import { describe, expect, it } from "vitest";
import { checked } from "../../src/cli/check.ts";
import { jsonSchema, jsonSchemaText } from "../../src/config/json-schema.ts";
import { parseConfig } from "../../src/config/load.ts";
import { reference } from "../../src/config/reference.ts";
import { fileURLToPath } from "node:url";

const root = new URL("../../", import.meta.url);
const committed = (name: string) => readFileSync(new URL(name, root), "utf8");

describe("docs/config.md", () => {
  it("is up to date with the schema; otherwise run `npm run generate`", () => {
    expect(committed("docs/config.md")).toBe(reference());
  });

  it("has every option of the schema", () => {
    const keys = new Set<string>();
    const walk = (node: unknown): void => {
      if (typeof node !== "object" || node === null) return;
      const { properties } = node as { properties?: object };
      for (const key of Object.keys(properties ?? {})) keys.add(key);
      for (const below of Object.values(node)) walk(below);
    };
    walk(jsonSchema());
    for (const section of ["admin", "log", "otel", "listeners", "pools"]) keys.delete(section);
    const documented = new Set([...reference().matchAll(/^\| `([a-z0-9_]+)` +\|/gm)].map((match) => match[1]));
    expect([...keys].filter((key) => !documented.has(key))).toEqual([]);
    expect(keys.size).toBeGreaterThan(80);
  });

  it("has valid examples", () => {
    const blocks = [...reference().matchAll(/```toml\n(.*?)```/gs)].map((match) => match[1] ?? "");
    expect(blocks.length).toBe(3);
    const readFile = (path: string) => readFileSync(new URL(`fixtures/${basename(path)}`, import.meta.url));
    for (const block of blocks) {
      const result = parseConfig(block, { file: "lb.toml", env: {}, readFile });
      expect(result).toMatchObject({ ok: true, warnings: [] });
    }
  });
});

describe("lb.schema.json", () => {
  it("is up to date with the schema; otherwise run `npm run generate`", () => {
    expect(committed("lb.schema.json")).toBe(jsonSchemaText());
  });

  it("allows no unknown key in any section, and describes every option with its type", () => {
    const bare: string[] = [];
    const walk = (node: unknown, path: string): void => {
      if (typeof node !== "object" || node === null) return;
      const { type, properties, additionalProperties } = node as Record<string, unknown>;
      if (type === "object" && typeof properties === "object" && properties !== null) {
        if (additionalProperties !== false) bare.push(`${path} is open`);
        for (const [key, option] of Object.entries(properties)) {
          if (typeof (option as { description?: unknown }).description !== "string")
            bare.push(`${path}.${key} has no description`);
          if (!["type", "enum", "anyOf", "const"].some((word) => word in (option as object)))
            bare.push(`${path}.${key} has no type`);
        }
      }
      for (const [key, below] of Object.entries(node)) walk(below, `${path}.${key}`);
    };
    walk(jsonSchema(), "");
    expect(bare).toEqual([]);
  });

  it("allows a variable in place of a quantity", () => {
    const { shutdown_timeout } = jsonSchema().properties as Record<string, { pattern: string; default: string }>;
    const pattern = new RegExp(shutdown_timeout?.pattern ?? "");
    expect(["250ms", "1.5h", "${GRACE}"].map((text) => pattern.test(text))).toEqual([true, true, true]);
    expect(["250", "fast", 'x"'].map((text) => pattern.test(text))).toEqual([false, false, false]);
    expect(shutdown_timeout?.default).toBe("30s");
  });
});

describe("lb.toml", () => {
  it("is valid, without a warning", () => {
    expect(checked(fileURLToPath(new URL("lb.toml", root)), {})).toMatchObject({ errors: [], code: 0 });
  });
});
