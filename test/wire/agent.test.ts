import { describe, expect, test } from "vitest";
import {
  AGENT_LINE_BYTES_MAX,
  AGENT_PERCENT_MAX,
  AgentExchange,
  NOTHING_REPORTED,
  parseAgentLine,
} from "../../src/wire/agent.ts";

const said = (line: string, before = NOTHING_REPORTED) => parseAgentLine(line, before);

describe("an agent's line", () => {
  test.each([
    ["up", { up: true, state: "ready", percent: 100 }],
    ["READY", { up: true, state: "ready", percent: 100 }],
    ["down", { up: false, state: "ready", percent: 100 }],
    ["stopped", { up: false, state: "ready", percent: 100 }],
    ["failed", { up: false, state: "ready", percent: 100 }],
    ["fail#disk full, up", { up: false, state: "ready", percent: 100 }],
    ["drain", { up: true, state: "drain", percent: 100 }],
    ["maint", { up: true, state: "maint", percent: 100 }],
    ["50%", { up: true, state: "ready", percent: 50 }],
    ["0%", { up: true, state: "ready", percent: 0 }],
    ["999999%", { up: true, state: "ready", percent: AGENT_PERCENT_MAX }],
    ["up, 75% maxconn:30\tdrain", { up: true, state: "drain", percent: 75 }],
    ["maxconn:30", { up: true, state: "ready", percent: 100 }],
    // The last word of a kind counts.
    ["down 10% drain up 20% maint", { up: true, state: "maint", percent: 20 }],
    ["up down", { up: false, state: "ready", percent: 100 }],
  ])("%j", (line, report) => {
    expect(said(line)?.report).toEqual(report);
  });

  test("changes only what it mentions, except that up also ends drain and maint", () => {
    const before = { up: false, state: "drain", percent: 40 } as const;
    const after = (line: string) => said(line, before)?.report;
    expect(after("50%")).toEqual({ up: false, state: "drain", percent: 50 });
    expect(after("ready")).toEqual({ up: false, state: "ready", percent: 40 });
    expect(after("maint")).toEqual({ up: false, state: "maint", percent: 40 });
    expect(after("up")).toEqual({ up: true, state: "ready", percent: 40 });
    expect(after("up drain")).toEqual({ up: true, state: "drain", percent: 40 });
    expect(after("maint up")).toEqual({ up: true, state: "maint", percent: 40 });
    expect(after("maxconn:5")).toEqual(before);
    expect(after("down up down")).toEqual(before);
  });

  test("says why its server is down", () => {
    expect(said("stopped")?.why).toBe("stopped");
    expect(said("drain, FAIL # disk full, since #3 ")?.why).toBe("fail: disk full, since #3");
  });

  test.each(["", "hello", "50", "-5%", "5.5%", "# up", "maxconn:", "HTTP/1.1 400 Bad Request"])(
    "%j is no report",
    (line) => {
      expect(said(line)).toBeNull();
    },
  );
});

describe("the exchange", () => {
  test("ends with the line, however it is cut, or with the connection", () => {
    const line = "drain 50%\r\nmore";
    for (let at = 0; at <= line.length; at++) {
      const exchange = new AgentExchange(NOTHING_REPORTED);
      expect(exchange.begin().is).toBe("more");
      const first = exchange.push(Buffer.from(line.slice(0, at)));
      const step = first.is === "more" ? exchange.push(Buffer.from(line.slice(at))) : first;
      expect([step.is, exchange.report]).toEqual(["ok", { up: true, state: "drain", percent: 50 }]);
    }
    // A CR alone ends the line too.
    const byCr = new AgentExchange(NOTHING_REPORTED);
    expect([byCr.push(Buffer.from("maint\rup")).is, byCr.report.state]).toEqual(["ok", "maint"]);
    const exchange = new AgentExchange(NOTHING_REPORTED);
    exchange.push(Buffer.from("down"));
    expect([exchange.end("closed").is, exchange.report.up]).toEqual(["ok", false]);
  });

  test("fails if the line does not end in time, is too long, or is no report", () => {
    const exchange = new AgentExchange(NOTHING_REPORTED);
    expect(exchange.end("closed")).toMatchObject({ is: "bad", why: "closed before the answer" });
    exchange.push(Buffer.from("do"));
    expect(exchange.end("timeout")).toMatchObject({ is: "bad", why: 'no answer in time: found "do"' });
    expect(new AgentExchange(NOTHING_REPORTED).push(Buffer.from("hello\n"))).toMatchObject({
      why: 'the agent says "hello"',
    });
    const long = (count: number) =>
      new AgentExchange(NOTHING_REPORTED).push(Buffer.from(`up ${" ".repeat(count - 3)}`));
    expect([long(AGENT_LINE_BYTES_MAX - 1).is, long(AGENT_LINE_BYTES_MAX).is]).toEqual(["more", "bad"]);
  });
});
