// The answer of HAProxy's agent (configuration manual, "agent-check"): one line of words about its server. A line states everything:
// without a word for it, the server is up, ready and at 100 %.
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

/** The report of a line, or null if it contains no word of the protocol. Unknown words are ignored: HAProxy has more. */
export function parseAgentLine(line: string): AgentReport | null {
  let [up, state, percent, isKnown] = [true, NOTHING_REPORTED.state, 100, false];
  // A description follows #.
  const words = line
    .replace(/#.*/s, "")
    .toLowerCase()
    .split(/[\s,]+/);
  for (const word of words) {
    const [, number] = /^(\d{1,6})%$/.exec(word) ?? [];
    if (number !== undefined) percent = Math.min(AGENT_PERCENT_MAX, Number(number));
    else if (DOWN.has(word)) up = false;
    else if (word === "drain" || word === "maint") state = word;
    else if (word !== "up" && word !== "ready") continue;
    isKnown = true;
  }
  return isKnown ? { up, state, percent } : null;
}

/** Waits for the line, which ends with LF or with the connection. */
export class AgentExchange implements Exchange {
  /** The agent's report, once the exchange has succeeded. */
  report: AgentReport = NOTHING_REPORTED;
  readonly #answer = new Answer(AGENT_LINE_BYTES_MAX);

  begin(): Step {
    return more();
  }

  push(bytes: Uint8Array): Step {
    this.#answer.push(bytes);
    const end = this.#answer.bytes.indexOf(0x0a);
    if (end >= 0) return this.#read(this.#answer.bytes.subarray(0, end));
    return this.#answer.isFull ? bad("the agent's line is too long") : more();
  }

  end(cut: Cut): Verdict {
    const { bytes } = this.#answer;
    return cut === "timeout" || bytes.length === 0 ? cutShort(cut, bytes) : this.#read(bytes);
  }

  #read(line: Uint8Array): Verdict {
    const report = parseAgentLine(latin1(line));
    if (report === null) return bad(`the agent says ${excerpt(line)}`);
    this.report = report;
    return ok();
  }
}
