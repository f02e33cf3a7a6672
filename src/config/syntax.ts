// Messages for a text that is not TOML 1.0: position and words for the author of the text. They are based on the parsers' errors;
// what these leave out (where a string begins, where a key was defined first) is searched for here.
import { parse, TomlError } from "smol-toml";
import { ParseError } from "toml-eslint-parser";
import { lastElement, locate, nameOf, syntaxTree } from "./locate.ts";
import type { Located, Place } from "./locate.ts";
import { quote } from "./wording.ts";

/** `related` is a second position that the message mentions. */
export interface Fault {
  is: "bad";
  at: Place;
  message: string;
  related?: Place;
}

/** Maximum depth of nested tables and arrays, the file itself not counted. Options need 6. */
export const depthMax = 32;

/** The problem of the text, from the error of either parser. */
export function faultOf(text: string, error: unknown): Fault {
  if (error instanceof ParseError) {
    const at = { line: error.lineNumber, column: error.column + 1 };
    return bad(at, newerWords[error.message] ?? error.message.replace(/^[A-Z](?=[a-z])/, (c) => c.toLowerCase()));
  }
  if (!(error instanceof TomlError)) return bad({ line: 1, column: 1 }, "the parser failed");
  const at = { line: error.line, column: error.column };
  // Only the first line: the others show the content of the file.
  const reason = (error.message.split("\n")[0] ?? "").replace("Invalid TOML document: ", "");
  if (reason.includes("redefine")) return duplicate(text, at);
  if (reason.includes("excessively nested")) return tooDeep(at);
  if (offsetOf(text, at) >= text.length && reason === "expected comma or end of structure")
    return bad(at, "the file ends within an array or an inline table");
  const line = lineAt(text, at);
  const rest = line.slice(at.column - 1);
  if (reason.startsWith("control characters are not allowed in strings") && rest === "") return unclosed(text, at);
  if (reason === "unfinished string") {
    const closing = /^("""|'''|["'])/.exec(rest)?.[0] ?? '"';
    return bad(at, `the string is not closed: expected ${closing} at its end`);
  }
  if (rest === "" && reason === "invalid value") return bad(at, "expected a value after the =");
  if (/^\s*\[/.test(line) && reason.includes("key"))
    return bad(at, 'the table header is not closed: expected "]" after the name');
  return unquoted(text, at) ?? bad(at, wordsFor[reason] ?? reason);
}

/** Plainer words for some of smol-toml's reasons. */
const wordsFor: Readonly<Record<string, string>> = {
  "illegal character in key": 'expected a key and "=", such as retries = 2',
  "incomplete key-value: cannot find end of key": 'expected "=" and a value after the key',
  "each key-value declaration must be followed by an end-of-line": "expected the end of the line after the value",
  "unfinished array": 'the array is not closed: expected "]" at its end',
  "unfinished table": 'the inline table is not closed: expected "}" at its end',
  "expected comma or end of structure": "expected a comma, or the end of the array or inline table",
  "unrecognised escape sequence": String.raw`"\" begins an escape sequence, and this is not one; a literal "\" is written "\\"`,
};

/** Words for toml-eslint-parser's errors about TOML 1.1. */
const newerWords: Readonly<Record<string, string>> = {
  "No newlines are allowed between the curly braces unless they are valid within a value":
    "an inline table must be on one line in TOML 1.0; write it on one line, or as a table with a [header]",
  "Trailing comma is not permitted in an inline table":
    "TOML 1.0 allows no comma after the last key of an inline table",
  "Invalid character in escape sequence": "TOML 1.0 does not have this escape sequence",
};

/** A string that is not closed on its line. smol-toml reports where the line ends, and not where the string begins. */
function unclosed(text: string, { line, column }: Place): Fault {
  const before = lineAt(text, { line, column });
  // The line is valid up to here, so strings and comments are skipped in pairs of quotes.
  const open = /^(?:[^"'#]|"(?:[^"\\]|\\.)*"|'[^']*')*(?=["'])/.exec(before)?.[0].length ?? column - 1;
  return bad({ line, column: open + 1 }, `the string is not closed: expected ${before[open] ?? '"'} at its end`);
}

/** A value that is a word without quotes, such as web, 3s or 127.0.0.1:80; `at` is inside it. */
function unquoted(text: string, at: Place): Fault | null {
  const line = lineAt(text, at);
  const start = /[=[,]\s*(?=[^\s=[,{}\]"'#]*$)/.exec(line.slice(0, at.column - 1));
  if (start === null || line.slice(0, start.index + 1).trim() === "[") return null;
  const column = start.index + start[0].length;
  const word = /^(?:\$\{[^\s}]*\}|[^\s,#\]}"'=])+/.exec(line.slice(column))?.[0] ?? "";
  const isKey = /^\s*=/.test(line.slice(column + word.length));
  if (isKey || !/[A-Za-z:/]/.test(word)) return null;
  const flag = /^(true|yes|on)$/i.test(word) ? "true" : /^(false|no|off)$/i.test(word) ? "false" : null;
  const found = { line: at.line, column: column + 1 };
  if (flag !== null)
    return bad(found, `expected true, false or a text in quotes, found ${word}: write ${flag} or ${quote(word)}`);
  return bad(found, `${word} is not quoted: write ${quote(word)}`);
}

function duplicate(text: string, at: Place): Fault {
  const key = keyAt(text, offsetOf(text, at));
  const first = firstPlace(text, offsetOf(text, at), key);
  if (first === null) return bad(at, `duplicate key: ${key} is already defined`);
  const where = `line ${first.line}, column ${first.column}`;
  return { ...bad(at, `duplicate key: ${key} is already defined in ${where}`), related: first };
}

/**
 * Where the key at `offset` was defined first; null if that is not found. This key, and every other that is defined twice, is renamed
 * to a unique name, so that the rest of the text can be parsed.
 */
function firstPlace(text: string, offset: number, key: string): Place | null {
  const own = (count: number) => `lb-duplicate-${count}`;
  let changed = text;
  let where = offset;
  for (let count = 0; ; count++) {
    changed = changed.slice(0, where) + own(count) + changed.slice(where + keyAt(changed, where).length);
    try {
      parse(changed, { maxDepth: depthMax });
      break;
    } catch (error) {
      if (count === duplicatesMax || !(error instanceof TomlError) || !error.message.includes("redefine")) return null;
      where = offsetOf(changed, error);
    }
  }
  try {
    const parent = parentOf(locate(changed), own(0));
    const [pair] = syntaxTree(`${key} = 0`).body[0].body;
    if (parent === null || pair?.type !== "TOMLKeyValue") return null;
    let node: Located = parent;
    for (const part of pair.key.keys) {
      const below: Located | undefined = lastElement(node).children?.get(nameOf(part));
      if (below === undefined) break;
      node = below;
    }
    return node.at;
  } catch {
    return null;
  }
}

/** Maximum number of duplicate keys that are renamed in search of the first definition. */
const duplicatesMax = 100;

function parentOf(node: Located, name: string): Located | null {
  if (node.children?.has(name) === true) return node;
  for (const below of node.children?.values() ?? []) {
    const found = parentOf(below, name);
    if (found !== null) return found;
  }
  return null;
}

const keyPart = String.raw`(?:[\w-]+|"(?:[^"\\\n]|\\.)*"|'[^'\n]*')`;
const keyForm = String.raw`${keyPart}(?:[ \t]*\.[ \t]*${keyPart})*`;

/** The dotted key that begins at an offset. */
function keyAt(text: string, offset: number): string {
  const form = new RegExp(keyForm, "y");
  form.lastIndex = offset;
  return form.exec(text)?.[0] ?? "";
}

/** Where a line or a header begins with a key of more than `most` parts. */
export function deepKey(text: string, most: number): Place | null {
  const parts = `${keyPart}(?:[ \\t]*\\.[ \\t]*${keyPart}){${most}}`;
  const found = new RegExp(`^[ \\t]*(?:\\[{1,2}[ \\t]*)?(?=${parts})`, "m").exec(text);
  if (found === null) return null;
  return { line: text.slice(0, found.index).split("\n").length, column: found[0].length + 1 };
}

export function tooDeep(at: Place): Fault {
  return bad(at, `tables and arrays are nested more than ${depthMax} levels deep`);
}

function bad(at: Place, reason: string): Fault {
  return { is: "bad", at, message: `is not valid TOML: ${reason}` };
}

function offsetOf(text: string, { line, column }: Place): number {
  let start = 0;
  for (let count = 1; count < line; count++) start = text.indexOf("\n", start) + 1;
  return start + column - 1;
}

function lineAt(text: string, { line }: Place): string {
  const start = offsetOf(text, { line, column: 1 });
  const end = text.indexOf("\n", start);
  return text.slice(start, end < 0 ? text.length : end).replace(/\r$/, "");
}
