// TLS termination for one listener: the certificates for a server name, as contexts that are created once and kept, so that sessions
// resume. Moves no bytes.
import { X509Certificate } from "node:crypto";
import { createSecureContext } from "node:tls";
import type { TlsServerPlan } from "../messages.ts";
import { alpnWire, type ServerTls, type TlsContext } from "../platform/bun.ts";
import { nameMatches } from "../policy/route.ts";

/**
 * The signature algorithms of both sides' handshakes if clients are asked for certificates: the runtime's default order without
 * SHA-1.
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
   * The options of every handshake, if the requested name makes no difference; else null. Also null if clients are asked for certificates,
   * since the context of a listening socket would have to be created for that (Bun 1.4.5).
   */
  readonly only: ServerTls | null;
  readonly #plan: TlsServerPlan;
  readonly #keyTypes: readonly string[];
  /** By the certificates' numbers. Their number is bounded by the names in the certificates. */
  readonly #contexts = new Map<string, TlsContext>();
  readonly #alpn: string;

  /** Throws if the runtime refuses a certificate, a key or the ciphers. */
  constructor(plan: TlsServerPlan) {
    this.#plan = plan;
    this.#keyTypes = plan.certificates.map(({ cert }) => keyType(cert));
    this.#alpn = alpnWire(plan.alpn);
    // Now, and not for the first client: an unusable certificate must refuse the plan.
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
   * The options of the handshake with a client, by the name that it asked for (lower case; null = none). Null = it must be refused with the
   * alert unrecognized_name.
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

  // A wildcard covers one label, so its own text stands for every name that only it covers.
  #chooseOnly(): ServerTls | null {
    const only = this.#plan.clientAuth === "off" ? this.choose(null) : null;
    const names = this.#plan.certificates.flatMap((certificate) => certificate.names);
    return names.every((name) => this.choose(name)?.secureContext === only?.secureContext) ? only : null;
  }

  // The first certificate with the name for each key type, so that the handshake can use the one that the client supports. An exact name is
  // preferred to a wildcard.
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
      // `ciphers` is an order of preference, and while the runtime's list has weak suites the client must not choose among them.
      honorCipherOrder: true,
      ...(ciphers === "" ? {} : { ciphers }),
      // For a certificate without a chain, BoringSSL searches for the issuer at each handshake: in the files of the system's CAs if it gets no
      // others. A file that does not exist is searched for each time.
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
