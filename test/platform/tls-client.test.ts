// TLS towards the backends without a backend: the name for each, the meaning of a failed handshake, and which sessions are kept. Real
// handshakes are in test/e2e/tls-backends.test.ts.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import {
  faultOf,
  SESSIONS_MAX,
  TlsClient,
  type ShowsCertificate,
  type TlsClientPlan,
} from "../../src/platform/tls-client.ts";

const file = (name: string): string => readFileSync(join(import.meta.dirname, "../config/fixtures", name), "utf8");

const plan = (given: Partial<TlsClientPlan> = {}): TlsClientPlan => ({
  verify: true,
  ca: null,
  serverName: "",
  alpn: [],
  minVersion: "1.2",
  cert: null,
  key: null,
  ...given,
});

const client = (given: Partial<TlsClientPlan> = {}): TlsClient => new TlsClient(plan(given));
const failed = (code: string, message = ""): Error => Object.assign(new Error(message), { code });

describe("the name", () => {
  test.each([
    ["the backend's host name", {}, "db.example", "10.0.0.1:5432", "db.example"],
    ["none for an IPv4 address", {}, "", "10.0.0.1:5432", undefined],
    ["none for an IPv6 address", {}, "", "[2001:db8::1]:5432", undefined],
    ["none for a socket", { verify: false }, "", "unix:/run/db.sock", undefined],
    ["the server_name before all others", { serverName: "a.example" }, "db.example", "10.0.0.1:5432", "a.example"],
    ["the server_name of a socket", { serverName: "a.example" }, "", "unix:/run/db.sock", "a.example"],
  ])("is %s", (_, given, host, address, name) => {
    expect((client(given).options(host, address) as { serverName?: string }).serverName).toBe(name!);
  });

  test("is checked by the runtime if there is one and verification is on", () => {
    const rejects = (given: Partial<TlsClientPlan>, host: string): boolean =>
      client(given).options(host, "10.0.0.1:1").rejectUnauthorized;
    expect(rejects({}, "db.example")).toBe(true);
    expect(rejects({ verify: false }, "db.example")).toBe(false);
  });

  test("comes with one context for all backends of the pool", () => {
    const pool = client();
    expect(pool.options("a", "10.0.0.1:1").secureContext).toBe(pool.options("b", "10.0.0.2:1").secureContext);
  });
});

describe("the verdict on a handshake", () => {
  /** A socket whose peer has sent a certificate for these names. */
  const shown = (subjectaltname: string): ShowsCertificate => ({
    getPeerCertificate: () => ({ subject: { CN: "x" }, subjectaltname }),
  });
  const nobody = shown("");
  const MISMATCH = failed("ERR_TLS_CERT_ALTNAME_INVALID");

  test.each([
    ["is none where all is well", true, null, null],
    ["is the certificate's fault", false, failed("CERT_HAS_EXPIRED"), "CERT_HAS_EXPIRED"],
    ["is the wrong name", false, MISMATCH, "ERR_TLS_CERT_ALTNAME_INVALID"],
    [
      "is what ended it",
      false,
      failed("EPROTO", "error:100000f7:SSL routines:OPENSSL_internal:WRONG_VERSION_NUMBER"),
      "WRONG_VERSION_NUMBER",
    ],
    ["is the errno where there is no other word", false, failed("ECONNRESET", "disconnected"), "ECONNRESET"],
    ["is that it failed where there is no word at all", false, null, "failed"],
  ])("%s", (_, done, error, verdict) => {
    expect(client().verdict("db.example", "10.0.0.1:1", nobody, done, error)).toBe(verdict);
  });

  test.each([
    [true, null, null],
    [false, failed("DEPTH_ZERO_SELF_SIGNED_CERT"), null],
    [true, failed("CERT_HAS_EXPIRED"), null],
    [false, MISMATCH, null],
    [false, failed("EPROTO", "OPENSSL_internal:WRONG_VERSION_NUMBER"), "WRONG_VERSION_NUMBER"],
    [false, failed("ECONNRESET"), "ECONNRESET"],
    [false, null, "failed"],
  ])("without verification depends on the handshake only: done %s, %s", (done, error, verdict) => {
    expect(client({ verify: false }).verdict("db.example", "10.0.0.1:1", nobody, done, error)).toBe(verdict);
  });

  test("for a backend without a name depends on its address and on the chain", () => {
    const verdict = (names: string, done: boolean, error: Error | null): string | null =>
      client().verdict("", "10.0.0.1:1", shown(names), done, error);
    // Without a name the runtime reports a wrong name for every valid chain.
    expect(verdict("IP Address:10.0.0.1", false, MISMATCH)).toBeNull();
    expect(verdict("IP Address:10.0.0.1", true, null)).toBeNull();
    for (const names of ["IP Address:10.0.0.2", "DNS:10.0.0.1", "DNS:db.example", ""]) {
      expect(verdict(names, false, MISMATCH)).toBe("ERR_TLS_CERT_ALTNAME_INVALID");
      expect(verdict(names, true, null)).toBe("ERR_TLS_CERT_ALTNAME_INVALID");
    }
    // The runtime reports success for a handshake with an expired certificate if it must not reject any.
    expect(verdict("IP Address:10.0.0.1", true, failed("CERT_HAS_EXPIRED"))).toBe("CERT_HAS_EXPIRED");
    expect(verdict("IP Address:10.0.0.1", false, failed("DEPTH_ZERO_SELF_SIGNED_CERT"))).toBe(
      "DEPTH_ZERO_SELF_SIGNED_CERT",
    );
    expect(verdict("IP Address:10.0.0.1", false, failed("EPROTO"))).toBe("EPROTO");
  });

  test("of an IPv6 backend depends on that address", () => {
    const verdict = (names: string): string | null =>
      client().verdict("", "[2001:db8::1]:1", shown(names), false, MISMATCH);
    expect(verdict("IP Address:2001:DB8:0:0:0:0:0:1")).toBeNull();
    expect(verdict("IP Address:2001:DB8:0:0:0:0:0:2")).toBe("ERR_TLS_CERT_ALTNAME_INVALID");
  });
});

