import { describe, expect, test } from "vitest";
import { AGENT_LINE_BYTES_MAX, AGENT_PERCENT_MAX, AgentExchange, parseAgentLine } from "../../src/wire/agent.ts";

describe("an agent's line", () => {
  test.each([
    ["up", { up: true, state: "ready", percent: 100 }],
    ["READY\r", { up: true, state: "ready", percent: 100 }],
    ["down", { up: false, state: "ready", percent: 100 }],
    ["stopped", { up: false, state: "ready", percent: 100 }],
    ["fail#disk full, up", { up: false, state: "ready", percent: 100 }],
    ["drain", { up: true, state: "drain", percent: 100 }],
    ["maint", { up: true, state: "maint", percent: 100 }],
    ["50%", { up: true, state: "ready", percent: 50 }],
    ["0%", { up: true, state: "ready", percent: 0 }],
    ["999999%", { up: true, state: "ready", percent: AGENT_PERCENT_MAX }],
    ["up, 75% maxconn:30 drain", { up: true, state: "drain", percent: 75 }],
  ])("%j", (line, report) => {
    expect(parseAgentLine(line)).toEqual(report);
  });

  test.each(["", "hello", "50", "-5%", "5.5%", "# up", "HTTP/1.1 400 Bad Request"])("%j is no report", (line) => {
    expect(parseAgentLine(line)).toBeNull();
  });
});

describe("the exchange", () => {
  test("ends with the line, however it is cut, or with the connection", () => {
    const line = "drain 50%\r\nmore";
    for (let at = 0; at <= line.length; at++) {
      const exchange = new AgentExchange();
      expect(exchange.begin().is).toBe("more");
      const first = exchange.push(Buffer.from(line.slice(0, at)));
      const step = first.is === "more" ? exchange.push(Buffer.from(line.slice(at))) : first;
      expect([step.is, exchange.report]).toEqual(["ok", { up: true, state: "drain", percent: 50 }]);
    }
    const exchange = new AgentExchange();
    exchange.push(Buffer.from("down"));
    expect([exchange.end("closed").is, exchange.report.up]).toEqual(["ok", false]);
  });

  test("fails if the line does not end in time, is too long, or is no report", () => {
    const exchange = new AgentExchange();
    expect(exchange.end("closed")).toMatchObject({ is: "bad", why: "closed before the answer" });
    exchange.push(Buffer.from("do"));
    expect(exchange.end("timeout")).toMatchObject({ is: "bad", why: 'no answer in time: found "do"' });
    expect(new AgentExchange().push(Buffer.from("hello\n"))).toMatchObject({ why: 'the agent says "hello"' });
    const long = (count: number) => new AgentExchange().push(Buffer.from(`up ${" ".repeat(count - 3)}`));
    expect([long(AGENT_LINE_BYTES_MAX - 1).is, long(AGENT_LINE_BYTES_MAX).is]).toEqual(["more", "bad"]);
  });
});
