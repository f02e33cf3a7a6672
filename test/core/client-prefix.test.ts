import { describe, expect, test } from "vitest";
import { addressAt, formatAddress, parseAddress } from "../../src/core/address.ts";
import { ClientPrefix } from "../../src/core/client-prefix.ts";

const prefix = new ClientPrefix({ ipv4: 24, ipv6: 48 });

/** The cells of a row: four words and the port. */
function cells(address: string, port = 0): Int32Array {
  return Int32Array.of(...parseAddress(address)!, port);
}

function masked(address: string): string {
  const { w0, w1, w2, w3 } = prefix.of(cells(address), 0);
  return formatAddress(...addressAt(Int32Array.of(w0, w1, w2, w3), 0));
}

test("keeps the bits of the prefix of either family", () => {
  expect(masked("203.0.113.77")).toBe("203.0.113.0");
  expect(masked("255.255.255.255")).toBe("255.255.255.0");
  expect(masked("2001:db8:1:ffff::9")).toBe("2001:db8:1::");
});

describe("the hash of a connection", () => {
  const wide = new ClientPrefix({ ipv4: 24, ipv6: 64 });
  const hash = (address: string, by: "client" | "client_port" | "sni", port = 1, sni = ""): number =>
    wide.hashOf(cells(address, port), 0, by, sni);

  test('is by `client_prefix` for "client", whatever the port', () => {
    expect(hash("10.0.0.1", "client", 1)).toBe(hash("10.0.0.200", "client", 2));
    expect(hash("10.0.0.1", "client")).not.toBe(hash("10.0.1.1", "client"));
    expect(hash("2001:db8::1", "client")).toBe(hash("2001:db8::ffff", "client"));
    expect(hash("2001:db8::1", "client")).not.toBe(hash("2001:db8:0:1::1", "client"));
  });

  test('is by address and port for "client_port"', () => {
    expect(hash("10.0.0.1", "client_port", 1)).not.toBe(hash("10.0.0.1", "client_port", 2));
  });

  test('is by the name for "sni", in any case, and by the client where there is none', () => {
    expect(hash("10.0.0.1", "sni", 1, "a.example")).toBe(hash("10.9.9.9", "sni", 2, "A.Example"));
    expect(hash("10.0.0.1", "sni", 1, "a.example")).not.toBe(hash("10.0.0.1", "sni", 1, "b.example"));
    expect(hash("10.0.0.1", "sni")).toBe(hash("10.0.0.1", "client"));
  });
});
