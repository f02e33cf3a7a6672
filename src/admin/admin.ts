// The admin endpoint: HTTP and access control around the operations of a running lb (operations.ts). Routes translate requests to
// operations, and results to responses. https://www.rfc-editor.org/rfc/rfc9110 (HTTP), rfc6750 (bearer tokens)
import type { BindEndpoint } from "../config/kinds.ts";
import { createSecureContext, type SecureContext } from "node:tls";
import { admit, type Credential, type Tokens } from "./access.ts";
import { failed, problem, refused } from "./answers.ts";
import type { HttpRequest, HttpResponse } from "./http-server.ts";
import { BODY_BYTES_MAX, findRoute, inputOf, type Refusal } from "./input.ts";
import { addressOf, listen } from "./listen.ts";
import type { Change, Operations, Result } from "./operations.ts";
import type { Access } from "./route.ts";
import { ROUTES } from "./routes.ts";

/** A certificate with its chain, and its key, PEM. */
export interface AdminTls {
  cert_pem: string;
  key_pem: string;
}

export interface AdminOptions {
  bind: BindEndpoint;
  tokens: Tokens;
  /** null = plain HTTP. */
  tls: AdminTls | null;
  operations: Operations;
  /** Maximum number of connections. */
  connectionsMax: number;
  /** Called with an error that a handler threw, which is a bug. */
  failed?: (error: unknown) => void;
  /** Called for each authorized change request, whether the change was made or not. */
  audit?: (entry: AuditEntry) => void;
}

export interface AuditEntry {
  /** The peer's address; "unix" on a unix socket. */
  client: string;
  credential: Credential;
  /** Method, path and query. */
  request: string;
  /** "done", or the name of the error. */
  outcome: string;
  change: Change | null;
}

export interface Admin {
  /** As in the config, with the real port: "127.0.0.1:9900", "unix:/run/lb/admin.sock". */
  readonly address: string;
  /** Requests need these tokens, and new connections use this certificate, from now on. */
  configure(options: Pick<AdminOptions, "tokens" | "tls">): void;
  /** Stops accepting. Responses in flight are completed, streams end; the file of a unix socket is removed. */
  stop(): void;
}

/** Share of the CPU: a dashboard and a few scrapers take a hundredth of a core. */
const BUDGET = { share: 0.05, burstMs: 3000 };
/** Idle connections live longer than usual scrape intervals, so that scrapers can reuse them. */
const TIMES = { requestMs: 10_000, idleMs: 75_000, stalledMs: 20_000 };
/** Maximum fraction of the connections that streams may use, so that some are always left for requests. */
const STREAMS_PART = 1 / 2;

/** Starts listening. `error` is one line with the reason and what to do about it. */
export async function startAdmin(options: AdminOptions): Promise<Admin | { error: string }> {
  const { bind, connectionsMax } = options;
  const state: State = { ...options, streams: () => 0, streamsMax: Math.floor(connectionsMax * STREAMS_PART) };
  const started = await listen(bind, {
    connectionsMax,
    bodyBytesMax: BODY_BYTES_MAX,
    times: TIMES,
    budget: BUDGET,
    tls: contextOf(options.tls),
    answer: async (request) => {
      const response = await answer(request, state).catch((error: unknown) => {
        options.failed?.(error);
        // The response does not contain the error's text, which could hold a secret.
        return problem(500, "internal error, see the log");
      });
      return { ...response, headers: { ...HEADERS, ...response.headers } };
    },
  });
  if (typeof started === "string") return { error: `the admin endpoint cannot listen on ${started}` };
  state.streams = () => started.streams();
  return {
    address: addressOf(bind, started),
    configure: ({ tokens, tls }) => {
      state.tokens = tokens;
      if (tls?.cert_pem !== state.tls?.cert_pem || tls?.key_pem !== state.tls?.key_pem) started.setTls(contextOf(tls));
      state.tls = tls;
    },
    stop: () => started.stop(),
  };
}

interface State extends AdminOptions {
  streams: () => number;
  streamsMax: number;
}

function contextOf(tls: AdminTls | null): SecureContext | null {
  return tls && createSecureContext({ cert: tls.cert_pem, key: tls.key_pem, minVersion: "TLSv1.2" });
}

const HEADERS = {
  "Cache-Control": "no-store",
  "X-Content-Type-Options": "nosniff",
  "X-Frame-Options": "DENY",
  "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
  "Cross-Origin-Resource-Policy": "same-origin",
  "Referrer-Policy": "no-referrer",
};

async function answer(request: HttpRequest, state: State): Promise<HttpResponse> {
  const found = findRoute(ROUTES, request.method, request.path);
  // Clients without access do not learn which paths exist.
  const access = "route" in found ? found.route.access : (found.access ?? accessOf(request));
  const credential = admit(request, access, state);
  if (typeof credential !== "string") return refused(credential);
  if (!("route" in found)) return refused(found);
  const { handle, reply } = found.route;
  const given = inputOf(found, request);
  if (!("is" in given)) return refused(given);
  if (reply.streams && state.streams() >= state.streamsMax) return refused(TOO_MANY_STREAMS);
  const result = await handle(state.operations, given.input);
  if (access === "change") state.audit?.(entryOf(request, credential, result));
  if (!result.ok) return failed(result.error);
  const { status, content } = reply.render(result.value);
  return { status, headers: { "Content-Type": reply.contentType, ...reply.headers }, content };
}

const TOO_MANY_STREAMS: Refusal = {
  status: 503,
  detail: "the maximum number of streams is open",
  cure: "close another /api/events or /api/logs, or raise the open-files limit",
  headers: { "Retry-After": "10" },
};

/** An audit entry as log fields. Values that are not text are JSON. */
export function auditFields({ client, credential, request, outcome, change }: AuditEntry): Record<string, string> {
  const fields = { client, credential, request, outcome };
  return change === null ? fields : { ...fields, before: textOf(change.before), after: textOf(change.after) };
}

function textOf(value: unknown): string {
  return typeof value === "string" ? value : JSON.stringify(value);
}

function entryOf(
  { peer, method, path, query }: HttpRequest,
  credential: Credential,
  result: Result<unknown>,
): AuditEntry {
  return {
    client: peer === "" ? "unix" : peer,
    credential,
    request: `${method} ${path}${query === "" ? "" : `?${query}`}`,
    outcome: result.ok ? "done" : result.error.name,
    change: (result.ok && result.change) || null,
  };
}

/** For a request without a route: everything except GET and HEAD is a change. */
function accessOf({ method }: HttpRequest): Access {
  return method === "GET" || method === "HEAD" ? "read" : "change";
}
