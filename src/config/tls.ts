// Reads and checks the files of `tls` sections: what the workers need for handshakes, and every problem with it. Also runs on configs
// with faults, and then checks only the sound parts.
import type { X509Certificate } from "node:crypto";
import { createSecureContext } from "node:tls";
import type { Finding } from "./finding.ts";
import type { Environment } from "./env.ts";
import type { NamedFiles } from "./files.ts";
import { keyTypeOf, namesOf, readCertificates, readPrivateKey, readRevocations } from "./pem.ts";
import type { Chain, Key, Revocations, Unfit } from "./pem.ts";
import { formatPath } from "./problem.ts";
import type { KeyPath } from "./problem.ts";
import type {
  CertificateConfig,
  FileConfig,
  FileListenerTls,
  FilePool,
  FilePoolTls,
  ListenerTlsConfig,
  PoolTlsConfig,
} from "./schema.ts";
import { NO_BUNDLE, NO_BUNDLE_FOR_TLS, systemBundle } from "./system-ca.ts";
import { quote } from "./wording.ts";

/** A warning comes this long before a certificate expires. */
export const expiryWarningMs = 14 * 86_400_000;

const pemBytesMax = 16 * 1024 * 1024;

export interface TlsSubject {
  config: FileConfig;
  /** As in check.ts. */
  isSound: (path: KeyPath) => boolean;
  isWhole: (path: KeyPath) => boolean;
  files: NamedFiles;
  env: Environment;
  /** Milliseconds since 1970. */
  now: number;
}

/** By the names of listeners and pools; sections with a problem are missing. */
export interface TlsMaterial {
  listeners: Map<string, ListenerTlsConfig>;
  pools: Map<string, PoolTlsConfig>;
  /** null = the admin endpoint has no TLS. */
  admin: CertificateConfig | null;
  /** The CA certificates that verify a syslog receiver; null = it is reached without TLS. */
  syslogCa: string | null;
  /** The same for a receiver of OTLP. */
  otelCa: string | null;
  findings: Finding[];
}

/** Reads every file that a `tls` section names. */
export function readTls(subject: TlsSubject): TlsMaterial {
  const material: TlsMaterial = {
    listeners: new Map(),
    pools: new Map(),
    admin: null,
    syslogCa: null,
    otelCa: null,
    findings: [],
  };
  const { config, isSound, isWhole } = subject;
  if (isSound(["log"]) && config.log.access === "syslog" && config.log.syslog.transport === "tls")
    material.syslogCa = new Section(subject, ["log"], material.findings).systemCa("syslog");
  if (isSound(["otel"]) && config.otel?.endpoint.startsWith("https:") === true)
    material.otelCa = new Section(subject, ["otel"], material.findings).systemCa("endpoint");
  if (isWhole(["admin", "tls"]) && config.admin.enabled) {
    material.admin = new Section(subject, ["admin", "tls"], material.findings).ownPair(config.admin.tls);
  }
  if (isWhole(["listeners"])) {
    for (const { name, tls } of config.listeners) {
      const path = ["listeners", name, "tls"];
      if (!isWhole(path) || tls === null) continue;
      const made = new Section(subject, path, material.findings).listener(tls);
      if (made !== null) material.listeners.set(name, made);
    }
  }
  if (isWhole(["pools"])) {
    for (const pool of config.pools) {
      const path = ["pools", pool.name, "tls"];
      if (!isWhole(path) || pool.tls === null) continue;
      const made = new Section(subject, path, material.findings).pool(pool.tls, pool);
      if (made !== null) material.pools.set(pool.name, made);
    }
  }
  return material;
}

/** One `tls` section. Its methods return null after they have reported a problem. */
class Section {
  private readonly subject: TlsSubject;
  private readonly path: KeyPath;
  private readonly findings: Finding[];

  constructor(subject: TlsSubject, path: KeyPath, findings: Finding[]) {
    this.subject = subject;
    this.path = path;
    this.findings = findings;
  }

  listener(tls: FileListenerTls): ListenerTlsConfig | null {
    const pairs = this.certificates(tls);
    this.clientAuth(tls);
    this.ciphers(tls);
    const ca = this.authorities("client_ca", tls.client_ca);
    const crl = this.revocations("client_crl", tls.client_crl);
    const isWhole = pairs.every((pair) => pair !== null) && ca !== null && crl !== null;
    if (!isWhole || !this.subject.isSound(this.path)) return null;
    return {
      ...tls,
      certificates: pairs,
      client_ca: this.pathOf(tls.client_ca),
      client_ca_pem: ca.pem,
      client_crl: this.pathOf(tls.client_crl),
      client_crl_pem: crl.pem,
    };
  }

