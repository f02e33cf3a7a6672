// The commands that ask a running lb over its admin endpoint, with their arguments and options. The code of a command is loaded when it
// runs.
import { InvalidArgumentError, Option, type Command } from "commander";
import type { AdminOptions } from "./admin-endpoint.ts";
import type { BackendChange } from "./backend.ts";
import type { ConnectionsOptions } from "./connections.ts";
import type { ExplainOptions } from "./explain.ts";
import type { LogsOptions } from "./logs.ts";

/** Adds them to `lb`. `command` makes a command like the others, `end` takes the exit code. */
export function describeAdminCommands(
  lb: Command,
  command: (usage: string, does: string) => Command,
  end: (code: number) => void,
): void {
  const asking = (usage: string, does: string): Command =>
    command(usage, does)
      .option(
        "--admin <ADDRESS>",
        "the admin endpoint, such as 127.0.0.1:9900, https://lb.example:9900 or unix:/run/lb/admin.sock",
      )
      .option("--config <FILE>", "the config that names it; default: ./lb.toml, then /etc/lb/lb.toml")
      .option("--token-file <FILE>", "file with the bearer token; default: $LB_ADMIN_TOKEN, then the config's")
      .option("--ca <FILE>", "certificates to trust for HTTPS; default: the config's own certificate, or the system's");

  asking("status", "show listeners, pools, backends and workers")
    .option("--json", "print the snapshot of GET /api/status")
    .option("--watch", "again each second, until interrupted")
    .option("--diff", "only run-time changes that differ from the file")
    .action(async (options: AdminOptions) => end(await (await import("./status.ts")).status(options)));
  asking("top", "the same live on the whole terminal: sort, filter, drain, kill").action(
    async (options: AdminOptions) => end(await (await import("./top/top.ts")).top(options)),
  );
  asking("reload", "load the config file again, and print the changes or the problems").action(
    async (options: AdminOptions) => end(await (await import("./reload.ts")).reload(options)),
  );

  const change = async (name: string, what: BackendChange, options: AdminOptions): Promise<void> =>
    end(await (await import("./backend.ts")).changeBackend(name, what, options));
  for (const [state, does] of STATES) {
    asking(state, does)
      .argument("<POOL/BACKEND>", "its pool and its name, as in lb status", backendName)
      .addOption(new Option("--timeout <DURATION>", TIMEOUT).hideHelp(state === "ready"))
      .action(async (name: string, { timeout, ...options }: AdminOptions & { timeout?: string }) =>
        change(name, { state, ...(timeout !== undefined && { timeout }) }, options),
      );
  }
  asking("weight", "change a backend's weight until the file has another one")
    .argument("<POOL/BACKEND>", "its pool and its name, as in lb status", backendName)
    .argument("<WEIGHT>", "0..256, or file: that of the config file", weight)
    .action(async (name: string, value: number | null, options: AdminOptions) =>
      change(name, { weight: value }, options),
    );

  asking("connections", "list the live connections, or end some")
    .option("--client <ADDRESS>", "only of this client, or of this CIDR")
    .option("--listener <NAME>", "only of this listener")
    .option("--pool <NAME>", "only of this pool")
    .option("--backend <NAME>", "only at this backend")
    .option("--sort <KEY>", "by this key of the JSON, such as age_ms or -age_ms")
    .option("--limit <N>", "maximum number of rows", count)
    .option("--json", "print the answer of GET /api/connections")
    .option("--kill", "end them with a reset; needs a filter")
    .option("--yes", "do not ask before --kill")
    .action(async (options: ConnectionsOptions) => {
      const { client, listener, pool, backend, kill } = options;
      const filtered = [client, listener, pool, backend].some((filter) => filter !== undefined);
      if (kill === true && !filtered) lb.error("lb: --kill needs --client, --listener, --pool or --backend");
      end(await (await import("./connections.ts")).connections(options));
    });
  asking("clients", "list the clients with the most connections or refusals")
    .option("--sort <KEY>", "by this key of the JSON, such as open or refusals")
    .option("--limit <N>", "maximum number of rows", count)
    .option("--json", "print the answer of GET /api/clients")
    .action(async (options: AdminOptions) => end(await (await import("./clients.ts")).clients(options)));
  asking("explain", "say which limits, route, pool and backend a client would get")
    .requiredOption("--listener <NAME>", "the listener that it connects to")
    .requiredOption("--client <ADDRESS>", "its address, such as 192.0.2.1")
    .option("--sni <NAME>", "the server name that it asks for")
    .option("--alpn <PROTOCOL...>", "the protocols that it offers, such as h2 http/1.1")
    .option("--json", "print the answer of POST /api/explain")
    .action(async (options: ExplainOptions) => end(await (await import("./explain.ts")).explain(options)));
  asking("config", "print the effective config, with every option that the file leaves out")
    .option("--json", "as JSON")
    .action(async (options: AdminOptions) => end(await (await import("./config.ts")).config(options)));
  asking("logs", "print access lines as connections end, until interrupted")
    .option("-f, --follow", "follow the log (the default)")
    .option("--client <ADDRESS>", "only of this client, or of this CIDR")
    .option("--listener <NAME>", "only of this listener")
    .option("--pool <NAME>", "only of this pool")
    .option("--backend <NAME>", "only of this backend")
    .option("--end <END>", "only with this end, such as connect_refused")
    .option("--min-duration <DURATION>", "only of connections that lived so long, such as 10s")
    .option("--json", "as JSON")
    .action(async (options: LogsOptions) => end(await (await import("./logs.ts")).logs(options)));
}

const STATES = [
  ["drain", "send no new connections to a backend"],
  ["ready", "use a backend again that was drained or in maintenance"],
  ["maintenance", "drain a backend and stop its health checks"],
] as const;

const TIMEOUT = "end connections that are open after this time, such as 30s; default: never";

function backendName(text: string): string {
  if (/^[^/]+\/./.test(text)) return text;
  throw new InvalidArgumentError("It takes a pool and a backend, such as web/10.0.0.1:80.");
}

function weight(text: string): number | null {
  if (text === "file") return null;
  if (/^\d{1,3}$/.test(text) && Number(text) <= 256) return Number(text);
  throw new InvalidArgumentError("It takes 0 to 256, or the word file.");
}

function count(text: string): number {
  if (/^\d{1,6}$/.test(text) && Number(text) > 0) return Number(text);
  throw new InvalidArgumentError("It takes a number above 0.");
}
