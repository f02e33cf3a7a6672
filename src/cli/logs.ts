// `lb logs`: the access lines of a running lb, as connections end.
import { askLb, print } from "./admin-command.ts";
import type { AdminOptions } from "./admin-endpoint.ts";

export interface LogsOptions extends AdminOptions {
  client?: string;
  listener?: string;
  pool?: string;
  backend?: string;
  end?: string;
  minDuration?: string;
  json?: boolean;
}

/** Prints lines until lb stops or the user interrupts. Returns the exit code. */
export function logs({
  client,
  listener,
  pool,
  backend,
  end,
  minDuration,
  json,
  ...options
}: LogsOptions): Promise<number> {
  const query = {
    client,
    listener,
    pool,
    backend,
    end,
    min_duration: minDuration,
    format: json === true ? "json" : "text",
  };
  return askLb(options, async (lb) => {
    for await (const line of lb.lines({ method: "GET", path: "/api/logs", query })) await print(line);
  });
}