  pool(tls: FilePoolTls, pool: FilePool): PoolTlsConfig | null {
    this.serverName(tls, pool);
    const ca = tls.verify && tls.ca === "" ? this.systemAuthorities() : this.authorities("ca", tls.ca);
    if (this.isSound("verify") && !tls.verify && this.isSound("ca") && tls.ca !== "") {
      this.warn(["ca"], "has no effect: verify is false");
    }
    const pair = this.clientPair(tls);
    if (ca === null || pair === null || !this.subject.isSound(this.path)) return null;
    return {
      ...tls,
      ca: this.pathOf(tls.ca),
      ca_pem: ca.pem,
      cert: this.pathOf(tls.cert),
      cert_pem: pair.cert_pem,
      key: this.pathOf(tls.key),
      key_pem: pair.key_pem,
    };
  }

  private certificates(tls: FileListenerTls): (CertificateConfig | null)[] {
    if (!this.subject.isWhole([...this.path, "certificates"])) return [];
    const pairs = tls.certificates.map((given, index) =>
      this.isSound("certificates", index) ? this.pair(["certificates", index], given) : null,
    );
    // The first certificate with a name, by name and type of key.
    const owners = new Map<string, number>();
    for (const [index, pair] of pairs.entries()) {
      if (pair === null) continue;
      const isChosenByName = index > 0 || tls.unknown_sni === "reject";
      if (pair.names.length === 0 && isChosenByName) {
        this.warn(
          ["certificates", index],
          `${quote(tls.certificates[index]?.cert ?? "")} contains no DNS name, so no client gets it`,
        );
      }
      const taken = new Map<number, string[]>();
      for (const name of pair.names) {
        const owner = owners.get(`${name} ${pair.key_type}`) ?? index;
        if (owner === index) owners.set(`${name} ${pair.key_type}`, index);
        else taken.set(owner, [...(taken.get(owner) ?? []), name]);
      }
      for (const [owner, names] of taken) {
        const first = formatPath([...this.path, "certificates", owner]);
        const what = `has the names ${some(names)} and a key of type ${pair.key_type}, as ${first} has`;
        this.warn(["certificates", index], `${what}: the first is used`);
      }
    }
    return pairs;
  }

  /** A certificate with its key. */
  private pair(at: KeyPath, given: { cert: string; key: string }): CertificateConfig | null {
    const before = this.findings.length;
    const chain = this.read([...at, "cert"], given.cert, readCertificates);
    const key = this.read([...at, "key"], given.key, readPrivateKey);
    if (key !== null && this.subject.files.isOpenToAll(given.key)) {
      this.warn([...at, "key"], `every user can read the file ${quote(given.key)}`, "to change that: chmod o-r");
    }
    const leaf = chain?.certificates[0];
    if (chain === null || leaf === undefined) return null;
    const keyType = keyTypeOf(leaf);
    if (keyType === null) {
      this.refuse([...at, "cert"], `the certificate in ${quote(given.cert)} has a key of a type that is not supported`);
      return null;
    }
    if (key !== null && !this.startsWithItsOwner(at, given, chain, key)) return null;
    this.validity([...at, "cert"], given.cert, leaf);
    this.chainOrder([...at, "cert"], given.cert, chain);
    if (key === null || this.findings.slice(before).some((finding) => finding.warning !== true)) return null;
    return {
      cert: this.pathOf(given.cert),
      key: this.pathOf(given.key),
      cert_pem: chain.pem,
      key_pem: key.pem,
      names: namesOf(leaf),
      key_type: keyType,
      not_after: leaf.validToDate.getTime(),
      fingerprint: leaf.fingerprint256.replaceAll(":", "").toLowerCase(),
    };
  }

  /** Reports a key that belongs to another certificate. False if that certificate is further down in the chain. */
  private startsWithItsOwner(at: KeyPath, given: { cert: string; key: string }, chain: Chain, key: Key): boolean {
    const owner = chain.certificates.findIndex((certificate) => isKeyOf(certificate, key.key));
    if (owner > 0) {
      const message = `the certificate of the key is number ${owner + 1} in the file ${quote(given.cert)}: it must be the first`;
      this.refuse([...at, "cert"], message);
      return false;
    }
    const refusal = owner === 0 ? runtimeRefusal({ cert: chain.pem, key: key.pem }) : null;
    if (owner < 0) {
      const message = `the key in ${quote(given.key)} does not match the certificate in ${quote(given.cert)}`;
      this.refuse([...at, "key"], message);
    } else if (refusal !== null) {
      this.refuse([...at, "cert"], `the TLS library refuses ${quote(given.cert)} and its key: ${refusal}`);
    }
    return true;
  }

