import { expect, test } from "vitest";
import type { Address, Cidr } from "../../src/core/address.ts";
import { formatAddress, formatCidr, isIPv4, maskAddress } from "../../src/core/address.ts";
import { cidrHas, cidrTable } from "../../src/core/cidr-set.ts";
import type { Random } from "../support/random.ts";
import { forSeeds } from "../support/random.ts";

const toBig = (address: Address) => address.reduce((sum, word) => (sum << 32n) | BigInt(word), 0n);
const fromBig = (big: bigint): Address => {
  const word = (shift: bigint) => Number((big >> shift) & 0xffffffffn);
  return [word(96n), word(64n), word(32n), word(0n)];
};
const isMapped = (address: Address) => isIPv4(address[0], address[1], address[2]);

/** Words that are often equal, so that sets are dense and neighbours meet. */
function addressOf(random: Random): Address {
  const word = () => random.pick([0, 1, 0xffffffff, 0x80000000, 0xffff, random.below(4) * 2 ** 30, random.word()]);
  return random.oneIn(2) ? [0, 0, 0xffff, word()] : [word(), word(), word(), word()];
}

function cidrOf(random: Random): Cidr {
  const address = addressOf(random);
  // In IPv4 the prefix stays within the family, as in prefixes that are parsed from text.
  const prefix = isMapped(address) ? random.between(96, 128) : random.between(0, 128);
  const masked = maskAddress(address, prefix);
  return isMapped(masked) && prefix < 96 ? { address: masked, prefix: 128 } : { address: masked, prefix };
}

function naiveHas(cidrs: readonly Cidr[], address: Address): boolean {
  return cidrs.some((cidr) => {
    const inIPv4 = isMapped(cidr.address) && cidr.prefix >= 96;
    const shift = BigInt(128 - cidr.prefix);
    return inIPv4 === isMapped(address) && toBig(cidr.address) >> shift === toBig(address) >> shift;
  });
}

test("a set of CIDRs agrees with a search through the list, also at the edges", () => {
  forSeeds(300, (random) => {
    const cidrs = Array.from({ length: random.between(1, 30) }, () => cidrOf(random));
    const table = cidrTable(cidrs)!;
    const probes = Array.from({ length: 20 }, () => addressOf(random));
    for (const cidr of cidrs) {
      const start = toBig(cidr.address);
      const end = start | ((1n << BigInt(128 - cidr.prefix)) - 1n);
      for (const edge of [start - 1n, start, end, end + 1n]) probes.push(fromBig(edge & ((1n << 128n) - 1n)));
    }
    for (const probe of probes) {
      // The text takes longer than the search.
      if (cidrHas(table, ...probe) === naiveHas(cidrs, probe)) continue;
      expect.fail(`${formatAddress(...probe)} in ${cidrs.map(formatCidr).join(" ")}`);
    }
    expectSortedAndDisjoint([...table.v4], 1);
    expectSortedAndDisjoint([...table.v6], 4);
  });
});

function expectSortedAndDisjoint(words: number[], width: number): void {
  const ends: bigint[] = [];
  for (let i = 0; i < words.length; i += width) {
    ends.push(words.slice(i, i + width).reduce((sum, word) => (sum << 32n) | BigInt(word), 0n));
  }
  for (let i = 0; i < ends.length; i += 2) {
    expect(ends[i]! <= ends[i + 1]!).toBe(true);
    if (i > 0) expect(ends[i - 1]! < ends[i]!).toBe(true);
  }
}
