import { describe, expect, test } from "vitest";
import {
  formatAddress,
  formatCidr,
  formatEndpoint,
  formatHostPort,
  maskAddress,
  maskWord,
  parseAddress,
  parseCidr,
  parseEndpoint,
} from "../../src/core/address.ts";

describe("parseAddress", () => {
  test.each([
    ["0.0.0.0", [0, 0, 0xffff, 0]],
    ["10.0.0.1", [0, 0, 0xffff, 0x0a000001]],
    ["255.255.255.255", [0, 0, 0xffff, 0xffffffff]],
    ["::ffff:10.0.0.1", [0, 0, 0xffff, 0x0a000001]],
    ["::ffff:a00:1", [0, 0, 0xffff, 0x0a000001]],
    ["::", [0, 0, 0, 0]],
    ["::1", [0, 0, 0, 1]],
    ["1::", [0x10000, 0, 0, 0]],
    ["2001:DB8::8:800:200c:417a", [0x20010db8, 0, 0x00080800, 0x200c417a]],
    ["1:2:3:4:5:6:7:8", [0x10002, 0x30004, 0x50006, 0x70008]],
    ["1:2:3:4:5:6:7::", [0x10002, 0x30004, 0x50006, 0x70000]],
    ["::2:3:4:5:6:7:8", [0x2, 0x30004, 0x50006, 0x70008]],
    ["1:2:3:4:5:6:255.0.0.1", [0x10002, 0x30004, 0x50006, 0xff000001]],
    ["64:ff9b::192.0.2.33", [0x0064ff9b, 0, 0, 0xc0000221]],
    ["ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", [0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff]],
  ])("reads %s", (text, words) => {
    expect(parseAddress(text)).toEqual(words);
  });

  test.each([
    "",
    " ",
    "10.0.0",
    "10.0.0.1.2",
    "10.0.0.256",
    "10.0.0.01",
    "010.0.0.1",
    "10.0.0.0x1",
    "10..0.1",
    "10.0.0.1 ",
    " 10.0.0.1",
    "10.0.0.-1",
    "10.0.0.1e0",
    "1000.0.0.1",
    "10.0.0.",
    ".10.0.0",
    "167772161",
    ":",
    ":::",
    "1:",
    ":1",
    "1:2:3:4:5:6:7",
    "1:2:3:4:5:6:7:",
    "1:2:3:4:5:6:7:8:9",
    "1:2:3:4:5:6:7:8::",
    "::1:2:3:4:5:6:7:8",
    "1::2::3",
    "1:::2",
    "12345::",
    "g::",
    "::1%eth0",
    "[::1]",
    "::10.0.0.1:1",
    "::10.0.0",
    "::10.0.0.256",
    "::1a.0.0.1",
    "1:2:3:4:5:6:7:1.2.3.4",
    "::1 ",
  ])("refuses %j", (text) => {
    expect(parseAddress(text)).toBeNull();
  });
});

describe("formatAddress", () => {
  test.each([
    ["10.0.0.1", "10.0.0.1"],
    ["::ffff:255.255.255.255", "255.255.255.255"],
    ["::", "::"],
    ["0:0:0:0:0:0:0:1", "::1"],
    ["1:0:0:0:0:0:0:0", "1::"],
    ["2001:0DB8:0:0:0:0:2:1", "2001:db8::2:1"],
    ["2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1"],
    ["2001:0:0:1:0:0:0:1", "2001:0:0:1::1"],
    ["2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"],
    ["1:2:3:4:5:6:0:0", "1:2:3:4:5:6::"],
    ["0:2:3:4:5:6:7:8", "0:2:3:4:5:6:7:8"],
    ["::1.2.3.4", "::102:304"],
  ])("writes %s as %s (RFC 5952)", (text, canonical) => {
    expect(formatAddress(...parseAddress(text)!)).toBe(canonical);
  });

  test("puts an IPv6 address before a port in brackets", () => {
    expect(formatHostPort(parseAddress("10.0.0.1")!, 80)).toBe("10.0.0.1:80");
    expect(formatHostPort(parseAddress("2001:db8::1")!, 80)).toBe("[2001:db8::1]:80");
  });
});

