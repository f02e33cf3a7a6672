// What the documents list must be what the code has.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { ENDS } from "../src/core/ends.ts";
import { HELP } from "../src/cli/help.ts";

const readme = readFileSync(join(import.meta.dirname, "../README.md"), "utf8");

test("the README lists every end with its meaning, and no other", () => {
  const rows = [...readme.matchAll(/^\| `([a-z_]+)` +\| (.*?) +\|$/gm)].map(([, end, meaning]) => [end, meaning]);
  expect(Object.fromEntries(rows)).toEqual(ENDS);
});

test("the README names every command that the help names", () => {
  const commands = [...HELP.matchAll(/^ {2}lb ([a-z]+) /gm)].map(([, command]) => command);
  expect(commands.length).toBeGreaterThan(3);
  for (const command of commands) expect(readme).toContain(`lb ${command}`);
});
