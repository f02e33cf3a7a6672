// Who may use the admin endpoint: bearer tokens, and what keeps web pages out where there is none.
// https://www.rfc-editor.org/rfc/rfc6750
import { createHash, timingSafeEqual } from "node:crypto";
import type { BindEndpoint } from "../config/kinds.ts";
import { parseAddress } from "../core/address.ts";
import type { HttpRequest } from "./http-server.ts";
import type { Refusal } from "./input.ts";
import type { Access } from "./route.ts";

/** What is wrong with a request without access, or null if it has access. */
export function refusal(
  request: HttpRequest,
  access: Access,
  { token, bind }: { token: string | null; bind: BindEndpoint },
): Refusal | null {
  if (access === "open") return null;
  if (token !== null) {
    if (hasToken(request, token)) return null;
    return {
      status: 401,
      detail: "a bearer token is required",
      cure: "send the content of admin.token_file with the header Authorization: Bearer TOKEN",
      headers: { "WWW-Authenticate": 'Bearer realm="lb"' },
    };
  }
  // Without a token, a web page could make a browser on this machine send requests here. DNS rebinding, where the page's own name
  // resolves to 127.0.0.1, shows in Host. A form or a simple fetch cannot set a custom header (CSRF).
  const host = request.headers.get("host");
  if (!isOwnHost(host, bind)) return { status: 403, detail: "the Host header must be an IP address or localhost" };
  if (access === "change" && request.headers.get("x-lb-admin") !== "1") {
    return { status: 403, detail: "the header X-Lb-Admin: 1 is required" };
  }
  return null;
}

/** Compares hashes, so the time depends neither on the length nor on the content of the token. */
function hasToken(request: HttpRequest, token: string): boolean {
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
