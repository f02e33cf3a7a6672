// Configs for tests in this process: a text, parsed and checked as a file would be.
import { parseConfig } from "../../src/config/load.ts";
import { formatProblem } from "../../src/config/problem.ts";
import type { Config } from "../../src/config/schema.ts";

export function configOf(toml: string): Config {
  const parsed = parseConfig(toml, { file: "/test/lb.toml", env: {} });
  if (!parsed.ok) throw new Error(parsed.problems.map(formatProblem).join("\n"));
  return parsed.config;
}
