// Shell completion, generated from the description of the command line, so that it matches --help. Names of backends come from the running
// lb, by `lb completion backends`.
import type { Command, Option } from "commander";
import type { Snapshot } from "../observe/snapshot.ts";
import { AdminClient, AdminError } from "./admin-client.ts";
import { adminEndpoint } from "./admin-endpoint.ts";
import { SHELLS, type Shell } from "./shells.ts";

/** Timeout of that request, because a user waits at the Tab key. */
const NAMES_MS = 500;

/** What completion needs to know of a command. */
interface Described {
  name: string;
  does: string;
  options: readonly { flags: string[]; does: string; values: Values }[];
  /** What the first argument is. */
  values: Values;
}

/** none: a flag. some: a value that cannot be completed. */
type Values = "none" | "some" | "files" | "backends" | "shells";

/** The script for a shell. */
export function completion(lb: Command, shell: Shell): string {
  const commands = lb.createHelp().visibleCommands(lb).map(described);
  const top = described(lb);
  return SCRIPTS[shell](top, commands);
}

/** Names for `lb drain`, one per line; nothing if lb cannot be asked. The exit code is always 0. */
export async function completeBackends(): Promise<number> {
  const endpoint = adminEndpoint({}, process.env);
  if ("error" in endpoint) return 0;
  try {
    const client = new AdminClient(endpoint);
    const { pools } = await client.json<Snapshot>({ method: "GET", path: "/api/status", timeoutMs: NAMES_MS });
    for (const { name, backends } of pools) for (const backend of backends) console.log(`${name}/${backend.name}`);
  } catch (error) {
    if (!(error instanceof AdminError)) throw error;
  }
  return 0;
}

function described(command: Command): Described {
  const options = command
    .createHelp()
    .visibleOptions(command)
    .map((option) => ({ flags: flagsOf(option), does: option.description, values: valuesOf(option.flags) }));
  const [argument] = command.registeredArguments;
  return {
    name: command.name(),
    does: command.description(),
    options,
    values: argument === undefined ? "none" : valuesOf(`<${argument.name()}>`),
  };
}

function flagsOf({ short, long }: Option): string[] {
  return [short, long].filter((flag) => flag !== undefined);
}

// By the name in the brackets of an option or argument.
function valuesOf(text: string): Values {
  const name = /[<[](.*)[>\]]/.exec(text)?.[1];
  if (name === undefined) return "none";
  if (name.startsWith("FILE")) return "files";
  if (name === "POOL/BACKEND") return "backends";
  return name === "SHELL" ? "shells" : "some";
}

const SCRIPTS: Record<Shell, (lb: Described, commands: readonly Described[]) => string> = { bash, zsh, fish };

// ---------------------------------------------------------------------- bash

function bash(lb: Described, commands: readonly Described[]): string {
  const branch = ({ name, options, values }: Described): string => {
    const flags = options.flatMap((option) => option.flags).join(" ");
    return `    ${name}) flags="${flags}" values=${values} ;;`;
  };
  const wanted = [...commands, lb].flatMap(({ options }) => options);
  const taking = (values: Values): string =>
    [...new Set(wanted.filter((option) => option.values === values).flatMap(({ flags }) => flags))].join("|") || "-";
  return `# bash completion for lb
_lb() {
  local word=\${COMP_WORDS[COMP_CWORD]} before=\${COMP_WORDS[COMP_CWORD-1]} command=\${COMP_WORDS[1]}
  local flags values=none
  COMPREPLY=()
  case $before in
    ${taking("files")}) COMPREPLY=($(compgen -f -- "$word")); return ;;
    ${taking("some")}) return ;;
  esac
  if ((COMP_CWORD == 1)); then
    COMPREPLY=($(compgen -W "${commands.map(({ name }) => name).join(" ")} ${lb.options.flatMap(({ flags }) => flags).join(" ")}" -- "$word"))
    COMPREPLY+=($(compgen -f -X '!*.toml' -- "$word"))
    return
  fi
  case $command in
${commands.map(branch).join("\n")}
  esac
  if [[ $word == -* ]]; then
    COMPREPLY=($(compgen -W "$flags" -- "$word"))
    return
  fi
  case $values in
    files) COMPREPLY=($(compgen -f -- "$word")) ;;
    backends)
      # A name with a port in it has a colon, at which bash splits words.
      local names
      names=$(lb completion backends 2>/dev/null)
      COMPREPLY=($(compgen -W "$names" -- "$word"))
      declare -F __ltrim_colon_completions >/dev/null && __ltrim_colon_completions "$word" ;;
    shells) COMPREPLY=($(compgen -W "${SHELLS.join(" ")}" -- "$word")) ;;
  esac
}
complete -o filenames -F _lb lb
`;
}

