import { isIP } from "node:net";
import { describe, expect, test } from "vitest";
import type { Address } from "../../src/core/address.ts";
import { formatAddress, isIPv4, parseAddress } from "../../src/core/address.ts";
import type { ProxyAnswer, ProxyEnd, ProxyHeaderV2 } from "../../src/wire/proxy-protocol.ts";
import {
  describeTlvs,
  parseProxyHeader,
  PROXY_V1_BYTES_MAX,
  proxyHeaderV1,
  proxyHeaderV2,
} from "../../src/wire/proxy-protocol.ts";
import type { Random } from "../support/random.ts";
import { forSeeds } from "../support/random.ts";

const ascii = (text: string) => new Uint8Array(Buffer.from(text, "latin1"));
const concat = (...parts: Uint8Array[]) => new Uint8Array(Buffer.concat(parts));
const V2_SIGNATURE = ascii("\r\n\r\n\0\r\nQUIT\n");

function endOf(random: Random): ProxyEnd {
  const word = () => random.pick([0, 1, 0xffff, 0xffffffff, random.word()]);
  const address: Address = random.oneIn(2) ? [0, 0, 0xffff, random.word()] : [word(), word(), word(), word()];
  return { address, port: random.below(65_536) };
}

const textOf = (random: Random, most: number) =>
  Array.from({ length: random.below(most) }, () => random.pick([...'abc.-XYZ\0"\\éß😀'])).join("");

function headerV2Of(random: Random): ProxyHeaderV2 {
  return {
    command: random.oneIn(6) ? "local" : "proxy",
    source: random.oneIn(6) ? null : endOf(random),
    destination: random.oneIn(6) ? null : endOf(random),
    authority: random.oneIn(2) ? textOf(random, 40) : null,
    alpn: random.oneIn(2) ? random.pick(["h2", "http/1.1", "\xff\0"]) : null,
    tls: random.oneIn(2)
      ? {
          version: "TLSv1.3",
          cipher: textOf(random, 9),
          clientCertificate: random.oneIn(2) ? { name: textOf(random, 40), resumed: random.oneIn(2) } : null,
        }
      : null,
    uniqueId: random.oneIn(2) ? random.bytes(random.below(129)) : null,
    crc: random.oneIn(2),
  };
}

const headerOf = (random: Random) =>
  random.oneIn(3) ? proxyHeaderV1(endOf(random), endOf(random)) : proxyHeaderV2(headerV2Of(random));

/** A few changes such as a broken or hostile sender makes. */
function mutated(random: Random, bytes: Uint8Array): Uint8Array {
  let changed = bytes;
  for (let left = random.between(1, 3); left > 0 && changed.length > 0; left--) {
    const at = random.below(changed.length);
    const before = changed.subarray(0, at);
    const after = changed.subarray(at);
    switch (random.below(4)) {
      case 0:
        changed = concat(
          before,
          Uint8Array.of(random.pick([0, 1, 255, after[0]! + random.pick([-1, 1])])),
          after.subarray(1),
        );
        break;
      case 1:
        changed = concat(before, random.bytes(random.below(4)), after);
        break;
      case 2:
        changed = concat(before, after.subarray(random.below(4)));
        break;
      default:
        changed = before;
    }
  }
  return changed;
}

/** Asserts that the answer is "more" up to some byte and the same from there on, whatever follows. */
function expectSteady(bytes: Uint8Array): void {
  let decided: ProxyAnswer | null = null;
  for (let length = 0; length <= bytes.length; length++) {
    const answer = parseProxyHeader(bytes.slice(0, length));
    if (decided !== null) expect(answer, `${length} bytes`).toEqual(decided);
    else if (answer.is !== "more") decided = answer;
    if (answer.is === "proxy") {
      expect(answer.length).toBeLessThanOrEqual(length);
      if (answer.header.tlvs) {
        expect(Object.values(describeTlvs(answer.header.tlvs)).join("")).toMatch(/^[\x20-\x7e]*$/);
      }
    }
  }
}

