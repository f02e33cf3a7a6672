import { describe, expect, test } from "vitest";
import { lineFramed, octetCounted, SyslogMessages } from "../../src/wire/syslog.ts";

/** The ABNF of RFC 5424 section 6, without the contents of structured data. */
const RFC_5424 =
  /^<(?<pri>\d{1,3})>(?<version>[1-9]\d{0,2}) (?<time>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{1,6}(?:Z|[+-]\d\d:\d\d)) (?<hostname>[\x21-\x7e]{1,255}) (?<app>[\x21-\x7e]{1,48}) (?<procid>[\x21-\x7e]{1,128}) (?<msgid>[\x21-\x7e]{1,32}) (?<sd>-) (?<msg>.*)$/su;

const sender = { hostname: "edge-1", pid: 4711 };
const parse = (message: Uint8Array) => {
  const { groups } = RFC_5424.exec(new TextDecoder("utf-8", { fatal: true }).decode(message))!;
  return { ...groups };
};
const bytes = (text: string) => new TextEncoder().encode(text);

const TEXT = "time=2026-11-22T19:47:00.084Z id=1 listener=web client=192.0.2.7:45134 end=eof end_by=backend";
const JSON_LINE = '{"time":"2026-11-22T19:47:00.084Z","id":1,"listener":"web","client_cert":"Zoë"}';

describe("messages of syslog", () => {
  test.each([
    ["text", TEXT],
    ["JSON", JSON_LINE],
  ])("have the parts of RFC 5424 and the time of the line, which is %s", (_, line) => {
    const messages = new SyslogMessages(sender, 8192).of(bytes(`${line}\n${line}\n`));
    const parts = {
      pri: "134",
      version: "1",
      time: "2026-11-22T19:47:00.084Z",
      hostname: "edge-1",
      app: "lb",
      procid: "4711",
      msgid: "access",
      sd: "-",
      msg: line,
    };
    expect(messages.map(parse)).toEqual([parts, parts]);
  });

  test("have a host name that the format allows, whatever the machine's is", () => {
    const hostnameOf = (hostname: string) =>
      parse(new SyslogMessages({ ...sender, hostname }, 8192).of(bytes(`${TEXT}\n`))[0]!)["hostname"];
    expect(hostnameOf("")).toBe("-");
    expect(hostnameOf("böse kiste")).toBe("bsekiste");
    expect(hostnameOf("x".repeat(300))).toBe("x".repeat(255));
  });

  test("are cut at a whole character when they are too long", () => {
    const line = `${TEXT} error="${"ä€😀".repeat(300)}"`;
    for (let bytesMax = 300; bytesMax < 320; bytesMax++) {
      const [message] = new SyslogMessages(sender, bytesMax).of(bytes(`${line}\n`));
      expect(message!.length).toBeLessThanOrEqual(bytesMax);
      expect(message!.length).toBeGreaterThan(bytesMax - 4);
      expect(line.startsWith(parse(message!)["msg"]!)).toBe(true);
    }
  });

  test("have their length in bytes in front on a stream, or a line feed behind", () => {
    expect(new TextDecoder().decode(octetCounted(bytes("Zoë")))).toBe("4 Zoë");
    expect(new TextDecoder().decode(lineFramed(bytes("Zoë")))).toBe("Zoë\n");
  });
});
