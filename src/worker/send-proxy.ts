// The PROXY header that a backend gets before the first byte: who the client is, whom it addressed, and what is known of
// its TLS.
import { addressAt, isUnixPeerAt } from "../core/address.ts";
import { localAddress } from "../platform/sockets.ts";
import { ROW, ROW_WORDS } from "../shared/ledger.ts";
import { proxyHeaderV1, proxyHeaderV2, type ProxyEnd } from "../wire/proxy-protocol.ts";
import type { Connection } from "./connection.ts";

const local = new Int32Array(5);

/** The header for a connection. A client without an IP address (a unix socket's) is UNKNOWN or UNSPEC. */
export function proxyHeaderFor(connection: Connection, version: "v1" | "v2"): Uint8Array {
  const { words } = connection.plane;
  const at = connection.row * ROW_WORDS;
  const source = endAt(words, at + ROW.address);
  const destination = connection.addressed ?? addressedBy(words[at + ROW.clientFd]!);
  const known = source !== null && destination !== null;
  if (version === "v1") return proxyHeaderV1(known ? source : null, known ? destination : null);
  const { sni, alpn, tlsVersion, clientCertificate } = connection;
  return proxyHeaderV2({
    command: "proxy",
    source: known ? source : null,
    destination: known ? destination : null,
    authority: sni === "" ? null : sni,
    alpn: alpn === "" ? null : alpn,
    tls: tlsVersion === "" ? null : { version: tlsVersion, clientCertificate },
  });
}

function addressedBy(fd: number): ProxyEnd | null {
  return fd >= 0 && localAddress(fd, local, 0) ? endAt(local, 0) : null;
}

function endAt(words: Int32Array, at: number): ProxyEnd | null {
  return isUnixPeerAt(words, at) ? null : { address: addressAt(words, at), port: words[at + 4]! };
}
