// Messages of syslog (RFC 5424) from lines of the access log, and their frames on a stream (RFC 6587).

/** Facility local0 (16) and severity info (6), RFC 5424 section 6.2.1. */
const PRIORITY = 16 * 8 + 6;
const APP_NAME = "lb";
const MSGID = "access";
/** Length of `2026-01-01T00:00:00.000Z`, the time in a line; it has the form of a TIMESTAMP (RFC 5424 section 6.2.3). */
const TIME_LENGTH = 24;
/** Its position: after `time=` and `{"time":"`. */
const TIME_AT = { text: 5, json: 9 };

const LINE_FEED = 0x0a;
const BRACE = 0x7b;
const SPACE = 0x20;

/** The sender: the HOSTNAME and the PROCID of each message. */
interface Sender {
  hostname: string;
  pid: number;
}

/** Turns whole lines, each with its line feed, into one message each, of at most `bytesMax` bytes. */
export class SyslogMessages {
  readonly #before: Uint8Array;
  readonly #after: Uint8Array;
  readonly #bytesMax: number;

  constructor({ hostname, pid }: Sender, bytesMax: number) {
    const encoder = new TextEncoder();
    this.#before = encoder.encode(`<${PRIORITY}>1 `);
    this.#after = encoder.encode(` ${fieldOf(hostname)} ${APP_NAME} ${pid} ${MSGID} - `);
    this.#bytesMax = bytesMax;
  }

  of(lines: Uint8Array): Uint8Array[] {
    const messages: Uint8Array[] = [];
    for (let start = 0; start < lines.length;) {
      const feed = lines.indexOf(LINE_FEED, start);
      const end = feed < 0 ? lines.length : feed;
      messages.push(this.#message(lines.subarray(start, end)));
      start = end + 1;
    }
    return messages;
  }

  #message(line: Uint8Array): Uint8Array {
    const timeAt = line[0] === BRACE ? TIME_AT.json : TIME_AT.text;
    const headerLength = this.#before.length + TIME_LENGTH + this.#after.length;
    const text = line.subarray(0, cutAt(line, this.#bytesMax - headerLength));
    const message = new Uint8Array(headerLength + text.length);
    message.set(this.#before);
    message.set(line.subarray(timeAt, timeAt + TIME_LENGTH), this.#before.length);
    message.set(this.#after, this.#before.length + TIME_LENGTH);
    message.set(text, headerLength);
    return message;
  }
}

/** A HOSTNAME is 1 to 255 printable ASCII characters, or the NILVALUE. */
function fieldOf(hostname: string): string {
  return hostname.replace(/[^\x21-\x7e]/g, "").slice(0, 255) || "-";
}

/** The length of at most `bytesMax` bytes of UTF-8 that ends with a whole character. */
function cutAt(text: Uint8Array, bytesMax: number): number {
  if (text.length <= bytesMax) return text.length;
  let end = bytesMax;
  while (end > 0 && (text[end]! & 0xc0) === 0x80) end--;
  return end;
}

/** With its length before it (octet counting, RFC 6587 section 3.4.1, RFC 5425 section 4.3). */
export function octetCounted(message: Uint8Array): Uint8Array {
  const length = String(message.length);
  const frame = new Uint8Array(length.length + 1 + message.length);
  for (let i = 0; i < length.length; i++) frame[i] = length.charCodeAt(i);
  frame[length.length] = SPACE;
  frame.set(message, length.length + 1);
  return frame;
}

/** With a line feed after it (RFC 6587 section 3.4.2), as receivers on unix sockets expect. */
export function lineFramed(message: Uint8Array): Uint8Array {
  const frame = new Uint8Array(message.length + 1);
  frame.set(message);
  frame[message.length] = LINE_FEED;
  return frame;
}
