import { expect, test } from "vitest";
import { parseAddress, parseCidr, type Cidr } from "../../src/core/address.ts";
import { cidrTable } from "../../src/core/cidr-set.ts";
import { isAllowed, isDenied } from "../../src/policy/address-lists.ts";

function cidr(text: string): Cidr {
  const parsed = parseCidr(text);
  if ("bad" in parsed) throw new Error(parsed.bad);
  return parsed;
}

/** [denied, allowed] for an address that is not in the first cell. */
function verdict(allow: string[], deny: string[], address: string): [boolean, boolean] {
  const lists = { allow: cidrTable(allow.map(cidr)), deny: cidrTable(deny.map(cidr)) };
  const words = Int32Array.of(4711, ...parseAddress(address)!);
  return [isDenied(lists, words, 1), isAllowed(lists, words, 1)];
}

test("empty lists allow every address and deny none", () => {
  expect(verdict([], [], "10.0.0.1")).toEqual([false, true]);
  expect(verdict([], [], "2001:db8::1")).toEqual([false, true]);
});

test("allow admits only its addresses", () => {
  expect(verdict(["10.0.0.0/8"], [], "10.1.2.3")).toEqual([false, true]);
  expect(verdict(["10.0.0.0/8"], [], "192.0.2.1")).toEqual([false, false]);
  expect(verdict(["10.0.0.0/8"], [], "2001:db8::1")).toEqual([false, false]);
});

test("deny refuses its addresses, also those that allow has", () => {
  expect(verdict([], ["2001:db8::/32"], "2001:db8::1")).toEqual([true, true]);
  expect(verdict(["10.0.0.0/8"], ["10.1.0.0/16"], "10.1.2.3")).toEqual([true, true]);
  expect(verdict(["10.0.0.0/8"], ["10.1.0.0/16"], "10.2.2.3")).toEqual([false, true]);
});