  private validity(at: KeyPath, name: string, leaf: X509Certificate): void {
    const { now } = this.subject;
    const from = leaf.validFromDate.getTime();
    const to = leaf.validToDate.getTime();
    const what = `the certificate in ${quote(name)}`;
    if (to < now) this.refuse(at, `${what} expired on ${day(to)}`);
    else if (from > now) this.refuse(at, `${what} is not valid before ${day(from)}: is the clock right?`);
    else if (to - now < expiryWarningMs) {
      const days = Math.floor((to - now) / 86_400_000);
      const left = days === 0 ? "in less than a day" : `in ${days} ${days === 1 ? "day" : "days"}`;
      this.warn(at, `${what} expires ${left}, on ${day(to)}`);
    }
  }

  /** Checks the certificates after the leaf: each must have issued the one before it (RFC 5246 section 7.4.2). */
  private chainOrder(at: KeyPath, name: string, { certificates }: Chain): void {
    for (const [index, certificate] of certificates.entries()) {
      const before = certificates[index - 1];
      if (before === undefined) continue;
      const which = `certificate ${index + 1} of ${quote(name)}`;
      if (!before.checkIssued(certificate)) {
        this.warn(at, `${which} did not issue the one before it: some clients will not trust the chain`);
        return;
      }
      const to = certificate.validToDate.getTime();
      if (to < this.subject.now) this.warn(at, `${which} expired on ${day(to)}`);
    }
  }

  private clientAuth(tls: FileListenerTls): void {
    if (!this.isSound("client_auth") || !this.isSound("client_ca") || !this.isSound("client_crl")) return;
    const { client_auth: auth, client_ca: ca, client_crl: crl } = tls;
    if (auth !== "off" && ca === "") {
      const message = `${quote(auth)} needs client_ca, the CA bundle that client certificates are verified against`;
      this.refuse(["client_auth"], message, 'such as client_ca = "clients-ca.pem"');
    }
    if (auth !== "off") return;
    if (ca !== "") this.warn(["client_ca"], 'has no effect: client_auth is "off"');
    if (crl !== "") this.warn(["client_crl"], 'has no effect: client_auth is "off"');
  }

  private ciphers({ ciphers, min_version: version }: FileListenerTls): void {
    if (!this.isSound("ciphers") || ciphers === "") return;
    const names = ciphers.split(/[:, ]+/);
    const newer = names.find((name) => name.startsWith("TLS_") && !name.includes("_WITH_"));
    const wanted = `expected a list of TLS 1.2 ciphers in OpenSSL format, found ${quote(ciphers)}`;
    if (newer !== undefined) {
      this.refuse(["ciphers"], `${wanted}: ${quote(newer)} is a TLS 1.3 suite; those are always enabled`);
      return;
    }
    const refusal = /^[\x20-\x7e]*$/.test(ciphers) ? runtimeRefusal({ ciphers }) : "not a printable text";
    if (refusal !== null) {
      this.refuse(["ciphers"], `${wanted}: ${refusal}`);
      return;
    }
    const ignored = names.filter((name) => /^[A-Za-z0-9]/.test(name) && runtimeRefusal({ ciphers: name }) !== null);
    if (ignored.length > 0)
      this.warn(["ciphers"], `ignored, because the TLS library does not know them: ${some(ignored)}`);
    if (this.isSound("min_version") && version === "1.3") {
      this.warn(["ciphers"], 'has no effect: min_version = "1.3" excludes TLS 1.2');
    }
  }

  private serverName({ verify, server_name: serverName }: FilePoolTls, pool: FilePool): void {
    const backends = ["pools", pool.name, "backends"];
    if (!this.isSound("verify") || !this.isSound("server_name") || !this.subject.isWhole(backends)) return;
    if (!verify || serverName !== "") return;
    const index = pool.backends.findIndex(
      ({ address }, i) =>
        this.subject.isSound([...backends, i]) && (address.kind === "unix" || address.kind === "abstract"),
    );
    if (index < 0) return;
    const message = `${formatPath([...backends, index])} is a Unix socket, so there is no host name to verify its certificate against`;
    this.refuse([], message, 'such as server_name = "db.example.com"; or verify = false');
  }

