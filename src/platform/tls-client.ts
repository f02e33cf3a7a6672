// TLS towards the backends of one pool: one context for all of them, the name each is asked for and must bear, and the
// sessions that may be resumed, each under its own name only.
import { checkServerIdentity, createSecureContext } from "node:tls";
import type { Socket } from "bun";
import { parseAddress } from "../core/address.ts";
import { alpnWire, type ClientTls, type TlsContext } from "./bun.ts";

export type TlsVersion = "1.2" | "1.3";

/** TLS towards backends. Certificates and keys are PEM. */
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

const NAME_INVALID = "ERR_TLS_CERT_ALTNAME_INVALID";

// Faults of a certificate are named as in X509_verify_cert_error or by Node, all with an underscore (CERT_HAS_EXPIRED); what
// ends a handshake has the name of an errno (EPROTO, ECONNRESET). Seen with Bun 1.4.5.
function isAboutCertificate(error: Error | null): boolean {
  return ((error as { code?: string } | null)?.code ?? "").includes("_");
}

/** The name of what ended a handshake: BoringSSL's reason where there is one, else the code. Null = nothing did. */
export function faultOf(error: Error | null): string | null {
  if (error === null) return null;
  return /OPENSSL_internal:([A-Z0-9_]+)/.exec(error.message)?.[1] ?? (error as { code?: string }).code ?? "failed";
}

/** Sessions kept for one pool; beyond that the oldest goes. */
export const SESSIONS_MAX = 256;

export class TlsClient {
  readonly #plan: TlsClientPlan;
  readonly #context: TlsContext;
  readonly #alpn: string;
  /** By address and name, the last used last. */
  readonly #sessions = new Map<string, Uint8Array>();

  /** Throws where the runtime refuses the certificate or the CA. */
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

  /** What the handshake with a backend is to be done with. `host` is the name that the config gives it, "" for none. */
  options(host: string, address: string): ClientTls {
    const { verify } = this.#plan;
    const name = this.#name(host, address);
    const options = { secureContext: this.#context, ALPNProtocols: this.#alpn };
    // An IP address is no server name (RFC 6066 section 3), and Bun would send it as one: `verdict` checks it afterwards.
    if (name === "" || parseAddress(name) !== null) return { ...options, rejectUnauthorized: false };
    return { ...options, rejectUnauthorized: verify, serverName: name };
  }

  /**
   * What is wrong with the backend that a handshake was done with, as the runtime names it, or null. `done` and `error` are
   * what the handler of the handshake was told.
   */
  verdict(host: string, address: string, socket: Socket<unknown>, done: boolean, error: Error | null): string | null {
    const code = faultOf(error) ?? (done ? null : "failed");
    // Without verification what is wrong with the certificate is said all the same, and the connection is usable.
    if (!this.#plan.verify) return code === null || isAboutCertificate(error) ? null : code;
    const name = this.#name(host, address);
    if (name === "" || parseAddress(name) === null) return done ? null : code;
    // The chain is judged before the name, so this says that only the name is missing.
    if (code !== null && code !== NAME_INVALID) return code;
    return checkServerIdentity(name, socket.getPeerCertificate()) === undefined ? null : NAME_INVALID;
  }

  /** A session to be resumed with this backend, if there is one. */
  session(host: string, address: string): Uint8Array | null {
    return this.#sessions.get(this.#key(host, address)) ?? null;
  }

  /** The backend has given us a session for later. */
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

  // The name that the certificate must bear.
  #name(host: string, address: string): string {
    if (this.#plan.serverName !== "") return this.#plan.serverName;
    if (host !== "") return host;
    const ip = address.startsWith("[")
      ? address.slice(1, address.indexOf("]"))
      : address.slice(0, address.lastIndexOf(":"));
    return parseAddress(ip) === null ? "" : ip;
  }
}
