import { expect, test } from "vitest";
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

test("hashes a client by its prefix, with its port or its server name where these are asked for", () => {
  const hash = (address: string, port: number, by: "client" | "client_port" | "sni", sni = ""): number =>
    prefix.hashOf(cells(address, port), 0, by, sni);
  expect(hash("203.0.113.1", 1, "client")).toBe(hash("203.0.113.2", 2, "client"));
  expect(hash("203.0.113.1", 1, "client")).not.toBe(hash("203.0.114.1", 1, "client"));
  expect(hash("203.0.113.1", 1, "client_port")).not.toBe(hash("203.0.113.1", 2, "client_port"));
  expect(hash("203.0.113.1", 1, "sni", "A.example")).toBe(hash("198.51.100.1", 2, "sni", "a.example"));
  // Without a name the client's address stands in.
  expect(hash("203.0.113.1", 1, "sni")).toBe(hash("203.0.113.1", 1, "client"));
});
