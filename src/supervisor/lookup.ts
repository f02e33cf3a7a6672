// The addresses of a host name, from the hosts file and by DNS as /etc/resolv.conf configures it. lb does not call getaddrinfo(3): the
// runtime runs it on its small thread pool, where a lookup that waits for a silent server would delay the writing of logs. As a
// consequence, modules of nsswitch.conf other than "files" and "dns", such as mDNS or LDAP, are not used.
import { readFileSync } from "node:fs";
import { Resolver } from "node:dns/promises";
import { parseAddress, type Address } from "../core/address.ts";

/** Where names are looked up; tests have their own. */
export interface NameSources {
  readonly hosts: string;
  readonly resolvConf: string;
  /** The addresses of one family for a name without search domains, as node:dns returns them; fails with its codes. */
  readonly ask: (name: string, family: 4 | 6) => Promise<string[]>;
}

/** Timeout of a query before it is sent again, and the number of attempts. */
const TIMEOUT_MS = 2000;
const TRIES = 2;
/** Names that are looked up together share a resolver, and so a socket, for at most this long. */
const SHARED_MS = 5000;

let resolver: Resolver | null = null;
let resolverMadeMs = 0;
let asking = 0;

// A resolver reads /etc/resolv.conf when it is made and caches answers for their TTL, so it is replaced regularly.
async function ask(name: string, family: 4 | 6): Promise<string[]> {
  if (resolver === null || asking === 0 || performance.now() - resolverMadeMs > SHARED_MS) {
    resolver = new Resolver({ timeout: TIMEOUT_MS, tries: TRIES });
    resolverMadeMs = performance.now();
  }
  asking++;
  try {
    return await (family === 4 ? resolver.resolve4(name) : resolver.resolve6(name));
  } finally {
    asking--;
  }
}

const SYSTEM: NameSources = { hosts: "/etc/hosts", resolvConf: "/etc/resolv.conf", ask };

/** The addresses of a name without duplicates, in a stable order. Throws with the reason if there are none. */
export async function lookUp(host: string, sources: NameSources = SYSTEM): Promise<Address[]> {
  const local = inHosts(textOf(sources.hosts), host);
  const texts = local.length > 0 ? local : isLocalhost(host) ? ["127.0.0.1"] : await byDns(host, sources);
  return [...new Set(texts)]
    .toSorted()
    .map(parseAddress)
    .filter((address) => address !== null);
}

function textOf(file: string): string {
  try {
    return readFileSync(file, "latin1");
  } catch {
    return "";
  }
}

/** RFC 6761 section 6.3: localhost names are never sent to a DNS server. */
function isLocalhost(host: string): boolean {
  return /(^|\.)localhost\.?$/i.test(host);
}

/** The addresses that a hosts file gives a name (hosts(5)). */
export function inHosts(text: string, host: string): string[] {
  const wanted = host.toLowerCase().replace(/\.$/, "");
  return text.split("\n").flatMap((line) => {
    const [address = "", ...names] = line.replace(/#.*/, "").trim().split(/\s+/);
    return names.some((name) => name.toLowerCase() === wanted) ? [address] : [];
  });
}

/** The names to query for a name; the first with an answer counts: resolv.conf(5), `search` and `ndots`. */
export function candidates(text: string, host: string): string[] {
  if (host.endsWith(".")) return [host.slice(0, -1)];
  let search: string[] = [];
  let ndots = 1;
  for (const line of text.split("\n")) {
    const [keyword, ...values] = line
      .replace(/[#;].*/, "")
      .trim()
      .split(/\s+/);
    if (keyword === "search" || keyword === "domain") search = values.map((domain) => domain.replace(/\.$/, ""));
    if (keyword !== "options") continue;
    for (const value of values) ndots = Number(/^ndots:(\d{1,2})$/.exec(value)?.[1] ?? ndots);
  }
  const searched = search.filter((domain) => domain !== "").map((domain) => `${host}.${domain}`);
  return host.split(".").length > ndots ? [host, ...searched] : [...searched, host];
}

async function byDns(host: string, { resolvConf, ask: askFor }: NameSources): Promise<string[]> {
  let reason = "there is no such name";
  for (const name of candidates(textOf(resolvConf), host)) {
    const answers = await Promise.allSettled([askFor(name, 4), askFor(name, 6)]);
    const found = answers.flatMap((answer) => (answer.status === "fulfilled" ? answer.value : []));
    if (found.length > 0) return found;
    const codes = answers.flatMap((answer) => (answer.status === "rejected" ? [codeOf(answer.reason)] : []));
    const trouble = codes.find((code) => !MEANS_NONE.has(code));
    if (trouble === undefined) continue;
    reason = `${TROUBLES[trouble] ?? trouble} (asked for ${name})`;
    // As in glibc: after a server's error for one name, the next name is tried; after a timeout, it is not.
    if (trouble !== "ESERVFAIL") break;
  }
  throw new Error(reason);
}

/** The server answers, and the answer is that there is no address. */
const MEANS_NONE = new Set(["ENOTFOUND", "ENODATA"]);

const TROUBLES: Record<string, string> = {
  ETIMEOUT: "no name server has answered",
  ECONNREFUSED: "no name server can be reached",
  ESERVFAIL: "the name server has failed",
};

function codeOf(error: unknown): string {
  const code = (error as { code?: unknown } | null)?.code;
  return typeof code === "string" ? code.replace(/^DNS_/, "") : String(error);
}
