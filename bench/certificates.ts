// The certificates of a run: self-signed, one for each type of key, made at first use. No client verifies them; their cost is the signature
// in each full handshake.
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

export type KeyType = "ecdsa" | "rsa";

export const keyTitles: Record<KeyType, string> = { ecdsa: "ECDSA P-256", rsa: "RSA 2048" };

const keyOptions: Record<KeyType, string[]> = {
  ecdsa: ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"],
  rsa: ["-newkey", "rsa:2048"],
};

/** A file in the folder with a certificate and its key, of this type. HAProxy requires both in one file; lb and nginx accept that. */
export function certificateIn(folder: string, type: KeyType): string {
  const file = join(folder, `${type}.pem`);
  if (existsSync(file)) return file;
  const [certificate, key] = [join(folder, `${type}.certificate`), join(folder, `${type}.key`)];
  const subject = ["-subj", "/CN=bench.test", "-addext", "subjectAltName=DNS:bench.test", "-days", "2"];
  const request = ["req", "-x509", "-nodes", ...keyOptions[type], ...subject, "-keyout", key, "-out", certificate];
  const { exitCode, stderr } = Bun.spawnSync(["openssl", ...request]);
  if (exitCode !== 0) throw new Error(`openssl made no certificate: ${stderr.toString().trim()}`);
  writeFileSync(file, readFileSync(certificate, "latin1") + readFileSync(key, "latin1"), { mode: 0o600 });
  return file;
}
