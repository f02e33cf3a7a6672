// The certificate that a client has shown in its TLS handshake: whether it is accepted, why not, and the name in it. The
// runtime verifies the chain; it has no minimum for keys and signatures, so those are checked here.
import { X509Certificate } from "node:crypto";
import type { Socket } from "bun";
import { tlsFacts } from "../platform/bun.ts";
import { faultOf } from "../platform/tls-client.ts";

/** The shortest RSA key in the chain of a client's certificate. */
export const CLIENT_RSA_BITS_MIN = 2048;

/** More certificates than any client needs to show: what a chain of them would cost to parse is bounded by this. */
export const CLIENT_CHAIN_MAX = 16;

/** A certificate that was accepted. */
export interface ClientCertificate {
  /** The subject's common name, the first if there are several; "" if there is none. */
  readonly name: string;
  /** It was shown in an earlier handshake, and this connection resumes the session. */
  readonly resumed: boolean;
}

export type ShownCertificate =
  | { is: "none" }
  | { is: "good"; certificate: ClientCertificate }
  /** `why` begins with the name of the fault as OpenSSL has it (X509_V_ERR_...), without its prefix. */
  | { is: "bad"; why: string };

/** As the runtime has it with its chain: what the client has sent, in that order, and behind it the issuers that it did not. */
interface PeerCertificate {
  raw?: Uint8Array;
  subject?: { CN?: string | string[] };
  issuerCertificate?: PeerCertificate;
}

/** What the client on a socket whose handshake is done has shown. */
export function shownCertificate(socket: Socket<unknown>): ShownCertificate {
  const shown = tlsFacts(socket).getPeerCertificate(false) as PeerCertificate | null;
  if (!shown?.raw) return { is: "none" };
  if (!socket.authorized) return { is: "bad", why: faultOf(socket.getAuthorizationError()) ?? "UNSPECIFIED" };
  const why = weakness(shown);
  if (why !== null) return { is: "bad", why };
  const { CN = "" } = shown.subject ?? {};
  const name = typeof CN === "string" ? CN : (CN[0] ?? "");
  return { is: "good", certificate: { name, resumed: socket.isSessionReused() } };
}

function weakness(leaf: PeerCertificate): string | null {
  let shown: PeerCertificate | undefined = leaf;
  for (let depth = 0; shown?.raw; depth++) {
    if (depth === CLIENT_CHAIN_MAX) return `CERT_CHAIN_TOO_LONG: at most ${CLIENT_CHAIN_MAX} certificates are accepted`;
    const { issuerCertificate }: PeerCertificate = shown;
    const isRoot = issuerCertificate === shown;
    const why = weaknessOf(new X509Certificate(shown.raw), depth, isRoot);
    if (why !== null || isRoot) return why;
    shown = issuerCertificate;
  }
  return null;
}

// The signature of a root on itself proves nothing, so it may be of any kind.
function weaknessOf(certificate: X509Certificate, depth: number, isRoot: boolean): string | null {
  const bits = certificate.publicKey.asymmetricKeyDetails?.modulusLength ?? Infinity;
  if (bits < CLIENT_RSA_BITS_MIN) {
    const whose = depth === 0 ? "EE_KEY_TOO_SMALL" : "CA_KEY_TOO_SMALL";
    return `${whose}: an RSA key of ${bits} bits, at least ${CLIENT_RSA_BITS_MIN} are needed`;
  }
  const { signatureAlgorithm = "" } = certificate as { signatureAlgorithm?: string };
  if (isRoot || !/sha-?1|md\d/i.test(signatureAlgorithm)) return null;
  return `CA_MD_TOO_WEAK: signed with ${signatureAlgorithm}, SHA-256 or better is needed`;
}
