// The manual page lb(1), generated from the description of the command line. man(7) describes the format.
import type { Command } from "commander";

/** The page; `after` follows the commands, as in the help. */
export function manPage(lb: Command, version: string, after: string): string {
  const help = lb.createHelp();
  const lines = [
    `.TH LB 1 "" "lb ${text(version)}" "User Commands"`,
    ".SH NAME",
    `lb \\- ${text(lb.description().replace(/^lb - /, ""))}`,
    ".SH SYNOPSIS",
    ".B lb",
    ".I FILE",
    ".br",
    ".B lb",
    ".I COMMAND",
    "[\\fIARGUMENTS\\fR] [\\fIOPTIONS\\fR]",
    ".SH DESCRIPTION",
    "With the name of a config file, lb runs with it. The other commands check a config or ask a running lb.",
    "Those that ask a running lb find its admin endpoint by",
    ".BR \\-\\-admin ,",
    "else by",
    ".BR \\-\\-config ,",
    "else by",
    ".I ./lb.toml",
    "or",
    ".IR /etc/lb/lb.toml .",
    ".SH OPTIONS",
    ...help.visibleOptions(lb).flatMap(({ flags, description }) => tagged(flags, description)),
    ".SH COMMANDS",
  ];
  for (const command of help.visibleCommands(lb)) {
    const args = command.registeredArguments
      .map((one) => {
        const name = `\\fI${text(one.name())}\\fR`;
        return one.required ? name : `[${name}]`;
      })
      .join(" ");
    lines.push(`.SS lb ${text(command.name())} ${args}`.trimEnd(), `${sentence(command.description())}`);
    for (const argument of command.registeredArguments) lines.push(...tagged(argument.name(), argument.description));
    for (const { flags, description } of help.visibleOptions(command)) {
      if (!flags.includes("--help")) lines.push(...tagged(flags, description));
    }
  }
  lines.push(".SH SIGNALS, EXIT STATUS, EXAMPLE", ".nf", ...after.trim().split("\n").map(text), ".fi");
  return `${lines.join("\n")}\n`;
}

function tagged(tag: string, does: string): string[] {
  return [".TP", `.B ${text(tag)}`, sentence(does)];
}

function sentence(words: string): string {
  return text(`${words.charAt(0).toUpperCase()}${words.slice(1)}.`);
}

/** Text with troff's special characters escaped. */
function text(words: string): string {
  return words
    .replaceAll("\\", "\\e")
    .replaceAll("-", "\\-")
    .replace(/^([.'])/, "\\&$1");
}
