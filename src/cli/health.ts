// `lb health [FILE|URL] [--ready [LISTENER]]`: asks a running lb whether it is alive or ready, for containers without curl.
import { AdminClient, AdminError, problemOf } from "./admin-client.ts";
import { adminEndpoint, endpointOrFile, type AdminOptions } from "./admin-endpoint.ts";

const TIMEOUT_MS = 2000;
/** Maximum size of the reasons why lb is not ready. */
const REASONS_CHARACTERS_MAX = 1000;

/**
 * Prints one line. Returns the exit code: 0 = alive, 1 = not; containers reserve all others for themselves. With `ready` the question is
 * whether lb accepts connections (true), or whether the listener of that name has a backend that is up.
 */
export async function health(argument?: string, ready?: string | true, options: AdminOptions = {}): Promise<number> {
  const found = adminEndpoint({ ...options, ...(argument !== undefined && endpointOrFile(argument)) }, process.env);
  if ("error" in found) return failed(found.error);
  const client = new AdminClient(found);
  try {
    const { status, text } = await client.ask({
      method: "GET",
      path: pathOf(ready, found.path),
      timeoutMs: TIMEOUT_MS,
    });
    if (status !== 200) return failed(`${client.name} answered with status ${status}${reasons(ready, text)}`);
  } catch (error) {
    if (error instanceof AdminError) return failed(error.message);
    throw error;
  }
  console.log(`lb health: ${ready === undefined ? "alive" : "ready"} (${client.name})`);
  return 0;
}

function pathOf(ready: string | true | undefined, path: string): string {
  if (ready === undefined) return path === "" ? "/live" : path;
  return ready === true ? "/ready" : `/ready/${encodeURIComponent(ready)}`;
}

function reasons(ready: string | true | undefined, text: string): string {
  const problem = problemOf(text);
  const words = problem === null ? text.split("\n") : [problem.detail, problem.cure];
  const lines = ready === undefined ? "" : words.filter(Boolean).join(problem === null ? "; " : ", ");
  return lines === "" ? "" : `: ${lines.slice(0, REASONS_CHARACTERS_MAX)}`;
}

function failed(why: string): number {
  console.error(`lb health: ${why}`);
  return 1;
}
