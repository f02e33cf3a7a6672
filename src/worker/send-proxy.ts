// The PROXY header that a backend gets before the first byte: the client's address, the address it connected to, and the facts of its
// TLS.
import { addressAt, isUnixPeerAt } from "../core/address.ts";
import { localAddress } from "../platform/sockets.ts";
import { ROW, ROW_WORDS } from "../shared/ledger.ts";
import { proxyHeaderV1, proxyHeaderV2, type ProxyEnd } from "../wire/proxy-protocol.ts";
import type { Host, Session } from "./session.ts";

const local = new Int32Array(5);

/** The content of a header for a session. */
export interface HeaderSource extends Pick<Session, "row" | "facts"> {
  readonly host: Pick<Host, "words">;
}

/** The header for a session. A client without an IP address (a unix socket's) is UNKNOWN or UNSPEC. */
export function proxyHeaderFor(session: HeaderSource, version: "v1" | "v2"): Uint8Array {
  const { host, row, facts } = session;
  const { words } = host;
  const at = row * ROW_WORDS;
  const source = endAt(words, at + ROW.address);
  const destination = facts?.addressed ?? addressedBy(words[at + ROW.clientFd]!);
  const known = source !== null && destination !== null;
  if (version === "v1") return proxyHeaderV1(known ? source : null, known ? destination : null);
  return proxyHeaderV2({
    command: "proxy",
    source: known ? source : null,
    destination: known ? destination : null,
    authority: facts?.sni || null,
    alpn: facts?.alpn || null,
    tls: facts?.tlsVersion ? { version: facts.tlsVersion, clientCertificate: facts.certificate } : null,
  });
}

function addressedBy(fd: number): ProxyEnd | null {
  return fd >= 0 && localAddress(fd, local, 0) ? endAt(local, 0) : null;
}

function endAt(words: Int32Array, at: number): ProxyEnd | null {
  return isUnixPeerAt(words, at) ? null : { address: addressAt(words, at), port: words[at + 4]! };
}
