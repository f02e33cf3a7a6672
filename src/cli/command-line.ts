// The command line, described once: commands, their arguments and options. Help, errors, suggestions, shell completion and the manual page
// are generated from this description. The code of a command is loaded when it runs.
import { existsSync } from "node:fs";
import { Command, CommanderError, InvalidArgumentError } from "commander";
import { closest } from "../config/suggest.ts";
import { describeAdminCommands } from "./admin-commands.ts";
import type { AdminOptions } from "./admin-endpoint.ts";
import { SHELLS, type Shell } from "./shells.ts";

/** What the entry point provides. */
export interface Program {
  version: string;
  /** Runs lb with a config file until it stops; returns the exit code. */
  run: (file: string) => Promise<number>;
}

/** Names reserved for planned commands; a file of that name can be given with a path ("./status"). */
const planned = ["upgrade", "import"];

/** How haproxy, nginx and Caddy are started, and what does the same here. */
const HABITS = {
  runs: ["run", "start", "serve", "-f", "-c", "--config"],
  checks: ["-t", "validate", "configtest"],
};

/** How commander begins its message on an argument or option that is refused, before the reason. */
const INVALID_ARGUMENT =
  /^error: (?:command-argument value|option '[^']*' argument) ('.*') is invalid(?: for argument '[^']*')?\./;

const badUsage = 2;
const helpWidth = 100;

/** Runs the command that the arguments name. Returns the exit code; bad usage prints to stderr and is 2. */
export async function commandLine(args: readonly string[], program: Program): Promise<number> {
  const result = { code: 0 };
  try {
    const lb = describe(program, result);
    refuseHabit(lb, args[0] ?? "");
    await lb.parseAsync([...args], { from: "user" });
    return result.code;
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    // Help and version end as errors with the exit code 0.
    return error.exitCode === 0 ? 0 : badUsage;
  }
}

/** All commands. Their actions store the exit code in `result`. */
export function describe(program: Program, result: { code: number }): Command {
  const end = (code: number): void => void (result.code = code);
  const lb = new Command("lb")
    .description("lb - a layer-4 load balancer")
    .usage("FILE\n       lb COMMAND [ARGUMENTS] [OPTIONS]")
    .argument("[FILE]", "the config to run with; use a path if a command has the same name: ./check")
    .version(`lb ${program.version}`, "-v, --version", "print the version")
    .helpOption("-h, --help", "print help, also of a command")
    .helpCommand(false)
    .exitOverride()
    .allowExcessArguments()
    .configureHelp({ subcommandTerm: termOf })
    .configureOutput({
      getOutHelpWidth: () => helpWidth,
      outputError: (text, write) =>
        write(text.replace(INVALID_ARGUMENT, "lb: $1 is invalid.").replace(/^error: /, "lb: ")),
    })
    .showHelpAfterError('Try "lb --help".')
    .addHelpText("after", afterHelp)
    .action(async (file: string | undefined) => {
      refuseUnknown(lb, file);
      end(await program.run(String(file)));
    });
  lb.commandsGroup("Commands:");
  const command = (usage: string, does: string): Command => {
    const made = lb.command(usage).description(does).helpOption("-h, --help", "print help");
    made.allowExcessArguments(false);
    return made.showHelpAfterError(`Try "lb ${made.name()} --help".`);
  };
  command("check", "report every problem of a config, or that it is fine")
    .argument("<FILE>", "the config")
    .option("--deep", "also whether addresses can be bound, logs written, names resolve, and backends answer")
    .action(async (file: string, { deep }: { deep?: boolean }) =>
      end(await (await import("./check.ts")).check(file, deep)),
    );
  command("demo", "run with three small built-in backends, to see it work").action(async () =>
    end(await (await import("./demo.ts")).demo(program.run)),
  );
  command("schema", "print the JSON Schema of the config, for editors").action(async () =>
    end((await import("./schema.ts")).schema()),
  );
  command("health", "ask a running lb whether it is alive or ready; exit code 0 if so, else 1")
    .argument("[FILE|URL]", "its config, or its admin address; default: ./lb.toml, then /etc/lb/lb.toml")
    .option("--ready [LISTENER]", "ask whether it accepts connections, or whether LISTENER has a backend that is up")
    .option("--admin <ADDRESS>", "the admin endpoint, instead of FILE or URL")
    .option("--config <FILE>", "the config that names it, instead of FILE or URL")
    .option("--token-file <FILE>", "file with the bearer token, for a URL with another path than /live and /ready")
    .option("--ca <FILE>", "certificates to trust for HTTPS; default: the config's own certificate, or the system's")
    .action(async (where: string | undefined, options: AdminOptions & { ready?: string | true }) => {
      const { ready } = options;
      if (typeof ready === "string" && /[/:]/.test(ready))
        lb.error(`lb: ${ready} is not the name of a listener; write FILE or URL before --ready`);
      end(await (await import("./health.ts")).health(where, ready, options));
    });
  command("version", "print the version").action(() => console.log(`lb ${program.version}`));
  command("completion", "print a completion script for a shell")
    .argument("<SHELL>", "bash, zsh or fish", shellName)
    .action(async (shell: Shell | "backends") => {
      const { completion, completeBackends } = await import("./completion.ts");
      if (shell === "backends") return end(await completeBackends());
      process.stdout.write(completion(lb, shell));
    });
  command("man", "print the manual page lb(1)").action(async () => {
    process.stdout.write((await import("./man.ts")).manPage(lb, program.version, afterHelp));
  });
  command("help", "print help")
    .argument("[COMMAND]", "the command to explain")
    .action((name: string | undefined) => {
      if (name === undefined) return lb.help();
      const found = lb.commands.find((one) => one.name() === name && !planned.includes(name));
      return found === undefined ? unknownCommand(lb, name) : found.help();
    });
  lb.commandsGroup("Commands for an lb that runs:");
  describeAdminCommands(lb, command, end);
  for (const name of planned) {
    lb.command(name, { hidden: true })
      .allowUnknownOption()
      .allowExcessArguments()
      .helpOption(false)
      .action(() => lb.error(`lb: the command ${name} is not supported yet`));
  }
  return lb;
}