describe("a PROXY header", () => {
  test("of version 1 that lb writes is parsed", () => {
    forSeeds(2000, (random) => {
      const [source, destination] = [endOf(random), endOf(random)];
      const bytes = proxyHeaderV1(source, destination);
      const header = { version: 1, command: "proxy", source, destination, tlvs: null };
      const behind = random.bytes(random.below(10));
      expect(parseProxyHeader(concat(bytes, behind))).toEqual({ is: "proxy", header, length: bytes.length });
    });
  });

  test("of version 2 that lb writes is parsed", () => {
    forSeeds(2000, (random) => {
      const given = headerV2Of(random);
      const bytes = proxyHeaderV2(given);
      const answer = parseProxyHeader(concat(bytes, random.bytes(random.below(10))));
      const known = given.command === "proxy" && given.source !== null && given.destination !== null;
      expect(answer).toMatchObject({
        length: bytes.length,
        header: {
          command: given.command,
          source: known ? given.source : null,
          destination: known ? given.destination : null,
        },
      });
      if (answer.is !== "proxy" || answer.header.tlvs === null) {
        expect(given.command === "local" || bytes.length <= 16 + 36, "no TLVs were lost").toBe(true);
        return;
      }
      const { tlvs } = answer.header;
      expect(tlvs.authority).toBe(given.authority || null);
      expect(tlvs.alpn).toBe(given.alpn);
      expect(tlvs.uniqueId).toEqual(given.uniqueId);
      expect(tlvs.checksum).toBe(given.crc);
      expect(tlvs.ssl?.cn ?? null).toBe(given.tls?.clientCertificate?.name || null);
    });
  });

  test("gets the same answer complete and in pieces, and never throws", () => {
    forSeeds(700, (random) => {
      const header = headerOf(random);
      expectSteady(random.oneIn(5) ? concat(header, random.bytes(5)) : mutated(random, header));
    });
  });

  test("of random bytes after a valid beginning gets the same answer complete and in pieces", () => {
    const beginnings = ["", "PROXY", "PROXY TCP4 ", "PROXY TCP6 ", "PROXY UNKNOWN"].map(ascii);
    beginnings.push(V2_SIGNATURE);
    for (const family of [0, 0x11, 0x21, 0x31]) {
      for (const length of [12, 36, 50, 216, 300]) {
        beginnings.push(concat(V2_SIGNATURE, Uint8Array.of(0x21, family, length >> 8, length)));
      }
    }
    forSeeds(700, (random) => {
      const size = random.pick([1, 3, 50, 120, 320]);
      const small = Uint8Array.from({ length: size }, () => random.pick([0, 0, 0, 1, 3, 4, 5, 32, random.below(256)]));
      expectSteady(concat(random.pick(beginnings), random.pick([small, random.bytes(size)])));
    });
  });

  test("is parsed from its own bytes only", () => {
    forSeeds(500, (random) => {
      const bytes = mutated(random, headerOf(random));
      const memory = concat(random.bytes(50), bytes, random.bytes(50));
      expect(parseProxyHeader(memory.subarray(50, 50 + bytes.length))).toEqual(parseProxyHeader(bytes));
    });
  });

  test("can still be completed after the answer that more bytes are needed", () => {
    const pieces = [
      ..."0123456789abf:. \r\n",
      "PROXY TCP4 ",
      "PROXY TCP6 ",
      "PROXY UNKNOWN",
      "::ffff:",
      "255.",
      "\r\n",
    ];
    const starts = ["PROXY TCP4 ", "PROXY TCP6 ", "PROXY UNKNOWN ", "PROXY "].map(ascii);
    const isDone = (answer: ProxyAnswer) =>
      answer.is === "proxy" || (answer.is === "bad" && answer.why === "wrong checksum");
    forSeeds(300, (random) => {
      let bytes: Uint8Array = random.oneIn(2)
        ? random.pick(starts)
        : concat(
            V2_SIGNATURE,
            Uint8Array.of(random.pick([0x20, 0x21]), random.pick([0, 0x11, 0x21, 0x31, 0x10]), 0),
            Uint8Array.of(random.pick([0, 12, 13, 18, 20, 36, 40, 60, 216, 219, 230, 255])),
          );
      if (random.oneIn(10)) bytes = bytes.subarray(0, random.below(bytes.length));
      // This property does not cover a wrong beginning.
      if (parseProxyHeader(bytes).is !== "more") return;
      const text = bytes[0] === 0x50;
      while (true) {
        const likely = text ? ascii(random.pick(pieces)) : Uint8Array.of(random.pick([0, 1, 2, 3, 4, 5, 0x20, 255]));
        const all = Array.from({ length: 256 }, (_, i) => Uint8Array.of((i + random.below(256)) & 0xff));
        const each = Array.from({ length: 256 }, (_, i) => Uint8Array.of(i));
        const next = [likely, ...all.slice(0, 4), ...each].map((more) => concat(bytes, more));
        const found = next.find((candidate) => {
          const answer = parseProxyHeader(candidate);
          return answer.is === "more" || isDone(answer);
        });
        expect(found, `a dead end: ${Buffer.from(bytes).toString("latin1")}`).toBeDefined();
        bytes = found!;
        if (isDone(parseProxyHeader(bytes))) break;
      }
    });
  });

  test("of version 1 is what a simple parser by the standard accepts", () => {
    const addresses = [
      "1.2.3.4",
      "255.255.255.255",
      "::",
      "2001:db8::1",
      "::ffff:1.2.3.4",
      "1.2.3",
      "01.2.3.4",
      "fe80::1%0",
      "",
    ];
    const ports = ["0", "443", "65535", "65536", "00", "+1", "1.0", ""];
    const shapes = ["TCP4", "TCP6", "UNKNOWN", "TCP", "UDP4"];
    const ends = ["\r\n", "\r\n", "\r\n", "\n", "\r", "", " \r\n"];
    forSeeds(20_000, (random) => {
      const fields = [random.pick(shapes)];
      for (let i = 0; i < 2; i++) fields.push(random.oneIn(3) ? random.pick(addresses) : formatEnd(random, fields[0]!));
      fields.push(random.pick(ports), random.pick(ports));
      if (random.oneIn(10)) fields.splice(random.below(fields.length), 1);
      const line = `PROXY ${fields.join(random.oneIn(20) ? "  " : " ")}${random.pick(ends)}`;
      expect(parseProxyHeader(ascii(line)).is === "proxy", line).toBe(isLine(line));
    });
  });
});

function formatEnd(random: Random, shape: string): string {
  for (;;) {
    const { address } = endOf(random);
    if (isIPv4(address[0], address[1], address[2]) === (shape === "TCP4")) return formatAddress(...address);
  }
}

/** The grammar of section 2.1, written in another way. */
function isLine(line: string): boolean {
  if (line.length > PROXY_V1_BYTES_MAX || !/^[^\r\n]*\r\n$/.test(line)) return false;
  if (/^PROXY UNKNOWN[ \r]/.test(line)) return true;
  const match = /^PROXY TCP([46]) ([^ %]+) ([^ %]+) (0|[1-9]\d*) (0|[1-9]\d*)\r\n$/.exec(line);
  if (match === null) return false;
  const [, family, source, destination, sourcePort, destinationPort] = match;
  const fits = (text: string) => isIP(text) === Number(family) && parseAddress(text) !== null;
  return fits(source!) && fits(destination!) && Number(sourcePort) <= 65535 && Number(destinationPort) <= 65535;
}
