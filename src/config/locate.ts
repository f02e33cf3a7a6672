// Line and column of each key of a TOML text, from the syntax tree of toml-eslint-parser. The tree is built only if there is a problem to
// locate: the tree of a large file takes a hundred times the memory of its text.
import { parseTOML } from "toml-eslint-parser";
import type { AST } from "toml-eslint-parser";
import type { KeyPath } from "./problem.ts";

/** Counted from 1; columns in UTF-16 units, as editors count them. */
export interface Place {
  line: number;
  column: number;
}

/** A key or an array element: its position, and its children. `length` is the number of elements of an array of tables. */
export interface Located {
  at: Place;
  length: number;
  children: Map<string | number, Located> | null;
}

/** In a longer text, keys are first searched for in its first part, of this many characters: a tree of 16 MiB takes 4 GB. */
export const FIRST_PART = 1024 * 1024;

/** The positions of some key paths of a text with the values `tree`; see `locator`. */
export function placesOf(paths: readonly KeyPath[], text: string, tree: unknown): Place[] {
  const end = text.length > FIRST_PART ? text.lastIndexOf("\n", FIRST_PART) : -1;
  const places = end > 0 ? placesIn(text.slice(0, end), paths, tree) : null;
  return places ?? paths.map(locator(text));
}

/** Null if the text ends within a value, or if one of the paths is in the tree but not in the text. */
function placesIn(part: string, paths: readonly KeyPath[], tree: unknown): Place[] | null {
  let root: Located;
  try {
    root = locate(part);
  } catch {
    return null;
  }
  const places: Place[] = [];
  for (const path of paths) {
    const { node, depth } = nearest(root, path);
    if (depth < depthIn(tree, path)) return null;
    places.push(node.at);
  }
  return places;
}

/** How many parts of the path exist in the tree. */
function depthIn(tree: unknown, path: KeyPath): number {
  let value = tree;
  for (const [depth, part] of path.entries()) {
    if (typeof value !== "object" || value === null || !Object.hasOwn(value, part)) return depth;
    value = (value as Record<string | number, unknown>)[part];
  }
  return path.length;
}

/**
 * Finds the position of a key path in valid TOML 1.0. The position of a key is the key itself, also if its value is wrong: in
 * `[pools.web]` the position of pools.web is `web`. The position of an array element is the element. A path that is not in the text (a
 * missing key) has the position of its nearest existing parent.
 */
export function locator(text: string): (path: KeyPath) => Place {
  const root = locate(text);
  return (path) => nearest(root, path).node.at;
}

/** The node of the path, or its nearest existing parent; `depth` parts of the path lead to it. */
function nearest(root: Located, path: KeyPath): { node: Located; depth: number } {
  let node = root;
  for (const [depth, part] of path.entries()) {
    const below = node.children?.get(part);
    if (below === undefined) return { node, depth };
    node = below;
  }
  return { node, depth: path.length };
}

/** The syntax tree of TOML 1.0; throws the parser's ParseError for any other text. */
export function syntaxTree(text: string): AST.TOMLProgram {
  return parseTOML(text, { tomlVersion: "1.0" });
}

/** All keys of valid TOML 1.0, from the root of the file. */
export function locate(text: string): Located {
  const root: Located = { at: { line: 1, column: 1 }, length: 0, children: null };
  for (const entry of syntaxTree(text).body[0].body) {
    if (entry.type === "TOMLTable") addTable(root, entry);
    else addPair(root, entry);
  }
  return root;
}

/** `[a.b]` below `[[a]]` means the last element of a. */
export function lastElement(node: Located): Located {
  return node.length === 0 ? node : (node.children?.get(node.length - 1) ?? node);
}

function addTable(root: Located, table: AST.TOMLTable): void {
  let node = root;
  for (const key of table.key.keys) node = child(lastElement(node), nameOf(key), placeOf(key));
  const last = table.key.keys.at(-1);
  if (last === undefined) return;
  if (table.kind === "array") node = child(node, node.length++, placeOf(last));
  // `[a.b]` may come after `[a.b.c]`, which made the node; the user looks for its own header.
  else node.at = placeOf(last);
  for (const pair of table.body) addPair(node, pair);
}

function addPair(table: Located, { key, value }: AST.TOMLKeyValue): void {
  let node = table;
  for (const part of key.keys) node = child(node, nameOf(part), placeOf(part));
  addValue(node, value);
}

function addValue(node: Located, value: AST.TOMLContentNode): void {
  if (value.type === "TOMLInlineTable") for (const pair of value.body) addPair(node, pair);
  if (value.type !== "TOMLArray") return;
  for (const [index, element] of value.elements.entries()) addValue(child(node, index, placeOf(element)), element);
}

function child(node: Located, name: string | number, at: Place): Located {
  node.children ??= new Map();
  let found = node.children.get(name);
  if (found === undefined) node.children.set(name, (found = { at, length: 0, children: null }));
  return found;
}

export function nameOf(key: AST.TOMLBare | AST.TOMLQuoted): string {
  return key.type === "TOMLBare" ? key.name : key.value;
}

/** The parser counts columns from 0. */
function placeOf({ loc }: AST.TOMLNode): Place {
  return { line: loc.start.line, column: loc.start.column + 1 };
}
