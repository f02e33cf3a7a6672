// A set of addresses given as CIDRs: built once per config, looked up once per connection. The two families are separate: "::/0" is
// every IPv6 address and no IPv4 address, although IPv4 addresses have the mapped form.
import type { Cidr } from "./address.ts";
import { isIPv4 } from "./address.ts";

/**
 * Plain data that passes through structured clone. Each array is a sorted list of disjoint ranges, both ends included: v4 as
 * (start, end), v6 as four words of start and four of end.
 */
export interface CidrTable {
  v4: Uint32Array;
  v6: Uint32Array;
}

/** The union of the CIDRs, or null if there are none. */
export function cidrTable(cidrs: readonly Cidr[]): CidrTable | null {
  if (cidrs.length === 0) return null;
  const v4: Cidr[] = [];
  const v6: Cidr[] = [];
  for (const cidr of cidrs) {
    const [w0, w1, w2] = cidr.address;
    (isIPv4(w0, w1, w2) && cidr.prefix >= 96 ? v4 : v6).push(cidr);
  }
  return { v4: ranges4(v4), v6: ranges6(v6) };
}

/** Whether the set contains the address. Hot path: allocates nothing. */
export function cidrHas(table: CidrTable, w0: number, w1: number, w2: number, w3: number): boolean {
  return isIPv4(w0, w1, w2) ? has4(table.v4, w3) : has6(table.v6, w0, w1, w2, w3);
}

/** The same for the address in four Int32 cells from `at`. */
export function cidrHasAt(table: CidrTable, words: Int32Array, at: number): boolean {
  return cidrHas(table, words[at]! >>> 0, words[at + 1]! >>> 0, words[at + 2]! >>> 0, words[at + 3]! >>> 0);
}

function has4(ranges: Uint32Array, word: number): boolean {
  let low = 0;
  let high = ranges.length >> 1;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((ranges[middle * 2] as number) <= word) low = middle + 1;
    else high = middle;
  }
  return low > 0 && word <= (ranges[low * 2 - 1] as number);
}

function has6(ranges: Uint32Array, w0: number, w1: number, w2: number, w3: number): boolean {
  let low = 0;
  let high = ranges.length >> 3;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (compareAt(ranges, middle * 8, w0, w1, w2, w3) <= 0) low = middle + 1;
    else high = middle;
  }
  return low > 0 && compareAt(ranges, low * 8 - 4, w0, w1, w2, w3) >= 0;
}

/** Compares the four words at `offset` with the address: negative, 0, positive. */
function compareAt(words: Uint32Array, offset: number, w0: number, w1: number, w2: number, w3: number): number {
  return (
    (words[offset] as number) - w0 ||
    (words[offset + 1] as number) - w1 ||
    (words[offset + 2] as number) - w2 ||
    (words[offset + 3] as number) - w3
  );
}

function ranges4(cidrs: readonly Cidr[]): Uint32Array {
  // Start and host bits in one number: sorting numbers is ten times as fast as sorting with a function.
  const packed = Float64Array.from(cidrs, (cidr) => cidr.address[3] * 64 + (128 - cidr.prefix)).sort();
  const ranges = new Uint32Array(packed.length * 2);
  let used = 0;
  let lastEnd = -2;
  for (const entry of packed) {
    const start = Math.floor(entry / 64);
    const end = start + 2 ** (entry % 64) - 1;
    if (start <= lastEnd + 1) {
      lastEnd = Math.max(lastEnd, end);
      ranges[used - 1] = lastEnd;
      continue;
    }
    ranges[used++] = start;
    ranges[used++] = end;
    lastEnd = end;
  }
  return ranges.slice(0, used);
}

function ranges6(cidrs: readonly Cidr[]): Uint32Array {
  const sorted = cidrs.toSorted((a, b) => compareAddresses(a, b) || a.prefix - b.prefix);
  const ranges = new Uint32Array(sorted.length * 8);
  let used = 0;
  for (const { address, prefix } of sorted) {
    // Two CIDRs are nested or disjoint, and of nested ones the wider one sorts first.
    if (used > 0 && compareAt(ranges, used - 4, ...address) >= 0) continue;
    ranges.set(address, used);
    for (let i = 0; i < 4; i++) ranges[used + 4 + i] = (address[i] as number) | hostMask(prefix - 32 * i);
    used += 8;
  }
  return ranges.slice(0, used);
}

function compareAddresses(a: Cidr, b: Cidr): number {
  return (
    a.address[0] - b.address[0] ||
    a.address[1] - b.address[1] ||
    a.address[2] - b.address[2] ||
    a.address[3] - b.address[3]
  );
}

/** The mask of the host bits of a word of which the prefix covers `bits` bits. */
function hostMask(bits: number): number {
  if (bits >= 32) return 0;
  return bits <= 0 ? 0xffffffff : 0xffffffff >>> bits;
}
