import { describe, expect, test } from "vitest";
import { compilePattern } from "../../src/core/pattern.ts";
import type { Cut, Step } from "../../src/wire/exchange.ts";
import { ANSWER_BYTES_MAX, REPLY_BYTES_MAX, StepExchange, type ExchangeStep } from "../../src/wire/step-exchange.ts";

const bytes = (text: string): Uint8Array => Buffer.from(text);
const send = (text: string): ExchangeStep => ({ send: bytes(text), expect: null });
const expects = (text: string): ExchangeStep => ({
  send: null,
  expect: { is: "bytes", bytes: bytes(text), words: JSON.stringify(text) },
});
const matches = (source: string): ExchangeStep => {
  const pattern = compilePattern(source);
  if ("bad" in pattern) throw new Error(pattern.bad);
  return { send: null, expect: { is: "pattern", pattern, words: `/${source}/` } };
};
const replies = (wanted: RegExp, refused: RegExp): ExchangeStep => ({
  send: null,
  expect: { is: "reply", wanted, refused, words: String(wanted) },
});

/** What an exchange sends first and after each answer: "" for nothing, "ok", or why it fails. */
function run(steps: ExchangeStep[], answers: string[], cut?: Cut): string[] {
  const exchange = new StepExchange(steps);
  const words = (step: Step): string => {
    if (step.is === "tls") return "tls";
    const sent = step.send === null ? "" : Buffer.from(step.send).toString();
    return step.is === "bad" ? step.why : step.is === "ok" ? `${sent}ok` : sent;
  };
  const said = [words(exchange.begin()), ...answers.map((answer) => words(exchange.push(bytes(answer))))];
  return cut === undefined ? said : [...said, words(exchange.end(cut))];
}

describe("an exchange of steps", () => {
  test("sends and expects in order, however the answers are split", () => {
    expect(
      run([send("PING\r\n"), expects("+PONG"), send("QUIT\r\n"), expects("+OK")], ["+PO", "NG\r\n", "+OK"]),
    ).toEqual(["PING\r\n", "", "QUIT\r\n", "ok"]);
    expect(run([expects("220"), send("a"), send("b")], ["220 hello"])).toEqual(["", "abok"]);
    expect(run([send("a")], [])).toEqual(["aok"]);
  });

  test("lets several expectations search one answer, in any order, and starts again with the next answer", () => {
    expect(run([send("INFO"), expects("b"), expects("a"), matches("^a b$")], ["a ", "b"])).toEqual(["INFO", "", "ok"]);
    expect(run([expects("x"), send("a"), expects("x")], ["x", "y", "x"])).toEqual(["", "a", "", "ok"]);
  });

  test("finds bytes at every split point of an answer", () => {
    const answer = "aab aaab";
    for (let at = 0; at <= answer.length; at++) {
      expect(run([expects("aaab")], [answer.slice(0, at), answer.slice(at)]).at(-1)).toBe("ok");
    }
    expect(run([expects("aaab")], [...answer]).at(-1)).toBe("ok");
    const binary = { is: "bytes", bytes: Uint8Array.of(0, 255), words: "00ff" } as const;
    const exchange = new StepExchange([{ send: null, expect: binary }]);
    exchange.begin();
    expect([exchange.push(Uint8Array.of(0)).is, exchange.push(Uint8Array.of(255)).is]).toEqual(["more", "ok"]);
  });

  test("finds a pattern however the answer is split, also within a character", () => {
    const answer = Buffer.from("\r\n# Réplication\r\nrole:master\r\n");
    for (let at = 0; at <= answer.length; at++) {
      const exchange = new StepExchange([matches("^# R.plication$"), matches("^role:(master|primary)$")]);
      exchange.begin();
      const first = exchange.push(answer.subarray(0, at));
      expect(first.is === "ok" ? "ok" : exchange.push(answer.subarray(at)).is).toBe("ok");
    }
  });

  test("reports the bytes that it found if the answer can no longer match", () => {
    expect(run([replies(/^\+PONG/, /^-.*/)], ["-LOADING data\r\n"])[1]).toBe(
      'expected /^\\+PONG/, found "-LOADING data"',
    );
    expect(run([expects("+PONG")], ["-ERR"], "timeout").at(-1)).toBe('no "+PONG" in time: found "-ERR"');
    expect(run([expects("+PONG")], ["-ERR"], "closed").at(-1)).toBe('no "+PONG" before the end: found "-ERR"');
    expect(run([expects("+PONG")], [], "timeout").at(-1)).toBe("no answer in time");
    expect(run([expects("+PONG")], [], "closed").at(-1)).toBe("closed before the answer");
  });

  test("reads 64 KiB of an answer, and 4 KiB in a named exchange", () => {
    const text = (count: number) => `${"x".repeat(count - 1)}!`;
    expect(run([expects("!")], [text(ANSWER_BYTES_MAX)])[1]).toBe("ok");
    expect(run([expects("!")], [text(ANSWER_BYTES_MAX + 1)])[1]).toContain('no "!" in the first 64 KiB');
    expect(run([matches("!")], [text(ANSWER_BYTES_MAX)])[1]).toBe("ok");
    expect(run([matches("!")], [text(ANSWER_BYTES_MAX + 1)])[1]).toContain("no /!/ in the first 64 KiB");
    const reply = replies(/!/, /[?]/);
    expect(run([reply], [text(REPLY_BYTES_MAX)])[1]).toBe("ok");
    expect(run([reply], [text(REPLY_BYTES_MAX + 1)])[1]).toContain("no /!/ in the first 4 KiB");
  });

  test("sends its goodbye whatever was found", () => {
    const made = () => new StepExchange([replies(/good/, /bad/)], bytes("QUIT"));
    for (const answer of ["good", "bad"]) {
      const exchange = made();
      exchange.begin();
      expect(exchange.push(bytes(answer))).toMatchObject({ is: answer === "good" ? "ok" : "bad", send: bytes("QUIT") });
    }
  });
});
