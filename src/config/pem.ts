// Parser for PEM files: certificates, keys and revocation lists. Pure: bytes in, facts or the reason of a refusal out. Messages contain
// no byte of the content, because a file may contain a key where a certificate is expected.
import { createPrivateKey, X509Certificate } from "node:crypto";
import type { KeyObject } from "node:crypto";
import { createSecureContext } from "node:tls";
import { dnsName } from "./names.ts";

/** `why` continues "the file …". `hint` is a second line, such as a command that helps. */
export interface Unfit {
  is: "bad";
  why: string;
  hint?: string;
}

export interface Chain {
  is: "certificates";
  /** In the order of the file; at least one. */
  certificates: X509Certificate[];
  /** Only these certificates, whatever else the file contains. */
  pem: string;
}

export interface Key {
  is: "key";
  key: KeyObject;
  pem: string;
}

export interface Revocations {
  is: "revocations";
  pem: string;
  /** When the first of the lists must be replaced, in milliseconds since 1970; null if none has such a date. */
  nextUpdate: number | null;
}

/** Every certificate of a file. `name` is the name in the config. */
export function readCertificates(bytes: Uint8Array, name: string): Chain | Unfit {
  const file = pemFile(bytes);
  const blocks = file.blocks.filter(({ label }) => label === "CERTIFICATE" || label === "X509 CERTIFICATE");
  if (file.cut !== null) return cutOff(file.cut);
  if (blocks.length === 0) return noCertificate(file, name);
  const certificates: X509Certificate[] = [];
  for (const [index, { text }] of blocks.entries()) {
    const certificate = parsed(() => new X509Certificate(text));
    if (certificate === null) {
      const which = blocks.length === 1 ? "a certificate" : `as number ${index + 1} a certificate`;
      return { is: "bad", why: `has ${which} that cannot be parsed` };
    }
    certificates.push(certificate);
  }
  return { is: "certificates", certificates, pem: blocks.map(({ text }) => text).join("") };
}

/** The first private key of a file. */
export function readPrivateKey(bytes: Uint8Array, name: string): Key | Unfit {
  const file = pemFile(bytes);
  if (file.cut !== null) return cutOff(file.cut);
  const block = file.blocks.find(({ label }) => label.endsWith("PRIVATE KEY"));
  if (block === undefined) return noKey(file, name);
  if (block.label === "OPENSSH PRIVATE KEY") {
    const hint = `turn a copy of it into PEM: ssh-keygen -p -m PEM -f ${shellWord(name)}`;
    return { is: "bad", why: "has its key in the format of OpenSSH", hint };
  }
  // RFC 1421 section 4.6.1.1: the older form of encryption is in a header.
  if (block.label === "ENCRYPTED PRIVATE KEY" || /^Proc-Type:.*ENCRYPTED/m.test(block.text)) {
    const hint = `decrypt it: openssl pkey -in ${shellWord(name)} -out ${shellWord(`${name}.plain`)}`;
    return { is: "bad", why: "is encrypted, and lb cannot ask for a passphrase", hint };
  }
  const key = parsed(() => createPrivateKey(block.text));
  if (key === null)
    return { is: "bad", why: "has a private key that cannot be parsed, or whose type is not supported" };
  return { is: "key", key, pem: block.text };
}

/** Every revocation list of a file. */
export function readRevocations(bytes: Uint8Array, name: string): Revocations | Unfit {
  const file = pemFile(bytes);
  if (file.cut !== null) return cutOff(file.cut);
  const blocks = file.blocks.filter(({ label }) => label === "X509 CRL");
  if (blocks.length === 0) {
    const why = `has no revocation list: expected a line "-----BEGIN X509 CRL-----"`;
    return { is: "bad", why, ...(isDer(bytes) && { hint: `from DER: openssl crl -inform DER ${inOut(name)}` }) };
  }
  const pem = blocks.map(({ text }) => text).join("");
  // node:crypto cannot parse a CRL; a TLS context can, and refuses other content.
  if (!blocks.every(({ text }) => parsed(() => createSecureContext({ crl: text })) !== null)) {
    return { is: "bad", why: "has a revocation list that cannot be parsed" };
  }
  const updates = blocks.map(({ text }) => nextUpdateOf(derOf(text))).filter((time) => time !== null);
  return { is: "revocations", pem, nextUpdate: updates.length > 0 ? Math.min(...updates) : null };
}

/** The DNS names of a certificate, in lower case; the common name only if there is no subjectAltName at all. */
export function namesOf(certificate: X509Certificate): string[] {
  const alternatives: string | undefined = certificate.subjectAltName;
  const given =
    alternatives === undefined
      ? [...certificate.subject.matchAll(/^CN=(.*)$/gm)].map((match) => match[1] ?? "").slice(-1)
      : alternatives.split(", ").flatMap((text) => (text.startsWith("DNS:") ? [text.slice("DNS:".length)] : []));
  const names = given.flatMap((text) => {
    const name = dnsName(text, { wildcard: true });
    return name.is === "name" ? [name.name] : [];
  });
  return [...new Set(names)];
}

/** The type of a certificate's key, "rsa" or "ec"; null if the runtime does not support it, as with RSA-PSS. */
export function keyTypeOf(certificate: X509Certificate): string | null {
  return parsed(() => certificate.publicKey.asymmetricKeyType ?? null);
}