describe("parseEndpoint", () => {
  test.each([
    ["10.0.0.1:80", { kind: "ip", address: [0, 0, 0xffff, 0x0a000001], port: 80 }],
    ["[2001:db8::1]:80", { kind: "ip", address: [0x20010db8, 0, 0, 1], port: 80 }],
    ["0.0.0.0:0", { kind: "ip", address: [0, 0, 0xffff, 0], port: 0 }],
    [":8080", { kind: "any", port: 8080 }],
    ["name.example:65535", { kind: "name", host: "name.example", port: 65535 }],
    ["App_1.Default.SVC.:80", { kind: "name", host: "app_1.default.svc.", port: 80 }],
    ["localhost:80", { kind: "name", host: "localhost", port: 80 }],
    ["unix:/run/app.sock", { kind: "unix", path: "/run/app.sock" }],
    ["unix:run/a:b@c", { kind: "unix", path: "run/a:b@c" }],
    ["unix:@name", { kind: "abstract", name: "name" }],
  ])("reads %s", (text, endpoint) => {
    expect(parseEndpoint(text)).toEqual(endpoint);
    expect(parseEndpoint(formatEndpoint(endpoint as never))).toEqual(endpoint);
  });

  test.each([
    ["", 'no port: expected something like "10.0.0.1:80"'],
    ["10.0.0.1", 'no port: expected something like "10.0.0.1:80"'],
    ["2001:db8::1", 'no port: an IPv6 address with one is "[2001:db8::1]:80"'],
    ["a:b:80", "more than one colon"],
    ["[2001:db8::1]", 'no port: expected "[2001:db8::1]:80"'],
    ["[2001:db8::1", 'no "]"'],
    ["[10.0.0.1]:80", '"10.0.0.1" is not an IPv6 address'],
    ["[fe80::1%eth0]:80", "zone ids are not supported"],
    ["10.0.0.1:65536", '"65536" is not a port number'],
    ["10.0.0.1:080", '"080" is not a port number'],
    ["10.0.0.1:", '"" is not a port number'],
    ["[::1]:x", '"x" is not a port number'],
    ["*:80", 'every address is written ":80"'],
    ["10.0.0.256:80", '"10.0.0.256" is not an IPv4 address'],
    ["0x7f000001:80", '"0x7f000001" is not an IPv4 address'],
    ["10.1:80", '"10.1" is not an IPv4 address'],
    ["-a.example:80", "neither an IP address nor a host name"],
    ["a..example:80", "neither an IP address nor a host name"],
    ["a b:80", "neither an IP address nor a host name"],
    ["http://a:80", "more than one colon"],
    [`${"a".repeat(64)}.example:80`, "neither an IP address nor a host name"],
    [`${"a.".repeat(126)}ab:80`, "254 characters: a host name has at most 253"],
    ["unix:", "no path"],
    ["unix:@", "no name"],
    ["unix:/a\0b", "NUL"],
    [`unix:/${"ä".repeat(54)}`, "109 bytes: a unix socket's name has at most 107"],
  ])("says what is wrong with %j", (text, why) => {
    expect(parseEndpoint(text)).toEqual({ kind: "bad", why: expect.stringContaining(why) });
  });

  test("accepts names up to their maximum length", () => {
    expect(parseEndpoint(`${"a.".repeat(126)}a:80`)).toMatchObject({ kind: "name" });
    expect(parseEndpoint(`${"a".repeat(63)}.example:80`)).toMatchObject({ kind: "name" });
    expect(parseEndpoint(`unix:/${"a".repeat(106)}`)).toMatchObject({ kind: "unix" });
  });
});

describe("parseCidr", () => {
  test.each([
    ["10.0.0.0/8", [0, 0, 0xffff, 0x0a000000], 104],
    ["10.0.0.7", [0, 0, 0xffff, 0x0a000007], 128],
    ["0.0.0.0/0", [0, 0, 0xffff, 0], 96],
    ["10.0.0.7/32", [0, 0, 0xffff, 0x0a000007], 128],
    ["::/0", [0, 0, 0, 0], 0],
    ["2001:db8::/32", [0x20010db8, 0, 0, 0], 32],
    ["2001:db8::1", [0x20010db8, 0, 0, 1], 128],
    ["::ffff:10.0.0.0/104", [0, 0, 0xffff, 0x0a000000], 104],
  ])("reads %s", (text, address, prefix) => {
    expect(parseCidr(text)).toEqual({ address, prefix });
  });

  test.each([
    ["10.0.0.5/8", "10.0.0.5/8 has host bits set: did you mean 10.0.0.0/8?"],
    ["2001:db8::1/32", "2001:db8::1/32 has host bits set: did you mean 2001:db8::/32?"],
    ["10.0.0.1/0", "10.0.0.1/0 has host bits set: did you mean 0.0.0.0/0?"],
    ["10.0.0.0/33", '"33" is not a prefix length (0 to 32)'],
    ["::/129", '"129" is not a prefix length (0 to 128)'],
    ["10.0.0.0/08", '"08" is not a prefix length (0 to 32)'],
    ["10.0.0.0/", '"" is not a prefix length (0 to 32)'],
    ["10.0.0.0/255.0.0.0", '"255.0.0.0" is not a prefix length (0 to 32)'],
    ["10.0.0/8", '"10.0.0" is not an IP address'],
    ["", '"" is not an IP address'],
  ])("says what is wrong with %j", (text, bad) => {
    expect(parseCidr(text)).toEqual({ bad });
  });

  test("is written back by formatCidr", () => {
    for (const text of ["10.0.0.0/8", "0.0.0.0/0", "::/0", "2001:db8::/32", "10.1.2.3/32"]) {
      expect(formatCidr(parseCidr(text) as never)).toBe(text);
    }
  });
});

test("maskWord keeps the first bits and stays unsigned", () => {
  expect(maskWord(0xffffffff, 1)).toBe(0x80000000);
  expect(maskWord(0xffffffff, 31)).toBe(0xfffffffe);
  expect(maskWord(0xffffffff, 32)).toBe(0xffffffff);
  expect(maskWord(0xffffffff, 40)).toBe(0xffffffff);
  expect(maskWord(0xffffffff, 0)).toBe(0);
  expect(maskWord(0xffffffff, -5)).toBe(0);
});

test("maskAddress clears what is beyond the prefix in every word", () => {
  const ones = [0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff] as const;
  expect(maskAddress(ones, 64)).toEqual([0xffffffff, 0xffffffff, 0, 0]);
  expect(maskAddress(ones, 33)).toEqual([0xffffffff, 0x80000000, 0, 0]);
  expect(maskAddress(ones, 0)).toEqual([0, 0, 0, 0]);
});
