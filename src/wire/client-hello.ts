// Parser for the first message of a TLS client: the server name, the protocols and the TLS versions that it offers. It decrypts
// nothing and validates only what it has to parse; the TLS server validates the rest.
import { parseAddress } from "../core/address.ts";
import { latin1 } from "./latin1.ts";
import { ALERTS, type AlertDescription } from "./tls-records.ts";

/** Maximum size of a ClientHello, its four header bytes included. With post-quantum key shares one has about 1,800 bytes. */
export const HELLO_HANDSHAKE_BYTES_MAX = 16384;

/** Maximum payload of a record (RFC 8446 section 5.1). */
export const RECORD_BYTES_MAX = 16384;

export interface ClientHello {
  /**
   * The requested host name (RFC 6066 section 3), in lower case, without a trailing dot. Null if there is none, or if it is not a
   * host name: an IP address, which the RFC forbids, or a name with other characters than letters, digits, "-" and "_" in labels.
   * With `ech` it may be the public name of the outer hello.
   */
  serverName: string | null;
  /** ALPN (RFC 7301), in the client's order of preference, one character per byte. */
  alpn: readonly string[];
  /** As on the wire: 0x0303 is TLS 1.2. `min` is known only from supported_versions (RFC 8446 section 4.2.1). */
  versions: { min?: number; max: number };
  /** There is an encrypted_client_hello (RFC 9849), real or GREASE: the two cannot be told apart. */
  ech: boolean;
}

export type HelloAnswer =
  | { is: "more" }
  | { is: "hello"; hello: ClientHello }
  /** The first bytes are not those of a TLS handshake: another protocol, or SSL 2. */
  | { is: "not_tls" }
  /** `alert` is the alert to send to the client. */
  | { is: "bad"; why: string; alert: AlertDescription };

/** The answer to all bytes that have arrived. For bytes that come in pieces use a HelloReader, which does not start over each time. */
export function parseClientHello(bytes: Uint8Array): HelloAnswer {
  return new HelloReader().push(bytes);
}

/**
 * Collects the bytes of one client until its ClientHello is complete, over any number of records and chunks. Whatever the chunks
 * are, each byte is read once as it arrives and once when the hello is complete. Memory use is at most twice the bytes received,
 * which are at most six times HELLO_HANDSHAKE_BYTES_MAX, in records of one byte.
 */
export class HelloReader {
  #answer: HelloAnswer = MORE;
  #bytes: Uint8Array = NOTHING;
  #length = 0;

  /** How many of #bytes are parsed. */
  #at = 0;
  #records = 0;
  /** Remaining payload bytes of the current record from #at on; 0 between records. */
  #recordLeft = 0;
  /** Handshake bytes before #at, and their total: 0 until it is known. */
  #gathered = 0;
  #needed = 0;
  /** The message's length, as far as its bytes have arrived. */
  #bodyBytes = 0;

  /** All pushed bytes, for the server that the hello is meant for. */
  get bytes(): Uint8Array {
    return this.#bytes.subarray(0, this.#length);
  }

  /**
   * The answer to all chunks so far; any answer other than "more" is final. The chunk may be kept without a copy, so its memory must
   * not be written to afterwards.
   */
  push(chunk: Uint8Array): HelloAnswer {
    this.#append(chunk);
    if (this.#answer.is === "more") this.#answer = this.#scan();
    return this.#answer;
  }

  #append(chunk: Uint8Array): void {
    const length = this.#length + chunk.length;
    if (this.#length === 0) {
      this.#bytes = chunk;
    } else if (chunk.length > 0) {
      // The first chunk is the caller's memory and is never written to, even if it is a view with room behind it.
      if (length > this.#bytes.length) {
        const grown = new Uint8Array(length * 2);
        grown.set(this.bytes);
        this.#bytes = grown;
      }
      this.#bytes.set(chunk, this.#length);
    }
    this.#length = length;
  }

