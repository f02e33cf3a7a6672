// The certificate that a client has sent in its TLS handshake: whether it is accepted, why not, and its name. The runtime verifies the
// chain; it has no minimum for keys and signatures, so these are checked here.
import { X509Certificate } from "node:crypto";
import type { Socket } from "bun";
import { tlsFacts } from "../platform/bun.ts";
import { faultOf } from "../platform/tls-client.ts";

/** Minimum size of an RSA key in the chain of a client's certificate. */
const CLIENT_RSA_BITS_MIN = 2048;

/** Maximum number of certificates in a client's chain, which bounds the cost of parsing. Clients need fewer. */
const CLIENT_CHAIN_MAX = 16;

/** A certificate that was accepted. */
export interface ClientCertificate {
  /** The subject's common name, the first if there are several; "" if there is none. */
  readonly name: string;
  /** It was sent in an earlier handshake, and this connection resumes the session. */
  readonly resumed: boolean;
}

type ShownCertificate =
  | { is: "none" }
  | { is: "good"; certificate: ClientCertificate }
  /** `why` begins with OpenSSL's name of the fault (X509_V_ERR_...), without its prefix. */
  | { is: "bad"; why: string };

/** In the form of the runtime with its chain: the certificates that the client sent, in order, followed by issuers that it did not send. */
interface PeerCertificate {
  raw?: Uint8Array;
  subject?: { CN?: string | string[] };
  issuerCertificate?: PeerCertificate;
}

/** The certificate that the client on a socket with a completed handshake has sent. */
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

// The signature of a root on itself proves nothing, so any algorithm is accepted.
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
