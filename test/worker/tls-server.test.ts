// Which context a handshake gets. Real clients in test/e2e/tls.test.ts show that the contexts work.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import type { TlsServerPlan } from "../../src/messages.ts";
import { TlsServer } from "../../src/worker/tls-server.ts";

const file = (name: string): string => readFileSync(join(import.meta.dirname, "../config/fixtures", name), "utf8");
/** The names in the certificates do not matter here: the plan has them. */
const EC = { cert: file("site.pem"), key: file("site.key") };
const RSA = { cert: file("site-rsa.pem"), key: file("site-rsa.key") };
const OTHER = { cert: file("other.pem"), key: file("other.key") };
const CA = file("ca.pem");

const plan = (given: Partial<TlsServerPlan> = {}): TlsServerPlan => ({
  certificates: [{ ...EC, names: ["a.example"] }],
  unknownSni: "default",
  minVersion: "1.2",
  ciphers: "",
  alpn: [],
  clientAuth: "off",
  clientCa: null,
  clientCrl: null,
  ...given,
});

const server = (...certificates: [typeof EC, ...string[]][]): TlsServer =>
  new TlsServer(plan({ certificates: certificates.map(([pair, ...names]) => ({ ...pair, names })) }));

const contextOf = (tls: TlsServer, name: string | null): object => tls.choose(name)!.secureContext;

describe("the context for a name", () => {
  test("is made once, so that its sessions can be resumed", () => {
    const tls = server([EC, "a.example", "b.example"], [OTHER, "c.example"]);
    expect(contextOf(tls, "a.example")).toBe(contextOf(tls, "a.example"));
    expect(contextOf(tls, "a.example")).toBe(contextOf(tls, "b.example"));
    expect(contextOf(tls, "c.example")).not.toBe(contextOf(tls, "a.example"));
  });

  test("is not shared with another server, even if both have the same certificate", () => {
    expect(contextOf(server([EC, "a.example"]), "a.example")).not.toBe(
      contextOf(server([EC, "a.example"]), "a.example"),
    );
  });

  test("is that of the certificate with the name: an exact name before a wildcard, which covers one label", () => {
    const tls = server([EC, "*.b.example"], [OTHER, "x.b.example", "*.c.example"]);
    const wild = contextOf(tls, "y.b.example");
    const exact = contextOf(tls, "x.b.example");
    expect(wild).not.toBe(exact);
    expect(contextOf(tls, "z.c.example")).toBe(exact);
    // The first certificate is the default too.
    for (const name of ["x.y.b.example", "b.example", "x.y.c.example", "c.example", "unknown.example"]) {
      expect(contextOf(tls, name)).toBe(wild);
    }
  });

  test("has one certificate with the name for each key type", () => {
    const both = server([EC, "a.example"], [RSA, "a.example"], [OTHER, "a.example"]);
    const alone = server([EC, "a.example"], [RSA, "r.example"], [OTHER, "a.example"]);
    // The third has the first's type of key, and so is never used for this name.
    const third = server([EC, "a.example"], [RSA, "a.example"], [OTHER, "o.example"]);
    expect(contextOf(both, "a.example")).toBe(contextOf(both, "unknown.example"));
    expect(contextOf(alone, "a.example")).not.toBe(contextOf(alone, "r.example"));
    expect(contextOf(third, "o.example")).not.toBe(contextOf(third, "a.example"));
  });

  test("is the first certificate's for an unknown or missing name, with others of the first's name", () => {
    const tls = server([EC, "a.example"], [OTHER, "o.example"], [RSA, "a.example"]);
    const first = contextOf(tls, "a.example");
    expect(contextOf(tls, null)).toBe(first);
    expect(contextOf(tls, "unknown.example")).toBe(first);
  });

  test("is only the first certificate's if that has no name", () => {
    const tls = server([EC], [RSA, "a.example"]);
    expect(contextOf(tls, null)).not.toBe(contextOf(tls, "a.example"));
    expect(contextOf(tls, "unknown.example")).toBe(contextOf(tls, null));
  });

  test('is none for an unknown or missing name with unknown_sni = "reject"', () => {
    const tls = new TlsServer(plan({ unknownSni: "reject" }));
    expect(tls.choose("a.example")).not.toBeNull();
    expect(tls.choose("unknown.example")).toBeNull();
    expect(tls.choose("x.a.example")).toBeNull();
    expect(tls.choose(null)).toBeNull();
  });

  test("does not increase in number with the names that clients send", () => {
    const tls = server([EC, "*.a.example"], [OTHER, "*.b.example"]);
    const seen = new Set(Array.from({ length: 1000 }, (_, i) => contextOf(tls, `${i}.${i % 2 ? "a" : "b"}.example`)));
    expect(seen.size).toBe(2);
  });
});

