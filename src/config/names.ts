// DNS names as TLS uses them: in certificates, in `sni` and in `server_name`. Always A-labels, in lower case.
import { domainToASCII } from "node:url";
import { parseAddress } from "../core/address.ts";

export type DnsName = { is: "name"; name: string } | { is: "bad"; why: string; meant?: string };

/** "www.example.com" or, where wildcards are allowed, "*.example.com". */
export function dnsName(text: string, allows: { wildcard: boolean }): DnsName {
  const bad = (why: string, meant = ""): DnsName => ({ is: "bad", why, ...(meant !== "" && { meant }) });
  if (/[^\0-\x7f]/.test(text)) return bad("it must be in its ASCII form", domainToASCII(text));
  // RFC 6066 section 3: IP addresses are not server names.
  if (parseAddress(text.replace(/^\[(.*)\]$/, "$1")) !== null) return bad("TLS sends no IP address as a name");
  if (text.endsWith(".")) {
    const without = dnsName(text.slice(0, -1), allows);
    return bad("it must have no dot at its end", without.is === "name" ? without.name : "");
  }
  const name = text.toLowerCase();
  const rest = allows.wildcard && name.startsWith("*.") ? name.slice(2) : name;
  if (rest.includes("*")) {
    if (!allows.wildcard) return bad("it must be one name, without *");
    return bad('* stands for a whole first label, as in "*.example.com"');
  }
  if (rest.length > 253) return bad("it has more than 253 characters");
  return rest.split(".").every((label) => labelForm.test(label)) ? { is: "name", name } : bad("it is not a DNS name");
}

/** Letters, digits and hyphens (RFC 1035 section 2.3.1), and underscores, which occur in certificates. */
const labelForm = /^(?!-)[a-z0-9_-]{1,63}(?<!-)$/;
