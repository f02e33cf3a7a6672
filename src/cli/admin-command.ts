// Shared by the commands that ask a running lb: the endpoint from the options, and failures as one line and an exit code.
import { AdminClient, AdminError } from "./admin-client.ts";
import { adminEndpoint, type AdminOptions } from "./admin-endpoint.ts";

/** Runs `work` with a client for the endpoint that the options name. The exit code: 0 success, 1 failure, 2 invalid options. */
export async function askLb(
  options: AdminOptions,
  work: (client: AdminClient) => Promise<number | void>,
): Promise<number> {
  const endpoint = adminEndpoint(options, process.env);
  if ("error" in endpoint) {
    console.error(`lb: ${endpoint.error}`);
    return 2;
  }
  try {
    return (await work(new AdminClient(endpoint))) ?? 0;
  } catch (error) {
    if (!(error instanceof AdminError)) throw error;
    console.error(`lb: ${error.message}${error.cure === "" ? "" : `\n    ${error.cure}`}`);
    return error.isBadUsage ? 2 : 1;
  }
}

let isWatched = false;

/**
 * Prints a line, and resolves when it is written: the process may exit then. It exits when nobody reads its output any more, as in
 * `lb logs | head`, which console.log ignores.
 */
export function print(line: string): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  if (!isWatched)
    process.stdout.on("error", ({ code }: NodeJS.ErrnoException) => process.exit(code === "EPIPE" ? 0 : 1));
  isWatched = true;
  process.stdout.write(`${line}\n`, "utf8", () => resolve());
  return promise;
}
