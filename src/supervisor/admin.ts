// The admin endpoint: HTTP and access control around the operations of a running lb (operations.ts). Routes translate requests to
// operations, and results to responses. https://www.rfc-editor.org/rfc/rfc9110 (HTTP), rfc6750 (bearer tokens)
import { createHash, timingSafeEqual } from "node:crypto";
import { chmodSync, lstatSync, unlinkSync } from "node:fs";
import type { ListenOptions } from "node:net";
import type { BindEndpoint } from "../config/kinds.ts";
import { formatAddress, formatEndpoint, formatHostPort, parseAddress } from "../core/address.ts";
import { PROMETHEUS_CONTENT_TYPE, prometheusText } from "../observe/prometheus.ts";
import { stateOfSocketFile } from "../platform/in-use.ts";
import { ownSockets } from "../platform/sockets.ts";
import { shares } from "./budget.ts";
import { serveHttp, type HttpOptions, type HttpServer } from "./http-server.ts";
import type { OperationErrorName, Operations, Readiness, Result } from "./operations.ts";

export interface AdminOptions {
  bind: BindEndpoint;
  /** The bearer token; null = everyone who can connect has access. */
  token: string | null;
  operations: Operations;
  /** Connections at once; left out = their share of the descriptors. */
  connectionsMax?: number;
  /** Called with what a handler threw: a fault of this program. */
  failed?: (error: unknown) => void;
}

export interface Admin {
  /** As in the config, with the real port: "127.0.0.1:9900", "unix:/run/lb/admin.sock". */
  readonly address: string;
  /** Requests need this token from now on. */
  setToken(token: string | null): void;
  /** Stops accepting. Responses under way are finished; the file of a unix socket is removed. */
  stop(): void;
}

/** No request needs a body. */
const BODY_BYTES_MAX = 4096;
/** Idle timeout of a connection; longer than usual scrape intervals, so that scrapers can reuse theirs. */
const IDLE_MS = 75_000;

/** Starts listening. `error` is one line with the reason and the cure. */
export async function startAdmin(options: AdminOptions): Promise<Admin | { error: string }> {
  const { bind, failed } = options;
  let token = options.token;
  const started = await listen(bind, {
    connectionsMax: options.connectionsMax ?? shares().admin,
    bodyBytesMax: BODY_BYTES_MAX,
    idleMs: IDLE_MS,
    answer: async (request) => {
      const response = await answer({ request, token, options }).catch((error: unknown) => {
        failed?.(error);
        // The response does not contain the error's text, which could hold a secret.
        return problem(500, "internal error, see the log");
      });
      for (const [name, value] of Object.entries(HEADERS)) response.headers.set(name, value);
      return response;
    },
  });
  if (typeof started === "string") return { error: `the admin endpoint cannot listen on ${started}` };
  return {
    address: addressOf(bind, started),
    setToken: (next) => {
      token = next;
    },
    stop: () => started.stop(),
  };
}

const PLAIN = { "Content-Type": "text/plain; charset=utf-8" };

const HEADERS = {
  "Cache-Control": "no-store",
  "X-Content-Type-Options": "nosniff",
  "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
  "Cross-Origin-Resource-Policy": "same-origin",
  "Referrer-Policy": "no-referrer",
};

// ---------------------------------------------------------------------- requests

interface RequestContext {
  request: Request;
  token: string | null;
  options: AdminOptions;
}

interface Route {
  method: "GET" | "POST";
  path: RegExp;
  /** Needs no token: for probes, which have none. */
  open?: true;
  answer: (operations: Operations, path: RegExpExecArray) => Response | Promise<Response>;
}

const ROUTES: readonly Route[] = [
  { method: "GET", path: /^\/live$/, open: true, answer: () => plain(200, "ok") },
  { method: "GET", path: /^\/ready$/, open: true, answer: (operations) => ready(operations.readiness(null)) },
  {
    method: "GET",
    path: /^\/ready\/([^/]+)$/,
    open: true,
    answer: (operations, path) => ready(operations.readiness(decoded(path[1] ?? ""))),
  },
  { method: "GET", path: /^\/metrics$/, answer: metrics },
  { method: "GET", path: /^\/api\/status$/, answer: (operations) => json(200, operations.status()) },
  { method: "POST", path: /^\/api\/reload$/, answer: async (operations) => done(await operations.reload()) },
  {
    method: "POST",
    path: /^\/api\/workers\/(\d{1,4})\/restart$/,
    answer: (operations, path) => done(operations.restartWorker(Number(path[1]))),
  },
];

async function answer({ request, token, options }: RequestContext): Promise<Response> {
  const path = pathOf(request.url);
  const found = ROUTES.map((route) => ({ route, match: route.path.exec(path) })).find(({ match }) => match !== null);
  if (found?.route.open !== true) {
    const refused = refusal(request, token, options.bind);
    if (refused !== null) return refused;
  }
  if (found === undefined || found.match === null) return problem(404, NOT_FOUND);
  const { method } = found.route;
  // RFC 9110 section 9.3.2: HEAD is GET without the content, which the server leaves out.
  if (request.method !== method && !(method === "GET" && request.method === "HEAD")) {
    const allow = method === "GET" ? "GET, HEAD" : method;
    return problem(405, `only ${allow} is allowed here`, { Allow: allow });
  }
  return found.route.answer(options.operations, found.match);
}

const NOT_FOUND =
  "there is GET /live, /ready, /ready/LISTENER, /metrics and /api/status, and POST /api/reload and /api/workers/N/restart";

