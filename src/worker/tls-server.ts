// TLS termination for one listener: which certificates answer to a name, as contexts that are made once and kept, so that
// sessions resume. Moves no bytes.
import { X509Certificate } from "node:crypto";
import { createSecureContext } from "node:tls";
import type { TlsServerPlan } from "../messages.ts";
import { alpnWire, type ServerTls, type TlsContext } from "../platform/bun.ts";
import { nameMatches } from "../policy/route.ts";

/**
 * What the two sides sign their handshakes with where clients are asked for certificates, ours and theirs: the runtime's
 * default in its order, without SHA-1.
 */
const SIGNATURES = [
  "ecdsa_secp256r1_sha256",
  "rsa_pss_rsae_sha256",
  "rsa_pkcs1_sha256",
  "ecdsa_secp384r1_sha384",
  "rsa_pss_rsae_sha384",
  "rsa_pkcs1_sha384",
  "ecdsa_secp521r1_sha512",
  "rsa_pss_rsae_sha512",
  "rsa_pkcs1_sha512",
  "ed25519",
] as const;

export class TlsServer {
  /**
   * What every handshake is done with, where the name that the client asks for has no say in it; else null, and where clients
   * are asked for certificates, which a listening socket's context would have to know beforehand (Bun 1.4.5).
   */
  readonly only: ServerTls | null;
  readonly #plan: TlsServerPlan;
  readonly #keyTypes: readonly string[];
  /** By the certificates' numbers. There are no more than the names in the certificates can choose. */
  readonly #contexts = new Map<string, TlsContext>();
  readonly #alpn: string;

  /** Throws where the runtime refuses a certificate, a key or the ciphers. */
  constructor(plan: TlsServerPlan) {
    this.#plan = plan;
    this.#keyTypes = plan.certificates.map(({ cert }) => keyType(cert));
    this.#alpn = alpnWire(plan.alpn);
    // Now, and not at the first client: what cannot be used must refuse the plan.
    plan.certificates.forEach((_, i) => this.#context([i]));
    this.only = this.#chooseOnly();
  }

  get wantsClientCertificate(): boolean {
    return this.#plan.clientAuth !== "off";
  }

  get requiresClientCertificate(): boolean {
    return this.#plan.clientAuth === "required";
  }

  /**
   * What the handshake with a client is to be done with, by the name that it asked for (lower case; null = none). Null = it
   * is to be turned away with the alert unrecognized_name.
   */
  choose(name: string | null): ServerTls | null {
    let chosen = name === null ? [] : this.#bearing(name);
    if (chosen.length === 0) {
      if (this.#plan.unknownSni === "reject") return null;
      chosen = this.#oneOfEachKeyType([0, ...this.#bearing(this.#plan.certificates[0]?.names[0] ?? "")]);
    }
    const { clientAuth } = this.#plan;
    return {
      secureContext: this.#context(chosen),
      ALPNProtocols: this.#alpn,
      requestCert: clientAuth !== "off",
      rejectUnauthorized: clientAuth === "required",
    };
  }

  // A wildcard covers one label, so its own text stands for every name that it alone covers.
  #chooseOnly(): ServerTls | null {
    const only = this.#plan.clientAuth === "off" ? this.choose(null) : null;
    const names = this.#plan.certificates.flatMap((certificate) => certificate.names);
    return names.every((name) => this.choose(name)?.secureContext === only?.secureContext) ? only : null;
  }

  // Of the certificates that bear the name the first of each type of key, so that the handshake can take the one that the
  // client understands. An exact name goes before a wildcard.
  #bearing(name: string): number[] {
    const all = this.#plan.certificates.map(({ names }, i) => ({ names, i }));
    const exact = all.filter(({ names }) => names.includes(name));
    const bearing = exact.length > 0 ? exact : all.filter(({ names }) => names.some((own) => nameMatches(own, name)));
    return this.#oneOfEachKeyType(bearing.map(({ i }) => i));
  }

  #oneOfEachKeyType(certificates: readonly number[]): number[] {
    const seen = new Set<string>();
    return certificates.filter((i) => {
      const type = this.#keyTypes[i] ?? "";
      return !seen.has(type) && seen.add(type);
    });
  }

  #context(certificates: readonly number[]): TlsContext {
    const key = certificates.join();
    const known = this.#contexts.get(key);
    if (known !== undefined) return known;
    const { minVersion, ciphers, clientCa, clientCrl } = this.#plan;
    const chosen = certificates.flatMap((i) => this.#plan.certificates[i] ?? []);
    const { context } = createSecureContext({
      cert: chosen.map(({ cert }) => cert),
      key: chosen.map(({ key }) => key),
      minVersion: `TLSv${minVersion}`,
      // `ciphers` is an order of preference, and while the runtime's list has weak suites the client must not choose them.
      honorCipherOrder: true,
      ...(ciphers === "" ? {} : { ciphers }),
      // BoringSSL looks for the issuer of a certificate that comes without a chain, at each handshake: in the files of the
      // system's CAs if it is given no others, and a file that is not there is looked for each time.
      ca: clientCa ?? chosen.map(({ cert }) => cert),
      ...(clientCrl === null ? {} : { crl: clientCrl }),
      // By default a client may sign with SHA-1 in TLS 1.2.
      ...(this.wantsClientCertificate ? { sigalgs: SIGNATURES.join(":") } : {}),
    });
    this.#contexts.set(key, context as TlsContext);
    return context as TlsContext;
  }
}

function keyType(pem: string): string {
  return new X509Certificate(pem).publicKey.asymmetricKeyType ?? "";
}
