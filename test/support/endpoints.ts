// Addresses in the form of a config, and descriptors that listen on them.
import type { TestContext } from "vitest";
import { parseEndpoint, type Endpoint } from "../../src/core/address.ts";
import { closeDescriptor, listenOn } from "../../src/platform/sockets.ts";

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

/** Skips a test that needs ::1. */
export function skipWithoutIPv6(context: TestContext): void {
  const fd = listenOn(endpoint("[::1]:0"), 1);
  if (typeof fd !== "number") context.skip(`no IPv6 here: ${fd.code}`);
  else closeDescriptor(fd);
}
