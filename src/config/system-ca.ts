// The system's CA certificates, for pools that do not name a CA. The runtime finds them on some distributions only, and reports
// nothing if there are none: every handshake then fails.
import { resolve } from "node:path";
import type { Environment } from "./env.ts";
import type { NamedFiles } from "./files.ts";

/** The paths in distributions that have one file: Debian, Arch, Alpine; Fedora, RHEL and older ones; openSUSE; BSD and macOS. */
export const SYSTEM_BUNDLES = [
  "/etc/ssl/certs/ca-certificates.crt",
  "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
  "/etc/pki/tls/certs/ca-bundle.crt",
  "/etc/ssl/ca-bundle.pem",
  "/etc/ssl/cert.pem",
] as const;

/** The file that SSL_CERT_FILE names, as in OpenSSL, else the first existing one of the list; null = there is none. */
export function systemBundle(env: Environment, files: NamedFiles): string | null {
  const named = env["SSL_CERT_FILE"] ?? "";
  if (named !== "") return resolve(named);
  return SYSTEM_BUNDLES.find((path) => files.exists(path)) ?? null;
}

/** The message of `lb check` if there is no bundle, with the cure. */
export const NO_BUNDLE = {
  message: '"" means the CA certificates of the system, and this system has none',
  hint: 'name a bundle, such as ca = "ca.pem"; or install the package ca-certificates; or set SSL_CERT_FILE',
} as const;

/** The same if no option names a bundle. */
export const NO_BUNDLE_FOR_TLS = {
  message: "is verified by the CA certificates of the system, and this system has none",
  hint: "install the package ca-certificates; or set SSL_CERT_FILE to a bundle",
} as const;
