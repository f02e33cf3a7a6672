// An exchange of steps, each of which sends bytes, expects something in the answer, or both: `type = "exchange"` of the config, and the
// protocols for which a few lines of text are enough.
import { joined } from "../core/bytes.ts";
import { PatternSearch, type Pattern } from "../core/pattern.ts";
import { Answer, indexOfBytes } from "./answer.ts";
import { bad, cutShort, excerpt, more, ok, type Cut, type Exchange, type Step, type Verdict } from "./exchange.ts";

/** Maximum size of the answer to one step. */
export const ANSWER_BYTES_MAX = 64 * 1024;

/** How much of the answer the expressions of a named exchange read. */
export const REPLY_BYTES_MAX = 4096;

/** What an answer must contain. `words` names it in messages. */
export type Expectation =
  | { readonly is: "bytes"; readonly bytes: Uint8Array; readonly words: string }
  | { readonly is: "pattern"; readonly pattern: Pattern; readonly words: string }
  /** Of a named exchange: `refused` matches an answer that can no longer become the expected one; it is tried first. */
  | { readonly is: "reply"; readonly wanted: RegExp; readonly refused: RegExp; readonly words: string };

/** `send` comes first. An expectation reads everything that has arrived since the last send. */
export interface ExchangeStep {
  readonly send: Uint8Array | null;
  readonly expect: Expectation | null;
}

const NOTHING = new Uint8Array(0);

export class StepExchange implements Exchange {
  readonly #steps: readonly ExchangeStep[];
  readonly #goodbye: Uint8Array | null;
  readonly #answer = new Answer(ANSWER_BYTES_MAX);
  #at = 0;
  #isSent = false;
  /** Where the search continues. */
  #searched = 0;
  #search: TextSearch | null = null;

  /** `goodbye` is sent at the end whatever the backend has answered; its answer is not waited for. */
  constructor(steps: readonly ExchangeStep[], goodbye: Uint8Array | null = null) {
    this.#steps = steps;
    this.#goodbye = goodbye;
  }

  begin(): Step {
    return this.#go();
  }

  push(bytes: Uint8Array): Step {
    this.#answer.push(bytes);
    return this.#go();
  }

  end(cut: Cut): Verdict {
    const expected = this.#steps[this.#at]?.expect ?? null;
    if (expected === null || this.#answer.length === 0) return cutShort(cut, NOTHING);
    return this.#missing(expected, cut === "timeout" ? " in time" : " before the end");
  }

  /** Takes all steps that are possible now. */
  #go(): Step {
    let send: Uint8Array = NOTHING;
    for (; this.#at < this.#steps.length; this.#at++) {
      const step = this.#steps[this.#at];
      if (step === undefined) break;
      if (!this.#isSent && step.send !== null) {
        send = joined(send, step.send);
        this.#answer.clear();
      }
      this.#isSent = true;
      if (step.expect !== null) {
        const verdict = this.#look(step.expect);
        if (verdict === "more") return more(send.length === 0 ? null : send);
        if (verdict !== "found") return verdict;
      }
      this.#isSent = false;
      this.#searched = 0;
      this.#search = null;
    }
    const last = joined(send, this.#goodbye ?? NOTHING);
    return ok(last.length === 0 ? null : last);
  }

  #look(expected: Expectation): "found" | "more" | Verdict {
    const { bytes, isFull } = this.#answer;
    switch (expected.is) {
      case "bytes":
        if (indexOfBytes(bytes, expected.bytes, this.#searched) >= 0) return "found";
        this.#searched = Math.max(0, bytes.length - expected.bytes.length + 1);
        break;
      case "pattern":
        this.#search ??= new TextSearch(expected.pattern);
        if (this.#search.push(bytes.subarray(this.#searched))) return "found";
        this.#searched = bytes.length;
        break;
      case "reply":
        return this.#readReply(expected);
    }
    return isFull ? this.#missing(expected, " in the first 64 KiB") : "more";
  }

  #readReply(expected: Extract<Expectation, { is: "reply" }>): "found" | "more" | Verdict {
    const { bytes } = this.#answer;
    const text = new TextDecoder().decode(bytes.subarray(0, REPLY_BYTES_MAX));
    const [refused] = expected.refused.exec(text) ?? [];
    if (refused !== undefined) return bad(`expected ${expected.words}, found ${quoted(refused)}`, this.#goodbye);
    if (expected.wanted.test(text)) return "found";
    return bytes.length >= REPLY_BYTES_MAX ? this.#missing(expected, " in the first 4 KiB") : "more";
  }

  #missing(expected: Expectation, where: string): Verdict {
    return bad(`no ${expected.words}${where}: found ${excerpt(this.#answer.bytes)}`, this.#goodbye);
  }
}

/** A search in bytes that may split a character. */
class TextSearch {
  readonly #search: PatternSearch;
  readonly #decoder = new TextDecoder();

  constructor(pattern: Pattern) {
    this.#search = new PatternSearch(pattern);
  }

  push(bytes: Uint8Array): boolean {
    return this.#search.push(this.#decoder.decode(bytes, { stream: true }));
  }
}

function quoted(text: string): string {
  return JSON.stringify(text.trim().slice(0, 80));
}