// ---------------------------------------------------------------------- zsh

function zsh(lb: Described, commands: readonly Described[]): string {
  const value: Record<Values, string> = {
    none: "",
    some: ":value:",
    files: ":file:_files",
    backends: ":backend:_lb_backends",
    shells: `:shell:(${SHELLS.join(" ")})`,
  };
  const option = ({ flags, does, values }: Described["options"][number]): string[] =>
    flags.map((flag) => `'${flag}[${quoted(does)}]${value[values]}'`);
  const branch = ({ name, options, values }: Described): string => {
    const specs = options.flatMap(option);
    if (values !== "none") specs.push(`'1${value[values]}'`);
    return `    ${name}) _arguments ${specs.join(" ")} ;;`;
  };
  return `#compdef lb
# zsh completion for lb
_lb_backends() {
  local -a names
  names=(\${(f)"$(lb completion backends 2>/dev/null)"})
  compadd -a names
}
_lb() {
  local -a commands
  commands=(
${commands.map(({ name, does }) => `    '${name}:${quoted(does)}'`).join("\n")}
  )
  if ((CURRENT == 2)); then
    _describe command commands
    _files -g '*.toml'
    _arguments ${lb.options.flatMap(option).join(" ")}
    return
  fi
  local command=$words[2]
  shift words
  ((CURRENT--))
  case $command in
${commands.map(branch).join("\n")}
  esac
}
compdef _lb lb
`;
}

// Brackets and colons are special characters for zsh.
function quoted(text: string): string {
  return text.replaceAll("'", "'\\''").replace(/[[\]:]/g, (char) => `\\${char}`);
}

// ---------------------------------------------------------------------- fish

function fish(lb: Described, commands: readonly Described[]): string {
  const value: Record<Values, string> = {
    none: "",
    some: " -x",
    files: " -r -F",
    backends: " -x -a '(lb completion backends 2>/dev/null)'",
    shells: ` -x -a '${SHELLS.join(" ")}'`,
  };
  const option = (when: string, { flags, does, values }: Described["options"][number]): string => {
    const names = flags.map((flag) => (flag.startsWith("--") ? `-l ${flag.slice(2)}` : `-s ${flag.slice(1)}`));
    return `complete -c lb -n ${when} ${names.join(" ")}${value[values]} -d '${single(does)}'`;
  };
  const lines = lb.options.map((one) => option("__fish_use_subcommand", one));
  for (const { name, does, options, values } of commands) {
    const when = `'__fish_seen_subcommand_from ${name}'`;
    lines.push(`complete -c lb -n __fish_use_subcommand -a ${name} -d '${single(does)}'`);
    lines.push(...options.map((one) => option(when, one)));
    if (values !== "files") lines.push(`complete -c lb -n ${when} -f${values === "none" ? "" : value[values]}`);
  }
  return `# fish completion for lb\n${lines.join("\n")}\n`;
}

function single(text: string): string {
  return text.replaceAll("\\", "\\\\").replaceAll("'", "\\'");
}
