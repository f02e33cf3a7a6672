// What is wrong with a config, and how it is printed.

/** One thing wrong. Lines and columns count from 1, columns in characters. */
export interface Problem {
  /** The file as it was named on the command line. */
  file: string;
  line: number;
  column: number;
  /** The key, such as `pools.web.backends[1].weight`; "" where the file as a whole is meant. */
  path: string;
  /** What was expected, and what was found. */
  message: string;
  /** A proposal, such as `did you mean "weight"?`. */
  hint?: string;
}

/** Keys of tables and indices of arrays, from the root of the file. */
export type KeyPath = readonly (string | number)[];

/** ["pools", "web", "backends", 1] → `pools.web.backends[1]`, quoted where TOML would quote. */
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

/** By line, then by column; what stands at one place keeps its order. */
export function sortProblems(problems: Problem[]): Problem[] {
  return problems.sort((a, b) => a.line - b.line || a.column - b.column);
}
