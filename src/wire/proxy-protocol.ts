// The PROXY protocol, versions 1 and 2: parses and writes headers. Section numbers are those of HAProxy's
// "The PROXY protocol, Versions 1 & 2" (https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt). It does not decide from which
// peers a header is accepted.
import type { Address } from "../core/address.ts";
import { formatAddress, isIPv4, parseAddress } from "../core/address.ts";
import { latin1 } from "./latin1.ts";
import {
  SSL_CLIENT_CERT_CONN,
  SSL_CLIENT_CERT_SESS,
  SSL_CLIENT_SSL,
  TLV,
  UNIQUE_ID_BYTES_MAX,
  checksumOffset,
  headerChecksum,
  readTlvs,
  tlvFault,
} from "./proxy-tlvs.ts";
import type { Tlvs } from "./proxy-tlvs.ts";

export type { SslTlv, Tlvs } from "./proxy-tlvs.ts";
export { UNIQUE_ID_BYTES_MAX, describeTlvs } from "./proxy-tlvs.ts";

/** Maximum length of a version 1 line, CR and LF included (section 2.1). */
export const PROXY_V1_BYTES_MAX = 107;

/**
 * Maximum length of a version 2 header, TLVs included. The standard allows 65,551 bytes; a header without TLVs has 232 bytes at most,
 * and one with every registered TLV fits into 4 KB.
 */
export const PROXY_V2_BYTES_MAX = 4096;

/** Maximum length of a text that is sent in a TLV: a server name (RFC 6066 section 3) and an ALPN name have 255 bytes at most. */
export const SENT_TEXT_BYTES_MAX = 255;

/** One end of a connection. */
export interface ProxyEnd {
  address: Address;
  port: number;
}

export interface ProxyHeader {
  version: 1 | 2;
  /** "local": the sender's own connection, such as a health check; the endpoints are those of the connection itself. */
  command: "proxy" | "local";
  /** Both null if the header has no IP addresses: LOCAL, UNKNOWN, UNSPEC, UNIX. */
  source: ProxyEnd | null;
  destination: ProxyEnd | null;
  /** Null if there are none, with LOCAL, and if they cannot be distinguished from addresses. */
  tlvs: Tlvs | null;
}

export type ProxyAnswer =
  | { is: "more" }
  /** `length` is the number of bytes of the header; the client's own bytes follow. */
  | { is: "proxy"; header: ProxyHeader; length: number }
  /** The bytes begin with neither version's signature. */
  | { is: "none" }
  | { is: "bad"; why: string };

/**
 * Parses the header at the beginning of `bytes`, which are all bytes that have arrived. The answer is "more" only while some
 * continuation is a valid header (except for a checksum, which is verified at the end). Any other answer is final. Call it again with
 * each segment: it reads PROXY_V2_BYTES_MAX bytes at most.
 */
export function parseProxyHeader(bytes: Uint8Array): ProxyAnswer {
  if (bytes.length === 0) return MORE;
  const signature = bytes[0] === V1_SIGNATURE[0] ? V1_SIGNATURE : V2_SIGNATURE;
  const arrived = Math.min(bytes.length, signature.length);
  for (let i = 0; i < arrived; i++) if (bytes[i] !== signature[i]) return NONE;
  if (arrived < signature.length) return MORE;
  return signature === V1_SIGNATURE ? parseV1(bytes) : parseV2(bytes);
}

/** The line of version 1 (section 2.1). Without both endpoints it is UNKNOWN; if only one of them is IPv4, both are sent as IPv6. */
export function proxyHeaderV1(source: ProxyEnd | null, destination: ProxyEnd | null): Uint8Array {
  if (source === null || destination === null) return text.encode("PROXY UNKNOWN\r\n");
  const inIPv4 = isV4(source) && isV4(destination);
  const from = inIPv4 ? formatAddress(...source.address) : formatAsIPv6(source.address);
  const to = inIPv4 ? formatAddress(...destination.address) : formatAsIPv6(destination.address);
  return text.encode(`PROXY ${inIPv4 ? "TCP4" : "TCP6"} ${from} ${to} ${source.port} ${destination.port}\r\n`);
}

/** The content of a version 2 header. A TLV without a value, or with a value longer than SENT_TEXT_BYTES_MAX, is left out. */
export interface ProxyHeaderV2 {
  command: "proxy" | "local";
  source: ProxyEnd | null;
  destination: ProxyEnd | null;
  authority?: string | null;
  /** One character per byte. */
  alpn?: string | null;
  tls?: {
    version: string;
    cipher?: string | null;
    /** The client's verified certificate: its common name ("" = none), and whether the session is resumed. */
    clientCertificate?: { readonly name: string; readonly resumed: boolean } | null;
  } | null;
  /** At most UNIQUE_ID_BYTES_MAX bytes, else a RangeError. */
  uniqueId?: Uint8Array | null;
  /** Whether to add a CRC32C. */
  crc?: boolean;
}

