// The TLVs (type, length, value) after the addresses in a PROXY header of version 2 (section 2.2 of HAProxy's "The PROXY protocol").
// Validation is separate from parsing, so that a fault is found before the header is complete.
import { crc32c } from "../core/crc32c.ts";
import { latin1 } from "./latin1.ts";

/** The longest PP2_TYPE_UNIQUE_ID (section 2.2.5). */
export const UNIQUE_ID_BYTES_MAX = 128;

/**
 * The content of the TLVs; null = not present. If a type occurs twice, the first one counts. Only lengths and the checksum are
 * validated: texts are the sender's and may contain any character.
 */
export interface Tlvs {
  /** The protocol's name as in ALPN, one character per byte. */
  alpn: string | null;
  /** UTF-8: the server name that the client asked for, in its original case. */
  authority: string | null;
  /** Opaque; up to UNIQUE_ID_BYTES_MAX bytes. */
  uniqueId: Uint8Array | null;
  ssl: SslTlv | null;
  /** Name of the network namespace. */
  netns: string | null;
  /** "vpce-…": the VPC endpoint through which the client came. */
  awsVpcEndpointId: string | null;
  /** The private endpoint through which the client came. */
  azureLinkId: number | null;
  /** Whether a CRC32C was present; it was correct then. */
  checksum: boolean;
}

/** PP2_TYPE_SSL (section 2.2.6). */
export interface SslTlv {
  /** The bits SSL_CLIENT_*. */
  client: number;
  /** 0: the client presented a certificate and it was verified. */
  verify: number;
  version: string | null;
  cn: string | null;
  cipher: string | null;
  sigAlg: string | null;
  keyAlg: string | null;
}

/** The client uses TLS; it sent a certificate on this connection; it sent one at least once in its session. */
export const SSL_CLIENT_SSL = 0x01;
export const SSL_CLIENT_CERT_CONN = 0x02;
export const SSL_CLIENT_CERT_SESS = 0x04;

export const TLV = {
  alpn: 0x01,
  authority: 0x02,
  crc32c: 0x03,
  noop: 0x04,
  uniqueId: 0x05,
  ssl: 0x20,
  sslVersion: 0x21,
  sslCn: 0x22,
  sslCipher: 0x23,
  sslSigAlg: 0x24,
  sslKeyAlg: 0x25,
  netns: 0x30,
  // These types are from the range for applications, which others may use for something else: a value that does not look like these
  // clouds' own is skipped.
  aws: 0xea,
  azure: 0xee,
} as const;

/** The value of both clouds begins with a subtype; this one is the endpoint's in each. */
const CLOUD_ENDPOINT = 0x01;

/** Type and length. */
const HEAD_BYTES = 3;

/**
 * Why the bytes from `start` to `end` are not well-formed TLVs, or null. `available` is how far they have arrived: null then means
 * that the remaining bytes can still make them well-formed, whatever the checksum is.
 */
export function tlvFault(bytes: Uint8Array, start: number, end: number, available: number): string | null {
  return faultWithin(bytes, { start, end, available }, false);
}

/** Position of the checksum's four bytes in well-formed TLVs, or -1. */
export function checksumOffset(bytes: Uint8Array, start: number, end: number): number {
  for (let at = start; at < end; at += HEAD_BYTES + lengthAt(bytes, at)) {
    if (bytes[at] === TLV.crc32c) return at + HEAD_BYTES;
  }
  return -1;
}

/** The checksum of a header of `end` bytes, with its own four bytes at `field` taken as zeros (section 2.2.3). */
export function headerChecksum(bytes: Uint8Array, field: number, end: number): number {
  const before = crc32c(ZEROS, crc32c(bytes.subarray(0, field)));
  return crc32c(bytes.subarray(field + ZEROS.length, end), before);
}

/** Parses well-formed TLVs. The result holds no reference to `bytes`. */
export function readTlvs(bytes: Uint8Array, start: number, end: number): Tlvs {
  const tlvs: Tlvs = {
    alpn: null,
    authority: null,
    uniqueId: null,
    ssl: null,
    netns: null,
    awsVpcEndpointId: null,
    azureLinkId: null,
    checksum: false,
  };
  for (let at = start, next; at < end; at = next) {
    next = at + HEAD_BYTES + lengthAt(bytes, at);
    const value = bytes.subarray(at + HEAD_BYTES, next);
    switch (bytes[at]) {
      case TLV.alpn:
        tlvs.alpn ??= latin1(value);
        break;
      case TLV.authority:
        tlvs.authority ??= utf8.decode(value);
        break;
      case TLV.crc32c:
        tlvs.checksum = true;
        break;
      case TLV.uniqueId:
        tlvs.uniqueId ??= value.slice();
        break;
      case TLV.ssl:
        tlvs.ssl ??= readSsl(value);
        break;
      case TLV.netns:
        tlvs.netns ??= latin1(value);
        break;
      case TLV.aws:
        if (value[0] === CLOUD_ENDPOINT) tlvs.awsVpcEndpointId ??= latin1(value.subarray(1));
        break;
      case TLV.azure:
        // Four bytes, little-endian: the only number in the header that is not in network order.
        if (value[0] === CLOUD_ENDPOINT && value.length === 5) {
          tlvs.azureLinkId ??= (value[1]! | (value[2]! << 8) | (value[3]! << 16) | (value[4]! << 24)) >>> 0;
        }
        break;
    }
  }
  return tlvs;
}