/** Completion scripts also ask for the backends. */
function shellName(text: string): Shell | "backends" {
  const found = [...SHELLS, "backends" as const].find((one) => one === text);
  if (found === undefined) throw new InvalidArgumentError("It takes bash, zsh or fish.");
  return found;
}

/** "weight <POOL/BACKEND> <WEIGHT>": every command has options. */
function termOf(command: Command): string {
  const args = command.registeredArguments.map((one) => (one.required ? `<${one.name()}>` : `[${one.name()}]`));
  return [command.name(), ...args].join(" ");
}

/** Refuses what other load balancers take as the first argument, and says what to write. */
function refuseHabit(lb: Command, first: string): void {
  const kind = first.startsWith("-") ? "option" : "command";
  if (kind === "command" && existsSync(first)) return;
  if (HABITS.runs.includes(first)) lb.error(`lb: unknown ${kind} '${first}'\n(lb FILE runs with a config file)`);
  if (HABITS.checks.includes(first)) lb.error(`lb: unknown ${kind} '${first}'\n(lb check FILE checks a config file)`);
}

/** An argument that is not a command is a config file, unless it looks like a misspelled command. */
function refuseUnknown(lb: Command, file: string | undefined): void {
  if (file === undefined) return lb.error("lb: no config file is given; lb FILE runs with it, lb demo needs none");
  const extra = lb.args[1];
  const isFile = /[./]/.test(file) || existsSync(file);
  if (!isFile) unknownCommand(lb, file, `, and there is no such file`);
  if (extra !== undefined) lb.error(`lb: too many arguments: ${extra}`);
}

function unknownCommand(lb: Command, name: string, more = ""): never {
  const names = lb.commands.map((command) => command.name()).filter((known) => !planned.includes(known));
  const meant = closest(name, names) ?? closest(name, planned);
  return lb.error(`lb: unknown command '${name}'${more}${meant === null ? "" : `\n(Did you mean ${meant}?)`}`);
}

/** The text below the commands and options. */
export const afterHelp = `
Signals:
  SIGHUP            reload the config; one that is wrong changes nothing
  SIGTERM, SIGINT   stop within shutdown_delay and shutdown_timeout; a second one ends at once
  SIGUSR1           reopen the log files

Exit codes:
  0  fine    1  failure while running    2  bad usage or config

The smallest config, five lines of TOML:
  [listeners.web]
  bind = ":8080"
  pool = "app"
  [pools.app]
  backends = ["127.0.0.1:3000", "127.0.0.1:3001"]`;
