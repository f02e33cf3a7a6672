// The answer of HAProxy's agent (configuration manual, "agent-check"): one line of words about its server. Each word is of one of three
// kinds: up or down, the administrative state, the weight. A line changes the kinds that it mentions.
import { Answer } from "./answer.ts";
import { bad, cutShort, excerpt, more, ok, type Cut, type Exchange, type Step, type Verdict } from "./exchange.ts";
import { latin1 } from "./latin1.ts";

/** Maximum length of the line. */
export const AGENT_LINE_BYTES_MAX = 512;

/** Maximum percentage, far above what any weight can use. */
export const AGENT_PERCENT_MAX = 10_000;

export interface AgentReport {
  readonly up: boolean;
  /** maint and drain both take no new connections. */
  readonly state: "ready" | "drain" | "maint";
  /** Percentage of the configured weight. */
  readonly percent: number;
}

/** The report that holds before the agent has answered. */
export const NOTHING_REPORTED: AgentReport = { up: true, state: "ready", percent: 100 };

const DOWN: ReadonlySet<string> = new Set(["down", "stopped", "fail", "failed"]);

/** What a line says: the report that it makes of the last one, and why the server is down ("fail: disk full"). */
export interface AgentLine {
  readonly report: AgentReport;
  readonly why: string;
}

/**
 * Reads a line; null = it contains no word of the protocol. Of several words of one kind the last one counts. Unknown words are ignored.
 * In HAProxy only "ready" ends drain and maint. Here "up" does too, unless the line has a word for the administrative state.
 */
export function parseAgentLine(line: string, before: AgentReport): AgentLine | null {
  let { up, percent } = before;
  let state: AgentReport["state"] | null = null;
  let [said, isKnown] = ["", false];
  const [words = "", ...description] = line.split("#");
  for (const word of words.toLowerCase().split(/[ \t,]+/)) {
    const [, number] = /^(\d{1,6})%$/.exec(word) ?? [];
    if (number !== undefined) percent = Math.min(AGENT_PERCENT_MAX, Number(number));
    else if (word === "up" || DOWN.has(word)) {
      up = word === "up";
      said = word;
    } else if (word === "ready" || word === "drain" || word === "maint") state = word;
    else if (!/^maxconn:\d+$/.test(word)) continue;
    isKnown = true;
  }
  if (!isKnown) return null;
  state ??= said === "up" ? "ready" : before.state;
  const text = description.join("#").trim();
  return { report: { up, state, percent }, why: text === "" ? said : `${said}: ${text}` };
}

/** Waits for the line, which ends with the first CR or LF, or with the connection. */
export class AgentExchange implements Exchange {
  /** The agent's report, once the exchange has succeeded, and why the server is down. */
  report: AgentReport;
  why = "";
  readonly #answer = new Answer(AGENT_LINE_BYTES_MAX);

  /** `before` is the agent's last report. */
  constructor(before: AgentReport) {
    this.report = before;
  }

  begin(): Step {
    return more();
  }

  push(bytes: Uint8Array): Step {
    this.#answer.push(bytes);
    const end = this.#answer.bytes.findIndex((byte) => byte === LF || byte === CR);
    if (end >= 0) return this.#read(this.#answer.bytes.subarray(0, end));
    return this.#answer.isFull ? bad("the agent's line is too long") : more();
  }

  end(cut: Cut): Verdict {
    const { bytes } = this.#answer;
    return cut === "timeout" || bytes.length === 0 ? cutShort(cut, bytes) : this.#read(bytes);
  }

  #read(line: Uint8Array): Verdict {
    const said = parseAgentLine(latin1(line), this.report);
    if (said === null) return bad(`the agent says ${excerpt(line)}`);
    this.report = said.report;
    this.why = said.why;
    return ok();
  }
}

const CR = 0x0d;
const LF = 0x0a;
