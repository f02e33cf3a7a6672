import { expect, test } from "vitest";
import { HELP } from "../../src/cli/help.ts";
import { parseConfig } from "../../src/config/load.ts";

test("the help fits on a screen", () => {
  const lines = HELP.split("\n");
  expect(lines.length).toBeLessThan(30);
  for (const line of lines) expect(line.length, line).toBeLessThanOrEqual(100);
});

test("the help names every command and signal, and no command that does not exist yet", () => {
  const named = [...HELP.matchAll(/^ {2}lb (\S+)/gm)].map(([, command]) => command);
  expect(named).toEqual(["FILE", "check", "demo", "schema", "health", "--version", "--help"]);
  for (const signal of ["SIGHUP", "SIGTERM", "SIGINT", "SIGUSR1"]) expect(HELP).toContain(signal);
});

test("the config in the help is one that works", () => {
  const text = HELP.slice(HELP.indexOf("[listeners.web]"));
  expect(parseConfig(text, { file: "lb.toml", env: {} })).toMatchObject({ ok: true, warnings: [] });
});
