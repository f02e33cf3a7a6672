// The changes of a reload, in words for the log.
import { basename } from "node:path";
import { formatEndpoint } from "../core/address.ts";
import { sameJson } from "../core/json.ts";
import type { BackendConfig, CertificateConfig, Config, ListenerConfig, PoolConfig } from "./schema.ts";

/** One line for each change, such as "listeners.web: rate_limit changed"; empty if the configs mean the same. */
export function summarize(old: Config, next: Config): string[] {
  return [
    ...changedKeys(omit(old, ["listeners", "pools"]), omit(next, ["listeners", "pools"])).map(
      (key) => `${key} changed`,
    ),
    ...named("listeners", old.listeners, next.listeners, listenerChanges),
    ...named("pools", old.pools, next.pools, poolChanges),
  ];
}

function listenerChanges(old: ListenerConfig, next: ListenerConfig): string[] {
  const keys = changedKeys(old, next);
  // Certificates are added, removed and changed one by one, if both configs have some.
  const changes = old.tls && next.tls ? certificateChanges(old.tls.certificates, next.tls.certificates) : [];
  return [...described(keys.filter((key) => key !== "tls.certificates")), ...changes];
}

function certificateChanges(old: CertificateConfig[], next: CertificateConfig[]): string[] {
  const before = new Map(old.map((certificate) => [certificate.cert, certificate]));
  const after = new Set(next.map(({ cert }) => cert));
  const all = new Set([...before.keys(), ...after]);
  const nameOf = ({ cert }: CertificateConfig) =>
    [...all].some((other) => other !== cert && basename(other) === basename(cert)) ? cert : basename(cert);
  const lines: string[] = [];
  for (const certificate of next) {
    const was = before.get(certificate.cert);
    if (was === undefined) lines.push(`certificate ${nameOf(certificate)} added`);
    // The rest of the chain and the key can change while the leaf stays the same.
    else if (!sameJson(was, certificate)) lines.push(`certificate ${nameOf(certificate)} changed`);
  }
  for (const certificate of old)
    if (!after.has(certificate.cert)) lines.push(`certificate ${nameOf(certificate)} removed`);
  if (lines.length === 0 && !sameJson(old, next)) lines.push("certificates in another order");
  return lines;
}

function poolChanges(old: PoolConfig, next: PoolConfig): string[] {
  return [
    ...described(changedKeys(omit(old, ["backends"]), omit(next, ["backends"]))),
    ...backendChanges(old.backends, next.backends),
  ];
}

function backendChanges(old: BackendConfig[], next: BackendConfig[]): string[] {
  const before = new Map(old.map((backend) => [backend.name, backend]));
  const after = new Set(next.map((backend) => backend.name));
  const lines: string[] = [];
  for (const backend of next) {
    const was = before.get(backend.name);
    if (was === undefined) lines.push(`backend ${addressed(backend)} added`);
    else
      lines.push(
        ...changedKeys(was, backend).map(
          (key) => `backend ${backend.name}: ${key.replace("endpoint", "address")} changed`,
        ),
      );
  }
  for (const backend of old) if (!after.has(backend.name)) lines.push(`backend ${addressed(backend)} removed`);
  return lines;
}

/** "big (10.0.0.12:80)", or only the address if that is the name. */
function addressed({ name, endpoint }: BackendConfig): string {
  const address = formatEndpoint(endpoint);
  return name === address ? name : `${name} (${address})`;
}

function named<T extends { name: string }>(
  section: string,
  old: T[],
  next: T[],
  changes: (old: T, next: T) => string[],
): string[] {
  const before = new Map(old.map((one) => [one.name, one]));
  const after = new Set(next.map((one) => one.name));
  const lines: string[] = [];
  for (const one of next) {
    const was = before.get(one.name);
    if (was === undefined) lines.push(`${section}.${one.name}: added`);
    else lines.push(...changes(was, one).map((line) => `${section}.${one.name}: ${line}`));
  }
  for (const one of old) if (!after.has(one.name)) lines.push(`${section}.${one.name}: removed`);
  return lines;
}

/** "tls.ca changed"; also if only the content of the file changed, which is in `tls.ca_pem`. */
function described(keys: string[]): string[] {
  return [...new Set(keys.map((key) => `${key.replace(/_pem$/, "")} changed`))];
}

/** The options whose values differ; those of a section by their own names: "timeouts.idle". */
function changedKeys(old: object, next: object): string[] {
  const before = old as Record<string, unknown>;
  return Object.entries(next).flatMap(([key, value]) => {
    const was = before[key];
    if (sameJson(was, value)) return [];
    const isSection = isPlain(was) && isPlain(value) && !("kind" in value) && key !== "access";
    return isSection ? changedKeys(was, value).map((below) => `${key}.${below}`) : [key];
  });
}

function isPlain(value: unknown): value is object {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function omit(value: object, keys: string[]): object {
  return Object.fromEntries(Object.entries(value).filter(([key]) => !keys.includes(key)));
}
