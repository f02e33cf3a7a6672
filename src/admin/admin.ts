// The admin endpoint: HTTP and access control around the operations of a running lb (operations.ts). Routes translate requests to
// operations, and results to responses. https://www.rfc-editor.org/rfc/rfc9110 (HTTP), rfc6750 (bearer tokens)
import type { BindEndpoint } from "../config/kinds.ts";
import { refusal } from "./access.ts";
import { failed, problem, refused } from "./answers.ts";
import type { HttpRequest, HttpResponse } from "./http-server.ts";
import { BODY_BYTES_MAX, findRoute, inputOf } from "./input.ts";
import { addressOf, listen } from "./listen.ts";
import type { Operations } from "./operations.ts";
import type { Access } from "./route.ts";
import { ROUTES } from "./routes.ts";

export interface AdminOptions {
  bind: BindEndpoint;
  /** The bearer token; null = everyone who can connect has access. */
  token: string | null;
  operations: Operations;
  /** Connections at once. */
  connectionsMax: number;
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

/** Idle connections live longer than usual scrape intervals, so that scrapers can reuse theirs. */
const TIMES = { requestMs: 10_000, idleMs: 75_000, stalledMs: 20_000 };

/** Starts listening. `error` is one line with the reason and the cure. */
export async function startAdmin(options: AdminOptions): Promise<Admin | { error: string }> {
  const { bind, connectionsMax } = options;
  let token = options.token;
  const started = await listen(bind, {
    connectionsMax,
    bodyBytesMax: BODY_BYTES_MAX,
    times: TIMES,
    tls: null,
    answer: async (request) => {
      const response = await answer(request, token, options).catch((error: unknown) => {
        options.failed?.(error);
        // The response does not contain the error's text, which could hold a secret.
        return problem(500, "internal error, see the log");
      });
      return { ...response, headers: { ...HEADERS, ...response.headers } };
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

const HEADERS = {
  "Cache-Control": "no-store",
  "X-Content-Type-Options": "nosniff",
  "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
  "Cross-Origin-Resource-Policy": "same-origin",
  "Referrer-Policy": "no-referrer",
};

async function answer(request: HttpRequest, token: string | null, options: AdminOptions): Promise<HttpResponse> {
  const found = findRoute(ROUTES, request.method, request.path);
  // Who has no access does not learn which paths there are.
  const access = "route" in found ? found.route.access : (found.access ?? accessOf(request));
  const denied = refusal(request, access, { token, bind: options.bind });
  if (denied !== null) return refused(denied);
  if (!("route" in found)) return refused(found);
  const { handle, reply } = found.route;
  const given = inputOf(found, {
    query: request.query,
    contentType: request.headers.get("content-type"),
    body: request.body,
  });
  if (!("is" in given)) return refused(given);
  const result = await handle(options.operations, given.input);
  if (!result.ok) return failed(result.error);
  const { status, content } = reply.render(result.value);
  return { status, headers: { "Content-Type": reply.contentType }, content };
}

/** Of a request without a route: nothing but GET and HEAD is a read. */
function accessOf({ method }: HttpRequest): Access {
  return method === "GET" || method === "HEAD" ? "read" : "change";
}
