// Parser for the response of an HTTP/1.1 server to one request (RFC 9112): status and the first part of the body. It knows nothing of
// the request except whether its response has a body.
import { Answer } from "./answer.ts";
import { excerpt } from "./exchange.ts";
import { latin1 } from "./latin1.ts";

/** Maximum size of the status line and the fields of all responses, interim responses and trailers included. */
export const HTTP_HEAD_BYTES_MAX = 16 * 1024;

/** Maximum size of the body without its transfer coding: the rest is not read. */
export const HTTP_BODY_BYTES_MAX = 64 * 1024;

/** Maximum size of one line with a chunk size, extensions included. */
export const HTTP_CHUNK_LINE_BYTES_MAX = 256;

/** "response": it is complete, or the part of its body that is kept has arrived. */
type HttpAnswer = { readonly is: "more" } | { readonly is: "response" } | { readonly is: "bad"; readonly why: string };

const MORE: HttpAnswer = { is: "more" };
const RESPONSE: HttpAnswer = { is: "response" };

type State =
  // Made of lines.
  | "status"
  | "fields"
  | "chunk size"
  | "chunk end"
  | "trailers"
  // Made of bytes.
  | "length"
  | "chunk"
  | "until close"
  | "over";

const LF = 0x0a;
const CR = 0x0d;

export class HttpResponseReader {
  /** Status of the final response; 0 = its head has not arrived yet. */
  status = 0;
  /** The body without transfer coding. */
  readonly body = new Answer(HTTP_BODY_BYTES_MAX);
  readonly #hasBody: boolean;
  #state: State = "status";
  #answer: HttpAnswer = MORE;
  readonly #line = new Answer(HTTP_HEAD_BYTES_MAX);
  #headBytes = 0;
  #statusRead = 0;
  #lengths: string[] = [];
  #codings: string[] = [];
  /** Remaining bytes of the body or of the chunk. */
  #left = 0;

  /** `hasBody`: false for the response to a HEAD request. */
  constructor(hasBody: boolean) {
    this.#hasBody = hasBody;
  }

  push(bytes: Uint8Array): HttpAnswer {
    let at = 0;
    while (this.#answer.is === "more" && at < bytes.length) {
      switch (this.#state) {
        case "length":
        case "chunk":
        case "until close":
          at += this.#takeBody(bytes.subarray(at));
          break;
        default:
          at += this.#takeLine(bytes.subarray(at));
      }
    }
    return this.#answer;
  }

  /** The server has sent FIN. */
  end(): HttpAnswer {
    if (this.#answer.is !== "more") return this.#answer;
    if (this.#state === "until close") return (this.#answer = RESPONSE);
    if (this.#headBytes === 0) return this.#bad("closed before the answer");
    const isHttp = this.#statusRead !== 0;
    const what = "closed in the middle of the answer";
    return this.#bad(isHttp ? what : `${what}: found ${excerpt(this.#line.bytes)}`);
  }

  // ---------------------------------------------------------------- lines

  /** Takes bytes up to the end of a line, and handles the line once it is complete. Returns how many bytes it took. */
  #takeLine(bytes: Uint8Array): number {
    const end = bytes.indexOf(LF);
    const taken = end < 0 ? bytes.length : end + 1;
    const isChunkLine = this.#state === "chunk size" || this.#state === "chunk end";
    const room = isChunkLine ? HTTP_CHUNK_LINE_BYTES_MAX - this.#line.length : HTTP_HEAD_BYTES_MAX - this.#headBytes;
    if (taken > room) {
      this.#bad(isChunkLine ? "the size of a chunk is too long" : "the head is larger than 16 KiB");
      return taken;
    }
    this.#line.push(bytes.subarray(0, taken));
    if (!isChunkLine) this.#headBytes += taken;
    if (end < 0) return taken;
    const line = this.#line.bytes;
    const text = latin1Long(line.subarray(0, line.length - (line.at(-2) === CR ? 2 : 1)));
    if (this.#state === "status" && !text.startsWith("HTTP/")) this.#bad(`the answer is not HTTP: ${excerpt(line)}`);
    else this.#readLine(text);
    this.#line.clear();
    return taken;
  }

  #readLine(line: string): void {
    switch (this.#state) {
      case "status":
        return this.#readStatus(line);
      case "fields":
        if (line !== "") return this.#readField(line);
        return this.#endHead();
      case "chunk size":
        return this.#readChunkSize(line);
      case "chunk end":
        if (line !== "") this.#bad("a chunk is longer than its size");
        else this.#state = "chunk size";
        return;
      case "trailers":
        if (line === "") this.#over();
        return;
      default:
        throw new Error(`${this.#state} has no lines`);
    }
  }

  #readStatus(line: string): void {
    const [, status] = /^HTTP\/1\.\d ([1-9]\d\d)(?: .*)?$/s.exec(line) ?? [];
    if (status === undefined) return void this.#bad(`bad status line: ${JSON.stringify(line.slice(0, 80))}`);
    this.#statusRead = Number(status);
    this.#state = "fields";
  }

  #readField(line: string): void {
    // RFC 9112 section 5.2: a line that begins with white space continues the line before. The two fields that matter are never that long.
    if (/^[ \t]/.test(line)) return;
    const [, name, value] = /^([^\s:]+):[ \t]*(.*?)[ \t]*$/s.exec(line) ?? [];
    if (name === undefined || value === undefined) {
      return void this.#bad(`bad header field: ${JSON.stringify(line.slice(0, 80))}`);
    }
    if (name.toLowerCase() === "content-length") this.#lengths.push(...value.split(/[ \t]*,[ \t]*/));
    if (name.toLowerCase() === "transfer-encoding") this.#codings.push(...value.toLowerCase().split(/[ \t]*,[ \t]*/));
  }

