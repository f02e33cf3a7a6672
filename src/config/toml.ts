// Parser for TOML 1.0: the values of a document, or the position and the words of its problem. smol-toml parses the values. It accepts
// TOML 1.1 too and has no option against that, so a text that may use TOML 1.1 is also parsed by toml-eslint-parser.
import { parse } from "smol-toml";
import { syntaxTree } from "./locate.ts";
import { deepKey, depthMax, faultOf, tooDeep } from "./syntax.ts";
import type { Fault } from "./syntax.ts";

export type Toml = { is: "tree"; tree: Record<string, unknown> } | Fault;

/** Parses TOML 1.0. Never throws. */
export function readToml(text: string): Toml {
  if (text.startsWith("\uFEFF")) {
    const message = "starts with a byte order mark: save it as UTF-8 without one";
    return { is: "bad", at: { line: 1, column: 1 }, message };
  }
  // Checked first, because the parser makes a table of each part. In a multi-line string it may not be a key at all.
  const deep = deepKey(text, depthMax + 1);
  if (deep !== null && !/"""|'''/.test(text)) return tooDeep(deep);
  let tree: Record<string, unknown>;
  try {
    tree = parse(text, { maxDepth: depthMax });
  } catch (error) {
    return faultOf(text, error);
  }
  if (isDeeper(tree, depthMax)) return tooDeep(deepKey(text, depthMax) ?? { line: 1, column: 1 });
  if (!mayBeNewer(text)) return { is: "tree", tree };
  try {
    syntaxTree(text);
    return { is: "tree", tree };
  } catch (error) {
    return faultOf(text, error);
  }
}

/** Whether a value has tables and arrays nested on more than `most` levels. */
function isDeeper(value: unknown, most: number): boolean {
  if (typeof value !== "object" || value === null || value instanceof Date) return false;
  if (most < 0) return true;
  return Object.values(value).some((below) => isDeeper(below, most - 1));
}

/**
 * Whether the text, which is valid TOML 1.1, may use what TOML 1.0 does not have: the escapes \e and \x, times without seconds, and
 * inline tables over several lines or with a trailing comma. There are false positives, but no false negatives: a line on which an
 * inline table begins but does not end has more "{" than "}".
 */
function mayBeNewer(text: string): boolean {
  if (/\\|"""|'''|,\s*\}/.test(text)) return true;
  const bare = text.replace(/"[^"\n]*"|'[^'\n]*'|#[^\n]*/g, "");
  if (/\d:\d/.test(bare)) return true;
  // Line by line: a pattern over the whole text would take quadratic time in the length of the longest line.
  return bare.split("\n").some((line) => count(line, "{") !== count(line, "}"));
}

function count(line: string, brace: string): number {
  let found = 0;
  for (let at = line.indexOf(brace); at >= 0; at = line.indexOf(brace, at + 1)) found++;
  return found;
}