/** The response to a request without access, or null if it has access. */
function refusal(request: Request, token: string | null, bind: BindEndpoint): Response | null {
  if (token !== null) {
    if (hasToken(request, token)) return null;
    return problem(401, "a bearer token is required", { "WWW-Authenticate": 'Bearer realm="lb"' });
  }
  // Without a token, a web page could make a browser on this machine send requests here. DNS rebinding, where the page's own name
  // resolves to 127.0.0.1, shows in Host. A form or a simple fetch cannot set a custom header (CSRF).
  const host = request.headers.get("host");
  if (!isOwnHost(host, bind)) return problem(403, "the Host header must be an IP address or localhost");
  if (request.method !== "GET" && request.method !== "HEAD" && request.headers.get("x-lb-admin") !== "1") {
    return problem(403, "the header X-Lb-Admin: 1 is required");
  }
  return null;
}

/** Compares hashes, so the time depends neither on the length nor on the content of the token. */
function hasToken(request: Request, token: string): boolean {
  const given = /^bearer +(\S+) *$/i.exec(request.headers.get("authorization") ?? "")?.[1];
  const matches = timingSafeEqual(digest(given ?? ""), digest(token));
  return matches && given !== undefined;
}

function digest(text: string): Uint8Array {
  return createHash("sha256").update(text).digest();
}

/** Whether the Host header is an IP address or localhost, or is missing (HTTP/1.0, which no browser sends). */
function isOwnHost(host: string | null, bind: BindEndpoint): boolean {
  // A browser cannot connect to a unix socket.
  if (host === null || bind.kind === "unix" || bind.kind === "abstract") return true;
  const name = /^(\[[0-9a-fA-F:.]+\]|[^:[\]]+)(:\d{1,5})?$/.exec(host)?.[1]?.toLowerCase();
  if (name === undefined) return false;
  return name === "localhost" || parseAddress(name.replace(/^\[|\]$/g, "")) !== null;
}

/** Bun gives an absolute URL where Host is well-formed, and only the path where it is malformed or missing. */
function pathOf(url: string): string {
  const path = url.startsWith("/") ? url : url.replace(/^[a-z]+:\/\/[^/?#]*/i, "");
  return path.replace(/[?#].*$/s, "");
}

// ---------------------------------------------------------------------- answers

function ready(result: Result<Readiness>): Response {
  if (!result.ok) return failed(result);
  const { ready: isReady, reasons } = result.value;
  return plain(isReady ? 200 : 503, [isReady ? "ready" : "not ready", ...reasons].join("\n"));
}

/** A name in a path. One with a malformed escape stays as it is: nothing has that name. */
function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function metrics(operations: Operations): Response {
  return new Response(prometheusText(operations.status()), { headers: { "Content-Type": PROMETHEUS_CONTENT_TYPE } });
}

/** The response to an order. */
function done(result: Result<string>): Response {
  return result.ok ? json(200, { ok: true, message: result.value }) : failed(result);
}

function failed({ error }: { error: { name: OperationErrorName; detail: string; cure: string } }): Response {
  const { name, detail, cure } = error;
  return problem(STATUSES[name], detail, {}, { error: name, cure, ok: false, message: detail });
}

const STATUSES: Record<OperationErrorName, number> = {
  no_such_listener: 404,
  no_such_worker: 404,
  worker_not_running: 409,
  stopping: 409,
  reload_failed: 422,
};

/**
 * An error in the form of RFC 9457: `title` is that of the status, `detail` says what is wrong with this request. `more` are
 * extension members (section 3.2).
 */
function problem(
  status: number,
  detail: string,
  headers: Record<string, string> = {},
  more: Record<string, unknown> = {},
): Response {
  const body = `${JSON.stringify({ type: "about:blank", title: TITLES[status], status, detail, ...more }, null, 2)}\n`;
  return new Response(body, { status, headers: { "Content-Type": "application/problem+json", ...headers } });
}

/** RFC 9110 section 15. */
const TITLES: Record<number, string> = {
  401: "Unauthorized",
  403: "Forbidden",
  404: "Not Found",
  405: "Method Not Allowed",
  409: "Conflict",
  422: "Unprocessable Content",
  500: "Internal Server Error",
};

function plain(status: number, text: string, headers: Record<string, string> = {}): Response {
  return new Response(`${text}\n`, { status, headers: { ...PLAIN, ...headers } });
}

function json(status: number, value: unknown): Response {
  const headers = { "Content-Type": "application/json; charset=utf-8" };
  return new Response(`${JSON.stringify(value, null, 2)}\n`, { status, headers });
}

// ---------------------------------------------------------------------- listening

/** The server, or the address and why it cannot listen there. */
async function listen(bind: BindEndpoint, options: HttpOptions): Promise<HttpServer | string> {
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
  return `unix:${path}: ${exists ? "a file that is no socket is in its place: remove it" : reason(started)}`;
}

/** Makes a socket file that only this user may connect to, from its first moment. */
async function privately(path: string, where: ListenOptions, options: HttpOptions): Promise<HttpServer | string> {
  // A thread other than the main one has no umask of its own to set; there, the mode comes a moment later.
  const before = attempt(() => process.umask(0o177));
  // The file is made before this returns.
  const started = serveHttp(where, options);
  if (typeof before === "number") process.umask(before);
  const server = await started;
  if (typeof server !== "string") chmodSync(path, 0o600);
  return server;
}

/** Whether a socket file belongs to no one any more. */
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

/** What `work` gives, or the code of the error that it throws. */
function attempt<T>(work: () => T): T | string {
  try {
    return work();
  } catch (error) {
    return error instanceof Error && "code" in error ? String(error.code) : "an unknown error";
  }
}

function addressOf(bind: BindEndpoint, { port }: HttpServer): string {
  if (bind.kind === "ip") return formatHostPort(bind.address, port);
  return formatEndpoint(bind.kind === "any" ? { kind: "any", port } : bind);
}