  private clientPair(tls: FilePoolTls): { cert_pem: string | null; key_pem: string | null } | null {
    if (!this.isSound("cert") || !this.isSound("key")) return null;
    return tls.cert === "" && tls.key === "" ? { cert_pem: null, key_pem: null } : this.ownPair(tls);
  }

  /** A certificate and its key, which may both be omitted; null then too. */
  ownPair({ cert, key }: { cert: string; key: string }): CertificateConfig | null {
    if (cert === "" && key === "") return null;
    if (cert === "") this.refuse(["key"], "needs cert, the certificate of this key");
    else if (key === "") this.refuse(["cert"], "needs key, the private key of this certificate");
    else return this.pair([], { cert, key });
    return null;
  }

  /** A CA bundle. */
  private authorities(key: string, name: string): { pem: string | null } | null {
    if (!this.isSound(key)) return null;
    if (name === "") return { pem: null };
    const chain = this.read([key], name, readCertificates);
    if (chain === null) return null;
    const ends = chain.certificates.map(({ validToDate }) => validToDate.getTime());
    const last = Math.max(...ends);
    if (last >= this.subject.now) return chain;
    this.refuse([key], `every certificate in ${quote(name)} has expired, the last on ${day(last)}`);
    return null;
  }

  /** The CA bundle of the system for a connection without an option for another one; problems are reported at `key`. */
  systemCa(key: string): string | null {
    const name = systemBundle(this.subject.env, this.subject.files);
    if (name !== null) return this.authorities(key, name)?.pem ?? null;
    this.refuse([key], NO_BUNDLE_FOR_TLS.message, NO_BUNDLE_FOR_TLS.hint);
    return null;
  }

  /** The CA bundle of the system. */
  private systemAuthorities(): { pem: string | null } | null {
    if (!this.isSound("ca") || !this.isSound("verify")) return null;
    const name = systemBundle(this.subject.env, this.subject.files);
    if (name !== null) return this.authorities("ca", name);
    this.refuse(["ca"], NO_BUNDLE.message, NO_BUNDLE.hint);
    return null;
  }

  private revocations(key: string, name: string): { pem: string | null } | null {
    if (!this.isSound(key)) return null;
    if (name === "") return { pem: null };
    const lists = this.read([key], name, readRevocations);
    if (lists !== null && lists.nextUpdate !== null && lists.nextUpdate < this.subject.now) {
      const due = day(lists.nextUpdate);
      this.warn([key], `a list in ${quote(name)} is out of date since ${due}: client certificates may be refused`);
    }
    return lists;
  }

  private read<T extends Chain | Key | Revocations>(
    at: KeyPath,
    name: string,
    parse: (bytes: Uint8Array, name: string) => T | Unfit,
  ): T | null {
    const read = this.subject.files.read(name, pemBytesMax);
    const found: T | Unfit = read.is === "bad" ? read : parse(read.bytes, name);
    if (found.is !== "bad") return found;
    this.refuse(at, `the file ${quote(name)} ${found.why}`, found.hint);
    return null;
  }

  private isSound(...below: KeyPath): boolean {
    return this.subject.isSound([...this.path, ...below]);
  }

  private pathOf(name: string): string {
    return name === "" ? "" : this.subject.files.pathOf(name);
  }

  private refuse(below: KeyPath, message: string, hint?: string): void {
    this.findings.push({ path: [...this.path, ...below], message, ...(hint !== undefined && { hint }) });
  }

  private warn(below: KeyPath, message: string, hint?: string): void {
    this.findings.push({ path: [...this.path, ...below], message, ...(hint !== undefined && { hint }), warning: true });
  }
}

function isKeyOf(certificate: X509Certificate, key: Key["key"]): boolean {
  try {
    return certificate.checkPrivateKey(key);
  } catch {
    return false;
  }
}

/** Why the TLS library refuses these options, such as "NO_CIPHER_MATCH"; null if it accepts them. */
function runtimeRefusal(options: { ciphers?: string; cert?: string; key?: string }): string | null {
  try {
    createSecureContext(options);
    return null;
  } catch (error) {
    const { reason, code } = error as { reason?: unknown; code?: unknown };
    return typeof reason === "string" ? reason : typeof code === "string" ? code : "refused";
  }
}

/** Some of the texts, and the number of the others. */
function some(texts: readonly string[]): string {
  const first = texts.slice(0, 3).map(quote).join(", ");
  return texts.length > 3 ? `${first} and ${texts.length - 3} more` : first;
}

/** "2030-01-31 12:00 UTC". */
function day(time: number): string {
  return `${new Date(time).toISOString().slice(0, 16).replace("T", " ")} UTC`;
}
