// Addresses in the form of a config, and descriptors that listen on them.
import { parseEndpoint, type Endpoint } from "../../src/core/address.ts";
import { listenOn } from "../../src/platform/sockets.ts";

export function endpoint(text: string): Endpoint {
  const parsed = parseEndpoint(text);
  if (parsed.kind === "bad") throw new Error(parsed.why);
  return parsed;
}

/** A listening descriptor; the caller closes it. */
export function listenAt(text: string, backlog = 128): number {
  const fd = listenOn(endpoint(text), backlog);
  if (typeof fd !== "number") throw new Error(`${fd.call}: ${fd.code}`);
  return fd;
}
