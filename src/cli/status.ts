// `lb status`: the state of a running lb, once or repeated each second.
import { runtimeChanges } from "../observe/figures.ts";
import type { Snapshot } from "../observe/snapshot.ts";
import type { AdminClient } from "./admin-client.ts";
import { askLb, print } from "./admin-command.ts";
import type { AdminOptions } from "./admin-endpoint.ts";
import { statusText } from "./status-text.ts";

const INTERVAL_MS = 1000;

export interface StatusOptions extends AdminOptions {
  json?: boolean;
  watch?: boolean;
  /** Prints only the operators' changes at run time. */
  diff?: boolean;
}

/** Prints the status; with `watch` until the user interrupts. Returns the exit code. */
export function status(options: StatusOptions): Promise<number> {
  return askLb(options, async (client) => {
    do {
      const text = await textOf(client, options);
      if (options.watch === true && process.stdout.isTTY) process.stdout.write(CLEAR);
      await print(text);
      if (options.watch === true) await Bun.sleep(INTERVAL_MS);
    } while (options.watch === true);
  });
}

/** ECMA-48: cursor home, erase the screen below. */
const CLEAR = "\x1b[H\x1b[J";

async function textOf(client: AdminClient, { json, diff }: StatusOptions): Promise<string> {
  const snapshot = await client.json<Snapshot>({ method: "GET", path: "/api/status" });
  const changes = diff === true ? runtimeChanges(snapshot) : null;
  if (json === true) return JSON.stringify(changes ?? snapshot, null, 2);
  if (changes === null) return statusText(snapshot, Date.now()).join("\n");
  return changes.join("\n") || "nothing was changed at run time";
}
