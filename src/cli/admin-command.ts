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
