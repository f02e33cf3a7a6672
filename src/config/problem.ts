// Problems of a config, and how they are printed.

/** One problem. Lines and columns count from 1, columns in characters. */
export interface Problem {
  /** The file as named on the command line. */
  file: string;
  line: number;
  column: number;
  /** The path of the key, such as `pools.web.backends[1].weight`; "" for the file as a whole. */
  path: string;
  /** What was expected, and what was found. */
  message: string;
  /** A proposal, such as `did you mean "weight"?`. */
  hint?: string;
  /** For a syntax error: lines of the file with a caret below the position. They may show text that should not be in a log. */
  excerpt?: string[];
}

/** Maximum number of problems of one file that are located and printed; the others are only counted. */
export const PROBLEMS_MAX = 100;

/** Keys of tables and indices of arrays, from the root of the file. */
export type KeyPath = readonly (string | number)[];

/** ["pools", "web", "backends", 1] → `pools.web.backends[1]`, with quotes where TOML needs them. */
export function formatPath(path: KeyPath): string {
  let text = "";
  for (const part of path) {
    if (typeof part === "number") text += `[${part}]`;
    else text += (text === "" ? "" : ".") + (/^[A-Za-z0-9_-]+$/.test(part) ? part : JSON.stringify(part));
  }
  return text;
}

/** `lb.toml:12:3: pools.web.retries: expected …, found …`, and a second line for the hint. */
export function formatProblem(problem: Problem): string {
  const { file, line, column, path, message, hint } = problem;
  const first = `${file}:${line}:${column}: ${path === "" ? "" : `${path}: `}${message}`;
  return hint === undefined ? first : `${first}\n  ${hint}`;
}

/** The same, followed by the excerpt of the file: for a terminal. */
export function formatProblemWithExcerpt(problem: Problem): string {
  return [formatProblem(problem), ...(problem.excerpt ?? [])].join("\n");
}

/** The last line of a list of problems: how many there are, and how many of them are not shown. */
export function countedProblems(shown: number, omitted: number): string {
  const total = shown + omitted;
  const count = `${total} problem${total === 1 ? "" : "s"}`;
  return omitted === 0 ? count : `${count}, of which the first ${shown} are shown`;
}

/** For each position: `  12 | pool = "app` and a line with a caret below the column. Long lines are cut. */
export function excerpt(text: string, places: readonly { line: number; column: number }[]): string[] {
  const lines = text.split("\n");
  const width = String(Math.max(...places.map(({ line }) => line))).length;
  return places.flatMap(({ line, column }) => {
    const from = Math.max(0, column - 1 - excerptBefore);
    const shown = (lines[line - 1] ?? "").slice(from, from + excerptMax).replace(/[^\P{C}\t]/gu, " ");
    // Tabs stay tabs, so that the caret is below its character.
    const before = shown.slice(0, column - 1 - from).replace(/[^\t]/g, " ");
    return [`  ${String(line).padStart(width)} | ${shown.trimEnd()}`, `  ${" ".repeat(width)} | ${before}^`];
  });
}

/** How many characters of a line are shown, and how many of them are before the position. */
const excerptMax = 120;
const excerptBefore = 60;

/** By line, then by column; stable for equal positions. */
export function sortProblems(problems: Problem[]): Problem[] {
  return problems.sort((a, b) => a.line - b.line || a.column - b.column);
}
