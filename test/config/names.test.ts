import { expect, it } from "vitest";
import { dnsName } from "../../src/config/names.ts";

const name = (text: string, wildcard = true) => {
  const read = dnsName(text, { wildcard });
  return read.is === "name" ? read.name : (read.meant ?? null);
};

it("converts names to lower case, also with wildcards and underscores", () => {
  expect(["A.Example.COM", "*.Example.com", "localhost", "_x.a_b.example"].map((text) => name(text))).toEqual([
    "a.example.com",
    "*.example.com",
    "localhost",
    "_x.a_b.example",
  ]);
});

it("accepts * only as the whole first label, and only where wildcards are allowed", () => {
  for (const text of ["*", "*.", "a.*.example", "*a.example", "a*.example", "**.example"])
    expect(name(text), text).toBeNull();
  expect(name("*.example.com", false)).toBeNull();
});

it("suggests the ASCII form of a name, and the name without its trailing dot", () => {
  expect(name("bücher.example")).toBe("xn--bcher-kva.example");
  expect(name("*.bücher.example")).toBe("*.xn--bcher-kva.example");
  expect(name("example.com.")).toBe("example.com");
});

it("refuses addresses, and labels and names that are too long", () => {
  for (const text of ["10.0.0.1", "::1", "[::1]", "a..b", "-a.b", "a-.b", "a b", "", "a".repeat(64)]) {
    expect(name(text), text).toBeNull();
  }
  const long = `${"a".repeat(63)}.`.repeat(3);
  expect(name(`${long}${"a".repeat(61)}`)).not.toBeNull();
  expect(name(`${long}${"a".repeat(62)}`)).toBeNull();
});
