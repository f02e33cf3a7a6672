// `lb reload`: loads the config of a running lb again and waits for the result.
import { askLb } from "./admin-command.ts";
import type { AdminOptions } from "./admin-endpoint.ts";

/** Timeout: busy workers need time to apply a config. */
const RELOAD_MS = 60_000;

/** Prints the result. Returns the exit code: 1 if the config was not loaded. */
export function reload(options: AdminOptions): Promise<number> {
  return askLb(options, async (client) => {
    const path = "/api/reload";
    const { message } = await client.json<{ message: string }>({ method: "POST", path, timeoutMs: RELOAD_MS });
    console.log(message);
  });
}
