// Bytes that arrive and are read in pieces: the kernel says whether the other side has read what was sent, so that no two pieces are read
// as one.
import { readFileSync } from "node:fs";
import type { Client } from "./client.ts";
import { eventually } from "./eventually.ts";

/** Waits until everything that these clients have sent to a port of 127.0.0.1 was read there. */
export async function allRead(port: number, clients: readonly Client[]): Promise<void> {
  const wanted = new Set(clients.map((client) => client.port));
  await eventually("the bytes are read", () => {
    let found = 0;
    for (const row of readFileSync("/proc/net/tcp", "latin1").split("\n")) {
      // proc_net_tcp: number, local and remote address, state, bytes not acknowledged : bytes not read.
      const [, localPort, remotePort, sending, unread] =
        /^ *\d+: [\dA-F]{8}:([\dA-F]{4}) [\dA-F]{8}:([\dA-F]{4}) [\dA-F]{2} ([\dA-F]{8}):([\dA-F]{8})/.exec(row) ?? [];
      if (localPort === undefined) continue;
      const [from, to] = [Number.parseInt(localPort, 16), Number.parseInt(remotePort!, 16)];
      if (from === port && wanted.has(to) && Number.parseInt(unread!, 16) > 0) return false;
      if (to === port && wanted.has(from) && Number.parseInt(sending!, 16) > 0) return false;
      if (from === port && wanted.has(to)) found++;
    }
    return found >= wanted.size;
  });
}
