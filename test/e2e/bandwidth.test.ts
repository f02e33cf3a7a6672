// Bandwidth limits, measured at the receiver, by peers that are not Bun's. The tests mostly wait, so they all run at once.
import { describe, expect, test } from "vitest";
import { freePort, startLb, type Lb } from "../support/lb.ts";
import { cpuSeconds } from "../support/proc.ts";
import { setUpUnless } from "../support/set-up.ts";
import { pythonMissing, TcpPeers, type PeerListener, type PeerPair, type PeerSocket } from "../support/tcp-peer.ts";

const MB = 1_000_000;

let clients: TcpPeers;
let servers: TcpPeers;
let listener: PeerListener;
let lb: Lb;
const ports = new Map<string, number>();

setUpUnless(pythonMissing, async (keep) => {
  clients = await keep(new TcpPeers());
  servers = await keep(new TcpPeers());
  listener = await servers.listen();
  const slow = {
    both: `bandwidth = { upload = "1MB/s", download = "1MB/s" }`,
    up: `bandwidth = { upload = "1MB/s" }`,
    bits: `bandwidth = { download = "8Mbit/s" }`,
    held: `bandwidth = { download = "1MB/s" }`,
    slow: `bandwidth = { download = "20KB/s" }\ntimeouts.idle = "1s"`,
  };
  const fast = {
    fast: `bandwidth = { upload = "200Mbit/s", download = "200Mbit/s" }`,
    faster: `bandwidth = { download = "80MB/s" }`,
  };
  // Two processes, so that the slow limits can be checked for the little CPU that they need.
  lb = await keep(startLb(await configOf(slow)));
  await keep(startLb(await configOf(fast)));
});

async function configOf(limits: Record<string, string>): Promise<string> {
  const text = ["workers = 2"];
  for (const [name, limit] of Object.entries(limits)) {
    const port = await freePort();
    ports.set(name, port);
    text.push(`[listeners.${name}]\nbind = "127.0.0.1:${port}"\npool = "app"\n${limit}`);
  }
  return [...text, `[pools.app]\nbackends = ["${listener.address}"]\nhealth.type = "off"`].join("\n");
}

let lastPair: Promise<unknown> = Promise.resolve();

/** One after the other, so that each client finds its own connection at the server. */
function pair(name: string): Promise<PeerPair> {
  const next = lastPair.then(() => listener.pairWith(clients.connect(`127.0.0.1:${ports.get(name)}`)));
  lastPair = next;
  return next;
}

/**
 * The rate is within 5 % of the limit in one of the next ten measurements of `ms`: other programs may need the machine during the others,
 * and lost time is made up for a little faster than the limit.
 */
async function expectRate(receiver: PeerSocket, bytesPerSecond: number, ms = 1000): Promise<void> {
  const shares: number[] = [];
  while (shares.length < 10 && !shares.some((share) => share > 0.95 && share < 1.05)) {
    const { count, seconds } = await receiver.measure(shares.length === 0 ? 300 : 0, ms);
    shares.push(count / seconds / bytesPerSecond);
  }
  expect(
    shares.some((share) => share > 0.95 && share < 1.05),
    `shares of the limit: ${shares.join(" ")}`,
  ).toBe(true);
}

