import { describe, expect, test } from "vitest";
import { parseAddress } from "../../src/core/address.ts";
import { END_NAMES, ENDED_BY } from "../../src/core/ends.ts";
import { clientText, formatAccess, word, type AccessLine } from "../../src/observe/access-line.ts";
import { forSeeds } from "../support/random.ts";

const full: AccessLine = {
  timeMs: Date.parse("2026-03-04T05:06:07.890Z"),
  id: 65_537,
  listener: "web",
  client: "192.0.2.7:4711",
  peer: "10.0.0.9:5000",
  sni: "www.example.com",
  tls: "TLSv1.3",
  clientCert: "alice smith",
  pool: "app",
  backend: "10.0.0.1:80",
  queueMs: 0,
  connectMs: 0.1234567,
  durationMs: 1500.0006,
  bytesIn: 10,
  bytesOut: 9_007_199_254_740_991,
  retries: 2,
  dryRun: "rate_limit,bandwidth",
  worker: 3,
  end: "connect_failed",
  endBy: "backend",
  error: "EHOSTUNREACH",
};

/** Parses logfmt: key=value or key="value", separated by single spaces. */
function parseText(line: string): Record<string, string> {
  const values: Record<string, string> = {};
  let rest = line;
  while (rest !== "") {
    const match = /^([a-z_]+)=("(?:[^"\\]|\\.)*"|[^\s"=]+)(?: |$)/.exec(rest);
    if (match === null) throw new Error(`not logfmt: ${rest}`);
    values[match[1]!] = match[2]!.startsWith('"') ? (JSON.parse(match[2]!) as string) : match[2]!;
    rest = rest.slice(match[0].length);
  }
  return values;
}

describe("a line of the access log", () => {
  test("has its keys in the order of the reference, as JSON", () => {
    const line = formatAccess("json", full);
    expect(line).toBe(
      '{"time":"2026-03-04T05:06:07.890Z","id":65537,"listener":"web","client":"192.0.2.7:4711","peer":"10.0.0.9:5000","pool":"app",' +
        '"backend":"10.0.0.1:80","sni":"www.example.com","tls":"TLSv1.3","client_cert":"alice smith","connect_ms":0.123,"duration_ms":1500.001,"bytes_in":10,"bytes_out":9007199254740991,"retries":2,"dry_run":"rate_limit,bandwidth","worker":3,' +
        '"end":"connect_failed","end_by":"backend","error":"EHOSTUNREACH"}',
    );
  });

  test("has the same keys and values as text", () => {
    const fromJson = JSON.parse(formatAccess("json", full)) as Record<string, unknown>;
    const fromText = parseText(formatAccess("text", full));
    expect(Object.keys(fromText)).toEqual(Object.keys(fromJson));
    expect(fromText).toEqual(Object.fromEntries(Object.entries(fromJson).map(([key, value]) => [key, String(value)])));
  });

  test.each(["json", "text"] as const)("leaves out missing values (%s)", (format) => {
    const bare = {
      ...full,
      peer: "",
      sni: "",
      tls: "",
      clientCert: "",
      pool: "",
      backend: "",
      connectMs: -1,
      error: "",
    };
    const line = formatAccess(format, bare);
    const keys = Object.keys(format === "json" ? (JSON.parse(line) as object) : parseText(line));
    for (const key of ["pool", "backend", "connect_ms", "error"]) expect(keys).not.toContain(key);
    expect(keys).toContain("retries");
  });

  test("writes a connect time of 0 and byte counts of 0", () => {
    const line = JSON.parse(formatAccess("json", { ...full, connectMs: 0, bytesIn: 0, retries: 0 })) as object;
    expect(line).toMatchObject({ connect_ms: 0, bytes_in: 0, retries: 0 });
  });

  test("has the time of its own millisecond", () => {
    const times = [0, 0.4, 0.9, 1, 2.5, 1].map((ms) => {
      const line = formatAccess("json", { ...full, timeMs: full.timeMs + ms });
      return (JSON.parse(line) as { time: string }).time.slice(-5);
    });
    expect(times).toEqual([".890Z", ".890Z", ".890Z", ".891Z", ".892Z", ".891Z"]);
  });

  test("names every end and every side", () => {
    for (const end of END_NAMES) {
      for (const endBy of ENDED_BY) {
        expect(JSON.parse(formatAccess("json", { ...full, end, endBy }))).toMatchObject({ end, end_by: endBy });
        expect(parseText(formatAccess("text", { ...full, end, endBy }))).toMatchObject({ end, end_by: endBy });
      }
    }
  });

  test("is one line that can be parsed again, whatever the names in the config are", () => {
    const alphabet = ['"', "\\", " ", "=", "\n", "\r", "\t", "\u0000", "\u001b", "é", "💧", "{", "a", "b", "-"];
    forSeeds(300, (random) => {
      const name = (): string => Array.from({ length: random.between(1, 8) }, () => random.pick(alphabet)).join("");
      const line = { ...full, listener: name(), pool: name(), backend: name() };
      const [json, text] = [formatAccess("json", line), formatAccess("text", line)];
      for (const written of [json, text]) {
        expect([...written].every((character) => character >= " ")).toBe(true);
      }
      const names = { listener: line.listener, pool: line.pool, backend: line.backend };
      expect(JSON.parse(json)).toMatchObject(names);
      expect(parseText(text)).toMatchObject(names);
    });
  });
});

describe("word", () => {
  test("quotes only what logfmt requires", () => {
    expect(word("10.0.0.1:80")).toBe("10.0.0.1:80");
    expect(word("")).toBe('""');
    expect(word("two words")).toBe('"two words"');
    expect(word('a"b')).toBe('"a\\"b"');
    expect(word("a=b")).toBe('"a=b"');
  });
});

describe("clientText", () => {
  const text = (address: string, port: number): string => {
    const words = new Int32Array([-1, ...parseAddress(address)!, port, -1]);
    return clientText(words, 1);
  };

  test("writes IPv4 and IPv6 with their ports", () => {
    expect(text("192.0.2.255", 80)).toBe("192.0.2.255:80");
    expect(text("255.255.255.255", 65535)).toBe("255.255.255.255:65535");
    expect(text("2001:db8::1", 443)).toBe("[2001:db8::1]:443");
    expect(text("::1", 1)).toBe("[::1]:1");
  });

  test('is "unix" for a peer without an address', () => {
    expect(text("::", 0)).toBe("unix");
    expect(text("::", 5)).toBe("[::]:5");
  });
});
