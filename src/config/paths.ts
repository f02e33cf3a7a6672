// Files named in a config are relative to the folder of the config file.
import { resolve } from "node:path";
import type { Endpoint } from "../core/address.ts";

/** The absolute path of a file named in the config; `folder` is the folder of the config. */
export function absolutePath(folder: string, path: string): string {
  return resolve(folder, path);
}

/** The endpoint, with an absolute path if it is a unix socket. */
export function absoluteEndpoint<E extends Endpoint>(folder: string, endpoint: E): E {
  return endpoint.kind === "unix" ? { ...endpoint, path: absolutePath(folder, endpoint.path) } : endpoint;
}
