// The head of a connection: what must be read of a client before it can be routed. Collects bytes and calls the parsers. A listener that
// needs neither a PROXY header nor a ClientHello does not use it.
import { joined } from "../core/bytes.ts";
import type { End } from "../core/ends.ts";
import { HelloReader, type ClientHello } from "../wire/client-hello.ts";
import type { AlertDescription } from "../wire/tls-records.ts";
import { parseProxyHeader, type ProxyHeader } from "../wire/proxy-protocol.ts";

/** What the listener expects first. */
export interface HeadNeeds {
  proxyHeader: "no" | "optional" | "required";
  /** The listener terminates TLS, or a route depends on a fact of the ClientHello. */
  hello: boolean;
  /** Data that is not TLS is refused. */
  tlsOnly: boolean;
}

export type HeadAnswer =
  | { is: "more" }
  /** The PROXY header is complete, or there is none; push an empty chunk to continue. */
  | { is: "proxy"; header: ProxyHeader | null }
  /** The head is complete. `hello` is null if none was needed, or if the data is not TLS. */
  | { is: "done"; hello: ClientHello | null }
  /** `alert` is sent to a client that uses TLS; 0 = none. */
  | { is: "refused"; end: End; why: string; alert: AlertDescription | 0 };

const NOTHING = new Uint8Array(0);

export class Head {
  #proxyHeader: HeadNeeds["proxyHeader"];
  readonly #reader: HelloReader | null;
  readonly #tlsOnly: boolean;
  /** Bytes that do not belong to the PROXY header, until they are passed to the reader of the hello. */
  #bytes: Uint8Array = NOTHING;

  constructor(needs: HeadNeeds) {
    this.#proxyHeader = needs.proxyHeader;
    this.#reader = needs.hello ? new HelloReader() : null;
    this.#tlsOnly = needs.tlsOnly;
  }

  /** Every byte after the PROXY header: the client's own. */
  get bytes(): Uint8Array {
    return this.#reader === null || this.#bytes.length > 0 ? this.#bytes : this.#reader.bytes;
  }

  get readingProxyHeader(): boolean {
    return this.#proxyHeader !== "no";
  }

  /** No byte has arrived yet. */
  get empty(): boolean {
    return this.bytes.length === 0;
  }

  /** The next bytes of the client. After "proxy" call it with none. */
  push(chunk: Uint8Array): HeadAnswer {
    if (this.#proxyHeader !== "no") return this.#readProxyHeader(this.#proxyHeader === "required", chunk);
    if (this.#reader === null) {
      this.#bytes = joined(this.#bytes, chunk);
      return { is: "done", hello: null };
    }
    const bytes = joined(this.#bytes, chunk);
    this.#bytes = NOTHING;
    const answer = this.#reader.push(bytes);
    switch (answer.is) {
      case "more":
        return answer;
      case "hello":
        return { is: "done", hello: answer.hello };
      case "not_tls":
        if (!this.#tlsOnly) return { is: "done", hello: null };
        return { is: "refused", end: "handshake_failed", why: "not_tls", alert: 0 };
      case "bad":
        return { is: "refused", end: "handshake_failed", why: "bad_hello", alert: answer.alert };
    }
  }

  #readProxyHeader(required: boolean, chunk: Uint8Array): HeadAnswer {
    this.#bytes = joined(this.#bytes, chunk);
    const answer = parseProxyHeader(this.#bytes);
    switch (answer.is) {
      case "more":
        return answer;
      case "bad":
        return { is: "refused", end: "proxy_header_bad", why: answer.why, alert: 0 };
      case "none":
        if (required) return { is: "refused", end: "proxy_header_bad", why: "no PROXY header", alert: 0 };
        this.#proxyHeader = "no";
        return { is: "proxy", header: null };
      case "proxy":
        this.#proxyHeader = "no";
        this.#bytes = this.#bytes.subarray(answer.length);
        return { is: "proxy", header: answer.header };
    }
  }
}
