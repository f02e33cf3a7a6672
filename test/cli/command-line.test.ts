import { afterEach, beforeEach, describe as group, expect, test, vi } from "vitest";
import { afterHelp, commandLine, describe } from "../../src/cli/command-line.ts";
import { parseConfig } from "../../src/config/load.ts";

let out = "";
let err = "";
let ran: string[] = [];
const program = { version: "1.2.3", run: (file: string) => Promise.resolve(ran.push(file) + 6) };

beforeEach(() => {
  out = "";
  err = "";
  ran = [];
  vi.spyOn(process.stdout, "write").mockImplementation((text) => (out += String(text)) !== "");
  vi.spyOn(process.stderr, "write").mockImplementation((text) => (err += String(text)) !== "");
  vi.spyOn(console, "log").mockImplementation((text) => void (out += `${String(text)}\n`));
});
afterEach(() => {
  vi.restoreAllMocks();
});

const ASKING = "status top reload drain ready maintenance weight connections clients explain config logs".split(" ");

group("help", () => {
  test.each([[["--help"]], [["-h"]], [["help"]]])("of %j is short", async (args) => {
    expect(await commandLine(args, program)).toBe(0);
    const lines = out.split("\n");
    expect(lines.length).toBeLessThan(60);
    for (const line of lines) expect(line.length, line).toBeLessThanOrEqual(100);
    expect(err).toBe("");
  });

  test("names every command that there is, and every signal", async () => {
    await commandLine(["--help"], program);
    const commands = [...out.slice(out.indexOf("Commands:"), out.indexOf("Signals:")).matchAll(/^ {2}([a-z]+) /gm)].map(
      ([, name]) => name,
    );
    expect(commands).toEqual(["check", "demo", "schema", "health", "version", "completion", "man", "help", ...ASKING]);
    for (const signal of ["SIGHUP", "SIGTERM", "SIGINT", "SIGUSR1"]) expect(out).toContain(signal);
  });

  test.each([
    [["check", "--help"], "Usage: lb check"],
    [["help", "check"], "Usage: lb check"],
    [["health", "-h"], "--ready [LISTENER]"],
    [["health", "--ready", "--help"], "--ready [LISTENER]"],
  ])("of %j is that of the command", async (args, words) => {
    expect(await commandLine(args, program)).toBe(0);
    expect(out).toContain(words);
  });

  test("shows a config that works", () => {
    const text = afterHelp.slice(afterHelp.indexOf("[listeners.web]"));
    expect(parseConfig(text, { file: "lb.toml", env: {} })).toMatchObject({ ok: true, warnings: [] });
  });
});

test.each([["version"], ["--version"], ["-v"]])("lb %s prints the version", async (argument) => {
  expect(await commandLine([argument], program)).toBe(0);
  expect(out).toBe("lb 1.2.3\n");
});

group("lb FILE", () => {
  test.each(["lb.toml", "./check", "/etc/lb/lb.toml", "no/status"])("runs %s", async (file) => {
    expect(await commandLine([file], program)).toBe(7);
    expect(ran).toEqual([file]);
  });
});

group("bad usage is refused", () => {
  test.each([
    [[], "lb: no config file is given"],
    [["chekc", "x"], "lb: unknown command 'chekc', and there is no such file\n(Did you mean check?)"],
    [["chekc"], "(Did you mean check?)"],
    [["statsu"], "(Did you mean status?)"],
    [["run", "lb.toml"], "lb: unknown command 'run'\n(lb FILE runs with a config file)"],
    [["-f", "lb.toml"], "lb: unknown option '-f'\n(lb FILE runs with a config file)"],
    [["-t"], "lb: unknown option '-t'\n(lb check FILE checks a config file)"],
    [["zzzzzzz"], "lb: unknown command 'zzzzzzz', and there is no such file\nTry"],
    [["help", "helth"], "lb: unknown command 'helth'\n(Did you mean health?)"],
    [["--verbose"], "lb: unknown option '--verbose'"],
    [["--versoin"], "lb: unknown option '--versoin'\n(Did you mean --version?)"],
    [["lb.toml", "--foo"], "lb: unknown option '--foo'"],
    [["schema", "--foo"], "lb: unknown option '--foo'\nTry \"lb schema --help\"."],
    [["health", "--redy"], "lb: unknown option '--redy'\n(Did you mean --ready?)"],
    [["health", "--ready", "http://127.0.0.1:1"], "write FILE or URL before --ready"],
    [["check"], "lb: missing required argument 'FILE'"],
    [["check", "a.toml", "b.toml"], "too many arguments for 'check'"],
    [["version", "x"], "too many arguments for 'version'"],
    [["a.toml", "b.toml"], "lb: too many arguments: b.toml"],
    [["upgrade"], "lb: the command upgrade is not supported yet"],
    [["import", "--help"], "lb: the command import is not supported yet"],
    [["drain", "web"], "lb: 'web' is invalid. It takes a pool and a backend, such as web/10.0.0.1:80."],
    [["drain", "/b1"], "It takes a pool and a backend"],
    [["weight", "web/b1"], "missing required argument 'WEIGHT'"],
    [["weight", "web/b1", "257"], "It takes 0 to 256, or the word file."],
    [["connections", "--limit", "0"], "lb: '0' is invalid. It takes a number above 0."],
    [["completion", "ksh"], "lb: 'ksh' is invalid. It takes bash, zsh or fish.\n"],
    [["connections", "--kill"], "--kill needs --client, --listener, --pool or --backend"],
    [["explain", "--listener", "web"], "required option '--client <ADDRESS>' not specified"],
    [["status", "--admn", "x"], "(Did you mean --admin?)"],
  ])("%j: %s", async (args, words) => {
    expect(await commandLine(args, program)).toBe(2);
    expect({ out, ran }).toEqual({ out: "", ran: [] });
    expect(err).toContain(words);
    expect(err).toMatch(/\nTry "lb [a-z -]*--help"\.\n$/);
  });
});

test("every command has a description, and so has each of its arguments and options", () => {
  const lb = describe(program, { code: 0 });
  for (const command of [lb, ...lb.createHelp().visibleCommands(lb)]) {
    expect(command.description(), command.name()).not.toBe("");
    for (const { description } of command.registeredArguments) expect(description, command.name()).not.toBe("");
    for (const { description } of command.options) expect(description, command.name()).not.toBe("");
  }
});
