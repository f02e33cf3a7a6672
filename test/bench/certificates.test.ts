import { createPrivateKey, X509Certificate } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { certificateIn } from "../../bench/certificates.ts";

const folder = mkdtempSync(join(tmpdir(), "lb-certificates-"));
afterAll(() => rmSync(folder, { recursive: true }));

test.skipIf(Bun.which("openssl") === null).each([
  ["ecdsa", "ec"],
  ["rsa", "rsa"],
] as const)("makes one file with a certificate and its %s key that only its owner can read", (type, keyType) => {
  const file = certificateIn(folder, type);
  const pem = readFileSync(file, "utf8");
  const certificate = new X509Certificate(pem);
  expect(certificate.publicKey.asymmetricKeyType).toBe(keyType);
  expect(certificate.checkPrivateKey(createPrivateKey(pem))).toBe(true);
  expect(statSync(file).mode & 0o777).toBe(0o600);
  expect(certificateIn(folder, type)).toBe(file);
  expect(readFileSync(file, "utf8")).toBe(pem);
});
