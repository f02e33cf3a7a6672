// The rows and sections that schema.ts is made of, and kinds of values that contain others.
import * as v from "valibot";
import { nameForm, nameWords } from "./kinds.ts";
import { PROBLEMS_MAX } from "./problem.ts";
import { closest } from "./suggest.ts";
import {
  expectedFound,
  isTable,
  noSuchOption,
  notSupportedYet,
  problem,
  replaceRun,
  withArticle,
  withMeant,
  withWords,
} from "./wording.ts";
import type { Dataset, Given, Kind, Run } from "./wording.ts";

/** The definition of one option in schema.ts. */
export interface RowInfo {
  doc: string;
  /** As written in TOML; undefined if there is none. */
  default: unknown;
  required: boolean;
  /** Reserved: refused with "not supported yet". */
  later: boolean;
  /** A value from the environment may be a secret and is not shown. */
  secret?: true;
  /** The kind of its value: with `entries` for a section, `item` for a table of named sections or an array. */
  kind: Kind<unknown, unknown>;
}

export type Row<In, Out> = v.GenericSchema<In, Out> & { row: RowInfo };
// oxlint-disable-next-line typescript/no-explicit-any -- rows of every kind; what they hold is inferred.
export type Rows = Record<string, Row<any, any>>;

/** An option with a default, as written in the file. */
export function row<In, Out>(kind: Kind<In, Out>, value: NoInfer<In>, doc: string): Row<In | undefined, Out> {
  const schema = v.optional(kind, value as never);
  return withRow(schema, { doc, default: value, required: false, later: false, kind });
}

/** An option that must be given. */
export function required<In, Out>(kind: Kind<In, Out>, doc: string): Row<In, Out> {
  return withRow(v.nonOptional(kind), { doc, default: undefined, required: true, later: false, kind });
}

/** An option that can be left out, and is then `empty` in the parsed config. */
export function absent<In, Out, Empty>(
  kind: Kind<In, Out>,
  empty: Empty,
  doc: string,
): Row<In | undefined, Out | Empty> {
  const schema = v.optional(kind, leftOut as never);
  const run: Run = (dataset, config) =>
    dataset.value === leftOut ? { typed: true, value: empty } : kind["~run"](dataset, config);
  return withRow(replaceRun(schema, run), { doc, default: undefined, required: false, later: false, kind });
}

/** The value of an option without a default that is not in the file. */
export const leftOut = Symbol("left out");

/**
 * An option with free text, which may be a password: where it comes from the environment, only `${NAME}` is shown. Of a table of texts no
 * other text is shown either.
 */
export function secret<In, Out>(option: Row<In, Out>): Row<In, Out> {
  return withRow(option, { ...option.row, secret: true });
}

/** A reserved option: it is refused, whatever its value, until the feature exists. Remove this word to enable it. */
export function later<In, Out>(option: Row<In, Out>): Row<In, Out> {
  const { row: info } = option;
  const run: Run = (dataset, config) => {
    if (dataset.value !== leftOut) return problem(dataset, config, notSupportedYet);
    return option["~run"]({ value: info.default ?? leftOut } as Given, config);
  };
  // The default is a value of its own, so that it differs from the same value in the file.
  return withRow({ ...replaceRun(option, run), default: leftOut }, { ...info, later: true });
}

// ------------------------------------------------------------------ values that contain others

/** An array with at least `least` items. `none` is the message for one with fewer. */
export function list<In, Out>(item: Kind<In, Out>, least = 0, none = ""): Kind<In[], Out[]> {
  const example = item.example && `[${item.example}]`;
  const words = `array of ${plural(item.words)}`;
  const array = v.array(item, (issue) => expectedFound(withArticle(words), issue.input, example));
  const schema = least > 0 ? v.pipe(array, v.minLength(least, none)) : array;
  return Object.assign(withWords(schema, words, example), { item });
}

/** One value, or an array of at least one; always an array in the parsed config. */
export function oneOrMore<In, Out>(item: Kind<In, Out>): Kind<In | In[], Out[]> {
  const many = list(item, 1, "expected at least one, found an empty array");
  const run: Run = (dataset, config) => {
    if (Array.isArray(dataset.value)) return many["~run"](dataset, config);
    const one = item["~run"](dataset, config);
    return one.typed ? { ...one, value: [one.value] } : one;
  };
  const schema = replaceRun(v.union([item, many]), run);
  const made = withWords(schema, `${item.words}, or an array of them`, item.example);
  return Object.assign(made, { many }) as unknown as Kind<In | In[], Out[]>;
}

