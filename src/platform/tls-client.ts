// TLS towards the backends of one pool: one context for all of them, the name each is asked for and must bear, and the
// sessions that may be resumed, each under its own name only.
import { createSecureContext } from "node:tls";
import { parseAddress } from "../core/address.ts";
import { alpnWire, type ClientTls, type TlsContext } from "./bun.ts";

export type TlsVersion = "1.2" | "1.3";

/** TLS towards backends. Certificates and keys are PEM. */
export interface TlsClientPlan {
  verify: boolean;
  /** null = the system's. */
  ca: string | null;
  /** SNI and the name checked; "" = the backend's host. */
  serverName: string;
  alpn: string[];
  minVersion: TlsVersion;
  cert: string | null;
  key: string | null;
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

  get verifies(): boolean {
    return this.#plan.verify;
  }

  /** What the handshake with a backend is to be done with. `host` is the name that the config gives it, "" for none. */
  options(host: string, address: string): ClientTls {
    const { verify } = this.#plan;
    const name = this.#name(host, address);
    return {
      secureContext: this.#context,
      ALPNProtocols: this.#alpn,
      rejectUnauthorized: verify,
      ...(name === "" ? {} : { serverName: name }),
    };
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

  // An IP address is no server name in TLS (RFC 6066 section 3), but it is what the certificate must bear.
  #name(host: string, address: string): string {
    if (this.#plan.serverName !== "") return this.#plan.serverName;
    if (host !== "") return host;
    const ip = address.startsWith("[")
      ? address.slice(1, address.indexOf("]"))
      : address.slice(0, address.lastIndexOf(":"));
    return parseAddress(ip) === null ? "" : ip;
  }
}
