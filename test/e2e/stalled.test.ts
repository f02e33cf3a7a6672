// Receivers that read nothing: lb's memory for them, and that they still get every byte in the end.
import { expect, test } from "vitest";
import { freePort, startLb } from "../support/lb.ts";
import { residentBytes } from "../support/proc.ts";
import { setUpUnless } from "../support/set-up.ts";
import { pythonMissing, TcpPeers, type PeerGroup } from "../support/tcp-peer.ts";

const CONNECTIONS = 100;
const KIB = 1024;
/** `buffer`, and the rest of one read. */
const HELD_BYTES_MAX = 80 * KIB;
/** Of the process: pages that its first connections touch. */
const SLACK_BYTES = 6e6;

let clients: TcpPeers;
let servers: TcpPeers;

setUpUnless(pythonMissing, async (keep) => {
  clients = await keep(new TcpPeers());
  servers = await keep(new TcpPeers());
});

interface Stage {
  pid: number;
  sender: PeerGroup;
  receiver: PeerGroup;
}

/** Connections through lb, after the same was done once to warm up the process. */
async function connections(slow: "clients" | "backends", option: string, run: (stage: Stage) => Promise<void>) {
  const listener = await servers.listen();
  const port = await freePort();
  await using lb = await startLb(`
workers = 1
[listeners.web]
bind = "127.0.0.1:${port}"
pool = "app"
${option}
[pools.app]
backends = ["${listener.address}"]
health.type = "off"`);
  for (const count of [4, CONNECTIONS]) {
    const [client, server] = await Promise.all([
      clients.connectMany(`127.0.0.1:${port}`, count),
      listener.acceptMany(count),
    ]);
    const [sender, receiver] = slow === "clients" ? [server, client] : [client, server];
    if (count === CONNECTIONS) await run({ pid: lb.pid, sender, receiver });
    else await sender.fill();
    await Promise.all([client.close(), server.close()]);
    await lb.waitIdle();
  }
}

test.each(["clients", "backends"] as const)(
  "a hundred stalled %s hold no more than `buffer` and 16 KiB each, and get every byte in the end",
  async (slow) => {
    await connections(slow, "", async ({ pid, sender, receiver }) => {
      const before = residentBytes(pid);
      const sent = await sender.fill(1000);
      expect(Math.min(...sent)).toBeGreaterThan(500 * KIB);
      expect(residentBytes(pid) - before).toBeLessThan(CONNECTIONS * HELD_BYTES_MAX + SLACK_BYTES);
      await sender.finish();
      const { counts, ends } = await receiver.drain();
      expect(ends).toEqual(Array(CONNECTIONS).fill("fin"));
      const sum = (all: readonly number[]): number => all.reduce((a, b) => a + b, 0);
      expect(sum(counts)).toBe(sum(sent));
    });
  },
  60_000,
);

test("a larger `buffer` is filled", async () => {
  await connections("clients", 'buffer = "1MiB"', async ({ pid, sender }) => {
    const before = residentBytes(pid);
    await sender.fill(1000);
    const held = (residentBytes(pid) - before) / CONNECTIONS;
    expect(held).toBeGreaterThan(200 * KIB);
    expect(held).toBeLessThan(1040 * KIB + SLACK_BYTES / CONNECTIONS);
  });
});
