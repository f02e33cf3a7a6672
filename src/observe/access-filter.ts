// Selects the lines of the access log for a follower.
import { parseAddress } from "../core/address.ts";
import { cidrHas } from "../core/cidr-set.ts";
import type { AccessFilter } from "../messages.ts";
import type { AccessLine } from "./access-line.ts";

/** No condition. */
export const EVERY_LINE: AccessFilter = {
  listener: null,
  pool: null,
  backends: null,
  clients: null,
  end: null,
  minDurationMs: 0,
};

/** Whether a line matches all conditions. */
export function accepts(filter: AccessFilter, line: AccessLine): boolean {
  const { listener, pool, end, minDurationMs, backends, clients } = filter;
  return (
    line.durationMs >= minDurationMs &&
    (listener === null || line.listener === listener) &&
    (pool === null || line.pool === pool) &&
    (end === null || line.end === end) &&
    (backends === null || backends.some((name) => line.backend === name || line.backend.startsWith(`${name}/`))) &&
    (clients === null || isClient(clients, line.client))
  );
}

/** `client` has the form of the log: "10.0.0.7:4711", "[2001:db8::1]:4711", "unix". */
function isClient(clients: NonNullable<AccessFilter["clients"]>, client: string): boolean {
  const host = client.slice(0, client.lastIndexOf(":"));
  const address = parseAddress(host.replace(/^\[|\]$/g, ""));
  return address !== null && cidrHas(clients, ...address);
}
