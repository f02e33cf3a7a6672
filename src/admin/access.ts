// Access to the admin endpoint: bearer tokens (https://www.rfc-editor.org/rfc/rfc6750), and without a token the protection against web
// pages.
import { createHash, timingSafeEqual } from "node:crypto";
import type { BindEndpoint } from "../config/kinds.ts";
import { parseAddress } from "../core/address.ts";
import type { HttpRequest } from "./http-server.ts";
import type { Refusal } from "./input.ts";
import type { Access } from "./route.ts";

/** The bearer tokens; null = none, so everyone who can connect has access. */
export interface Tokens {
  /** The token for all requests. */
  full: string | null;
  /** The token for GET and HEAD only. */
  read: string | null;
}

/** What gave a request access, for the audit line. */
export type Credential = "token" | "read_token" | "none";

export interface Policy {
  tokens: Tokens;
  bind: BindEndpoint;
}

/** What is wrong with a request without access, or what gave it access. */
export function admit(request: HttpRequest, access: Access, { tokens, bind }: Policy): Refusal | Credential {
  if (access === "open") return "none";
  if (isCrossSite(request)) {
    return { status: 403, detail: "the request comes from a page of another origin", cure: "open lb's own address" };
  }
  if (tokens.full !== null) return admitToken(request, access, tokens);
  // Without a token, a web page could make a browser on this machine send requests here. DNS rebinding, where the page's own name
  // resolves to 127.0.0.1, shows in Host. A form or a simple fetch cannot set a custom header (CSRF).
  const host = request.headers.get("host");
  if (!isOwnHost(host, bind)) {
    return {
      status: 403,
      detail: "the Host header must be an IP address or localhost",
      cure: "or set admin.token_file",
    };
  }
  if (access === "change" && request.headers.get("x-lb-admin") !== "1") {
    return { status: 403, detail: "the header X-Lb-Admin: 1 is required", cure: "send it with every change" };
  }
  return "none";
}

function admitToken(request: HttpRequest, access: Access, { full, read }: Tokens): Refusal | Credential {
  const given = /^bearer +(\S+) *$/i.exec(request.headers.get("authorization") ?? "")?.[1];
  // Both are always compared, so the time does not show which one is similar.
  const isFull = isSame(given, full);
  const isRead = isSame(given, read);
  if (isFull) return "token";
  if (!isRead) {
    return {
      status: 401,
      detail: "a bearer token is required",
      cure: "send the content of admin.token_file with the header Authorization: Bearer TOKEN",
      headers: { "WWW-Authenticate": 'Bearer realm="lb"' },
    };
  }
  // A POST needs the other token even if it changes nothing.
  if (access === "read" && (request.method === "GET" || request.method === "HEAD")) return "read_token";
  return {
    status: 403,
    detail: "this token allows GET only",
    cure: "send the token of admin.token_file for everything but GET",
    headers: { "WWW-Authenticate": 'Bearer realm="lb", error="insufficient_scope"' },
  };
}

/** Compares hashes, so the time depends neither on the length nor on the content of the token. */
function isSame(given: string | undefined, token: string | null): boolean {
  const matches = timingSafeEqual(digest(given ?? ""), digest(token ?? ""));
  return matches && given !== undefined && token !== null;
}

function digest(text: string): Uint8Array {
  return createHash("sha256").update(text).digest();
}

/**
 * Whether a page of another origin made a browser send this (https://www.w3.org/TR/fetch-metadata/). Older browsers send only Origin, and
 * only with changes. Other programs send neither.
 */
function isCrossSite({ headers }: HttpRequest): boolean {
  const site = headers.get("sec-fetch-site");
  if (site !== null) return site !== "same-origin" && site !== "none";
  const origin = headers.get("origin");
  return origin !== null && origin.replace(/^https?:\/\//i, "") !== headers.get("host");
}

/** Whether the Host header is an IP address or localhost, or is missing (HTTP/1.0, which no browser sends). */
function isOwnHost(host: string | null, bind: BindEndpoint): boolean {
  // A browser cannot connect to a unix socket.
  if (host === null || bind.kind === "unix" || bind.kind === "abstract") return true;
  const name = /^(\[[0-9a-fA-F:.]+\]|[^:[\]]+)(:\d{1,5})?$/.exec(host)?.[1]?.toLowerCase();
  if (name === undefined) return false;
  return name === "localhost" || parseAddress(name.replace(/^\[|\]$/g, "")) !== null;
}
