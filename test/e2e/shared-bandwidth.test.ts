// Bandwidth limits that connections of several workers share, measured at the receiver, by peers that are not Bun's. The tests mostly wait,
// so they all run at once.
import { describe, expect, test } from "vitest";
import { freePort, startLb, type Lb } from "../support/lb.ts";
import { cpuSeconds } from "../support/proc.ts";
import { setUpUnless } from "../support/set-up.ts";
import { pythonMissing, TcpPeers, type PeerListener, type PeerPair, type PeerSocket } from "../support/tcp-peer.ts";

const MB = 1_000_000;
const CONNECTIONS = 10;

let clients: TcpPeers;
let servers: TcpPeers;
let lb: Lb;
const listeners = new Map<string, { port: number; backend: PeerListener }>();

setUpUnless(pythonMissing, async (keep) => {
  clients = await keep(new TcpPeers());
  servers = await keep(new TcpPeers());
  // Here a client is a network, because the kernel chooses the worker by the address.
  const client = `per = "client" }\nclient_prefix = { ipv4 = 24 }`;
  const text = ["workers = 3"];
  for (const [name, limit] of Object.entries({
    listener: `bandwidth = { upload = "4MB/s", download = "4MB/s", per = "listener" }`,
    client: `bandwidth = { upload = "4MB/s", download = "4MB/s", ${client}`,
    fast: `bandwidth = { download = "200Mbit/s", per = "listener" }`,
    stalled: `bandwidth = { download = "20MB/s", per = "listener" }`,
    short: `bandwidth = { upload = "1MB/s", per = "client" }`,
  })) {
    const port = await freePort();
    const backend = await servers.listen();
    listeners.set(name, { port, backend });
    text.push(
      `[listeners.${name}]\nbind = "127.0.0.1:${port}"\nworker_affinity = "client"\npool = "${name}"\n${limit}`,
      `[pools.${name}]\nbackends = ["${backend.address}"]\nhealth.type = "off"`,
    );
  }
  lb = await keep(startLb(text.join("\n")));
});

function pair(name: string, source: string): Promise<PeerPair> {
  const { port, backend } = listeners.get(name)!;
  return backend.pairWith(clients.connect(`127.0.0.1:${port}`, { source }));
}

/** The worker that gets connections from this address. */
async function workerOf(name: string, source: string): Promise<number> {
  const { client, server } = await pair(name, source);
  // A connection without a byte is not logged.
  await Promise.all([client.send("x"), server.read(1)]);
  await Promise.all([client.reset(), server.hungUp()]);
  return (await lb.lineOf({ address: client.address, to: listeners.get(name)!.port })).worker;
}

/** Ten connections from addresses that begin with `network`: one in a worker, nine in another. */
async function unevenPairs(name: string, network: string): Promise<PeerPair[]> {
  const first = `${network}.1`;
  const worker = await workerOf(name, first);
  let other = first;
  for (let i = 2; other === first; i++)
    if ((await workerOf(name, `${network}.${i}`)) !== worker) other = `${network}.${i}`;
  const pairs = [await pair(name, first)];
  while (pairs.length < CONNECTIONS) pairs.push(await pair(name, other));
  return pairs;
}

/**
 * All together get the limit within 5 %, and each gets at least half of its share, in one of ten measurements: other programs may need the
 * machine during the others, and lb does not make up for more than 100 ms in which it did not run.
 */
async function expectShared(receivers: readonly PeerSocket[], bytesPerSecond: number): Promise<void> {
  const seen: string[] = [];
  for (let i = 0; i < 10; i++) {
    const measured = await Promise.all(receivers.map((receiver) => receiver.measure(i === 0 ? 500 : 0, 2000)));
    const rates = measured.map(({ count, seconds }) => count / seconds / bytesPerSecond);
    const total = rates.reduce((sum, rate) => sum + rate, 0);
    const least = Math.min(...rates) * receivers.length;
    if (total > 0.95 && total < 1.05 && least > 0.5) return;
    seen.push(`${total} of the limit, the least share ${least}`);
  }
  expect.fail(seen.join("; "));
}

/** Every side of every pair sends more than a test measures. */
function sendBothWays(pairs: readonly PeerPair[]): void {
  for (const side of pairs.flatMap(({ client, server }) => [client, server])) {
    void side.sendStream(100 * MB).catch(() => {});
  }
}

/** Both directions at once. */
function expectSharedBothWays(pairs: readonly PeerPair[], bytesPerSecond: number): Promise<unknown> {
  const [clientSides, serverSides] = [pairs.map(({ client }) => client), pairs.map(({ server }) => server)];
  return Promise.all([expectShared(clientSides, bytesPerSecond), expectShared(serverSides, bytesPerSecond)]);
}

function resetAll(pairs: readonly PeerPair[]): Promise<unknown> {
  return Promise.all(pairs.flatMap(({ client, server }) => [client.reset(), server.reset()]));
}

describe.concurrent("a bandwidth limit that is shared", () => {
  test("by the connections of a listener is exact over all workers, in each direction, and fair if they are split 1 to 9", async () => {
    const pairs = await unevenPairs("listener", "127.1.1");
    sendBothWays(pairs);
    await expectSharedBothWays(pairs, 4 * MB);
    await resetAll(pairs);
  });

  test("by the connections of a client is exact over all workers, fair, and leaves other clients alone", async () => {
    const pairs = await unevenPairs("client", "127.2.1");
    const other = await pair("client", "127.2.2.1");
    sendBothWays([...pairs, other]);
    await Promise.all([expectSharedBothWays(pairs, 4 * MB), expectSharedBothWays([other], 4 * MB)]);
    await resetAll([...pairs, other]);
  });

  test("of 200 Mbit/s is reached by two connections and by one", async () => {
    const one = await pair("fast", "127.3.1.1");
    void one.server.sendStream(2000 * MB).catch(() => {});
    await expectShared([one.client], 25 * MB);
    const two = await pair("fast", "127.3.1.2");
    void two.server.sendStream(2000 * MB).catch(() => {});
    await expectShared([one.client, two.client], 25 * MB);
    await resetAll([one, two]);
  });

  test("is not used up by a receiver that has stalled, which costs no CPU either", async () => {
    const stalled = await pair("stalled", "127.4.1.1");
    await stalled.server.fill(300);
    const cpu = cpuSeconds(lb.pid);
    const began = performance.now();
    const other = await pair("stalled", "127.4.1.2");
    void other.server.sendStream(1000 * MB).catch(() => {});
    await expectShared([other.client], 20 * MB);
    // A worker that spins uses a whole core; the other tests of this file use a tenth of it.
    expect(cpuSeconds(lb.pid) - cpu).toBeLessThan(0.7 * ((performance.now() - began) / 1000));
    await resetAll([stalled, other]);
  });

  test("loses no byte of short connections, and holds them to the limit together", async () => {
    const bytes = 100_000;
    const began = performance.now();
    for (let i = 0; i < 20; i++) {
      const { client, server } = await pair("short", "127.5.1.1");
      const [sent, got] = await Promise.all([client.sendStream(bytes, true), server.drain()]);
      expect(got).toMatchObject({ count: bytes, crc: sent.crc, end: "fin" });
      await server.close();
      expect((await client.drain()).end).toBe("fin");
      await client.close();
    }
    // At first at most a tenth of a second's worth is saved.
    expect(performance.now() - began).toBeGreaterThan(1850);
  });
});
