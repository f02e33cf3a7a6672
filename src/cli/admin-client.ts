// Requests to the admin endpoint of a running lb. They use node:http, because fetch would use the proxy of the environment and cannot reach
// abstract unix sockets.
import { request, type IncomingMessage } from "node:http";
import { request as requestSecurely, type RequestOptions } from "node:https";
import { formatAddress, type Endpoint } from "../core/address.ts";
import { endpointName, type AdminEndpoint, type AdminTrust } from "./admin-endpoint.ts";

/** Timeout of a request without an answer. */
const TIMEOUT_MS = 10_000;

/** Why a request failed, in one line, and what to do about it ("" = unknown). */
export class AdminError extends Error {
  readonly cure: string;
  /** Whether what was asked for is wrong in itself: status 400. */
  readonly isBadUsage: boolean;

  constructor(message: string, cure = "", isBadUsage = false) {
    super(message);
    this.cure = cure;
    this.isBadUsage = isBadUsage;
  }
}

export interface AdminRequest {
  method: "GET" | "POST" | "PATCH" | "DELETE";
  path: string;
  /** Undefined values are omitted. */
  query?: Record<string, string | number | undefined>;
  /** Sent as JSON. */
  body?: unknown;
  timeoutMs?: number;
}

export class AdminClient {
  readonly #endpoint: AdminEndpoint;

  constructor(endpoint: AdminEndpoint) {
    this.#endpoint = endpoint;
  }

  get name(): string {
    return endpointName(this.#endpoint);
  }

  /** The answer, whatever its status. Throws AdminError if there is none. */
  async ask(asked: AdminRequest): Promise<{ status: number; text: string }> {
    const answer = await this.#send(asked);
    return { status: answer.statusCode ?? 0, text: await textOf(answer) };
  }

  /** The JSON of a successful answer. Throws AdminError. */
  async json<T>(asked: AdminRequest): Promise<T> {
    const { status, text } = await this.ask(asked);
    if (status >= 300) throw this.#refusal(status, text);
    try {
      return JSON.parse(text) as T;
    } catch {
      throw new AdminError(`${this.name} answered with something that is not JSON`, "is it lb?");
    }
  }

  /** The lines of a streamed answer, until lb or the caller ends it. Throws AdminError. */
  async *lines(asked: AdminRequest, signal?: AbortSignal): AsyncGenerator<string> {
    const answer = await this.#send(asked);
    const status = answer.statusCode ?? 0;
    if (status >= 300) throw this.#refusal(status, await textOf(answer));
    signal?.addEventListener("abort", () => answer.destroy(), { once: true });
    answer.setEncoding("utf8");
    let rest = "";
    try {
      for await (const chunk of answer as AsyncIterable<string>) {
        const lines = (rest + chunk).split("\n");
        rest = lines.pop() ?? "";
        yield* lines;
      }
    } catch (error) {
      if (signal?.aborted !== true) throw new AdminError(`${this.name} ended the answer (${codeOf(error)})`);
    }
  }

  #send({ method, path, query = {}, body, timeoutMs = TIMEOUT_MS }: AdminRequest): Promise<IncomingMessage> {
    const { endpoint, token, tls } = this.#endpoint;
    const content = body === undefined ? null : JSON.stringify(body);
    const search = new URLSearchParams();
    for (const [key, value] of Object.entries(query)) if (value !== undefined) search.set(key, String(value));
    const headers: Record<string, string> = { Host: "localhost", "X-Lb-Admin": "1", Accept: "application/json" };
    if (token !== null) headers["Authorization"] = `Bearer ${token}`;
    if (content !== null) headers["Content-Type"] = "application/json";
    const options = {
      ...target(endpoint),
      ...(tls && trust(tls, endpoint)),
      method,
      path: search.size === 0 ? path : `${path}?${search}`,
      headers,
    };
    return send({ ...options, agent: false }, content, { name: this.name, timeoutMs, isSecure: tls !== null });
  }