/** The TLVs as text for a log: printable ASCII, other characters escaped as in a JavaScript string. */
export function describeTlvs(tlvs: Tlvs): Record<string, string> {
  const { ssl } = tlvs;
  const said: Record<string, string | null> = {
    alpn: tlvs.alpn,
    authority: tlvs.authority,
    unique_id: tlvs.uniqueId && latin1(tlvs.uniqueId),
    ssl_client: ssl && describeClient(ssl.client),
    ssl_verify: ssl && String(ssl.verify),
    ssl_version: ssl && ssl.version,
    ssl_cn: ssl && ssl.cn,
    ssl_cipher: ssl && ssl.cipher,
    ssl_sig_alg: ssl && ssl.sigAlg,
    ssl_key_alg: ssl && ssl.keyAlg,
    netns: tlvs.netns,
    aws_vpc_endpoint_id: tlvs.awsVpcEndpointId,
    azure_link_id: tlvs.azureLinkId === null ? null : String(tlvs.azureLinkId),
    checksum: tlvs.checksum ? "right" : null,
  };
  const described: Record<string, string> = {};
  for (const [name, text] of Object.entries(said)) if (text !== null) described[name] = printable(text);
  return described;
}

/** Size of flags and verify. */
const SSL_HEAD_BYTES = 5;

const ZEROS = new Uint8Array(4);

const utf8 = new TextDecoder("utf-8", { ignoreBOM: true });

interface Span {
  start: number;
  end: number;
  available: number;
}

/** The types inside PP2_TYPE_SSL are a list of their own; their values may have any length. */
function faultWithin(bytes: Uint8Array, { start, end, available }: Span, insideSsl: boolean): string | null {
  let checksums = 0;
  let at = start;
  while (at < end) {
    const room = end - at - HEAD_BYTES;
    if (room < 0) return `${end - at} bytes after the last TLV`;
    if (at >= available) return null;
    const type = insideSsl ? TLV.noop : bytes[at]!;
    if (type === TLV.crc32c && ++checksums > 1) return "two checksums";
    const high = at + 1 < available ? bytes[at + 1]! << 8 : 0;
    const low = at + 2 < available ? bytes[at + 2]! : -1;
    const least = low < 0 ? high : high + low;
    // With only the first byte of the length, 256 lengths are possible; the longer ones do not change whether the rest fits.
    const most = low < 0 ? 0xffff : least;
    if (!someLengthFits(type, least, most, room)) return `TLV 0x${hex(bytes[at]!)} has a wrong length`;
    if (low < 0) return null;
    const value = at + HEAD_BYTES;
    at = value + least;
    if (type === TLV.ssl) {
      const fault = faultWithin(bytes, { start: value + SSL_HEAD_BYTES, end: at, available }, true);
      if (fault !== null) return `in TLV 0x20: ${fault}`;
    }
  }
  return null;
}

/** Whether some length from `least` to `most` is valid for the type and leaves room for no TLV or for a complete one. */
function someLengthFits(type: number, least: number, most: number, room: number): boolean {
  for (let length = Math.min(most, room, longest(type)); length >= least; length--) {
    const rest = room - length;
    if ((rest === 0 || rest >= HEAD_BYTES) && canHaveLength(type, length)) return true;
  }
  return false;
}

function longest(type: number): number {
  if (type === TLV.crc32c) return 4;
  return type === TLV.uniqueId ? UNIQUE_ID_BYTES_MAX : 0xffff;
}

function canHaveLength(type: number, length: number): boolean {
  if (type === TLV.crc32c) return length === 4;
  if (type === TLV.ssl) return length === SSL_HEAD_BYTES || length >= SSL_HEAD_BYTES + HEAD_BYTES;
  return length <= longest(type);
}

function lengthAt(bytes: Uint8Array, at: number): number {
  return (bytes[at + 1]! << 8) | bytes[at + 2]!;
}

function readSsl(value: Uint8Array): SslTlv {
  const verify = ((value[1]! << 24) | (value[2]! << 16) | (value[3]! << 8) | value[4]!) >>> 0;
  const ssl: SslTlv = {
    client: value[0]!,
    verify,
    version: null,
    cn: null,
    cipher: null,
    sigAlg: null,
    keyAlg: null,
  };
  for (let at = SSL_HEAD_BYTES, next; at < value.length; at = next) {
    next = at + HEAD_BYTES + lengthAt(value, at);
    const part = value.subarray(at + HEAD_BYTES, next);
    switch (value[at]) {
      case TLV.sslVersion:
        ssl.version ??= latin1(part);
        break;
      case TLV.sslCn:
        ssl.cn ??= utf8.decode(part);
        break;
      case TLV.sslCipher:
        ssl.cipher ??= latin1(part);
        break;
      case TLV.sslSigAlg:
        ssl.sigAlg ??= latin1(part);
        break;
      case TLV.sslKeyAlg:
        ssl.keyAlg ??= latin1(part);
        break;
    }
  }
  return ssl;
}

function describeClient(client: number): string {
  const names = [];
  if (client & SSL_CLIENT_SSL) names.push("ssl");
  if (client & SSL_CLIENT_CERT_CONN) names.push("cert_conn");
  if (client & SSL_CLIENT_CERT_SESS) names.push("cert_sess");
  return names.join(" ") || "none";
}

function printable(text: string): string {
  return text.replace(/[^\x20-\x7e]|["\\]/gu, (character) => {
    if (character === '"' || character === "\\") return `\\${character}`;
    const code = character.codePointAt(0)!;
    return code < 0x100 ? `\\x${hex(code)}` : `\\u{${code.toString(16)}}`;
  });
}

function hex(byte: number): string {
  return byte.toString(16).padStart(2, "0");
}
