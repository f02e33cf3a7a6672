import { isIP } from "node:net";
import { describe, expect, test } from "vitest";
import type { Address } from "../../src/core/address.ts";
import {
  formatAddress,
  formatCidr,
  formatEndpoint,
  formatHostPort,
  isIPv4,
  maskAddress,
  parseAddress,
  parseCidr,
  parseEndpoint,
} from "../../src/core/address.ts";
import type { Random } from "../support/random.ts";
import { forSeeds } from "../support/random.ts";

const PIECES =
  "0 1 9 00 10 255 256 a f ff ffff 12345 g x : : : :: ::: . . . [ ] [::1] / % @ * - _ unix: 10.0.0.1 fe80 \0 ä 😀".split(
    " ",
  );

const textOf = (random: Random) => Array.from({ length: random.below(14) }, () => random.pick(PIECES)).join("");

function addressOf(random: Random): Address {
  const word = () => random.pick([0, 0, 1, 0xffff, 0x10000, 0xffffffff, random.word()]);
  return random.oneIn(4) ? [0, 0, 0xffff, random.word()] : [word(), word(), word(), word()];
}

describe("addresses as text", () => {
  test("parsing never throws, and accepted text is formatted and parsed again to the same value", () => {
    forSeeds(20_000, (random) => {
      const text = textOf(random);
      const endpoint = parseEndpoint(text);
      if (endpoint.kind !== "bad") expect(parseEndpoint(formatEndpoint(endpoint)), text).toEqual(endpoint);
      else expect(endpoint.why, text).not.toBe("");
      const cidr = parseCidr(text);
      if (!("bad" in cidr)) expect(parseCidr(formatCidr(cidr)), text).toEqual(cidr);
      const address = parseAddress(text);
      if (address) expect(parseAddress(formatAddress(...address)), text).toEqual(address);
    });
  });

  test("parseAddress accepts what the runtime's own parser accepts, except zone ids", () => {
    const pieces = "0 1 9 00 10 255 256 ff ffff 12345 g : : : : :: . . . 1.2.3.4".split(" ");
    forSeeds(30_000, (random) => {
      const text = Array.from({ length: random.below(16) }, () => random.pick(pieces)).join("");
      expect(parseAddress(text) !== null, text).toBe(isIP(text) !== 0);
    });
  });

  test("every address, with or without a port, is parsed from its own text", () => {
    forSeeds(5000, (random) => {
      const address = addressOf(random);
      const port = random.below(65_536);
      expect(parseAddress(formatAddress(...address))).toEqual(address);
      expect(parseEndpoint(formatHostPort(address, port))).toEqual({ kind: "ip", address, port });
    });
  });

  test("an IPv6 address is formatted as by the runtime's URL parser (RFC 5952)", () => {
    forSeeds(2000, (random) => {
      const [w0, w1, w2, w3] = addressOf(random);
      if (isIPv4(w0, w1, w2)) return;
      const full = [w0, w1, w2, w3]
        .map((word) => `${(word >>> 16).toString(16)}:${(word & 0xffff).toString(16)}`)
        .join(":");
      expect(`[${formatAddress(w0, w1, w2, w3)}]`).toBe(new URL(`http://[${full}]/`).hostname);
    });
  });

  test("a CIDR with host bits is refused with the intended one as a suggestion", () => {
    forSeeds(3000, (random) => {
      const address = addressOf(random);
      const isMapped = isIPv4(address[0], address[1], address[2]);
      const prefix = isMapped ? random.between(96, 128) : random.between(0, 128);
      const network = { address: maskAddress(address, prefix), prefix };
      const cidr = parseCidr(formatCidr({ address, prefix }));
      if (network.address.every((word, i) => word === address[i])) expect(cidr).toEqual(network);
      else expect(cidr).toEqual({ bad: expect.stringContaining(`did you mean ${formatCidr(network)}?`) });
    });
  });
});
