// The head alone: what comes first, in any pieces, gives the same answers and leaves the same bytes.
import { describe, expect, test } from "vitest";
import { HELLO_HANDSHAKE_BYTES_MAX } from "../../src/wire/client-hello.ts";
import { PROXY_V2_BYTES_MAX } from "../../src/wire/proxy-protocol.ts";
import { ALERTS } from "../../src/wire/tls-records.ts";
import { Head, type HeadAnswer, type HeadNeeds } from "../../src/worker/head.ts";
import { addresses4, headerV2, tlv } from "../support/proxy-headers.ts";
import { forSeeds } from "../support/random.ts";
import { fixture, hello, serverName, extension } from "../wire/hello-bytes.ts";

const NOTHING = new Uint8Array(0);
const encode = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, "latin1"));
const concat = (...parts: Uint8Array[]): Uint8Array => new Uint8Array(Buffer.concat(parts));

const V1 = encode("PROXY TCP4 198.51.100.7 192.0.2.1 4711 443\r\n");
const V2 = new Uint8Array(
  headerV2({ addresses: addresses4("198.51.100.7:4711", "192.0.2.1:443"), tlvs: [tlv(2, "x")], crc: true }),
);
const HELLO = hello({ extensions: [serverName("a.example")] });

const needs = (given: Partial<HeadNeeds> = {}): HeadNeeds => ({
  proxyHeader: "no",
  hello: false,
  tlsOnly: false,
  ...given,
});

interface Outcome {
  /** All the answers except "more", in the order of a connection's calls. */
  answers: HeadAnswer[];
  bytes: Uint8Array;
}

/** Pushes the pieces like a connection: after "proxy" it pushes nothing once. */
function feed(head: Head, pieces: readonly Uint8Array[]): Outcome {
  const answers: HeadAnswer[] = [];
  for (const piece of pieces) {
    let answer = head.push(piece);
    while (answer.is === "proxy") {
      answers.push(answer);
      answer = head.push(NOTHING);
    }
    if (answer.is === "more") continue;
    answers.push(answer);
    if (answer.is === "refused") break;
  }
  return { answers, bytes: head.bytes };
}

function* cuts(bytes: Uint8Array): Generator<Uint8Array[]> {
  for (let at = 1; at < bytes.length; at++) yield [bytes.subarray(0, at), bytes.subarray(at)];
  yield [...bytes].map((byte) => Uint8Array.of(byte));
  yield [bytes];
}

const PROXIED = { is: "proxy", header: { source: { port: 4711 }, destination: { port: 443 } } };

