// The HTTP health check: one request, and the conditions on its response.
import { formatStatusRanges, type StatusRange } from "../core/http-status.ts";
import { indexOfBytes } from "./answer.ts";
import { bad, cutShort, more, ok, type Cut, type Exchange, type Step, type Verdict } from "./exchange.ts";
import { HttpResponseReader } from "./http-response.ts";

export interface HttpCheckSpec {
  method: "GET" | "HEAD";
  /** The target of the request, as it is sent: ASCII without spaces. */
  path: string;
  /** The Host field. */
  host: string;
  status: readonly StatusRange[];
  /** What the first 64 KiB of the body must contain; "" = anything. */
  body: string;
}

const NOTHING = new Uint8Array(0);

export class HttpCheck implements Exchange {
  readonly #spec: HttpCheckSpec;
  readonly #reader: HttpResponseReader;
  readonly #body: Uint8Array;

  constructor(spec: HttpCheckSpec) {
    this.#spec = spec;
    this.#reader = new HttpResponseReader(spec.method === "GET");
    this.#body = new TextEncoder().encode(spec.body);
  }

  begin(): Step {
    const { method, path, host } = this.#spec;
    const fields = `Host: ${host}\r\nUser-Agent: lb\r\nAccept: */*\r\nConnection: close\r\n`;
    return more(new TextEncoder().encode(`${method} ${path} HTTP/1.1\r\n${fields}\r\n`));
  }

  push(bytes: Uint8Array): Step {
    const answer = this.#reader.push(bytes);
    if (answer.is === "bad") return bad(answer.why);
    return answer.is === "more" ? more() : (this.#fault() ?? ok());
  }

  end(cut: Cut): Verdict {
    const { status } = this.#reader;
    if (status === 0 && cut === "timeout") return cutShort(cut, NOTHING);
    const fault = this.#fault();
    if (status !== 0 && fault !== null) return fault;
    // A response that does not end, such as an event stream, has already delivered what was asked for.
    if (cut === "timeout") return ok();
    const answer = this.#reader.end();
    return answer.is === "bad" ? bad(answer.why) : (fault ?? ok());
  }

  #fault(): Verdict | null {
    const { status, body } = this.#reader;
    const ranges = this.#spec.status;
    if (!ranges.some(([first, last]) => first <= status && status <= last)) {
      return bad(`status ${status}, expected ${formatStatusRanges(ranges)}`);
    }
    if (indexOfBytes(body.bytes, this.#body) >= 0) return null;
    const what = body.isFull ? "the first 64 KiB of the body do" : "the body does";
    return bad(`status ${status}, but ${what} not contain ${JSON.stringify(this.#spec.body)}`);
  }
}
