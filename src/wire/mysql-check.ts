// The health check for MySQL and MariaDB: the connection phase of the client/server protocol, up to a login without a password.
import { Answer } from "./answer.ts";
import { bad, cutShort, excerpt, more, ok, type Cut, type Exchange, type Step, type Verdict } from "./exchange.ts";
import { latin1 } from "./latin1.ts";

/** Maximum size of all packets from the server in one check. */
export const MYSQL_BYTES_MAX = 16 * 1024;

const PACKET_HEADER_BYTES = 4;

// Client capabilities.
const LONG_PASSWORD = 0x1;
const PROTOCOL_41 = 0x200;
const SECURE_CONNECTION = 0x8000;
const PLUGIN_AUTH = 0x80000;
const UTF8 = 33;
const PACKET_BYTES_MAX = 1 << 24;

/** A command begins a new sequence of packets. In place of a login, the packet continues the sequence of the greeting. */
const quit = (sequence: number): Uint8Array => Uint8Array.of(1, 0, 0, sequence, 1);

// The first byte of a packet.
const OK = 0x00;
const MORE_DATA = 0x01;
const AUTH_SWITCH = 0xfe;
const ERROR = 0xff;
const GREETING = 0x0a;

/** After MORE_DATA: the server asks for the password, because it is not empty (caching_sha2_password). */
const FULL_AUTHENTICATION = 0x04;

/** Logs in without a password and quits. Without a user it quits after the greeting; the server logs that. */
export class MysqlCheck implements Exchange {
  readonly #user: string;
  readonly #answer = new Answer(MYSQL_BYTES_MAX);
  /** Where the first unread packet begins. */
  #at = 0;
  #isGreeted = false;

  constructor(user: string) {
    this.#user = user;
  }

  begin(): Step {
    return more();
  }

  push(bytes: Uint8Array): Step {
    this.#answer.push(bytes);
    const all = this.#answer.bytes;
    for (;;) {
      const left = all.subarray(this.#at);
      const [low, middle, high, sequence] = left;
      if (low === undefined || middle === undefined || high === undefined || sequence === undefined) return more();
      const length = low | (middle << 8) | (high << 16);
      if (length === 0 || this.#at + PACKET_HEADER_BYTES + length > MYSQL_BYTES_MAX) return notMysql(left);
      if (left.length < PACKET_HEADER_BYTES + length) return more();
      const packet = left.subarray(PACKET_HEADER_BYTES, PACKET_HEADER_BYTES + length);
      this.#at += PACKET_HEADER_BYTES + length;
      const step = this.#isGreeted ? readReply(packet, sequence) : this.#readGreeting(packet, sequence);
      if (step !== null) return step;
    }
  }

  end(cut: Cut): Verdict {
    return cutShort(cut, this.#answer.bytes.subarray(this.#at));
  }

  #readGreeting(packet: Uint8Array, sequence: number): Step {
    if (packet[0] === ERROR) return bad(errorText(packet));
    if (packet[0] !== GREETING) return notMysql(packet);
    this.#isGreeted = true;
    const next = (sequence + 1) & 0xff;
    if (this.#user === "") return ok(quit(next));
    return more(loginPacket(this.#user, pluginOf(packet), next));
  }
}

/** The server's answer to a login; null = nothing that decides the check. */
function readReply(packet: Uint8Array, sequence: number): Step | null {
  switch (packet[0]) {
    case OK:
      return ok(quit(0));
    case ERROR:
      return bad(errorText(packet));
    // Another authentication plugin: without a password the response is empty in all of them.
    case AUTH_SWITCH:
      return more(Uint8Array.of(0, 0, 0, (sequence + 1) & 0xff));
    case MORE_DATA:
      return packet[1] === FULL_AUTHENTICATION ? bad("the user has a password, expected one without") : null;
    default:
      return notMysql(packet);
  }
}

/** The greeting (HandshakeV10) ends with the authentication plugin: the fields before it have a fixed length or end with NUL. */
function pluginOf(packet: Uint8Array): string {
  const versionEnd = packet.indexOf(0, 1);
  if (versionEnd < 0) return "";
  // Thread id 4, first part of the scramble 8, filler 1, capabilities 2, charset 1, status 2, capabilities 2.
  const lengthAt = versionEnd + 1 + 20;
  const scrambleBytes = Math.max(13, (packet[lengthAt] ?? 0) - 8);
  const pluginAt = lengthAt + 1 + 10 + scrambleBytes;
  const end = packet.indexOf(0, pluginAt);
  return latin1(packet.subarray(pluginAt, end < 0 ? packet.length : end)).slice(0, 64);
}

/** HandshakeResponse41 with an empty password. */
function loginPacket(user: string, plugin: string, sequence: number): Uint8Array {
  const texts = new TextEncoder().encode(`${user}\0\0${plugin}\0`);
  const length = 32 + texts.length;
  const packet = new Uint8Array(PACKET_HEADER_BYTES + length);
  const view = new DataView(packet.buffer);
  view.setUint32(0, length | (sequence << 24), true);
  view.setUint32(4, LONG_PASSWORD | PROTOCOL_41 | SECURE_CONNECTION | PLUGIN_AUTH, true);
  view.setUint32(8, PACKET_BYTES_MAX, true);
  packet[12] = UTF8;
  packet.set(texts, 36);
  return packet;
}

/** 0xff, the error number, in protocol 4.1 "#" with the SQLSTATE, and the message. */
function errorText(packet: Uint8Array): string {
  const code = (packet[1] ?? 0) | ((packet[2] ?? 0) << 8);
  const text = latin1(packet.subarray(3, 203)).replace(/^#.{5}/s, "");
  return `error ${code}: ${JSON.stringify(text)}`;
}

function notMysql(bytes: Uint8Array): Verdict {
  return bad(`the answer is not MySQL's: ${excerpt(bytes)}`);
}