describe("the name of a failure", () => {
  test.each([
    [null, null],
    [failed("EPROTO", "error:10000418:SSL routines:OPENSSL_internal:TLSV1_ALERT_UNKNOWN_CA"), "TLSV1_ALERT_UNKNOWN_CA"],
    [failed("CERT_HAS_EXPIRED", "certificate has expired"), "CERT_HAS_EXPIRED"],
    [new Error("something"), "failed"],
  ])("%s is %s", (error, word) => {
    expect(faultOf(error)).toBe(word);
  });
});

describe("sessions", () => {
  const session = (text: string): Uint8Array => new TextEncoder().encode(text);

  test("are kept by address and name, the last one for each", () => {
    const pool = client();
    expect(pool.session("a.example", "10.0.0.1:1")).toBeNull();
    pool.keep("a.example", "10.0.0.1:1", session("first"));
    pool.keep("a.example", "10.0.0.1:1", session("second"));
    expect(pool.session("a.example", "10.0.0.1:1")).toEqual(session("second"));
    for (const [host, address] of [
      ["b.example", "10.0.0.1:1"],
      ["", "10.0.0.1:1"],
      ["a.example", "10.0.0.1:2"],
      ["a.example", "10.0.0.2:1"],
    ] as const) {
      expect(pool.session(host, address)).toBeNull();
    }
  });

  test("are shared under server_name if it is set", () => {
    const pool = client({ serverName: "a.example" });
    pool.keep("x", "10.0.0.1:1", session("x"));
    expect(pool.session("y", "10.0.0.1:1")).toEqual(session("x"));
  });

  test(`are ${SESSIONS_MAX} at most: the one that was renewed longest ago goes`, () => {
    const pool = client();
    for (let i = 0; i < SESSIONS_MAX; i++) pool.keep("", `10.0.0.1:${i + 1}`, session(`${i}`));
    pool.keep("", "10.0.0.1:1", session("again"));
    pool.keep("", "10.0.0.2:1", session("one more"));
    expect(pool.session("", "10.0.0.1:1")).toEqual(session("again"));
    expect(pool.session("", "10.0.0.1:2")).toBeNull();
    expect(pool.session("", "10.0.0.1:3")).not.toBeNull();
    expect(pool.session("", "10.0.0.2:1")).not.toBeNull();
  });
});

describe("a plan that cannot be used is refused at once", () => {
  test.each([
    ["a key of another certificate", { cert: file("site.pem"), key: file("other.key") }],
    ["a key that is none", { cert: file("site.pem"), key: "no key" }],
  ])("%s", (_, given) => {
    expect(() => client(given)).toThrow();
  });
});