describe.concurrent("a bandwidth limit", () => {
  test("of 1 MB/s holds over seconds, in each direction and for each connection separately", async () => {
    const pairs = [await pair("both"), await pair("both")];
    const cpu = cpuSeconds(lb.pid);
    await Promise.all(
      pairs.flatMap(({ client, server }) => {
        void client.sendStream(100 * MB).catch(() => {});
        void server.sendStream(100 * MB).catch(() => {});
        return [expectRate(server, MB, 2500), expectRate(client, MB, 2500)];
      }),
    );
    // Waiting costs nothing: 4 MB/s are little work.
    expect(cpuSeconds(lb.pid) - cpu).toBeLessThan(1.5);
    await Promise.all(pairs.flatMap(({ client, server }) => [client.reset(), server.reset()]));
  });

  test("of 200 Mbit/s is reached in each direction", async () => {
    const { client, server } = await pair("fast");
    void client.sendStream(2000 * MB).catch(() => {});
    void server.sendStream(2000 * MB).catch(() => {});
    await Promise.all([expectRate(server, 25 * MB), expectRate(client, 25 * MB)]);
    await Promise.all([client.reset(), server.reset()]);
  });

  test("of 80 MB/s is reached", async () => {
    const { client, server } = await pair("faster");
    void server.sendStream(4000 * MB).catch(() => {});
    await expectRate(client, 80 * MB);
    await Promise.all([client.reset(), server.reset()]);
  });

  test("passes no more than its rate and a burst of 10 ms, from the first byte on", async () => {
    const rate = 25 * MB;
    const { client, server } = await pair("fast");
    await server.send("x");
    expect((await client.read(1)).text).toBe("x");
    // The bucket is full.
    await new Promise((resolve) => setTimeout(resolve, 300));
    // On one clock of this machine: when the first byte can have been sent, and when each read was complete.
    const before = performance.now();
    void server.sendStream(500 * MB).catch(() => {});
    let count = 0;
    for (let i = 0; i < 30; i++) {
      count += (await client.measure(0, 20)).count;
      expect(count).toBeLessThan((rate * (performance.now() - before + 11)) / 1000);
    }
    expect(count).toBeGreaterThan(0);
    await Promise.all([client.reset(), server.reset()]);
  });

  test("loses nothing and passes the FIN on after the last byte", async () => {
    const { client, server } = await pair("up");
    const [sent, got] = await Promise.all([client.sendStream(2 * MB, true), server.drain()]);
    expect(got).toMatchObject({ count: 2 * MB, crc: sent.crc, end: "fin" });
    expect(got.seconds).toBeGreaterThan(1.8);
    await server.close();
    expect((await client.drain()).end).toBe("fin");
  });

  test("of one direction leaves the other alone", async () => {
    const { client, server } = await pair("up");
    const [sent, got] = await Promise.all([server.sendStream(50 * MB, true), client.drain()]);
    expect(got).toMatchObject({ count: 50 * MB, crc: sent.crc, end: "fin" });
    // At the limit it would take 50 s.
    expect(got.seconds).toBeLessThan(20);
    await client.close();
  });

  test("in bits counts eight bits as a byte", async () => {
    const { client, server } = await pair("bits");
    void server.sendStream(10 * MB).catch(() => {});
    await expectRate(client, MB, 2000);
    await Promise.all([client.reset(), server.reset()]);
  });

  test("saves no bandwidth while no bytes are sent", async () => {
    const { client, server } = await pair("bits");
    await server.send("x");
    expect((await client.read(1)).text).toBe("x");
    await new Promise((resolve) => setTimeout(resolve, 1500));
    const began = performance.now();
    const [sent, got] = await Promise.all([server.sendStream(MB, true), client.drain()]);
    expect(got).toMatchObject({ count: MB, crc: sent.crc, end: "fin" });
    // At most a tenth of a second's worth. The receiver's own time begins when it reads, which is late on a busy machine.
    expect(performance.now() - began).toBeGreaterThan(850);
    await client.close();
  });

  test("does not make a connection idle: a transfer slower than the idle timeout is not ended by it", async () => {
    const { client, server } = await pair("slow");
    const [sent, got] = await Promise.all([server.sendStream(60_000, true), client.drain()]);
    expect(got).toMatchObject({ count: 60_000, crc: sent.crc, end: "fin" });
    expect(got.seconds).toBeGreaterThan(2.5);
    await client.close();
  });

  test("slows the sender down and holds no bytes in memory", async () => {
    const { client, server } = await pair("held");
    const began = performance.now();
    const { sent } = await server.fill(400);
    const { listeners } = await lb.status();
    const taken = listeners.find(({ name }) => name === "held")!.bytes_out;
    // The bytes that the limit passed, and one queue; the rest waits in the kernel, where the backend sees it.
    expect(taken).toBeLessThan((performance.now() - began) * 1000 + MB);
    expect(sent).toBeGreaterThan(taken);
    await client.reset();
    expect(await server.hungUp()).toBe("reset");
  });
});
