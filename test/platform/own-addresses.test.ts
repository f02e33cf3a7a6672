import { readFileSync } from "node:fs";
import { networkInterfaces } from "node:os";
import { expect, test } from "vitest";
import { maySelfConnect } from "../../src/platform/own-addresses.ts";
import { endpoint } from "../support/endpoints.ts";

const [first, end] = readFileSync("/proc/sys/net/ipv4/ip_local_port_range", "utf8").split(/\s+/).map(Number) as [
  number,
  number,
];

const host = (address: string): string => (address.includes(":") ? `[${address}]` : address);

test("a connect may reach itself at this machine's addresses and the ports of outgoing connections", () => {
  const own = Object.values(networkInterfaces()).flatMap((list) => (list ?? []).map(({ address }) => host(address)));
  for (const address of ["127.0.0.1", "127.9.9.9", "[::1]", "0.0.0.0", "[::]", ...own]) {
    expect(maySelfConnect(endpoint(`${address}:${first}`))).toBe(true);
    expect(maySelfConnect(endpoint(`${address}:${end}`))).toBe(true);
    expect(maySelfConnect(endpoint(`${address}:${first - 1}`))).toBe(false);
    expect(maySelfConnect(endpoint(`${address}:${end + 1}`))).toBe(false);
  }
});

test("but not elsewhere", () => {
  for (const elsewhere of ["192.0.2.1", "[2001:db8::1]", "128.0.0.1"]) {
    expect(maySelfConnect(endpoint(`${elsewhere}:${first}`))).toBe(false);
  }
  expect(maySelfConnect(endpoint("unix:/run/app.sock"))).toBe(false);
});
