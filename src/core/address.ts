// IP addresses, CIDRs and endpoints as values: parsing and formatting. Nothing here looks up a name or opens a socket.

/**
 * Four unsigned 32-bit words, most significant first, in IPv6 form. An IPv4 address always has the mapped form
 * [0, 0, 0xffff, v4] (RFC 4291 section 2.5.5.2), so each address has one value, whatever the family of its socket.
 */
export type Address = readonly [number, number, number, number];

/** The address of a listener or a backend. `name` is in lower case; ports are 0..65535. */
export type Endpoint =
  | { kind: "ip"; address: Address; port: number }
  | { kind: "any"; port: number }
  | { kind: "name"; host: string; port: number }
  | { kind: "unix"; path: string }
  | { kind: "abstract"; name: string };

/** `prefix` is 0..128 on the mapped form: an IPv4 /24 is 120. The other bits of `address` are zero. */
export interface Cidr {
  address: Address;
  prefix: number;
}

/** Maximum length of a unix socket's path or abstract name in bytes: sun_path holds 108, one of which is a NUL (unix(7)). */
export const UNIX_NAME_BYTES_MAX = 107;

/** Whether the words are an IPv4 address, which is then the fourth word. */
export function isIPv4(w0: number, w1: number, w2: number): boolean {
  return w0 === 0 && w1 === 0 && w2 === 0xffff;
}

/**
 * Parses a dotted quad (four decimal numbers without leading zeros, RFC 6943 section 3.1.1's strict form) or an IPv6
 * address (RFC 4291 section 2.2, `::` and an embedded IPv4 address included). No brackets, no zone ids. Null if the text
 * is neither.
 */
export function parseAddress(text: string): Address | null {
  if (text.includes(":")) return parseIPv6(text);
  const v4 = parseIPv4(text, 0);
  return v4 < 0 ? null : [0, 0, 0xffff, v4];
}

/** The canonical text (RFC 5952; an IPv4 address as a dotted quad). */
export function formatAddress(w0: number, w1: number, w2: number, w3: number): string {
  if (isIPv4(w0, w1, w2)) return `${w3 >>> 24}.${(w3 >>> 16) & 0xff}.${(w3 >>> 8) & 0xff}.${w3 & 0xff}`;
  return formatGroups([w0 >>> 16, w0 & 0xffff, w1 >>> 16, w1 & 0xffff, w2 >>> 16, w2 & 0xffff, w3 >>> 16, w3 & 0xffff]);
}

/** The address in four cells from `at`, as the ledger keeps it: Int32, while the words of an Address are unsigned. */
export function addressAt(words: Int32Array, at: number): Address {
  return [words[at]! >>> 0, words[at + 1]! >>> 0, words[at + 2]! >>> 0, words[at + 3]! >>> 0];
}

/** Whether the five cells of an address and its port belong to a unix peer, which has no address. */
export function isUnixPeerAt(words: Int32Array, at: number): boolean {
  return (words[at]! | words[at + 1]! | words[at + 2]! | words[at + 3]! | words[at + 4]!) === 0;
}

/** "10.0.0.1:80" or "[2001:db8::1]:80". */
export function formatHostPort(address: Address, port: number): string {
  const host = formatAddress(...address);
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}

/** A word with its first `bits` bits kept and the others zero. `bits` below 0 counts as 0, above 32 as 32. */
export function maskWord(word: number, bits: number): number {
  if (bits <= 0) return 0;
  return bits >= 32 ? word >>> 0 : (word & (-1 << (32 - bits))) >>> 0;
}

/**
 * Parses "10.0.0.1:80", "[2001:db8::1]:80", "name.example:80", ":8080" (every address), "unix:/path" or "unix:@name".
 * `why` is one line for the author of the text. A path may be relative; the caller decides to what.
 */
export function parseEndpoint(text: string): Endpoint | { kind: "bad"; why: string } {
  if (text.startsWith("unix:")) return parseUnix(text.slice("unix:".length));
  if (text.startsWith("[")) return parseBracketed(text);
  const colon = text.lastIndexOf(":");
  if (colon < 0) return bad(`no port: expected something like "${text || "10.0.0.1"}:80"`);
  const host = text.slice(0, colon);
  if (host.includes(":")) {
    return bad(
      parseAddress(text)
        ? `no port: an IPv6 address with one is "[${text}]:80"`
        : 'more than one colon: an IPv6 address goes in brackets, as in "[2001:db8::1]:80"',
    );
  }
  const port = parsePort(text.slice(colon + 1));
  if (port < 0) return bad(`"${text.slice(colon + 1)}" is not a port number (0 to 65535)`);
  if (host === "") return { kind: "any", port };
  if (host === "*") return bad(`every address is written ":${port}"`);
  const address = parseAddress(host);
  if (address) return { kind: "ip", address, port };
  const why = whyNotName(host);
  return why ? bad(why) : { kind: "name", host: host.toLowerCase(), port };
}