/**
 * The header of version 2 (section 2.2). Without both endpoints it is UNSPEC; if only one of them is IPv4, both are sent as IPv6.
 * LOCAL is sixteen bytes with no address and no TLV.
 */
export function proxyHeaderV2(given: ProxyHeaderV2): Uint8Array {
  const { command, source, destination } = given;
  const writer = new Writer();
  writer.raw(V2_SIGNATURE);
  if (command === "local") {
    writer.u8(VERSION_2 | LOCAL);
    writer.u8(UNSPEC);
    writer.u16(0);
    return writer.written();
  }
  writer.u8(VERSION_2 | PROXY);
  if (source === null || destination === null) {
    writer.u8(UNSPEC);
    writer.u16(0);
  } else {
    const inIPv4 = isV4(source) && isV4(destination);
    writer.u8(((inIPv4 ? INET : INET6) << 4) | STREAM);
    writer.u16(0);
    for (const { address } of [source, destination])
      for (const word of inIPv4 ? [address[3]] : address) writer.u32(word);
    writer.u16(source.port);
    writer.u16(destination.port);
  }
  writeTlvs(writer, given);
  const field = given.crc === true ? writer.at + 3 : -1;
  if (field >= 0) writer.tlv(TLV.crc32c, new Uint8Array(4));
  const header = writer.written();
  const view = new DataView(header.buffer);
  view.setUint16(14, header.length - V2_FIXED_BYTES);
  if (field >= 0) view.setUint32(field, headerChecksum(header, field, header.length));
  return header;
}

const MORE: ProxyAnswer = { is: "more" };
const NONE: ProxyAnswer = { is: "none" };

const text = new TextEncoder();
const V1_SIGNATURE = text.encode("PROXY");
const V2_SIGNATURE = text.encode("\r\n\r\n\0\r\nQUIT\n");

function bad(why: string): ProxyAnswer {
  return { is: "bad", why };
}

// ------------------------------------------------------------------------------------------------ version 1

type Field = "signature" | "protocol" | "address4" | "address6" | "port";

/** The minimum length of each field: "TCP4", "0.0.0.0", "::", "0". */
const SHORTEST: Readonly<Record<Field, number>> = { signature: 5, protocol: 4, address4: 7, address6: 2, port: 1 };

const TCP4: readonly Field[] = ["signature", "protocol", "address4", "address4", "port", "port"];
const TCP6: readonly Field[] = ["signature", "protocol", "address6", "address6", "port", "port"];

/**
 * Every byte is validated as it arrives, but a value is used only when the line is complete. Only CR LF ends the line: a lone CR or LF
 * is refused, also with UNKNOWN, where the rest of the line is ignored.
 */
function parseV1(bytes: Uint8Array): ProxyAnswer {
  const line = latin1(bytes.subarray(0, PROXY_V1_BYTES_MAX));
  const end = line.search(/[\r\n]/);
  const ended = end >= 0;
  const fields = (ended ? line.slice(0, end) : line).split(" ");
  const isUnknown = fields[1] === "UNKNOWN";
  const wrong = isUnknown ? -1 : wrongField(fields, ended);
  // Fields are validated from left to right, so that bytes after the first fault do not change the answer.
  if (wrong >= 0)
    return bad(`not a line of version 1 of up to ${PROXY_V1_BYTES_MAX} bytes: field ${wrong + 1} is wrong`);
  if ((ended ? end : line.length) + 2 > PROXY_V1_BYTES_MAX) return bad(`no CR LF within ${PROXY_V1_BYTES_MAX} bytes`);
  if (!ended) return MORE;
  if (line[end] === "\n") return bad("a line of version 1 with LF and no CR");
  if (end + 1 === line.length) return MORE;
  if (line[end + 1] !== "\n") return bad("a line of version 1 with CR and no LF");
  const header: ProxyHeader = { version: 1, command: "proxy", source: null, destination: null, tlvs: null };
  if (!isUnknown) {
    header.source = { address: parseAddress(fields[2]!)!, port: Number(fields[4]) };
    header.destination = { address: parseAddress(fields[3]!)!, port: Number(fields[5]) };
  }
  return { is: "proxy", header, length: end + 2 };
}

/**
 * The number of the first field that no continuation can make valid, from 0, or -1. A line that has `ended` has no continuation. A
 * field is also wrong if it leaves no room for the fields that must follow.
 */
