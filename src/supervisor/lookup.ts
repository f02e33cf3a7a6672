// A host name's addresses, from the hosts file and by DNS, as /etc/resolv.conf has it. Not by getaddrinfo(3): the runtime calls
// that on its pool of threads, of which there are few, and one that waits for a silent server writes no log meanwhile. The
// price is that the modules of nsswitch.conf beyond "files" and "dns" have no part in it, such as mDNS or LDAP.
import { readFileSync } from "node:fs";
import { Resolver } from "node:dns/promises";
import { parseAddress, type Address } from "../core/address.ts";

/** Where names are looked up; a test has its own. */
export interface NameSources {
  readonly hosts: string;
  readonly resolvConf: string;
  /** The addresses of one family for a name as it stands, as node:dns gives them; fails with its codes. */
  readonly ask: (name: string, family: 4 | 6) => Promise<string[]>;
}

/** Of a query, before it is sent again, and how often it is sent. */
const TIMEOUT_MS = 2000;
const TRIES = 2;
/** Names that are looked up together share a resolver for so long at most, and with it a socket. */
const SHARED_MS = 5000;

let resolver: Resolver | null = null;
let resolverMadeMs = 0;
let asking = 0;

// A resolver reads /etc/resolv.conf when it is made and keeps answers for as long as they say, so each time there is a new one.
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

/** The addresses of a name, each once, in a stable order. Throws with the reason where it has none. */
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

/** RFC 6761 section 6.3: never to be asked of a server. */
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

/** The names to ask for in the place of one, the first that has an answer: resolv.conf(5), `search` and `ndots`. */
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
    // As in glibc: a server's failure about one name says nothing of the next, but whoever is silent stays so.
    if (trouble !== "ESERVFAIL") break;
  }
  throw new Error(reason);
}

/** Answers, and the answer is that there is no address. */
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
