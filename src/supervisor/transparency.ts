// Whether this process may do what `source_address = "client"` asks for.
import type { Config } from "../config/schema.ts";
import { mayBindForeign } from "../platform/sockets.ts";

/** Why a pool cannot connect from the addresses of its clients, with what to do about it; null = it can, or no pool does. */
export function transparencyTrouble({ pools }: Pick<Config, "pools">): string | null {
  const pool = pools.find(({ source_address }) => source_address.startsWith("client"));
  if (pool === undefined || mayBindForeign()) return null;
  return `pools.${pool.name}.source_address = "${pool.source_address}" needs the capability CAP_NET_RAW: with systemd AmbientCapabilities=CAP_NET_RAW, in a container --cap-add NET_RAW`;
}
