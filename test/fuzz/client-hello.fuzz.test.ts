import { describe, expect, test } from "vitest";
import type { HelloAnswer } from "../../src/wire/client-hello.ts";
import { HELLO_HANDSHAKE_BYTES_MAX, HelloReader, parseClientHello } from "../../src/wire/client-hello.ts";
import type { Random } from "../support/random.ts";
import { forSeeds } from "../support/random.ts";
import type { Part } from "../wire/hello-bytes.ts";
import {
  FIXTURE_NAMES,
  alpn,
  ech,
  extension,
  fixture,
  hello,
  message,
  record,
  serverName,
  supportedVersions,
  unwrap,
  wrap,
} from "../wire/hello-bytes.ts";

const CAPTURED = FIXTURE_NAMES.map(fixture);
const concat = (...parts: Uint8Array[]) => new Uint8Array(Buffer.concat(parts));

/** The answer when the bytes come in chunks of random sizes; all of them are pushed, whatever the answer. */
function inChunks(random: Random, bytes: Uint8Array, most: number): HelloAnswer {
  const reader = new HelloReader();
  let answer = reader.push(bytes.slice(0, 0));
  for (let at = 0, next; at < bytes.length; at = next) {
    next = at + random.between(1, most);
    answer = reader.push(bytes.slice(at, next));
  }
  expect(Buffer.from(reader.bytes).equals(bytes), "every byte is kept").toBe(true);
  return answer;
}

/** Asserts that the answer is the same in one piece, in chunks, byte by byte and with more bytes after it. */
function expectSteady(random: Random, bytes: Uint8Array): void {
  const whole = parseClientHello(bytes);
  expect(inChunks(random, bytes, random.pick([1, 2, 5, 50, 600]))).toEqual(whole);
  expect(inChunks(random, bytes, 1)).toEqual(whole);
  if (whole.is !== "more") expect(parseClientHello(concat(bytes, random.bytes(20)))).toEqual(whole);
  const memory = concat(random.bytes(30), bytes, random.bytes(30));
  expect(parseClientHello(memory.subarray(30, 30 + bytes.length)), "bytes around it are not read").toEqual(whole);
}

function mutated(random: Random, bytes: Uint8Array): Uint8Array {
  let changed = bytes;
  for (let left = random.between(1, 3); left > 0 && changed.length > 0; left--) {
    // Lengths are dense at the start.
    const at = random.below(random.oneIn(2) ? changed.length : Math.min(120, changed.length));
    const before = changed.subarray(0, at);
    const after = changed.subarray(at);
    const byte = random.pick([0, 1, 255, random.below(256), after[0]! + 1, after[0]! - 1]);
    switch (random.below(5)) {
      case 0:
        changed = concat(before, random.bytes(random.below(5)), after);
        break;
      case 1:
        changed = concat(before, after.subarray(random.below(5)));
        break;
      case 2:
        changed = random.oneIn(3) ? before : changed;
        break;
      default:
        changed = concat(before, Uint8Array.of(byte), after.subarray(1));
    }
  }
  return changed;
}

describe("a ClientHello", () => {
  test("is parsed to the values it was built from, for any order, records and chunks", () => {
    forSeeds(1000, (random) => {
      const label = () => Array.from({ length: random.between(1, 20) }, () => random.pick([..."abcxyz019-_"])).join("");
      const name = random.oneIn(4) ? null : Array.from({ length: random.between(2, 5) }, label).join(".") + ".example";
      const protocols = Array.from({ length: random.below(5) }, () => random.pick(["h2", "h3", "http/1.1", "\xffx\0"]));
      const versions = random.oneIn(3) ? null : random.pick([[0x0304], [0x0304, 0x0303], [0x1a1a, 0x0303, 0x0301]]);
      const hasEch = random.oneIn(3);
      const extensions: Part[] = [extension(0x2a2a), extension(23), extension(51, random.bytes(random.below(1300)))];
      if (name !== null) extensions.push(serverName(random.oneIn(2) ? name : name.toUpperCase()));
      if (protocols.length > 0) extensions.push(alpn(...protocols));
      if (versions !== null) extensions.push(supportedVersions(...versions));
      if (hasEch) extensions.push(ech());
      for (let i = extensions.length - 1; i > 0; i--) {
        const other = random.below(i + 1);
        [extensions[i], extensions[other]] = [extensions[other]!, extensions[i]!];
      }
      const handshake = Uint8Array.from(message({ extensions }).bytes);
      const most = random.pick([1, 10, 1000]);
      const bytes = wrap(handshake, () => random.between(1, most));
      const real = versions?.filter((version) => version < 0x0400);
      expect(inChunks(random, bytes, random.pick([1, 100, 5000]))).toEqual({
        is: "hello",
        hello: {
          serverName: name,
          alpn: protocols,
          versions: real ? { min: Math.min(...real), max: Math.max(...real) } : { max: 0x0303 },
          ech: hasEch,
        },
      });
    });
  });

  test("that was captured is parsed alike for any records", () => {
    forSeeds(500, (random) => {
      const bytes = random.pick(CAPTURED);
      const most = random.pick([1, 3, 100, 1000]);
      expect(parseClientHello(wrap(unwrap(bytes), () => random.between(1, most)))).toEqual(parseClientHello(bytes));
    });
  });

  test("that was damaged gets the same answer complete and in pieces, and never throws", () => {
    forSeeds(1500, (random) => expectSteady(random, mutated(random, random.pick(CAPTURED))));
  });

  test("that was damaged and put into other records gets the same answer", () => {
    forSeeds(500, (random) => {
      const handshake = mutated(random, unwrap(random.pick(CAPTURED)));
      const most = random.pick([1, 7, 400]);
      expectSteady(
        random,
        mutated(
          random,
          wrap(handshake, () => random.between(1, most)),
        ),
      );
    });
  });

  test("of random bytes in a valid frame gets the same answer", () => {
    forSeeds(1000, (random) => {
      const small = () => random.pick([0, 0, 0, 0, 1, 2, 3, 4, 16, 43, 0xfe, 0x0d, random.below(256)]);
      const filler = (most: number) => Uint8Array.from({ length: random.below(most) }, small);
      expectSteady(random, filler(30));
      expectSteady(random, Uint8Array.from(record(filler(100)).bytes));
      expectSteady(random, hello({ sessionId: filler(40), extensions: [filler(100)] }));
      const types = [0, 16, 43, 0xfe0d];
      expectSteady(random, hello({ extensions: [extension(random.pick(types), filler(30))] }));
    });
  });

  test("that is split anywhere waits for the rest", () => {
    for (const bytes of CAPTURED) {
      for (let length = 0; length < bytes.length; length++) {
        expect(parseClientHello(bytes.slice(0, length))).toEqual({ is: "more" });
      }
    }
  });

  test("never collects more than its limit before it is accepted or refused", () => {
    forSeeds(20, (random) => {
      const claimed = random.pick([HELLO_HANDSHAKE_BYTES_MAX, HELLO_HANDSHAKE_BYTES_MAX - 1]) - 4;
      const handshake = concat(Uint8Array.of(1, 0, claimed >> 8, claimed), new Uint8Array(40_000));
      const bytes = wrap(handshake, () => 1);
      const reader = new HelloReader();
      let answer: HelloAnswer = { is: "more" };
      let at = 0;
      for (; at < bytes.length && answer.is === "more"; at++) answer = reader.push(bytes.slice(at, at + 1));
      expect(answer.is).toBe("bad");
      expect(at).toBeLessThanOrEqual(6 * HELLO_HANDSHAKE_BYTES_MAX);
    });
  });
});