/** The canonical text, which `parseEndpoint` parses to the same value: two endpoints are equal if their texts are. */
export function formatEndpoint(endpoint: Endpoint): string {
  switch (endpoint.kind) {
    case "ip":
      return formatHostPort(endpoint.address, endpoint.port);
    case "any":
      return `:${endpoint.port}`;
    case "name":
      return `${endpoint.host}:${endpoint.port}`;
    case "unix":
      return `unix:${endpoint.path}`;
    case "abstract":
      return `unix:@${endpoint.name}`;
  }
}

/** Parses "10.0.0.0/8", "2001:db8::/32" or a single address. `bad` is one line for the author of the text. */
export function parseCidr(text: string): Cidr | { bad: string } {
  const slash = text.indexOf("/");
  const host = slash < 0 ? text : text.slice(0, slash);
  const address = parseAddress(host);
  if (!address) return { bad: `"${host}" is not an IP address` };
  if (slash < 0) return { address, prefix: 128 };
  // The notation decides what the prefix counts: "::ffff:10.0.0.0/104" is 10.0.0.0/8 in IPv6 notation.
  const width = host.includes(":") ? 128 : 32;
  const digits = text.slice(slash + 1);
  if (!/^(0|[1-9]\d{0,2})$/.test(digits) || Number(digits) > width) {
    return { bad: `"${digits}" is not a prefix length (0 to ${width})` };
  }
  const prefix = 128 - width + Number(digits);
  const network = maskAddress(address, prefix);
  if (network.some((word, i) => word !== address[i])) {
    return { bad: `${text} has host bits set: did you mean ${formatCidr({ address: network, prefix })}?` };
  }
  return { address, prefix };
}

/** "10.0.0.0/8", "2001:db8::/32"; a single address gets its prefix length too. */
export function formatCidr(cidr: Cidr): string {
  const [w0, w1, w2] = cidr.address;
  const inIPv4 = isIPv4(w0, w1, w2) && cidr.prefix >= 96;
  return `${formatAddress(...cidr.address)}/${inIPv4 ? cidr.prefix - 96 : cidr.prefix}`;
}

/** An address with its first `prefix` bits (0..128, on the mapped form) kept and the others zero. */
export function maskAddress(address: Address, prefix: number): Address {
  const [w0, w1, w2, w3] = address;
  return [maskWord(w0, prefix), maskWord(w1, prefix - 32), maskWord(w2, prefix - 64), maskWord(w3, prefix - 96)];
}

const DOT = 0x2e;
const COLON = 0x3a;

/** The dotted quad in the rest of the text from `from`, as an unsigned word, or -1. */
function parseIPv4(text: string, from: number): number {
  let address = 0;
  let at = from;
  for (let quad = 0; quad < 4; quad++) {
    if (quad > 0 && text.charCodeAt(at++) !== DOT) return -1;
    const start = at;
    let value = 0;
    while (at < text.length && at - start < 3) {
      const digit = text.charCodeAt(at) - 0x30;
      if (digit < 0 || digit > 9) break;
      value = value * 10 + digit;
      at++;
    }
    const leadingZero = at - start > 1 && text.charCodeAt(start) === 0x30;
    if (at === start || leadingZero || value > 255) return -1;
    address = address * 256 + value;
  }
  return at === text.length ? address : -1;
}

