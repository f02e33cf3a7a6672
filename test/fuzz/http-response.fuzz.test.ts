// The reader of HTTP responses: the same answer at every split point, and no exception for any bytes.
import { describe, expect, test } from "vitest";
import { HTTP_BODY_BYTES_MAX, HttpResponseReader } from "../../src/wire/http-response.ts";
import { forSeeds, type Random } from "../support/random.ts";

interface Reading {
  answer: unknown;
  end: unknown;
  status: number;
  body: string;
}

function readIn(chunks: readonly Uint8Array[], hasBody: boolean): Reading {
  const reader = new HttpResponseReader(hasBody);
  let answer: unknown = { is: "more" };
  for (const chunk of chunks) answer = reader.push(chunk);
  const end = reader.end();
  if (reader.body.length > HTTP_BODY_BYTES_MAX) expect.fail(`a body of ${reader.body.length} bytes`);
  return { answer, end, status: reader.status, body: Buffer.from(reader.body.bytes).toString("latin1") };
}

function split(random: Random, bytes: Uint8Array, most: number): Uint8Array[] {
  const chunks: Uint8Array[] = [];
  for (let at = 0, next; at < bytes.length; at = next) {
    next = at + random.between(1, most);
    chunks.push(bytes.slice(at, next));
  }
  return chunks;
}

/** Whole, at every single split point if it is short, byte by byte and in chunks of random sizes: always the same. */
function expectSteady(random: Random, bytes: Uint8Array): Reading {
  const hasBody = !random.oneIn(5);
  const whole = readIn([bytes], hasBody);
  // `toEqual` takes longer than the parser.
  const expectAlike = (chunks: readonly Uint8Array[]): void => {
    const reading = readIn(chunks, hasBody);
    if (!Bun.deepEquals(reading, whole)) expect(reading).toEqual(whole);
  };
  if (bytes.length <= 400) {
    for (let at = 0; at <= bytes.length; at++) expectAlike([bytes.slice(0, at), bytes.slice(at)]);
  }
  if (bytes.length <= 20_000) expectAlike(split(random, bytes, 1));
  expectAlike(split(random, bytes, random.pick([3, 50, 5000])));
  return whole;
}

const word = (random: Random) =>
  random.pick(["a", "Content-Length", "transfer-encoding", "chunked", "5", "ffff", " ", ":", ";", ","]);

/** A valid response, or a nearly valid one. */
function response(random: Random): { bytes: Uint8Array; body: Uint8Array } {
  const body = random.bytes(random.oneIn(20) ? random.below(80_000) : random.below(60));
  const interim = random.oneIn(4) ? "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" : "";
  const eol = random.pick(["\r\n", "\r\n", "\n"]);
  const status = `HTTP/1.${random.below(2)} ${random.pick([200, 404, 503])} Reason${eol}`;
  const other = random.oneIn(2) ? `X-Other:  ${random.below(1e6)} ${eol}` : "";
  const parts: (string | Uint8Array)[] = [interim, status, other];
  const way = random.below(3);
  if (way === 0) parts.push(`Content-Length: ${body.length}${eol}${eol}`, body);
  else if (way === 1) parts.push(eol, body);
  else {
    parts.push(`Transfer-Encoding: chunked${eol}${eol}`);
    for (let at = 0, next; at < body.length; at = next) {
      next = Math.min(body.length, at + random.between(1, 5000));
      parts.push(`${(next - at).toString(16)}${random.oneIn(3) ? ";x=y" : ""}${eol}`, body.slice(at, next), eol);
    }
    parts.push(`0${eol}${random.oneIn(3) ? `T: v${eol}` : ""}${eol}`);
  }
  return { bytes: Buffer.concat(parts.map((part) => Buffer.from(part as string))), body };
}

describe("a response", () => {
  test("is parsed alike however it is split", () => {
    forSeeds(150, (random) => {
      const { bytes, body } = response(random);
      const read = expectSteady(random, bytes);
      expect(read.end).toEqual({ is: "response" });
      expect([0, 200, 404, 503]).toContain(read.status);
      const expected = Buffer.from(body.slice(0, HTTP_BODY_BYTES_MAX)).toString("latin1");
      expect([expected, ""]).toContain(read.body);
    });
  });

  test("with a few bytes changed, added or missing is parsed alike however it is split", () => {
    forSeeds(400, (random) => {
      const bytes = [...response(random).bytes.slice(0, 3000)];
      for (let i = random.between(1, 4); i > 0; i--) {
        bytes.splice(random.below(bytes.length + 1), random.below(3), ...random.bytes(random.below(3)));
      }
      expectSteady(random, Uint8Array.from(bytes));
    });
  });
});

test("random bytes and words after a valid beginning are parsed without a throw, and alike however they are split", () => {
  forSeeds(400, (random) => {
    const begin = random.pick(["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"]);
    const words = Array.from({ length: random.below(40) }, () => word(random) + random.pick(["", "\r\n", "\n", "\r"]));
    const rest = random.oneIn(2) ? random.bytes(random.below(300)) : Buffer.from(words.join(""));
    expectSteady(random, Buffer.concat([Buffer.from(begin), rest]));
  });
});