/** Either of two kinds: the second if the value's type is `typeOfSecond`. */
export function either<A, B, C, D>(first: Kind<A, B>, second: Kind<C, D>, typeOfSecond: string): Kind<A | C, B | D> {
  const run: Run = (dataset, config) => {
    const { value } = dataset;
    if (typeof value === typeOfSecond) return second["~run"](dataset, config);
    if (first["~run"]({ value } as never, config).issues === undefined) return first["~run"](dataset, config);
    return problem(dataset, config, expectedFound(`${first.words} or a ${second.words}`, value));
  };
  return withWords(replaceRun(v.union([first, second]), run), `${first.words} or a ${second.words}`) as never;
}

/** A value or null: for JSON, since TOML has no null. */
export function orNull<In, Out>(kind: Kind<In, Out>): Kind<In | null, Out | null> {
  return withWords(v.nullable(kind), `${kind.words} or null`, kind.example) as Kind<In | null, Out | null>;
}

/** A table whose keys are options. Every unknown key is a problem of its own. `example` is in TOML. `renamed` maps former names to present ones. */
export function section<const R extends Rows>(
  example: string,
  rows: R,
  renamed: Readonly<Record<string, keyof R & string>> = {},
): Kind<SectionInput<R>, SectionOutput<R>> {
  const schema = v.object(rows, (issue) => {
    const missing = rows[issue.path?.[0]?.key as string];
    return expectedFound(withArticle(missing?.row.kind.words ?? "value"), undefined, missing?.row.kind.example);
  });
  const keys = Object.keys(rows);
  const run: Run = (dataset, config) => {
    const input = dataset.value;
    if (!isTable(input)) return problem(dataset, config, expectedFound("a table", input, example));
    const result: Dataset = schema["~run"](dataset, config);
    let unknown = 0;
    for (const key of Object.keys(input)) {
      if (Object.hasOwn(rows, key)) continue;
      const present = Object.hasOwn(renamed, key) ? renamed[key] : undefined;
      if (present !== undefined) problem(result, config, `has a new name: write ${present}`, key);
      else if (++unknown <= PROBLEMS_MAX) {
        problem(result, config, withMeant(noSuchOption, closest(key, keys)), key);
      }
      // Only counted, not shown: the last issue is added again.
      else result.issues?.push(result.issues.at(-1)!);
    }
    return result;
  };
  return withWords(replaceRun(schema, run), "table", example) as Kind<never, never>;
}

type SectionInput<R extends Rows> = { [K in keyof R]?: v.InferInput<R[K]> };
type SectionOutput<R extends Rows> = { [K in keyof R]: v.InferOutput<R[K]> };

/** A section that can be written as one string, which is then the value of its option `key`; `example` is such a string. */
export function shorthand<In, Out>(
  key: string,
  full: Kind<In, Out>,
  words: string,
  example: string,
): Kind<string | In, Out> {
  const run: Run = (dataset, config) => {
    const { value } = dataset;
    if (isTable(value)) return full["~run"](dataset, config);
    if (typeof value !== "string") return problem(dataset, config, expectedFound(withArticle(words), value, example));
    const result = full["~run"]({ value: { [key]: value } } as never, config);
    for (const issue of result.issues ?? []) issue.path?.shift();
    return result;
  };
  const made = withWords(replaceRun(v.union([v.string(), full]), run), words, example);
  return Object.assign(made, { full, key }) as unknown as Kind<string | In, Out>;
}

/** Tables with names that the user chooses, as an array in the order of the file with `name` added to each. */
export function named<In, Out>(
  noun: string,
  full: Kind<In, Out>,
): Kind<Record<string, In>, (Out & { name: string })[]> {
  const run: Run = (dataset, config) => {
    const input = dataset.value;
    if (!isTable(input))
      return problem(dataset, config, `${expectedFound(`a table of ${noun}s`, input)}: write [${noun}s.NAME]`);
    const value: unknown[] = [];
    const result: Dataset = { typed: true, value };
    for (const [name, given] of Object.entries(input)) {
      if (!nameForm.test(name)) problem(result, config, expectedFound(`a name of ${nameWords}`, name), name);
      const one: Dataset = full["~run"]({ value: given } as Given, config);
      for (const issue of one.issues ?? []) problem(result, config, issue.message, name, issue.path);
      value.push({ ...(isTable(one.value) ? one.value : {}), name });
    }
    return result;
  };
  const schema = replaceRun(v.record(v.pipe(v.string(), v.regex(nameForm)), full), run);
  return Object.assign(withWords(schema, `tables by the name of the ${noun}`), { item: full }) as unknown as Kind<
    Record<string, In>,
    (Out & { name: string })[]
  >;
}

function withRow<In, Out>(schema: object, info: Omit<RowInfo, "kind"> & { kind: unknown }): Row<In, Out> {
  return { ...schema, row: info } as unknown as Row<In, Out>;
}

/** "address to connect to or table" → "addresses to connect to or tables". */
function plural(words: string): string {
  return words.replace(/^address\b/, "addresses").replace(/\b(CIDR|table|text|name|wildcard|protocol)\b/g, "$1s");
}
