import { expect, test } from "vitest";
import { parseAddress } from "../../src/core/address.ts";
import { ROW, ROW_WORDS } from "../../src/shared/ledger.ts";
import { parseProxyHeader, type ProxyHeader } from "../../src/wire/proxy-protocol.ts";
import { proxyHeaderFor, type HeaderSource } from "../../src/worker/send-proxy.ts";
import { ClientFacts } from "../../src/worker/session.ts";

const SERVER = { address: parseAddress("198.51.100.1")!, port: 443 };

/** A session whose client has an address, or is at a unix socket; its socket is already closed. */
function session(client: string | null, facts: Partial<ClientFacts> = {}): HeaderSource {
  const words = new Int32Array(3 * ROW_WORDS);
  const at = 2 * ROW_WORDS;
  if (client !== null) words.set([...parseAddress(client)!, 4711], at + ROW.address);
  words[at + ROW.clientFd] = -1;
  return { row: 2, host: { words }, facts: Object.assign(new ClientFacts(), facts) };
}

function parsed(bytes: Uint8Array): ProxyHeader {
  const answer = parseProxyHeader(bytes);
  if (answer.is !== "proxy") throw new Error(answer.is);
  expect(answer.length).toBe(bytes.length);
  return answer.header;
}

test("has the client's address and the address it connected to, in both versions", () => {
  for (const [version, number] of [
    ["v1", 1],
    ["v2", 2],
  ] as const) {
    for (const address of ["192.0.2.7", "2001:db8::7"]) {
      const addressed = { address: parseAddress(address)!, port: 443 };
      const header = parsed(proxyHeaderFor(session(address, { addressed }), version));
      expect(header).toMatchObject({ version: number, command: "proxy", destination: addressed });
      expect(header.source).toEqual({ address: parseAddress(address), port: 4711 });
    }
  }
});

test("has no addresses if one of the two is not known", () => {
  const atUnix = session(null, { addressed: SERVER });
  const unaddressed = session("192.0.2.7");
  for (const given of [atUnix, unaddressed]) {
    expect(Buffer.from(proxyHeaderFor(given, "v1")).toString()).toBe("PROXY UNKNOWN\r\n");
    expect(parsed(proxyHeaderFor(given, "v2"))).toMatchObject({ source: null, destination: null });
  }
});

test("has in version 2 the facts of the client's TLS, and none without TLS", () => {
  const plain = parsed(proxyHeaderFor(session("192.0.2.7", { addressed: SERVER }), "v2"));
  expect(plain.tlvs?.authority ?? null).toBeNull();
  expect(plain.tlvs?.ssl ?? null).toBeNull();
  const known = { addressed: SERVER, sni: "www.example.com", alpn: "h2", tlsVersion: "TLSv1.3" };
  const certificate = { name: "somebody", resumed: false };
  const header = parsed(proxyHeaderFor(session("192.0.2.7", { ...known, certificate }), "v2"));
  expect(header.tlvs).toMatchObject({ authority: "www.example.com" });
  expect(JSON.stringify(header.tlvs)).toContain("somebody");
});