  /** The empty line after the fields: RFC 9112 section 6.3 says how the length of the body is determined. */
  #endHead(): void {
    const status = this.#statusRead;
    const [length] = this.#lengths;
    const isInterim = status < 200 && status !== 101;
    if (!isInterim) this.status = status;
    if (isInterim) this.#state = "status";
    else if (!this.#hasBody || status === 101 || status === 204 || status === 304) this.#over();
    else if (this.#codings.length > 0) {
      this.#state = this.#codings.at(-1) === "chunked" ? "chunk size" : "until close";
    } else if (length === undefined) this.#state = "until close";
    else if (!/^\d{1,15}$/.test(length) || this.#lengths.some((other) => other !== length)) {
      this.#bad(`bad content-length: ${JSON.stringify(this.#lengths.join(", ").slice(0, 80))}`);
    } else this.#beginBytes("length", Number(length));
    this.#lengths = [];
    this.#codings = [];
  }

  #readChunkSize(line: string): void {
    const [, size] = /^([0-9a-fA-F]{1,12})[ \t]*(?:;.*)?$/s.exec(line) ?? [];
    if (size === undefined) return void this.#bad(`bad size of a chunk: ${JSON.stringify(line.slice(0, 80))}`);
    if (Number.parseInt(size, 16) === 0) this.#state = "trailers";
    else this.#beginBytes("chunk", Number.parseInt(size, 16));
  }

  // ---------------------------------------------------------------- bytes

  #beginBytes(state: "length" | "chunk", left: number): void {
    this.#state = state;
    this.#left = left;
    if (left === 0) this.#over();
  }

  #takeBody(bytes: Uint8Array): number {
    const taken = this.#state === "until close" ? bytes.length : Math.min(bytes.length, this.#left);
    this.body.push(bytes.subarray(0, taken));
    this.#left -= taken;
    if (this.body.isFull) this.#over();
    else if (this.#left === 0 && this.#state === "chunk") this.#state = "chunk end";
    else if (this.#left === 0 && this.#state === "length") this.#over();
    return taken;
  }

  #over(): void {
    this.#state = "over";
    this.#answer = RESPONSE;
  }

  #bad(why: string): HttpAnswer {
    return (this.#answer = { is: "bad", why });
  }
}

// A call has a maximum number of arguments.
function latin1Long(bytes: Uint8Array): string {
  let text = "";
  for (let at = 0; at < bytes.length; at += 4096) text += latin1(bytes.subarray(at, at + 4096));
  return text;
}
