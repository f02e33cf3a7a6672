// lb: the entry point. It also makes the worker threads, because in the compiled binary a module's URL is the entry point's, so the code
// that names worker.ts must be beside it.

import type { Dashboard } from "./admin/operations.ts";

declare const LB_VERSION: string;
declare const LB_DASHBOARD: Dashboard;

const version = typeof LB_VERSION === "undefined" ? "dev" : LB_VERSION;
/** null = not built, when the sources run directly. */
const dashboard = typeof LB_DASHBOARD === "undefined" ? null : LB_DASHBOARD;

function spawn(): Worker {
  return new Worker(new URL("./worker.ts", import.meta.url));
}

async function run(file: string): Promise<number> {
  return (await import("./supervisor/supervisor.ts")).run({ file, version, dashboard, spawn });
}

async function main(args: readonly string[]): Promise<number> {
  const [file] = args;
  // The way in which services start it. No command has a dot or a slash in its name, and loading the command line's library takes 2 ms.
  if (args.length === 1 && file !== undefined && /^[^-].*[./]/.test(file)) return run(file);
  return (await import("./cli/command-line.ts")).commandLine(args, { version, run });
}

process.exit(await main(process.argv.slice(2)));
