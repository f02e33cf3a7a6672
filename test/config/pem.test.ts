import { X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { namesOf, readCertificates, readPrivateKey, readRevocations } from "../../src/config/pem.ts";
import { threadCpuMs } from "../support/proc.ts";

const bytes = (name: string) => readFileSync(new URL(`fixtures/${name}`, import.meta.url));
const text = (content: string) => new TextEncoder().encode(content);

describe("certificates", () => {
  it("are found between other text, in any encoding, with LF or CR LF", () => {
    const around = Buffer.concat([Buffer.from([0xff, 0xfe, 0x0a]), bytes("site.pem"), Buffer.from("\xe9nd", "latin1")]);
    const crlf = text(bytes("site.pem").toString().replaceAll("\n", "\r\n"));
    for (const file of [around, crlf]) {
      const read = readCertificates(file, "site.pem");
      expect(read.is === "certificates" && read.certificates.length).toBe(2);
    }
  });

  it("are reported by their number if one of several is broken", () => {
    const file = Buffer.concat([bytes("site.pem"), bytes("broken.pem")]);
    expect(readCertificates(file, "x")).toMatchObject({ why: "has as number 3 a certificate that cannot be parsed" });
  });

  it("are parsed or refused wherever the file is truncated", () => {
    const whole = bytes("site.pem");
    for (let length = 0; length < whole.byteLength - 1; length++) {
      const read = readCertificates(whole.subarray(0, length), "x");
      if (read.is === "certificates") expect(read.certificates.length).toBe(1);
    }
  });

  it("with many BEGIN lines without an END are refused quickly", () => {
    const started = threadCpuMs();
    expect(readCertificates(text("-----BEGIN CERTIFICATE-----\n".repeat(200_000)), "x")).toMatchObject({ is: "bad" });
    expect(threadCpuMs() - started).toBeLessThan(3000);
  });
});

describe("names", () => {
  const names = (file: string) => namesOf(new X509Certificate(bytes(file)));

  it("are the DNS names of subjectAltName, in lower case", () => {
    expect(names("site.pem")).toEqual(["example.com", "*.example.com"]);
    expect(names("other.pem")).toEqual(["other.example", "www.example.com"]);
  });

  it("are the common name only if there is no subjectAltName at all", () => {
    expect(names("cn-only.pem")).toEqual(["cn.example.com"]);
    expect(names("no-names.pem")).toEqual([]);
  });
});

describe("keys", () => {
  it("are found after a certificate and in all formats", () => {
    for (const file of ["site.key", "site-rsa.key", "combined.pem"]) {
      expect(readPrivateKey(bytes(file), file).is, file).toBe("key");
    }
  });

  it("that are encrypted are reported with the command that decrypts them, quoted for a shell", () => {
    for (const file of ["encrypted.key", "encrypted-old.key"]) {
      expect(readPrivateKey(bytes(file), "my key.pem")).toMatchObject({
        why: "is encrypted, and lb cannot ask for a passphrase",
        hint: "decrypt it: openssl pkey -in 'my key.pem' -out 'my key.pem.plain'",
      });
    }
    expect(
      readPrivateKey(text("-----BEGIN OPENSSH PRIVATE KEY-----\nAA\n-----END OPENSSH PRIVATE KEY-----"), "k"),
    ).toMatchObject({ hint: "turn a copy of it into PEM: ssh-keygen -p -m PEM -f k" });
  });
});

describe("revocation lists", () => {
  it("report when the first of them must be replaced", () => {
    expect(readRevocations(bytes("clients.crl"), "x")).toMatchObject({ nextUpdate: Date.UTC(2120, 0, 1) });
    expect(readRevocations(Buffer.concat([bytes("clients.crl"), bytes("old.crl")]), "x")).toMatchObject({
      nextUpdate: Date.UTC(2021, 0, 1),
    });
  });

  it("must all be complete", () => {
    const file = Buffer.concat([bytes("clients.crl"), bytes("broken.crl")]);
    expect(readRevocations(file, "x")).toMatchObject({ why: "has a revocation list that cannot be parsed" });
    expect(readRevocations(text("0\x82"), "x.crl")).toMatchObject({
      hint: "from DER: openssl crl -inform DER -in x.crl -out x.crl.pem",
    });
  });
});
