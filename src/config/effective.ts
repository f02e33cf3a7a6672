// The effective config: the file's config with all defaults, in the form of a file. Secrets from the environment appear as `${NAME}`, and
// the contents of files (tokens, keys) are not included. File names are absolute, so that it means the same in any folder.
import { ACCESS_WORDS } from "./check.ts";
import { expand, type Environment, type Expansion } from "./env.ts";
import { absolutePath } from "./paths.ts";
import type { KeyPath } from "./problem.ts";
import type { RowInfo, Rows } from "./rows.ts";
import { file } from "./schema.ts";
import { readToml } from "./toml.ts";
import { parseDuration } from "./units.ts";
import { isTable, type Kind } from "./wording.ts";

type AnyKind = Kind<unknown, unknown>;

/** The effective config of a text that was loaded without problems in the same environment. `folder` is that of its file. */
export function effectiveConfig(
  text: string,
  { folder, env }: { folder: string; env: Environment },
): Record<string, unknown> {
  const document = readToml(text);
  if (document.is === "bad") throw new Error(document.message);
  const { tree } = document;
  const given = structuredClone(tree);
  const { expansions } = expand(tree, env);
  const effective = sectionOf(rowsOf(file)!, tree, { path: [], expansions, folder });
  for (const [name, pool] of Object.entries(effective["pools"] as Record<string, Record<string, unknown>>))
    limitHealthTimeout(pool, tableAt(given, ["pools", name, "health"]));
  return effective;
}

interface Place {
  path: KeyPath;
  expansions: readonly Expansion[];
  folder: string;
}

function sectionOf(rows: Rows, table: Record<string, unknown>, place: Place): Record<string, unknown> {
  const result: Record<string, unknown> = {};
  for (const [key, { row }] of Object.entries(rows)) {
    const value = table[key] ?? row.default;
    if (value === undefined || row.later) continue;
    result[key] = valueOf(row, value, { ...place, path: [...place.path, key] });
  }
  return result;
}

function valueOf(row: RowInfo, value: unknown, place: Place): unknown {
  if (typeof value === "string") return textOf(row, value, place);
  if (row.secret === true && isTable(value)) return secretTexts(value, place);
  return kindOf(row.kind, value, place);
}

function kindOf(kind: AnyKind, value: unknown, place: Place): unknown {
  const { path } = place;
  const { full, key } = kind as Partial<{ full: AnyKind; key: string }>;
  // A section that may be written as one string.
  if (full !== undefined) return kindOf(full, typeof value === "string" ? { [key!]: value } : value, place);
  const rows = rowsOf(kind);
  if (rows !== null && isTable(value)) return sectionOf(rows, value, place);
  const item = itemOf(kind);
  if (Array.isArray(value)) return value.map((one, i) => kindOf(item ?? kind, one, { ...place, path: [...path, i] }));
  if (item !== null && isTable(value))
    return Object.fromEntries(
      Object.entries(value).map(([name, one]) => [name, kindOf(item, one, { ...place, path: [...path, name] })]),
    );
  return typeof value === "string" ? escaped(located(kind, value, place)) : value;
}

/** The file's text if a secret came from the environment; otherwise the value, which means the same in a file. */
function textOf({ kind, secret }: RowInfo, value: string, place: Place): unknown {
  const { path, expansions } = place;
  const key = JSON.stringify(path);
  const expansion = secret === true ? expansions.find((one) => JSON.stringify(one.path) === key) : undefined;
  const text = expansion?.source ?? escaped(located(kind, value, place));
  return isOneOrMore(kind) ? [text] : text;
}

/** With the absolute name of a file or of a socket to listen on. The address of a backend is also its name, so it does not change. */
function located({ words }: AnyKind, value: string, { path, folder }: Place): string {
  if (words === "file" && value !== "") return absolutePath(folder, value);
  if (path.join(".") === "log.access" && !ACCESS_WORDS.includes(value)) return absolutePath(folder, value);
  const isSocket = path.includes("bind") && value.startsWith("unix:") && !value.startsWith("unix:@");
  return isSocket ? `unix:${absolutePath(folder, value.slice("unix:".length))}` : value;
}

/** A table of texts, any of which may be secret: all are shown as variables, which users of this text must set. */
function secretTexts(table: Record<string, unknown>, { path, expansions }: Place): Record<string, string> {
  const shown = (name: string): string => {
    const key = JSON.stringify([...path, name]);
    return expansions.find((one) => JSON.stringify(one.path) === key)?.source ?? `\${${variable([...path, name])}}`;
  };
  return Object.fromEntries(Object.keys(table).map((name) => [name, shown(name)]));
}

/** "OTEL_HEADERS_X_SCOPE" for otel.headers.X-Scope. */
function variable(path: KeyPath): string {
  return path.join("_").toUpperCase().replace(/\W/g, "_");
}

/** In a file, `${` begins the name of a variable. */
function escaped(value: string): string {
  return value.replaceAll("${", () => "$${");
}

/** A health check without a timeout takes at most its interval (load.ts). */
function limitHealthTimeout(pool: Record<string, unknown>, given: Record<string, unknown>): void {
  if (given["timeout"] !== undefined) return;
  const health = pool["health"] as { timeout: string; interval: string };
  if (millisecondsOf(health.interval) < millisecondsOf(health.timeout)) health.timeout = health.interval;
}

function millisecondsOf(text: string): number {
  const parsed = parseDuration(text);
  return "value" in parsed ? parsed.value : 0;
}

function tableAt(tree: unknown, path: readonly string[]): Record<string, unknown> {
  let value = tree;
  for (const key of path) value = isTable(value) ? value[key] : undefined;
  return isTable(value) ? value : {};
}

function rowsOf(kind: AnyKind): Rows | null {
  return "entries" in kind ? (kind.entries as Rows) : null;
}

function itemOf(kind: AnyKind): AnyKind | null {
  return "item" in kind ? (kind.item as AnyKind) : null;
}

function isOneOrMore(kind: AnyKind): boolean {
  return "many" in kind;
}
