// Completion in real shells, and the manual page in the real man.
import { spawnSync } from "node:child_process";
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import manifest from "../../package.json" with { type: "json" };
import { afterHelp, describe as describeLb } from "../../src/cli/command-line.ts";
import { completion } from "../../src/cli/completion.ts";
import { manPage } from "../../src/cli/man.ts";
import { SHELLS } from "../../src/cli/shells.ts";
import { missingOf } from "../support/server.ts";
import { noTmux, Tmux } from "../support/tmux.ts";

const lb = describeLb({ version: manifest.version, run: () => Promise.resolve(0) }, { code: 0 });
let folder: string;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "lb-completion-"));
  // The answers of a running lb.
  writeFileSync(join(folder, "lb"), "#!/bin/sh\necho web/10.0.0.1:80\necho web/big\n");
  chmodSync(join(folder, "lb"), 0o755);
  for (const shell of SHELLS) writeFileSync(join(folder, `lb.${shell}`), completion(lb, shell));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

test.each(SHELLS)("the packaged completion for %s is the output of lb completion", (shell) => {
  const packaged = readFileSync(join(import.meta.dirname, `../../packaging/completion/lb.${shell}`), "utf8");
  expect(packaged).toBe(completion(lb, shell));
});

/** Runs a script with the folder's lb in PATH; returns the words that it prints. */
function words(shell: string, ...args: string[]): string[] {
  const env = { ...process.env, PATH: `${folder}:${process.env["PATH"]}` };
  const { stdout, stderr } = spawnSync(shell, args, { encoding: "utf8", cwd: folder, env });
  expect(stderr).toBe("");
  return stdout.split("\n").filter(Boolean);
}

const CASES: [typed: string, found: string[], not: string[]][] = [
  ["dr", ["drain"], ["demo"]],
  ["status --js", ["--json"], ["--watch"]],
  ["drain ", ["web/10.0.0.1:80", "web/big"], ["drain"]],
  ["weight web/b", ["web/big"], ["web/10.0.0.1:80"]],
  ["completion ", [...SHELLS], ["backends"]],
];

describe("bash", () => {
  test.each(CASES)("completes lb %s", (typed, found, not) => {
    const parts = ["lb", ...typed.split(" ")];
    const script = `. ./lb.bash; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _lb; printf '%s\\n' "\${COMPREPLY[@]}"`;
    const got = words("bash", "-c", script, "bash", ...parts);
    expect(got).toEqual(expect.arrayContaining(found));
    for (const word of not) expect(got).not.toContain(word);
  });
});

describe("fish", () => {
  beforeEach(async (context) => {
    const missing = await missingOf("fish");
    if (missing !== null) context.skip(missing);
  });

  test.each(CASES)("completes lb %s", (typed, found, not) => {
    const got = words("fish", "-N", "-c", `source lb.fish; complete -C 'lb ${typed}'`).map(
      (line) => line.split("\t")[0],
    );
    expect(got).toEqual(expect.arrayContaining(found));
    for (const word of not) expect(got).not.toContain(word);
  });
});

test("zsh completes commands, options and names of backends", async (context) => {
  const missing = (await missingOf("zsh")) ?? noTmux;
  if (missing !== null) return context.skip(missing);
  using terminal = new Tmux(100, 24);
  terminal.type(`cd ${folder} && PATH=$PWD:$PATH exec zsh -f`);
  terminal.press("Enter");
  terminal.type("PS1='zsh> '; autoload -U compinit; compinit -D; . ./lb.zsh; clear");
  terminal.press("Enter");
  await terminal.shows(/^zsh>\s*$/);
  terminal.type("lb mainte\t");
  await terminal.shows(/^zsh> lb maintenance\s*$/m);
  terminal.type("web/b\t");
  await terminal.shows(/^zsh> lb maintenance web\/big\s*$/m);
  terminal.type("--token\t");
  await terminal.shows(/^zsh> lb maintenance web\/big --token-file\s*$/m);
});

describe("the manual page", () => {
  test("is packaged as lb man prints it", () => {
    const packaged = readFileSync(join(import.meta.dirname, "../../packaging/lb.1"), "utf8");
    expect(packaged).toBe(manPage(lb, manifest.version, afterHelp));
  });

  test("has every command, and man has nothing to say against it", async (context) => {
    const missing = await missingOf("man");
    if (missing !== null) return context.skip(missing);
    const file = join(folder, "lb.1");
    writeFileSync(file, manPage(lb, manifest.version, afterHelp));
    const { stdout, stderr } = spawnSync("man", ["--warnings", "-l", file], {
      encoding: "utf8",
      env: { ...process.env, MANWIDTH: "90", LC_ALL: "C.UTF-8" },
    });
    expect(stderr).toBe("");
    for (const command of lb.createHelp().visibleCommands(lb)) expect(stdout).toContain(`lb ${command.name()}`);
    expect(stdout).toContain("SIGHUP");
  });
});
