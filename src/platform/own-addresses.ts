// Backends at which a connect could reach its own socket: those on an address of this machine and a port that the kernel also uses for
// outgoing connections.
import { readFileSync } from "node:fs";
import { networkInterfaces } from "node:os";
import { formatAddress, isIPv4, parseAddress, type Address, type Endpoint } from "../core/address.ts";

/** Read once for a whole config. */
const REREAD_AFTER_MS = 1000;

interface LocalAddresses {
  /** In the form of formatAddress. */
  readonly addresses: ReadonlySet<string>;
  readonly firstPort: number;
  readonly lastPort: number;
}

let last: LocalAddresses | null = null;
let readMs = 0;

/** Whether a connect to this endpoint could reach its own socket, as far as this machine's addresses are known now. */
export function maySelfConnect(endpoint: Endpoint | { kind: "bad" }): boolean {
  if (endpoint.kind !== "ip") return false;
  if (last === null || performance.now() - readMs > REREAD_AFTER_MS) {
    last = readLocalAddresses();
    readMs = performance.now();
  }
  const { address, port } = endpoint;
  if (port < last.firstPort || port > last.lastPort) return false;
  return isThisHost(address) || last.addresses.has(formatAddress(...address));
}

// 127.0.0.0/8 and ::1, and the unspecified addresses, with which a connect reaches the loopback (RFC 1122 section 3.2.1.3).
function isThisHost([w0, w1, w2, w3]: Address): boolean {
  if (isIPv4(w0, w1, w2)) return w3 >>> 24 === 127 || w3 === 0;
  return w0 === 0 && w1 === 0 && w2 === 0 && (w3 === 0 || w3 === 1);
}

function readLocalAddresses(): LocalAddresses {
  const addresses = new Set<string>();
  for (const ofOne of Object.values(networkInterfaces())) {
    for (const { address } of ofOne ?? []) {
      const parsed = parseAddress(address);
      if (parsed !== null) addresses.add(formatAddress(...parsed));
    }
  }
  const [firstPort, lastPort] = ephemeralPorts();
  return { addresses, firstPort, lastPort };
}

// ip(7), ip_local_port_range: it applies to IPv6 too. If it cannot be read, any port may be one.
function ephemeralPorts(): [number, number] {
  try {
    const [first, end] = readFileSync("/proc/sys/net/ipv4/ip_local_port_range", "utf8").trim().split(/\s+/).map(Number);
    if (first !== undefined && end !== undefined) return [first, end];
  } catch {
    // Not Linux, or no /proc.
  }
  return [0, 65535];
}
