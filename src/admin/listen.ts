// Where the admin endpoint listens: on the socket of an address, or on a file to which only this user may connect.
import { chmodSync, lstatSync, unlinkSync } from "node:fs";
import type { ListenOptions } from "node:net";
import type { BindEndpoint } from "../config/kinds.ts";
import { formatAddress, formatEndpoint, formatHostPort } from "../core/address.ts";
import { stateOfSocketFile } from "../platform/in-use.ts";
import { ownSockets } from "../platform/sockets.ts";
import { serveHttp, type HttpOptions, type HttpServer } from "./http-server.ts";

/** The server, or the address and why it cannot listen there. */
export async function listen(bind: BindEndpoint, options: HttpOptions): Promise<HttpServer | string> {
  const name = formatEndpoint(bind);
  if (bind.kind === "unix") return listenAtPath(bind.path, options);
  if (bind.kind === "abstract") {
    const started = await serveHttp({ path: `\0${bind.name}` }, options);
    return typeof started === "string" ? `${name}: ${reason(started)}` : started;
  }
  // "::" is dual-stack; without IPv6 there is only IPv4.
  const hosts = bind.kind === "any" ? ["::", "0.0.0.0"] : [formatAddress(...bind.address)];
  let code = "";
  for (const host of hosts) {
    const started = await serveHttp({ host, port: bind.port }, options);
    if (typeof started !== "string") return started;
    code = started;
    if (code === "EADDRINUSE" || code === "EACCES") break;
  }
  const cure = code === "EADDRINUSE" ? `; to see who has it: ss -ltnp 'sport = :${bind.port}'` : "";
  return `${name}: ${reason(code)}${cure}`;
}

async function listenAtPath(path: string, options: HttpOptions): Promise<HttpServer | string> {
  const serve = (): Promise<HttpServer | string> => privately(path, { path }, options);
  let started = await serve();
  if (started === "EADDRINUSE" && isLeftover(path)) {
    const removed = attempt(() => unlinkSync(path));
    started = typeof removed === "string" ? removed : await serve();
  }
  if (typeof started !== "string") return started;
  const exists = started === "EADDRINUSE" && !isSocket(path);
  return `unix:${path}: ${exists ? "a file that is not a socket has this path: remove it" : reason(started)}`;
}

/** Makes a socket file to which only this user may connect from the start. */
async function privately(path: string, where: ListenOptions, options: HttpOptions): Promise<HttpServer | string> {
  // Only the main thread can set a umask; in other threads the mode is set a moment later.
  const before = attempt(() => process.umask(0o177));
  // The file exists when this returns.
  const started = serveHttp(where, options);
  if (typeof before === "number") process.umask(before);
  const server = await started;
  if (typeof server !== "string") chmodSync(path, 0o600);
  return server;
}

/** Whether no process listens on a socket file any more. */
function isLeftover(path: string): boolean {
  return isSocket(path) && ownSockets() && stateOfSocketFile(path) === "abandoned";
}

function isSocket(path: string): boolean {
  return attempt(() => lstatSync(path).isSocket()) === true;
}

const REASONS: Record<string, string> = {
  EADDRINUSE: "the address is in use, perhaps by another lb: stop that one, or change admin.bind",
  EADDRNOTAVAIL: "this machine has no such address: change admin.bind",
  EACCES: "permission denied: choose a port above 1023, or a folder that this user may write to, in admin.bind",
  ENOENT: "there is no such folder: make it, or change admin.bind",
  ENOTDIR: "a part of the path is not a folder: change admin.bind",
  EROFS: "the file system is read-only: change admin.bind",
};

function reason(code: string): string {
  return REASONS[code] ?? `it failed with ${code}`;
}

/** The result of `work`, or the code of the error that it throws. */
function attempt<T>(work: () => T): T | string {
  try {
    return work();
  } catch (error) {
    return error instanceof Error && "code" in error ? String(error.code) : "an unknown error";
  }
}

/** As in the config, with the real port. */
export function addressOf(bind: BindEndpoint, { port }: HttpServer): string {
  if (bind.kind === "ip") return formatHostPort(bind.address, port);
  return formatEndpoint(bind.kind === "any" ? { kind: "any", port } : bind);
}
