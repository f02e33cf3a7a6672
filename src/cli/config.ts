// `lb config`: the effective config of a running lb, as TOML that `lb check` accepts, or as the JSON of GET /api/config.
import { stringify } from "smol-toml";
import { askLb, print } from "./admin-command.ts";
import type { AdminOptions } from "./admin-endpoint.ts";

/** Prints it. The exit code. */
export function config(options: AdminOptions & { json?: boolean }): Promise<number> {
  return askLb(options, async (lb) => {
    const effective = await lb.json<Record<string, unknown>>({ method: "GET", path: "/api/config" });
    await print(options.json === true ? JSON.stringify(effective, null, 2) : stringify(effective));
  });
}
