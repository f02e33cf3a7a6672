// lb: from the command line to a command. Makes the worker threads too, because in the compiled binary a module's URL is
// the entry point's, so whoever names worker.ts must sit beside it.
import { check } from "./cli/check.ts";
import { demo } from "./cli/demo.ts";
import { health } from "./cli/health.ts";
import { HELP } from "./cli/help.ts";
import { run } from "./supervisor/supervisor.ts";

declare const LB_VERSION: string;

const version = typeof LB_VERSION === "undefined" ? "dev" : LB_VERSION;

/** Commands that are planned; a file of that name can be given with a path ("./status"). */
const PLANNED = ["status", "top", "reload", "drain"];

function spawn(): Worker {
  return new Worker(new URL("./worker.ts", import.meta.url));
}

function usage(message: string): number {
  console.error(`lb: ${message}\nTry "lb --help".`);
  return 2;
}

async function command(args: readonly string[]): Promise<number> {
  const [name, argument, extra] = args;
  if (name === undefined) return usage("which config file?");
  if (extra !== undefined) return usage(`too many arguments: ${extra}`);
  switch (name) {
    case "--help":
    case "-h":
    case "help":
      console.log(HELP);
      return 0;
    case "--version":
    case "-v":
      console.log(`lb ${version}`);
      return 0;
    case "check":
      return argument === undefined ? usage("check which config file?") : check(argument);
    case "schema":
      // Alone in needing the JSON Schema's library.
      return (await import("./cli/schema.ts")).schema();
    case "health":
      return health(argument);
    case "demo":
      return demo((file) => run({ file, version, spawn }));
  }
  if (PLANNED.includes(name)) return usage(`the command ${name} is not supported yet`);
  if (name.startsWith("-")) return usage(`unknown option ${name}`);
  if (argument !== undefined) return usage(`too many arguments: ${argument}`);
  return run({ file: name, version, spawn });
}

process.exit(await command(process.argv.slice(2)));
