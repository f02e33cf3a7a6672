// Environment variables in the strings of a config: `${NAME}`. Their values are never shown in an error, because they may be secrets;
// the text of the file is shown instead.
import { quote } from "./wording.ts";
import type { KeyPath } from "./problem.ts";

export type Environment = Readonly<Record<string, string | undefined>>;

/** A string that the environment changed: its path, its text in the file, the result, and the values that were inserted. */
export interface Expansion {
  path: KeyPath;
  source: string;
  value: string;
  parts: { name: string; value: string }[];
}

export interface Expanded {
  expansions: Expansion[];
  problems: { path: KeyPath; message: string }[];
}

/** Replaces every `${NAME}` in the strings of `document`, in place. `$${` becomes `${`. A string with an unset name stays. */
export function expand(document: Record<string, unknown>, env: Environment): Expanded {
  const done: Expanded = { expansions: [], problems: [] };
  walk(document, [], (source, path) => expandText(source, path, env, done));
  return done;
}

/** The message with values from the environment replaced by the text of the file. */
export function conceal(message: string, path: KeyPath, expansions: readonly Expansion[]): string {
  let told = message;
  for (const { path: at, source, value, parts } of expansions) {
    if (!at.every((part, i) => part === path[i]) && !path.every((part, i) => part === at[i])) continue;
    if (value !== "") told = told.replaceAll(quote(value), quote(source));
    for (const part of parts) {
      // Short values are ports and numbers, which could occur elsewhere in the message.
      if (part.value.length >= 6) told = told.replaceAll(part.value, `\${${part.name}}`);
    }
  }
  return told;
}

function walk(node: unknown, path: KeyPath, change: (text: string, path: KeyPath) => string): void {
  if (typeof node !== "object" || node === null || node instanceof Date) return;
  const table = node as Record<string | number, unknown>;
  const keys = Array.isArray(node) ? node.keys() : Object.keys(node);
  for (const key of keys) {
    const value = table[key];
    if (typeof value === "string") {
      if (value.includes("${")) table[key] = change(value, [...path, key]);
    } else walk(value, [...path, key], change);
  }
}

function expandText(source: string, path: KeyPath, env: Environment, done: Expanded): string {
  const parts: Expansion["parts"] = [];
  let failed = false;
  const fail = (message: string) => {
    failed = true;
    done.problems.push({ path, message });
  };
  const value = source.replace(/\$\$\{|\$\{([^}]*)(\}?)/g, (all: string, name: string | undefined, end: string) => {
    if (name === undefined) return "${";
    if (end === "" || !/^[A-Za-z_][A-Za-z0-9_]*$/.test(name)) {
      fail(
        'expected a variable such as "${NAME}", found a "${" that does not begin one; a literal "${" is written "$${"',
      );
      return all;
    }
    const found = Object.hasOwn(env, name) ? env[name] : undefined;
    if (found === undefined) {
      fail(`the environment variable ${name} is not set`);
      return all;
    }
    parts.push({ name, value: found });
    return found;
  });
  if (failed) return source;
  if (parts.length > 0) done.expansions.push({ path, source, value, parts });
  return value;
}