function parseIPv6(text: string): Address | null {
  const groups: number[] = [];
  let gap = -1;
  let at = 0;
  if (text.startsWith("::")) {
    gap = 0;
    at = 2;
  }
  while (at < text.length) {
    if (groups.length === 8) return null;
    const start = at;
    let value = 0;
    for (let digit; at - start < 5 && (digit = hexDigit(text.charCodeAt(at))) >= 0; at++) value = value * 16 + digit;
    if (text.charCodeAt(at) === DOT) {
      const v4 = parseIPv4(text, start);
      if (v4 < 0) return null;
      groups.push(v4 >>> 16, v4 & 0xffff);
      break;
    }
    if (at === start || at - start > 4) return null;
    groups.push(value);
    if (at === text.length) break;
    if (text.charCodeAt(at++) !== COLON || at === text.length) return null;
    if (text.charCodeAt(at) === COLON) {
      if (gap >= 0) return null;
      gap = groups.length;
      at++;
    }
  }
  // "::" stands for one or more groups of zeros (RFC 4291 section 2.2).
  if (gap < 0 ? groups.length !== 8 : groups.length > 7) return null;
  if (gap >= 0) groups.splice(gap, 0, ...Array<number>(8 - groups.length).fill(0));
  const word = (i: number) => (groups[i] as number) * 0x10000 + (groups[i + 1] as number);
  return [word(0), word(2), word(4), word(6)];
}

/** NaN, which charCodeAt returns beyond the end, is not a digit either. */
function hexDigit(code: number): number {
  if (code >= 0x30 && code <= 0x39) return code - 0x30;
  const lower = code | 0x20;
  return lower >= 0x61 && lower <= 0x66 ? lower - 0x57 : -1;
}

/** RFC 5952 section 4: lower case, no leading zeros, the longest run of two or more zero groups (the first of equals) as "::". */
function formatGroups(groups: readonly number[]): string {
  let runStart = -1;
  let runLength = 1;
  for (let i = 0; i < 8; i++) {
    let end = i;
    while (end < 8 && groups[end] === 0) end++;
    if (end - i > runLength) {
      runStart = i;
      runLength = end - i;
    }
    if (end > i) i = end;
  }
  const hex = groups.map((group) => group.toString(16));
  if (runStart < 0) return hex.join(":");
  return `${hex.slice(0, runStart).join(":")}::${hex.slice(runStart + runLength).join(":")}`;
}

function parseUnix(path: string): Endpoint | { kind: "bad"; why: string } {
  const abstract = path.startsWith("@");
  const name = abstract ? path.slice(1) : path;
  if (name === "") return bad(abstract ? 'no name after "unix:@"' : 'no path after "unix:"');
  if (name.includes("\0")) return bad("a unix socket's name cannot hold a NUL");
  const bytes = new TextEncoder().encode(name).length;
  if (bytes > UNIX_NAME_BYTES_MAX)
    return bad(`${bytes} bytes: a unix socket's name has at most ${UNIX_NAME_BYTES_MAX}`);
  return abstract ? { kind: "abstract", name } : { kind: "unix", path: name };
}

function parseBracketed(text: string): Endpoint | { kind: "bad"; why: string } {
  const close = text.indexOf("]");
  if (close < 0) return bad('no "]" after the IPv6 address');
  const host = text.slice(1, close);
  if (host.includes("%")) return bad("zone ids are not supported");
  const address = host.includes(":") ? parseAddress(host) : null;
  if (!address) return bad(`"${host}" is not an IPv6 address`);
  if (text[close + 1] !== ":") return bad(`no port: expected "[${host}]:80"`);
  const port = parsePort(text.slice(close + 2));
  if (port < 0) return bad(`"${text.slice(close + 2)}" is not a port number (0 to 65535)`);
  return { kind: "ip", address, port };
}

/** -1 if it is not a decimal number from 0 to 65535. */
function parsePort(text: string): number {
  const port = /^(0|[1-9]\d{0,4})$/.test(text) ? Number(text) : -1;
  return port > 65535 ? -1 : port;
}

/** RFC 1123 section 2.1, and the underscore that service names use. A trailing dot is allowed: it makes a name absolute. */
function whyNotName(host: string): string | null {
  const name = host.endsWith(".") ? host.slice(0, -1) : host;
  if (name.length > 253) return `${name.length} characters: a host name has at most 253`;
  const labels = name.split(".");
  // Resolvers read "10.1", "0x7f.1" and "1.2.3.256" as numbers in their own ways, so a name must not end in a number.
  if (/^(\d+|0x[\da-f]*)$/i.test(labels.at(-1) as string)) return `"${host}" is not an IPv4 address`;
  const wrong = labels.find((label) => !/^[a-z\d_]([a-z\d_-]{0,61}[a-z\d_])?$/i.test(label));
  return wrong === undefined ? null : `"${host}" is neither an IP address nor a host name`;
}

function bad(why: string): { kind: "bad"; why: string } {
  return { kind: "bad", why };
}