describe("a listener that expects only a PROXY header", () => {
  test.each([
    ["v1", V1],
    ["v2", V2],
  ])("completes it at its last byte, and returns what follows (%s)", (_, header) => {
    for (const rest of [NOTHING, encode("SELECT 1"), HELLO]) {
      for (const pieces of cuts(concat(header, rest))) {
        const head = new Head(needs({ proxyHeader: "required" }));
        const { answers, bytes } = feed(head, pieces);
        expect(answers[0]).toMatchObject(PROXIED);
        expect(answers[1]).toEqual({ is: "done", hello: null });
        expect(Buffer.from(bytes).equals(rest)).toBe(true);
        expect(head.readingProxyHeader).toBe(false);
      }
    }
  });

  test("reports its progress: no byte, within the header, complete", () => {
    const head = new Head(needs({ proxyHeader: "required" }));
    expect([head.empty, head.readingProxyHeader]).toEqual([true, true]);
    expect(head.push(V1.subarray(0, 9))).toEqual({ is: "more" });
    expect([head.empty, head.readingProxyHeader]).toEqual([false, true]);
    expect(head.push(V1.subarray(9))).toMatchObject(PROXIED);
    expect([head.empty, head.readingProxyHeader]).toEqual([true, false]);
    expect(head.push(NOTHING)).toEqual({ is: "done", hello: null });
  });

  test.each(["GET / HTTP/1.0\r\n", "\x16\x03\x01", "x", "PROXZ"])("refuses bytes that are not a header: %j", (said) => {
    for (const pieces of cuts(encode(said))) {
      const { answers } = feed(new Head(needs({ proxyHeader: "required" })), pieces);
      expect(answers).toEqual([{ is: "refused", end: "proxy_header_bad", why: "no PROXY header", alert: 0 }]);
    }
  });

  test("passes on every byte without a header if the header is optional", () => {
    for (const said of ["GET / HTTP/1.0\r\n", "x", "PROXZ", "\r\n\r\n\0\r\nQUIX\n"]) {
      for (const pieces of cuts(encode(said))) {
        const head = new Head(needs({ proxyHeader: "optional" }));
        // Bytes after the answer belong to the connection, not to the head.
        const needed = pieces.findIndex((_, i) => isDecided(concat(...pieces.slice(0, i + 1)))) + 1;
        const { answers, bytes } = feed(head, pieces.slice(0, needed));
        expect(answers).toEqual([
          { is: "proxy", header: null },
          { is: "done", hello: null },
        ]);
        expect(Buffer.from(bytes).equals(concat(...pieces.slice(0, needed)))).toBe(true);
      }
    }
  });

  test.each(["required", "optional"] as const)("refuses an invalid one (%s)", (proxyHeader) => {
    for (const bad of [encode("PROXY TCP4 1.2.3\r\n"), V2.with(12, 0x31), V2.with(V2.length - 1, V2.at(-1)! ^ 1)]) {
      const { answers } = feed(new Head(needs({ proxyHeader })), [bad]);
      expect(answers).toMatchObject([{ is: "refused", end: "proxy_header_bad", why: expect.stringMatching(/./) }]);
    }
  });

  test("holds no more than the maximum header size of endless data", () => {
    for (const start of ["PROXY UNKNOWN ", V2.subarray(0, 14)]) {
      const head = new Head(needs({ proxyHeader: "required" }));
      let answer = head.push(typeof start === "string" ? encode(start) : concat(start, Uint8Array.of(0xff, 0xff)));
      for (let i = 0; i < PROXY_V2_BYTES_MAX && answer.is === "more"; i++) answer = head.push(encode("x"));
      expect(answer.is).toBe("refused");
      expect(head.bytes.length).toBeLessThanOrEqual(PROXY_V2_BYTES_MAX + 1);
    }
  });
});

/** Whether the bytes are long enough to be told from both signatures. */
function isDecided(bytes: Uint8Array): boolean {
  const text = Buffer.from(bytes).toString("latin1");
  return !["PROXY", "\r\n\r\n\0\r\nQUIT\n"].some((signature) => signature.startsWith(text));
}