interface PemFile {
  blocks: { label: string; text: string }[];
  /** The label of a block without an END line. */
  cut: string | null;
  isDer: boolean;
}

/** The blocks between BEGIN and END (RFC 7468), each with both lines and a trailing newline. */
function pemFile(bytes: Uint8Array): PemFile {
  // Text around the blocks may be in any encoding.
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("latin1");
  const blocks: PemFile["blocks"] = [];
  const begin = /-----BEGIN ([A-Z0-9 ]+)-----/g;
  for (let match; (match = begin.exec(text)) !== null;) {
    const label = match[1] ?? "";
    const last = `-----END ${label}-----`;
    const end = text.indexOf(last, begin.lastIndex);
    if (end < 0) return { blocks, cut: label, isDer: false };
    blocks.push({ label, text: `${text.slice(match.index, end)}${last}\n` });
    begin.lastIndex = end + last.length;
  }
  return { blocks, cut: null, isDer: blocks.length === 0 && isDer(bytes) };
}

function cutOff(label: string): Unfit {
  return { is: "bad", why: `is cut off: "-----BEGIN ${label}-----" has no end` };
}

function noCertificate(file: PemFile, name: string): Unfit {
  if (file.blocks.some(({ label }) => label.endsWith("PRIVATE KEY"))) {
    return { is: "bad", why: "has a private key and no certificate: is it the wrong file?" };
  }
  if (file.blocks.some(({ label }) => label === "TRUSTED CERTIFICATE")) {
    const hint = `make a plain one of it: openssl x509 ${inOut(name)}`;
    return { is: "bad", why: "has a certificate in the TRUSTED format of OpenSSL", hint };
  }
  const hint = `from DER: openssl x509 -inform DER ${inOut(name)}; from PKCS #12: openssl pkcs12 -nokeys ${inOut(name)}`;
  return { is: "bad", why: unlike(file, "CERTIFICATE"), ...(file.isDer && { hint }) };
}

function noKey(file: PemFile, name: string): Unfit {
  if (file.blocks.some(({ label }) => label.endsWith("CERTIFICATE"))) {
    return { is: "bad", why: "has a certificate and no private key: is it the wrong file?" };
  }
  if (file.blocks.some(({ label }) => label.endsWith("PUBLIC KEY"))) {
    return { is: "bad", why: "has a public key: expected the private one" };
  }
  const hint = `from DER: openssl pkey -inform DER ${inOut(name)}; from PKCS #12: openssl pkcs12 -nocerts -nodes ${inOut(name)}`;
  return { is: "bad", why: unlike(file, "PRIVATE KEY"), ...(file.isDer && { hint }) };
}

function unlike(file: PemFile, label: string): string {
  const what = file.blocks.length > 0 ? `has no ${label.toLowerCase()}` : "is not PEM";
  return `${what}: expected a line "-----BEGIN ${label}-----"`;
}

/** A DER file is one SEQUENCE. */
function isDer(bytes: Uint8Array): boolean {
  return bytes[0] === 0x30;
}

function inOut(name: string): string {
  return `-in ${shellWord(name)} -out ${shellWord(`${name}.pem`)}`;
}

function shellWord(text: string): string {
  return /^[\w./@%+=:,-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

function parsed<T>(parse: () => T): T | null {
  try {
    return parse();
  } catch {
    return null;
  }
}

function derOf(block: string): Uint8Array {
  return Buffer.from(block.replace(/-----[^-]*-----/g, ""), "base64");
}

/** The field nextUpdate of a CRL (RFC 5280 section 5.1), or null. The runtime has parsed the CRL before. */
function nextUpdateOf(der: Uint8Array): number | null {
  const list = elements(der, elements(der, 0)[0]?.start ?? 0)[0];
  if (list === undefined) return null;
  const times = elements(der, list.start, list.end).filter(({ tag }) => tag === utcTime || tag === generalizedTime);
  const next = times[1];
  if (next === undefined) return null;
  const text = Buffer.from(der.subarray(next.start, next.end)).toString("latin1");
  const digits = next.tag === utcTime ? `${Number(text.slice(0, 2)) < 50 ? "20" : "19"}${text}` : text;
  const iso = digits.replace(/^(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)Z$/, "$1-$2-$3T$4:$5:$6Z");
  const time = Date.parse(iso);
  return Number.isNaN(time) ? null : time;
}

const utcTime = 0x17;
const generalizedTime = 0x18;

/** The DER elements from `at` on: their tags and the positions of their contents. */
function elements(der: Uint8Array, at: number, stop = der.byteLength): { tag: number; start: number; end: number }[] {
  const found: { tag: number; start: number; end: number }[] = [];
  while (at + 2 <= stop) {
    let length = der[at + 1] ?? 0;
    let start = at + 2;
    if (length >= 0x80) {
      const count = length & 0x7f;
      length = 0;
      for (let i = 0; i < count; i++) length = length * 256 + (der[start++] ?? 0);
    }
    const end = start + length;
    if (end > stop) break;
    found.push({ tag: der[at] ?? 0, start, end });
    at = end;
  }
  return found;
}
