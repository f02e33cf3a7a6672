// The CA certificates of the system, for pools that name none. The runtime's own search finds them on some distributions
// only, and says nothing where there are none: every handshake then fails.
import { resolve } from "node:path";
import type { Environment } from "./env.ts";
import type { NamedFiles } from "./files.ts";

/** Where distributions keep them as one file: Debian, Arch, Alpine; Fedora, RHEL and older ones; openSUSE; BSD and macOS. */
export const SYSTEM_BUNDLES = [
  "/etc/ssl/certs/ca-certificates.crt",
  "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
  "/etc/pki/tls/certs/ca-bundle.crt",
  "/etc/ssl/ca-bundle.pem",
  "/etc/ssl/cert.pem",
] as const;

/** The file that SSL_CERT_FILE names, as for OpenSSL, else the first of the list that exists; null = there is none. */
export function systemBundle(env: Environment, files: NamedFiles): string | null {
  const named = env["SSL_CERT_FILE"] ?? "";
  if (named !== "") return resolve(named);
  return SYSTEM_BUNDLES.find((path) => files.exists(path)) ?? null;
}

/** What `lb check` says where there is no bundle, and what to do about it. */
export const NO_BUNDLE = {
  message: '"" means the CA certificates of the system, and this system has none',
  hint: 'name a bundle, such as ca = "ca.pem"; or install the package ca-certificates; or set SSL_CERT_FILE',
} as const;
