// The base of all kinds of values: how a problem is worded and added, how a valibot schema becomes a kind. A message may
// have a second line, which is a hint.
import * as v from "valibot";

/** A valibot schema with its name in the reference and an example in TOML. */
export type Kind<In, Out> = v.GenericSchema<In, Out> & { words: string; example?: string };

export type Given = v.UnknownDataset;
export type Dataset = v.OutputDataset<unknown, v.BaseIssue<unknown>>;
export type Settings = v.Config<v.BaseIssue<unknown>>;
/** How a schema checks one value; the result is the same object, with issues added. */
export type Run = (dataset: Given, config: Settings) => Dataset;

export const notSupportedYet = "not supported yet";

export const noSuchOption = "there is no such option";

export type Message = (issue: { input: unknown }) => string;

export function expected(words: string): Message {
  return (issue) => expectedFound(words, issue.input);
}

/** "expected a whole number from 0 to 256, found 300", with "such as" if there is an example. */
export function expectedFound(words: string, value: unknown, example?: string): string {
  const wanted = example === undefined ? words : `${words}, such as ${example}`;
  return value === undefined
    ? `required, but not given: expected ${wanted}`
    : `expected ${wanted}, found ${found(value, words)}`;
}

function found(value: unknown, words: string): string {
  // The type is named if it is wrong.
  const otherType = /number|true or false|table|array/.test(words) && !words.includes('"');
  if (typeof value === "string") return quote(value) + (otherType ? " (a string)" : "");
  if (typeof value === "number") return String(value) + (words.includes("number") ? "" : " (a number)");
  if (typeof value === "boolean") return `${value} (a boolean)`;
  if (Array.isArray(value)) return "an array";
  if (value === null) return "null";
  return value instanceof Date ? "a date" : "a table";
}

/** "file" → "a file"; words that begin with a quote or are in the plural are left as they are. */
export function withArticle(words: string): string {
  if (!/^[A-Za-z]/.test(words)) return words;
  return `${/^[aeiouAEIOU]/.test(words) ? "an" : "a"} ${words}`;
}

/** A text of the user in an error: escaped, and cut if it is long. */
export function quote(given: string): string {
  return JSON.stringify(given.length > 80 ? `${given.slice(0, 77)}...` : given);
}

/** Adds the line "did you mean …?" if there is a suggestion. */
export function withMeant(message: string, meant: string | null | undefined): string {
  return meant === null || meant === undefined ? message : `${message}\ndid you mean ${JSON.stringify(meant)}?`;
}

export function isTable(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof Date);
}

/** The same schema with another function to run it; its JSON Schema stays. */
export function replaceRun<S extends object>(schema: S, run: Run): S {
  return { ...schema, "~run": run } as S;
}

/** `example` as written in TOML. */
export function withWords<In, Out>(schema: v.GenericSchema<In, Out>, words: string, example?: string): Kind<In, Out> {
  return { ...schema, words, ...(example !== undefined && { example }) };
}

/** Adds a problem at the value, at its key `key`, or at `rest` below that key. */
export function problem(
  dataset: Given | Dataset,
  config: Settings,
  message: string,
  key?: string,
  rest: Path = [],
): Dataset {
  const item = { type: "unknown", origin: "value", input: dataset.value, key, value: undefined } as const;
  const path = key === undefined ? undefined : [item, ...rest];
  const context = { kind: "schema", type: "config", reference: problem, expects: null, async: false } as const;
  v._addIssue(context as never, "value", dataset as never, config, { message, ...(path && { path }) } as never);
  return dataset as Dataset;
}

type Path = NonNullable<v.BaseIssue<unknown>["path"]> | [];
