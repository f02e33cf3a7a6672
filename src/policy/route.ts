// Routes a connection to a pool by its facts: its server name, its ALPN protocols, its client. Pure: the content of a ClientHello is passed
// in as facts.
import type { CidrTable } from "../core/cidr-set.ts";
import { cidrHas } from "../core/cidr-set.ts";

/** Conditions, all of which must hold, and the pool for connections that match. Plain data, for structured clone. */
export interface Route {
  /** Names in the form of `canonicalName`, one of which must be the client's; `*.` covers one label. Empty: any name, or none. */
  sni: readonly string[];
  /** Protocols, one of which the client must offer. Empty: any, or none. */
  alpn: readonly string[];
  /** Prefixes, one of which must contain the client's address. null: any address. */
  clients: CidrTable | null;
  pool: number;
}

/** The facts of a connection. The words are the client's address in the form of `Address`. */
export interface RouteFacts {
  /** In lower case, without a dot at the end. */
  sni: string | null;
  alpn: readonly string[];
  w0: number;
  w1: number;
  w2: number;
  w3: number;
}

/** The pool of the first route that matches, or -1. */
export function chooseRoute(routes: readonly Route[], facts: RouteFacts): number {
  const { sni } = facts;
  const wildcard = sni === null ? null : wildcardOf(sni);
  for (const route of routes) {
    if (route.sni.length > 0 && (sni === null || !hasName(route.sni, sni, wildcard))) continue;
    if (route.alpn.length > 0 && !hasAny(route.alpn, facts.alpn)) continue;
    if (route.clients !== null && !cidrHas(route.clients, facts.w0, facts.w1, facts.w2, facts.w3)) continue;
    return route.pool;
  }
  return -1;
}

/** Whether the name is the pattern, or the pattern is `*.` and the part of the name after its first label. Case is ignored. */
export function nameMatches(pattern: string, name: string): boolean {
  const wanted = canonicalName(pattern);
  const given = canonicalName(name);
  return given !== "" && (wanted === given || wanted === wildcardOf(given));
}

/** A name or a pattern in the form of routes: in lower case, without a dot at the end. */
export function canonicalName(name: string): string {
  return (name.endsWith(".") ? name.slice(0, -1) : name).toLowerCase();
}

/** The one pattern with a wildcard that covers the name: "*.b.c" for "a.b.c"; null if there is none. */
function wildcardOf(name: string): string | null {
  const dot = name.indexOf(".");
  return dot > 0 ? `*${name.slice(dot)}` : null;
}

function hasName(patterns: readonly string[], name: string, wildcard: string | null): boolean {
  for (const pattern of patterns) if (pattern === name || pattern === wildcard) return true;
  return false;
}

function hasAny(wanted: readonly string[], offered: readonly string[]): boolean {
  for (const protocol of wanted) if (offered.includes(protocol)) return true;
  return false;
}