function wrongField(fields: readonly string[], ended: boolean): number {
  const expected = fields[1] === "TCP6" ? TCP6 : TCP4;
  let at = 0;
  for (let i = 0; i < expected.length; i++) {
    if (i >= fields.length) return ended ? i : -1;
    const ending = shortestEnding(expected[i]!, fields[i]!);
    const mayGoOn = !ended && i === fields.length - 1;
    if (ending < 0 || (ending > 0 && !mayGoOn)) return i;
    at += fields[i]!.length + ending;
    let lineEnd = at;
    for (let next = i + 1; next < expected.length; next++) lineEnd += 1 + SHORTEST[expected[next]!];
    if (lineEnd + 2 > PROXY_V1_BYTES_MAX) return i;
    at++;
  }
  return fields.length > expected.length ? expected.length : -1;
}

/** The shortest continuation that completes a partial address is one of these. */
const ADDRESS_ENDINGS = ["", "0", ":", "::", ".0", "0.0", ".0.0", "0.0.0", ".0.0.0", "0.0.0.0"];

/** The minimum number of characters that complete a partial field: 0 if it is complete, -1 if nothing completes it. */
function shortestEnding(field: Field, start: string): number {
  switch (field) {
    case "signature":
      return start === "PROXY" ? 0 : -1;
    case "protocol": {
      const meant = ["TCP4", "TCP6", "UNKNOWN"].find((protocol) => protocol.startsWith(start));
      return meant === undefined ? -1 : meant.length - start.length;
    }
    case "port":
      if (start === "") return 1;
      return /^(0|[1-9]\d{0,4})$/.test(start) && Number(start) <= 65535 ? 0 : -1;
    default: {
      const colons = field === "address6";
      const isAddress = (whole: string) => whole.includes(":") === colons && parseAddress(whole) !== null;
      const ending = ADDRESS_ENDINGS.find((candidate) => isAddress(start + candidate));
      return ending === undefined ? -1 : ending.length;
    }
  }
}

// ------------------------------------------------------------------------------------------------ version 2

/** Signature, version and command, family and protocol, length. */
const V2_FIXED_BYTES = 16;

const VERSION_2 = 0x20;
const LOCAL = 0;
const PROXY = 1;

const UNSPEC = 0;
const INET = 1;
const INET6 = 2;
const STREAM = 1;
const DGRAM = 2;

/** Bytes of both endpoints, by family: UNSPEC, INET, INET6, UNIX. */
const ADDRESS_BYTES = [0, 12, 36, 216];

function parseV2(bytes: Uint8Array): ProxyAnswer {
  const arrived = bytes.length;
  if (arrived <= 12) return MORE;
  const command = bytes[12]! & 0x0f;
  if ((bytes[12]! & 0xf0) !== VERSION_2) return bad(`version ${bytes[12]! >> 4} of the binary header`);
  if (command > PROXY) return bad(`command ${command} is not assigned`);
  if (arrived <= 13) return MORE;
  // With LOCAL the family is ignored and the whole block is skipped (section 2.2).
  const family = command === LOCAL ? UNSPEC : bytes[13]! >> 4;
  const protocol = command === LOCAL ? UNSPEC : bytes[13]! & 0x0f;
  if (family >= ADDRESS_BYTES.length || protocol > DGRAM) {
    return bad(`family ${family} and protocol ${protocol} are not assigned`);
  }
  if (arrived <= 14) return MORE;
  const end = V2_FIXED_BYTES + (bytes[14]! << 8) + (arrived <= 15 ? 0 : bytes[15]!);
  if (end > PROXY_V2_BYTES_MAX) return bad(`the header is longer than ${PROXY_V2_BYTES_MAX} bytes`);
  if (arrived <= 15) return MORE;
  const header: ProxyHeader = {
    version: 2,
    command: command === LOCAL ? "local" : "proxy",
    source: null,
    destination: null,
    tlvs: null,
  };
  if (command === LOCAL) return arrived < end ? MORE : { is: "proxy", header, length: end };
  return parseV2Block(bytes, header, { family, protocol, end });
}

interface Block {
  family: number;
  protocol: number;
  /** Where the header ends. */
  end: number;
}