  // The error of an answer: a problem of RFC 9457, or any other content.
  #refusal(status: number, text: string): AdminError {
    const isRefused = this.#endpoint.token !== null;
    if (status === 401)
      return new AdminError(`${this.name} ${isRefused ? "does not accept the token" : "needs a token"}`, TOKEN_CURE);
    const { detail, cure } = problemOf(text) ?? { detail: `${this.name} answered with status ${status}`, cure: "" };
    if (status !== 400) return new AdminError(detail, cure);
    // Users of commands do not know the parts of a request and the document that describes them.
    return new AdminError(detail.replace(/^(body|query)\./, ""), cure.includes("openapi.json") ? "" : cure, true);
  }
}

/** What a problem of RFC 9457 says; null = the text is none. */
export function problemOf(text: string): { detail: string; cure: string } | null {
  try {
    const { detail, cure } = JSON.parse(text) as { detail?: unknown; cure?: unknown };
    return typeof detail === "string" ? { detail, cure: typeof cure === "string" ? cure : "" } : null;
  } catch {
    return null;
  }
}

const TOKEN_CURE = "give it with --token-file or in LB_ADMIN_TOKEN";
const TRUST_CURE = "give the certificates to trust with --ca, or the config of lb with --config";
const REACH_CURE = "is lb running? Give its address with --admin, or its config with --config";

function send(
  options: RequestOptions,
  content: string | null,
  { name, timeoutMs, isSecure }: { name: string; timeoutMs: number; isSecure: boolean },
): Promise<IncomingMessage> {
  const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
  const fail = (why: string, cure = ""): void => reject(new AdminError(`${name} ${why}`, cure));
  const outgoing = (isSecure ? requestSecurely : request)(options, (answer) => {
    clearTimeout(timer);
    resolve(answer);
  });
  const timer = setTimeout(() => {
    fail(`did not answer within ${timeoutMs / 1000} s`);
    outgoing.destroy();
  }, timeoutMs);
  outgoing.on("error", (error) => {
    clearTimeout(timer);
    fail(...reasonOf(codeOf(error), isSecure));
  });
  outgoing.end(content ?? undefined);
  return promise;
}

function reasonOf(code: string, isSecure: boolean): [why: string, cure: string] {
  if (code.startsWith("HPE_")) return ["does not speak HTTP", ""];
  if (/VERIFY|CERT|ALTNAME|SIGNED|ISSUER/.test(code))
    return [`has a certificate that is not trusted (${code})`, TRUST_CURE];
  if (/SSL|TLS|EPROTO/.test(code)) return [`does not speak TLS (${code})`, "is it http://?"];
  if (code === "ECONNRESET") return ["closed the connection without an answer", isSecure ? "" : "is it https://?"];
  return [`cannot be reached (${code})`, REACH_CURE];
}

function codeOf(error: unknown): string {
  return error instanceof Error && "code" in error ? String(error.code) : String(error);
}

async function textOf(answer: IncomingMessage): Promise<string> {
  answer.setEncoding("utf8");
  let text = "";
  for await (const chunk of answer as AsyncIterable<string>) text += chunk;
  return text;
}

/**
 * The endpoint's own certificate is sufficient, without its issuer's and for any name. Otherwise the certificate must match the endpoint's
 * name: without `servername`, node:http takes the name from Host.
 */
function trust({ ca, isOwn }: AdminTrust, endpoint: Endpoint): RequestOptions {
  const servername = endpoint.kind === "name" ? endpoint.host : "";
  const options = { servername, ...(ca !== null && { ca }) };
  return isOwn ? { ...options, allowPartialTrustChain: true, checkServerIdentity: () => undefined } : options;
}

function target(endpoint: Endpoint): RequestOptions {
  switch (endpoint.kind) {
    case "unix":
      return { socketPath: endpoint.path };
    case "abstract":
      return { socketPath: `\0${endpoint.name}` };
    case "name":
      return { host: endpoint.host, port: endpoint.port };
    case "ip":
      return { host: formatAddress(...endpoint.address), port: endpoint.port };
    case "any":
      return { host: "127.0.0.1", port: endpoint.port };
  }
}
