// TLS to the backends of one pool: one context for all of them, the server name for each, the verdict on its certificate, and the
// sessions that can be resumed, each under its own name only.
import { checkServerIdentity, createSecureContext, type PeerCertificate } from "node:tls";
import { parseAddress } from "../core/address.ts";
import { alpnWire, type ClientTls, type TlsContext } from "./bun.ts";

export type TlsVersion = "1.2" | "1.3";

/** TLS to backends. Certificates and keys are PEM. */
export interface TlsClientPlan {
  verify: boolean;
  /** null = nothing is verified. */
  ca: string | null;
  /** SNI and the name checked; "" = the backend's host. */
  serverName: string;
  alpn: string[];
  minVersion: TlsVersion;
  cert: string | null;
  key: string | null;
}

/** What `verdict` needs of a TLS socket. */
export interface ShowsCertificate {
  getPeerCertificate(): { subject: { CN?: string | string[] }; subjectaltname?: string | undefined };
}

const NAME_INVALID = "ERR_TLS_CERT_ALTNAME_INVALID";

// Errors about a certificate have names from X509_verify_cert_error or from Node, all with an underscore (CERT_HAS_EXPIRED). Errors
// that end a handshake have the name of an errno (EPROTO, ECONNRESET). Seen with Bun 1.4.5.
function isAboutCertificate(error: Error | null): boolean {
  return ((error as { code?: string } | null)?.code ?? "").includes("_");
}

/** The name of the error that ended a handshake: BoringSSL's reason if there is one, else the code. Null for no error. */
export function faultOf(error: Error | null): string | null {
  if (error === null) return null;
  return /OPENSSL_internal:([A-Z0-9_]+)/.exec(error.message)?.[1] ?? (error as { code?: string }).code ?? "failed";
}

/** Maximum number of sessions kept for one pool; then the least recently used is dropped. */
export const SESSIONS_MAX = 256;

export class TlsClient {
  readonly #plan: TlsClientPlan;
  readonly #context: TlsContext;
  readonly #alpn: string;
  /** By address and name, the most recent last. */
  readonly #sessions = new Map<string, Uint8Array>();

  /** Throws if the runtime refuses the certificate or the CA. */
  constructor(plan: TlsClientPlan) {
    this.#plan = plan;
    this.#alpn = alpnWire(plan.alpn);
    this.#context = createSecureContext({
      minVersion: `TLSv${plan.minVersion}`,
      ...(plan.ca === null ? {} : { ca: plan.ca }),
      ...(plan.cert === null ? {} : { cert: plan.cert }),
      ...(plan.key === null ? {} : { key: plan.key }),
    }).context as TlsContext;
  }

  /** The options of the handshake with a backend. `host` is its host name in the config, "" for none. */
  options(host: string, address: string): ClientTls {
    const { verify } = this.#plan;
    const name = this.#name(host, address);
    const options = { secureContext: this.#context, ALPNProtocols: this.#alpn };
    // An IP address is not a server name (RFC 6066 section 3), and Bun would send it as one. `verdict` checks it afterwards.
    if (name === "" || parseAddress(name) !== null) return { ...options, rejectUnauthorized: false };
    return { ...options, rejectUnauthorized: verify, serverName: name };
  }

  /**
   * Why the backend is rejected after a handshake, as the runtime names it, or null if it is accepted. `done` and `error` are
   * the arguments of the handshake's handler.
   */
  verdict(host: string, address: string, socket: ShowsCertificate, done: boolean, error: Error | null): string | null {
    const code = faultOf(error) ?? (done ? null : "failed");
    // Without verification the runtime still reports errors of the certificate, and the connection is usable.
    if (!this.#plan.verify) return code === null || isAboutCertificate(error) ? null : code;
    const name = this.#name(host, address);
    if (name === "" || parseAddress(name) === null) return done ? null : code;
    // The chain is verified before the name, so NAME_INVALID means that the rest is good.
    if (code !== null && code !== NAME_INVALID) return code;
    // checkServerIdentity reads the subject and the alternative names only.
    const certificate = socket.getPeerCertificate() as PeerCertificate;
    return checkServerIdentity(name, certificate) === undefined ? null : NAME_INVALID;
  }

  /** The session to resume with this backend, or null. */
  session(host: string, address: string): Uint8Array | null {
    return this.#sessions.get(this.#key(host, address)) ?? null;
  }

  /** Stores a session that the backend has sent. */
  keep(host: string, address: string, session: Uint8Array): void {
    const key = this.#key(host, address);
    this.#sessions.delete(key);
    this.#sessions.set(key, session);
    if (this.#sessions.size <= SESSIONS_MAX) return;
    for (const oldest of this.#sessions.keys()) {
      this.#sessions.delete(oldest);
      return;
    }
  }

  #key(host: string, address: string): string {
    return `${address} ${this.#name(host, address)}`;
  }

  // The name that the certificate must have.
  #name(host: string, address: string): string {
    if (this.#plan.serverName !== "") return this.#plan.serverName;
    if (host !== "") return host;
    const ip = address.startsWith("[")
      ? address.slice(1, address.indexOf("]"))
      : address.slice(0, address.lastIndexOf(":"));
    return parseAddress(ip) === null ? "" : ip;
  }
}