describe("the only choice", () => {
  const onlyOf = (tls: TlsServer): object | undefined => tls.only?.secureContext;

  test("exists if every name gets the same: one certificate, or one per key type with the same names", () => {
    for (const tls of [
      server([EC]),
      server([EC, "a.example", "*.a.example"]),
      server([EC, "a.example", "*.a.example"], [RSA, "*.a.example", "a.example"]),
    ]) {
      expect(onlyOf(tls)).toBe(contextOf(tls, "a.example"));
      expect(onlyOf(tls)).toBe(contextOf(tls, "x.a.example"));
      expect(onlyOf(tls)).toBe(contextOf(tls, null));
    }
  });

  test.each([
    ["another certificate for another name", [EC, "a.example"], [OTHER, "b.example"]],
    ["one of a pair bears a name more", [EC, "a.example"], [RSA, "a.example", "b.example"]],
    ["one of a pair bears a wildcard more", [EC, "a.example"], [RSA, "a.example", "*.example"]],
    ["an exact name is another's than the wildcard", [EC, "*.a.example"], [RSA, "x.a.example"]],
  ] as [string, ...[typeof EC, ...string[]][]][])("does not exist: %s", (_, ...certificates) => {
    expect(server(...certificates).only).toBeNull();
  });

  test("does not exist if unknown names are rejected, or clients must send certificates", () => {
    expect(new TlsServer(plan({ unknownSni: "reject" })).only).toBeNull();
    expect(new TlsServer(plan({ clientAuth: "optional", clientCa: CA })).only).toBeNull();
    expect(new TlsServer(plan()).only).not.toBeNull();
  });
});

describe("requirements for clients", () => {
  test.each([
    ["off", { requestCert: false, rejectUnauthorized: false }, [false, false]],
    ["optional", { requestCert: true, rejectUnauthorized: false }, [true, false]],
    ["required", { requestCert: true, rejectUnauthorized: true }, [true, true]],
  ] as const)("%s", (clientAuth, asked, facts) => {
    const tls = new TlsServer(plan({ clientAuth, clientCa: CA }));
    expect(tls.choose("a.example")).toMatchObject(asked);
    expect(tls.choose("unknown.example")).toMatchObject(asked);
    expect([tls.wantsClientCertificate, tls.requiresClientCertificate]).toEqual(facts);
  });

  test("protocols are in wire format", () => {
    expect(new TlsServer(plan({ alpn: ["h2", "http/1.1"] })).choose(null)?.ALPNProtocols).toBe("\x02h2\x08http/1.1");
    expect(new TlsServer(plan()).choose(null)?.ALPNProtocols).toBe("");
  });
});

describe("a plan that cannot be used is refused at once", () => {
  test.each([
    ["a key of another certificate", { certificates: [{ cert: EC.cert, key: OTHER.key, names: ["a.example"] }] }],
    [
      "the second certificate without a key that is one",
      {
        certificates: [
          { ...EC, names: ["a"] },
          { cert: OTHER.cert, key: "no key", names: ["b"] },
        ],
      },
    ],
    ["ciphers that nobody knows", { ciphers: "NO-SUCH-CIPHER" }],
  ])("%s", (_, given) => {
    expect(() => new TlsServer(plan(given))).toThrow();
  });
});
