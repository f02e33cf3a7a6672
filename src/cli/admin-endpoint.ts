// Finds the admin endpoint of a running lb and its token: from --admin, from a config file, or the default. It reads only [admin] of a
// config file, so that a running lb can be asked although another part of the file is invalid.
import { existsSync, readFileSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { parse } from "smol-toml";
import { expand, type Environment } from "../config/env.ts";
import { absoluteEndpoint, absolutePath } from "../config/paths.ts";
import { formatAddress, formatEndpoint, parseEndpoint, type Endpoint } from "../core/address.ts";

/** The paths at which a config is searched if none is given, in this order. */
const DEFAULT_FILES = ["lb.toml", "/etc/lb/lb.toml"];
const DEFAULT_BIND = "127.0.0.1:9900";

export interface AdminEndpoint {
  readonly endpoint: Endpoint;
  /** "" or the path of a URL. */
  readonly path: string;
  /** null = unknown. */
  readonly token: string | null;
  /** null = plain HTTP. */
  readonly tls: AdminTrust | null;
}

/** Which certificates are accepted. */
export interface AdminTrust {
  /** Trusted certificates, PEM; null = those of the system. */
  readonly ca: string | null;
  /** `ca` is the endpoint's own certificate; its names do not matter. */
  readonly isOwn: boolean;
}

/** What the user specifies; all of it is optional. */
export interface AdminOptions {
  /** An address as in the config, or a URL. */
  admin?: string | undefined;
  config?: string | undefined;
  tokenFile?: string | undefined;
  /** File with the certificates that HTTPS trusts. */
  ca?: string | undefined;
}

/** The endpoint to ask, or one line about the invalid options or file. */
export function adminEndpoint(options: AdminOptions, env: Environment): AdminEndpoint | { error: string } {
  const found = located(options, env);
  if ("error" in found) return found;
  const given = options.tokenFile === undefined ? null : readToken(options.tokenFile);
  if (given !== null && typeof given !== "string") return given;
  const token = given ?? (env["LB_ADMIN_TOKEN"] || found.token);
  if (options.ca === undefined) return { ...found, token };
  const ca = contentOf(options.ca);
  return typeof ca === "string" ? { ...found, token, tls: { ca, isOwn: false } } : ca;
}

/** As in the config: "127.0.0.1:9900", "unix:/run/lb/admin.sock". */
export function endpointName({ endpoint }: AdminEndpoint): string {
  return formatEndpoint(endpoint);
}

/** An address or a URL, or the name of a config file. */
export function endpointOrFile(text: string): AdminOptions {
  const isFile = !text.includes("://") && (existsSync(text) || parseEndpoint(text).kind === "bad");
  return isFile ? { config: text } : { admin: text };
}

function located({ admin, config }: AdminOptions, env: Environment): AdminEndpoint | { error: string } {
  if (admin !== undefined) {
    const found = byAddress(admin);
    // The token and the certificate of a config that is given too.
    const file = config === undefined ? null : byFile(config, env);
    if ("error" in found || file === null || "error" in file) return found;
    return { ...found, token: file.token, tls: admin.startsWith("http://") ? null : (file.tls ?? found.tls) };
  }
  const file = config ?? DEFAULT_FILES.find((name) => existsSync(name));
  return file === undefined ? at(DEFAULT_BIND) : byFile(file, env);
}

function byAddress(text: string): AdminEndpoint | { error: string } {
  if (!text.includes("://")) return at(text);
  const url = URL.parse(text);
  if (url === null) return { error: `${text} is not a URL` };
  const isSecure = url.protocol === "https:";
  if (!isSecure && url.protocol !== "http:") return { error: `${text}: only http:// and https:// can be asked` };
  const found = at(`${url.hostname}:${url.port || (isSecure ? "443" : "80")}`);
  if ("error" in found) return found;
  return {
    ...found,
    path: url.pathname === "/" ? "" : url.pathname,
    tls: isSecure ? { ca: null, isOwn: false } : null,
  };
}

function at(text: string): AdminEndpoint | { error: string } {
  const endpoint = parseEndpoint(text);
  if (endpoint.kind === "bad") return { error: `${text}: ${endpoint.why}` };
  return { endpoint: reachable(endpoint), path: "", token: null, tls: null };
}

function byFile(file: string, env: Environment): AdminEndpoint | { error: string } {
  const text = contentOf(file);
  if (typeof text !== "string") return text;
  let admin: Record<string, unknown> = {};
  try {
    const { admin: table } = parse(text);
    if (typeof table === "object" && table !== null) admin = table as Record<string, unknown>;
  } catch {
    return at(DEFAULT_BIND);
  }
  if (admin["enabled"] === false)
    return { error: `${file} has the admin endpoint switched off: there is nothing to ask` };
  const given = {
    bind: textOr(admin["bind"], DEFAULT_BIND),
    token_file: textOr(admin["token_file"], ""),
    cert: textOr((admin["tls"] as { cert?: unknown } | undefined)?.cert, ""),
  };
  const { problems } = expand(given, env);
  const found = at(given.bind);
  if (problems[0] !== undefined || "error" in found) {
    return { error: `${file}: admin.bind: ${problems[0]?.message ?? ("error" in found ? found.error : "")}` };
  }
  const folder = dirname(resolve(file));
  // A user who may not read the token may have another one.
  const token = given.token_file === "" ? null : readToken(absolutePath(folder, given.token_file));
  const cert = given.cert === "" ? null : contentOf(absolutePath(folder, given.cert));
  if (cert !== null && typeof cert !== "string") return cert;
  return {
    ...found,
    tls: cert === null ? null : { ca: cert, isOwn: true },
    endpoint: absoluteEndpoint(folder, found.endpoint),
    token: typeof token === "string" ? token : null,
  };
}

function textOr(value: unknown, other: string): string {
  return typeof value === "string" ? value : other;
}

function readToken(file: string): string | { error: string } {
  const text = contentOf(file);
  if (typeof text !== "string") return text;
  return text.trim() === "" ? { error: `${file} contains no token` } : text.trim();
}

function contentOf(file: string): string | { error: string } {
  try {
    return readFileSync(file, "utf8");
  } catch (error) {
    const code = error instanceof Error && "code" in error ? ` (${String(error.code)})` : "";
    return { error: `${file} cannot be read${code}` };
  }
}

/** If the endpoint is bound to all addresses, it is asked on the loopback interface. */
function reachable(endpoint: Endpoint): Endpoint {
  if (endpoint.kind === "any") return { kind: "ip", address: LOOPBACK, port: endpoint.port };
  if (endpoint.kind !== "ip") return endpoint;
  const text = formatAddress(...endpoint.address);
  if (text === "0.0.0.0") return { ...endpoint, address: LOOPBACK };
  return text === "::" ? { ...endpoint, address: [0, 0, 0, 1] } : endpoint;
}

const LOOPBACK = [0, 0, 0xffff, 0x7f000001] as const;
