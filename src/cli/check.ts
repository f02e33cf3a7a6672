// `lb check FILE`: the problems of a config, or one line that says that it is valid.
import type { Environment } from "../config/env.ts";
import { loadConfig } from "../config/load.ts";
import { countedProblems, formatProblem, formatProblemWithExcerpt } from "../config/problem.ts";
import type { Config } from "../config/schema.ts";

/**
 * Prints problems and warnings to stderr, success to stdout. With `deep`, also checks what needs this machine and the network. Returns the
 * exit code: 0, 2 for an invalid config, 1 if the deep check fails.
 */
export async function check(file: string, deep = false): Promise<number> {
  const { errors, lines, code, config } = checked(file, process.env);
  for (const line of errors) console.error(line);
  for (const line of lines) console.log(line);
  if (config === null || !deep) return code;
  const { checkDeep } = await import("./check-deep.ts");
  const failed = await checkDeep(config, file, ({ verdict, at, text }) =>
    (verdict === "ok" ? console.log : console.error)(`${verdict.padEnd(7)}  ${at}: ${text}`),
  );
  return failed > 0 ? 1 : 0;
}

interface Checked {
  errors: string[];
  lines: string[];
  code: number;
  /** null = it is invalid. */
  config: Config | null;
}

/** The result of `lb check` for a file: lines for stderr and for stdout, and the exit code. */
export function checked(file: string, env: Environment): Checked {
  const result = loadConfig(file, env, { once: true });
  if (!result.ok) {
    return {
      errors: [
        ...result.problems.map(formatProblemWithExcerpt),
        countedProblems(result.problems.length, result.omitted),
      ],
      lines: [],
      code: 2,
      config: null,
    };
  }
  const warnings = result.warnings.map((warning) =>
    formatProblem({ ...warning, message: `warning: ${warning.message}` }),
  );
  if (result.omitted > 0) warnings.push(`${counted(result.omitted, "more warning")} not shown`);
  return { errors: warnings, lines: [`${file}: fine (${sizeOf(result.config)})`], code: 0, config: result.config };
}

/** "2 listeners, 3 pools, 7 backends". */
function sizeOf({ listeners, pools }: Config): string {
  const backends = pools.reduce((sum, pool) => sum + pool.backends.length, 0);
  return [counted(listeners.length, "listener"), counted(pools.length, "pool"), counted(backends, "backend")].join(
    ", ",
  );
}

function counted(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}
