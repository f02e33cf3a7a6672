// What the documents list must be what the code has.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { ENDS } from "../src/core/ends.ts";
import { parseConfig } from "../src/config/load.ts";
import { HELP } from "../src/cli/help.ts";

const readme = readFileSync(join(import.meta.dirname, "../README.md"), "utf8");

test("the README lists every end with its meaning, and no other", () => {
  const rows = [...readme.matchAll(/^\| `([a-z_]+)` +\| (.*?) +\|$/gm)].map(([, end, meaning]) => [end, meaning]);
  expect(Object.fromEntries(rows)).toEqual(ENDS);
});

test("the README's smallest config has as many lines as it says, and is fine", () => {
  const smallest = /^```toml\n(.*?)^```$/ms.exec(readme)?.[1] ?? "";
  expect(smallest.trim().split("\n").length).toBe(5);
  expect(readme.match(/\b(four|five|six) lines\b/g)).toEqual(["five lines", "five lines"]);
  expect(parseConfig(smallest, { file: "lb.toml", env: {} }).ok).toBe(true);
});

test("the README claims no protocol that there is not", () => {
  expect(readme).not.toMatch(/\b(UDP|games?|QUIC|DNS servers?)\b/i);
});

test("the README names every command that the help names", () => {
  const commands = [...HELP.matchAll(/^ {2}lb ([a-z]+) /gm)].map(([, command]) => command);
  expect(commands.length).toBeGreaterThan(3);
  for (const command of commands) expect(readme).toContain(`lb ${command}`);
});