/** Parses what follows the fixed part of a header with the command PROXY. */
function parseV2Block(bytes: Uint8Array, header: ProxyHeader, { family, protocol, end }: Block): ProxyAnswer {
  const whole = bytes.length >= end;
  if (family !== UNSPEC && protocol === UNSPEC) {
    // The size of the ports of an unspecified protocol is unknown, and so is where TLVs would begin.
    return whole ? { is: "proxy", header, length: end } : MORE;
  }
  const tlvs = V2_FIXED_BYTES + ADDRESS_BYTES[family]!;
  if (end < tlvs) return bad(`${end - V2_FIXED_BYTES} bytes are too few for the addresses`);
  const fault = tlvFault(bytes, tlvs, end, Math.min(bytes.length, end));
  // With UNSPEC there may be addresses that only the sender understands; a receiver ignores them.
  if (fault !== null && family !== UNSPEC) return bad(fault);
  if (!whole) return MORE;
  if (fault === null && end > tlvs) {
    const field = checksumOffset(bytes, tlvs, end);
    if (field >= 0 && readU32(bytes, field) !== headerChecksum(bytes, field, end)) return bad("wrong checksum");
    header.tlvs = readTlvs(bytes, tlvs, end);
  }
  if (family === INET || family === INET6) {
    const size = family === INET ? 4 : 16;
    const ports = V2_FIXED_BYTES + 2 * size;
    header.source = readEnd(bytes, family, V2_FIXED_BYTES, ports);
    header.destination = readEnd(bytes, family, V2_FIXED_BYTES + size, ports + 2);
  }
  return { is: "proxy", header, length: end };
}

function readEnd(bytes: Uint8Array, family: number, at: number, portAt: number): ProxyEnd {
  const port = (bytes[portAt]! << 8) | bytes[portAt + 1]!;
  if (family === INET) return { address: [0, 0, 0xffff, readU32(bytes, at)], port };
  const address: Address = [
    readU32(bytes, at),
    readU32(bytes, at + 4),
    readU32(bytes, at + 8),
    readU32(bytes, at + 12),
  ];
  return { address, port };
}

function readU32(bytes: Uint8Array, at: number): number {
  return ((bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!) >>> 0;
}

// ------------------------------------------------------------------------------------------------ sending

function isV4(end: ProxyEnd): boolean {
  const [w0, w1, w2] = end.address;
  return isIPv4(w0, w1, w2);
}

/** A mapped address in hexadecimal groups: section 2.1 allows no other form, although many receivers do. */
function formatAsIPv6(address: Address): string {
  const [w0, w1, w2, w3] = address;
  if (!isIPv4(w0, w1, w2)) return formatAddress(w0, w1, w2, w3);
  return `::ffff:${(w3 >>> 16).toString(16)}:${(w3 & 0xffff).toString(16)}`;
}

function writeTlvs(writer: Writer, { alpn, authority, tls, uniqueId }: ProxyHeaderV2): void {
  if (alpn)
    writer.textTlv(
      TLV.alpn,
      Uint8Array.from(alpn, (character) => character.charCodeAt(0)),
    );
  if (authority) writer.textTlv(TLV.authority, text.encode(authority));
  if (uniqueId) {
    if (uniqueId.length > UNIQUE_ID_BYTES_MAX) throw new RangeError(`a unique id of ${uniqueId.length} bytes`);
    writer.tlv(TLV.uniqueId, uniqueId);
  }
  if (!tls) return;
  const ssl = new Writer();
  const shown = tls.clientCertificate ?? null;
  ssl.u8(SSL_CLIENT_SSL | certificateFlags(shown));
  ssl.u32(shown === null ? 1 : 0);
  ssl.textTlv(TLV.sslVersion, text.encode(tls.version));
  if (tls.cipher) ssl.textTlv(TLV.sslCipher, text.encode(tls.cipher));
  if (shown !== null && shown.name !== "") ssl.textTlv(TLV.sslCn, text.encode(shown.name));
  writer.tlv(TLV.ssl, ssl.written());
}

// Section 2.2.6: CERT_CONN only if the certificate was presented on this connection.
function certificateFlags(shown: { readonly resumed: boolean } | null): number {
  if (shown === null) return 0;
  return shown.resumed ? SSL_CLIENT_CERT_SESS : SSL_CLIENT_CERT_SESS | SSL_CLIENT_CERT_CONN;
}

/** Writes bytes in network order. The largest possible header fits, because each of its texts is bounded. */
class Writer {
  at = 0;
  readonly #bytes = new Uint8Array(2048);

  u8(value: number): void {
    this.#bytes[this.at++] = value;
  }

  u16(value: number): void {
    this.u8(value >>> 8);
    this.u8(value);
  }

  u32(value: number): void {
    this.u16(value >>> 16);
    this.u16(value & 0xffff);
  }

  raw(bytes: Uint8Array): void {
    this.#bytes.set(bytes, this.at);
    this.at += bytes.length;
  }

  tlv(type: number, value: Uint8Array): void {
    this.u8(type);
    this.u16(value.length);
    this.raw(value);
  }

  /** A text that is too long is left out and not truncated: a truncated name could be another host's name. */
  textTlv(type: number, value: Uint8Array): void {
    if (value.length <= SENT_TEXT_BYTES_MAX) this.tlv(type, value);
  }

  written(): Uint8Array<ArrayBuffer> {
    return this.#bytes.slice(0, this.at);
  }
}