  #scan(): HelloAnswer {
    while (true) {
      if (this.#recordLeft === 0) {
        const refused = this.#startRecord();
        if (refused !== null) return refused;
      }
      const end = Math.min(this.#at + this.#recordLeft, this.#length);
      if (this.#gathered < HANDSHAKE_HEAD_BYTES) {
        const refused = this.#readHandshakeHead(end);
        if (refused !== null) return refused;
      }
      const taken = end - this.#at;
      this.#gathered += taken;
      this.#recordLeft -= taken;
      this.#at = end;
      if (this.#needed > 0 && this.#gathered + this.#recordLeft > this.#needed) {
        return bad("the record does not end with the ClientHello", ALERTS.unexpectedMessage);
      }
      if (this.#needed > 0 && this.#gathered === this.#needed) return readHello(this.#message());
      if (this.#recordLeft > 0) return MORE;
    }
  }

  /** Reads the header of a record (RFC 8446 section 5.1), as far as it has arrived. Null if it is complete and valid. */
  #startRecord(): HelloAnswer | null {
    const bytes = this.#bytes;
    const at = this.#at;
    const arrived = this.#length - at;
    const first = this.#records === 0;
    if (arrived > 0 && bytes[at] !== HANDSHAKE)
      return first ? NOT_TLS : bad("another record within the ClientHello", ALERTS.unexpectedMessage);
    // Only the first byte of the version is checked: the rest "MUST be ignored for all purposes".
    if (arrived > 1 && bytes[at + 1] !== 3) return first ? NOT_TLS : bad("not a TLS record", ALERTS.protocolVersion);
    if (arrived > 3) {
      const length = (bytes[at + 3]! << 8) | (arrived > 4 ? bytes[at + 4]! : 0);
      if (length > RECORD_BYTES_MAX)
        return bad(`a record of more than ${RECORD_BYTES_MAX} bytes`, ALERTS.recordOverflow);
      if (arrived > 4 && length === 0) return bad("an empty handshake record", ALERTS.unexpectedMessage);
      this.#recordLeft = length;
    }
    if (arrived < RECORD_HEAD_BYTES) {
      this.#recordLeft = 0;
      return MORE;
    }
    this.#at += RECORD_HEAD_BYTES;
    this.#records++;
    return null;
  }

  /** Reads the part of the message's type and length that is between #at and `end`. Null if it is valid so far. */
  #readHandshakeHead(end: number): HelloAnswer | null {
    let index = this.#gathered;
    for (let at = this.#at; at < end && index < HANDSHAKE_HEAD_BYTES; at++, index++) {
      const byte = this.#bytes[at]!;
      if (index === 0) {
        if (byte !== CLIENT_HELLO)
          return bad(`handshake message ${byte} instead of a ClientHello`, ALERTS.unexpectedMessage);
        continue;
      }
      this.#bodyBytes = this.#bodyBytes * 256 + byte;
      // The bytes of the length that have not arrived yet can only make it larger.
      const least = HANDSHAKE_HEAD_BYTES + this.#bodyBytes * 256 ** (HANDSHAKE_HEAD_BYTES - 1 - index);
      if (least > HELLO_HANDSHAKE_BYTES_MAX)
        return bad(`a ClientHello of more than ${HELLO_HANDSHAKE_BYTES_MAX} bytes`, ALERTS.illegalParameter);
    }
    if (index < HANDSHAKE_HEAD_BYTES) return null;
    if (this.#bodyBytes < BODY_BYTES_MIN) return bad(`a ClientHello of ${this.#bodyBytes} bytes`);
    this.#needed = HANDSHAKE_HEAD_BYTES + this.#bodyBytes;
    return null;
  }

  /** The whole message, without the record headers. */
  #message(): Uint8Array {
    if (this.#records === 1) return this.#bytes.subarray(RECORD_HEAD_BYTES, this.#at);
    const message = new Uint8Array(this.#needed);
    for (let at = 0, filled = 0; at < this.#at;) {
      const length = (this.#bytes[at + 3]! << 8) | this.#bytes[at + 4]!;
      at += RECORD_HEAD_BYTES;
      message.set(this.#bytes.subarray(at, at + length), filled);
      at += length;
      filled += length;
    }
    return message;
  }
}

const MORE: HelloAnswer = { is: "more" };
const NOT_TLS: HelloAnswer = { is: "not_tls" };
const NOTHING = new Uint8Array(0);

/** Content type, version, length. */
const RECORD_HEAD_BYTES = 5;
const HANDSHAKE = 22;

/** Type, length. */
const HANDSHAKE_HEAD_BYTES = 4;
const CLIENT_HELLO = 1;

/** Version, random, no session id, one cipher suite, one compression method (RFC 5246 section 7.4.1.2). */
const BODY_BYTES_MIN = 41;

const TLS_1_2 = 0x0303;

const SERVER_NAME = 0;
const ALPN = 16;
const SUPPORTED_VERSIONS = 43;
const ENCRYPTED_CLIENT_HELLO = 0xfe0d;

const HOST_NAME = 0;
const ECH_OUTER = 0;
const ECH_INNER = 1;

/** RFC 6066 section 3: longer than any host name. OpenSSL and BoringSSL refuse longer names too. */
const SERVER_NAME_BYTES_MAX = 255;

interface Fault {
  why: string;
  alert: AlertDescription;
}

/** The default alert is that of a wrong length (RFC 8446 section 6.2, on each alert). */
function fault(why: string, alert: AlertDescription = ALERTS.decodeError): Fault {
  return { why, alert };
}

function bad(why: string, alert: AlertDescription = ALERTS.decodeError): HelloAnswer {
  return { is: "bad", why, alert };
}

/** The message of RFC 8446 section 4.1.2, which is also that of TLS 1.2 and earlier. */
function readHello(message: Uint8Array): HelloAnswer {
  const body = new Cursor(message, HANDSHAKE_HEAD_BYTES, message.length);
  const legacyVersion = body.number(2);
  if (legacyVersion >> 8 !== 3) return bad("legacy_version is not of TLS", ALERTS.protocolVersion);
  body.at += 32;
  const sessionId = body.vector(1);
  const suites = body.vector(2);
  const compressions = body.vector(1);
  if (sessionId === null || sessionId.left > 32) return bad("wrong length of the session id");
  if (suites === null || suites.left === 0 || suites.left % 2 !== 0) return bad("wrong length of the cipher suites");
  if (compressions === null || compressions.left === 0) return bad("wrong length of the compression methods");
  // "Servers MUST negotiate TLS 1.2 or prior" without supported_versions, whatever legacy_version says (section 4.2.1).
  const hello = { serverName: null, alpn: [], versions: { max: Math.min(legacyVersion, TLS_1_2) }, ech: false };
  // Before TLS 1.3 a hello may end here.
  const found = body.left === 0 ? null : readExtensions(body, hello);
  return found === null ? { is: "hello", hello } : { is: "bad", ...found };
}

/** This function and those below fill in `hello` and return the fault, or null. */
function readExtensions(body: Cursor, hello: ClientHello): Fault | null {
  const extensions = body.vector(2);
  if (extensions === null || body.left > 0) return fault("wrong length of the extensions");
  const seen = new Set<number>();
  while (extensions.left > 0) {
    const type = extensions.number(2);
    const data = extensions.vector(2);
    if (data === null) return fault("wrong length of an extension");
    // "There MUST NOT be more than one extension of the same type" (section 4.2).
    if (seen.has(type)) return fault(`extension ${type} twice`, ALERTS.illegalParameter);
    seen.add(type);
    const found = readExtension(type, data, hello);
    if (found !== null) return found;
  }
  return null;
}

function readExtension(type: number, data: Cursor, hello: ClientHello): Fault | null {
  switch (type) {
    case SERVER_NAME:
      return readServerName(data, hello);
    case ALPN:
      return readAlpn(data, hello);
    case SUPPORTED_VERSIONS:
      return readVersions(data, hello);
    case ENCRYPTED_CLIENT_HELLO:
      return readEch(data, hello);
    default:
      return null;
  }
}

/**
 * RFC 6066 section 3. A name that is empty, longer than SERVER_NAME_BYTES_MAX or contains a NUL makes the message invalid, as in
 * OpenSSL and BoringSSL. Any other name that is not a host name counts as no name, because clients send such names and servers
 * accept them.
 */
function readServerName(data: Cursor, hello: ClientHello): Fault | null {
  const names = data.vector(2);
  if (names === null || names.left === 0 || data.left > 0) return fault("wrong length of server_name");
  let seen = false;
  while (names.left > 0) {
    const type = names.number(1);
    // "All future data structures associated with new NameTypes MUST begin with a 16-bit length field."
    const name = names.vector(2);
    if (name === null) return fault("wrong length of a server name");
    if (type !== HOST_NAME) continue;
    if (seen) return fault("two host names", ALERTS.illegalParameter);
    seen = true;
    if (name.left === 0 || name.left > SERVER_NAME_BYTES_MAX) return fault(`a host name of ${name.left} bytes`);
    const text = name.text();
    if (text.includes("\0")) return fault("a NUL in the host name", ALERTS.illegalParameter);
    hello.serverName = hostNameOf(text);
  }
  return null;
}

/** The canonical form of a server name as it was sent (RFC 6066 section 3), or null if it is not a host name, such as an address. */
export function hostNameOf(text: string): string | null {
  const name = (text.endsWith(".") ? text.slice(0, -1) : text).toLowerCase();
  return /^[a-z\d_-]{1,63}(\.[a-z\d_-]{1,63})*$/.test(name) && parseAddress(name) === null ? name : null;
}

/** RFC 7301 section 3.1. */
function readAlpn(data: Cursor, hello: ClientHello): Fault | null {
  const list = data.vector(2);
  if (list === null || list.left === 0 || data.left > 0) return fault("wrong length of the ALPN extension");
  const alpn: string[] = [];
  while (list.left > 0) {
    const name = list.vector(1);
    if (name === null || name.left === 0) return fault("wrong length of an ALPN name");
    const text = name.text();
    if (!isGrease(text)) alpn.push(text);
  }
  hello.alpn = alpn;
  return null;
}

/** GREASE values (RFC 8701 section 2): the ALPN names {0x0A,0x0A}, {0x1A,0x1A} and so on have no meaning. */
function isGrease(name: string): boolean {
  return name.length === 2 && name[0] === name[1] && (name.charCodeAt(0) & 0x0f) === 0x0a;
}

/** RFC 8446 section 4.2.1. GREASE values and drafts differ from TLS versions in the first byte. */
function readVersions(data: Cursor, hello: ClientHello): Fault | null {
  const list = data.vector(1);
  if (list === null || list.left === 0 || list.left % 2 !== 0 || data.left > 0) {
    return fault("wrong length of supported_versions");
  }
  let min = Infinity;
  let max = 0;
  while (list.left > 0) {
    const version = list.number(2);
    if (version >> 8 !== 3) continue;
    min = Math.min(min, version);
    max = Math.max(max, version);
  }
  if (max === 0) return fault("no version of TLS in supported_versions", ALERTS.protocolVersion);
  hello.versions = { min, max };
  return null;
}

/** RFC 9849 section 5: a client sends the outer form; the inner form comes from a server that has decrypted it. */
function readEch(data: Cursor, hello: ClientHello): Fault | null {
  const type = data.number(1);
  if (type === ECH_INNER && data.left === 0) return null;
  const suiteAndConfig = 2 + 2 + 1;
  data.at += suiteAndConfig;
  const key = data.vector(2);
  const payload = data.vector(2);
  if (type !== ECH_OUTER || key === null || payload === null || payload.left === 0 || data.left > 0) {
    return fault("malformed encrypted_client_hello");
  }
  hello.ech = true;
  return null;
}

/** Reads numbers and vectors of the presentation language (RFC 8446 section 3) from `at` to `end`, never beyond. */
class Cursor {
  at: number;
  readonly #bytes: Uint8Array;
  readonly #end: number;

  constructor(bytes: Uint8Array, at: number, end: number) {
    this.#bytes = bytes;
    this.at = at;
    this.#end = end;
  }

  /** Negative if `at` was moved beyond the end. */
  get left(): number {
    return this.#end - this.at;
  }

  /** The number in the next `size` bytes, or -1 if there are fewer. */
  number(size: 1 | 2): number {
    if (this.left < size) return -1;
    const high = this.#bytes[this.at++]!;
    return size === 1 ? high : (high << 8) | this.#bytes[this.at++]!;
  }

  /** The vector after a length field of `size` bytes, or null if it is longer than the remaining bytes. */
  vector(size: 1 | 2): Cursor | null {
    const length = this.number(size);
    if (length < 0 || length > this.left) return null;
    const vector = new Cursor(this.#bytes, this.at, this.at + length);
    this.at += length;
    return vector;
  }

  /** The remaining bytes, one character per byte. */
  text(): string {
    return latin1(this.#bytes.subarray(this.at, this.#end));
  }
}