describe("a listener that expects a ClientHello", () => {
  const bytesOf = {
    "no name": hello(),
    "a name": HELLO,
    "a post-quantum key share": fixture("go-post-quantum"),
    "several records": fixture("openssl-split"),
  };

  test.each(Object.keys(bytesOf))("completes it at its last byte, with all its bytes: %s", (what) => {
    const bytes = bytesOf[what as keyof typeof bytesOf];
    for (const pieces of cuts(bytes)) {
      const head = new Head(needs({ hello: true, tlsOnly: true }));
      const { answers, bytes: kept } = feed(head, pieces);
      expect(answers).toMatchObject([{ is: "done", hello: expect.objectContaining({ versions: expect.anything() }) }]);
      expect(Buffer.from(kept).equals(bytes)).toBe(true);
    }
  });

  test("returns the bytes that came with it", () => {
    const head = new Head(needs({ hello: true, tlsOnly: true }));
    const both = concat(HELLO, encode("early data"));
    expect(head.push(both)).toMatchObject({ is: "done", hello: { serverName: "a.example" } });
    expect(Buffer.from(head.bytes).equals(both)).toBe(true);
  });

  test("refuses data that is not TLS if it terminates TLS, and passes it on if not", () => {
    for (const said of ["GET / HTTP/1.0\r\n\r\n", "\x16\x02", "\x80\x2e\x01"]) {
      const only = feed(new Head(needs({ hello: true, tlsOnly: true })), [encode(said)]);
      expect(only.answers).toEqual([{ is: "refused", end: "handshake_failed", why: "not_tls", alert: 0 }]);
      const any = feed(new Head(needs({ hello: true })), [encode(said)]);
      expect(any.answers).toEqual([{ is: "done", hello: null }]);
      expect(Buffer.from(any.bytes).toString("latin1")).toBe(said);
    }
  });

  test("refuses an invalid or too long one in both cases", () => {
    const broken = HELLO.with(5, 2);
    const long = hello({ extensions: [extension(21, new Uint8Array(HELLO_HANDSHAKE_BYTES_MAX))] });
    for (const tlsOnly of [true, false]) {
      for (const [bytes, alert] of [
        [broken, ALERTS.unexpectedMessage],
        [long, ALERTS.recordOverflow],
      ] as const) {
        const { answers } = feed(new Head(needs({ hello: true, tlsOnly })), [bytes]);
        expect(answers).toEqual([{ is: "refused", end: "handshake_failed", why: "bad_hello", alert }]);
      }
    }
  });

  test("reports that no byte has come", () => {
    const head = new Head(needs({ hello: true }));
    expect(head.empty).toBe(true);
    head.push(HELLO.subarray(0, 1));
    expect([head.empty, head.readingProxyHeader]).toEqual([false, false]);
  });
});

describe("a listener that expects both", () => {
  test("has both, however they are split, and only the hello's bytes are left", () => {
    for (const header of [V1, V2]) {
      for (const pieces of cuts(concat(header, HELLO))) {
        const { answers, bytes } = feed(
          new Head(needs({ proxyHeader: "required", hello: true, tlsOnly: true })),
          pieces,
        );
        expect(answers).toMatchObject([PROXIED, { is: "done", hello: { serverName: "a.example" } }]);
        expect(Buffer.from(bytes).equals(HELLO)).toBe(true);
      }
    }
  });

  test("has the hello of a client without a header, if that is optional", () => {
    for (const pieces of cuts(HELLO)) {
      const { answers, bytes } = feed(new Head(needs({ proxyHeader: "optional", hello: true, tlsOnly: true })), pieces);
      expect(answers).toMatchObject([
        { is: "proxy", header: null },
        { is: "done", hello: { serverName: "a.example" } },
      ]);
      expect(Buffer.from(bytes).equals(HELLO)).toBe(true);
    }
  });

  test("gives the same answer however the bytes are split, for valid and invalid input", () => {
    forSeeds(300, (random) => {
      const given = needs({
        proxyHeader: random.pick(["no", "optional", "required"] as const),
        hello: random.oneIn(2),
        tlsOnly: random.oneIn(2),
      });
      const bytes = concat(
        random.pick([V1, V2, NOTHING]),
        random.pick([HELLO, encode("GET / HTTP/1.0\r\n\r\n"), random.bytes(30)]),
      );
      if (random.oneIn(3) && bytes.length > 0) bytes[random.below(bytes.length)] = random.below(256);
      const whole = feed(new Head(given), [bytes]).answers;
      const pieces: Uint8Array[] = [];
      for (let at = 0; at < bytes.length;) {
        const next = Math.min(bytes.length, at + random.between(1, 20));
        pieces.push(bytes.subarray(at, next));
        at = next;
      }
      const answers = feed(new Head(given), pieces).answers;
      // Bytes after "done" are asked for here, and are not by a connection.
      const end = answers.findIndex(({ is }) => is === "done");
      expect(end < 0 ? answers : answers.slice(0, end + 1)).toEqual(whole);
    });
  });
});
