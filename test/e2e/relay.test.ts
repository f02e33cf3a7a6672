// Relaying: every byte, every FIN and every reset, between peers that are not Bun's. The load is more than any buffer on the path holds,
// and both sides read slowly.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.ts";
import { freePort, startLb, type Lb } from "../support/lb.ts";
import { residentBytes } from "../support/proc.ts";
import { setUpUnless } from "../support/set-up.ts";
import {
  pythonMissing,
  TcpPeers,
  type PeerListener,
  type PeerPair,
  type PeerSocket,
  type SocketOptions,
} from "../support/tcp-peer.ts";
import { skipWithoutIPv6 } from "../support/endpoints.ts";

const MB = 1_000_000;

let clients: TcpPeers;
let servers: TcpPeers;
let listener: PeerListener;
let lb: Lb;
let front: string;

function config(bind: string, backend: string, more = ""): string {
  return `
    workers = 2
    [listeners.web]
    bind = "${bind}"
    pool = "app"
    ${more}
    [pools.app]
    backends = ["${backend}"]
    health.type = "off"
  `;
}

setUpUnless(pythonMissing, async (keep) => {
  clients = await keep(new TcpPeers());
  servers = await keep(new TcpPeers());
  listener = await servers.listen("127.0.0.1:0", { rcvbuf: 16_384 });
  front = `127.0.0.1:${await freePort()}`;
  lb = await keep(startLb(config(front, listener.address)));
});

const pair = (options?: SocketOptions): Promise<PeerPair> => listener.pairWith(clients.connect(front, options));

describe("bytes", () => {
  test("200 MB in each direction at once arrive complete, between slow readers, in bounded memory", async () => {
    const { client, server } = await pair();
    let most = 0;
    const sampler = setInterval(() => (most = Math.max(most, residentBytes(lb.pid))), 20);
    const before = residentBytes(lb.pid);
    const count = 200 * MB;
    const [up, down, above, below] = await Promise.all([
      client.sendStream(count, true),
      server.sendStream(count, true),
      server.drain({ every: 10 * MB, pauseMs: 60 }),
      client.drain({ every: 9 * MB, pauseMs: 60 }),
    ]);
    clearInterval(sampler);
    expect(up).toMatchObject({ sent: count, end: null });
    expect(down).toMatchObject({ sent: count, end: null });
    expect(above).toMatchObject({ count, crc: up.crc, end: "fin" });
    expect(below).toMatchObject({ count, crc: down.crc, end: "fin" });
    expect(await lb.lineOf(client)).toMatchObject({ bytes_in: count, bytes_out: count, end: "eof" });
    expect(most - before).toBeLessThan(100 * MB);
  });

  test("flow if the backend sends first and the client sends nothing", async () => {
    const { client, server } = await pair();
    await server.send("220 ready\r\n");
    expect(await client.read(11)).toEqual({ text: "220 ready\r\n", end: null });
    await client.send("QUIT\r\n");
    expect((await server.read(6)).text).toBe("QUIT\r\n");
    await server.close();
    expect(await client.read(1)).toEqual({ text: "", end: "fin" });
    await client.close();
    expect(await lb.lineOf(client)).toMatchObject({ bytes_in: 6, bytes_out: 11, end: "eof", end_by: "backend" });
  });

  test("of one direction continue to flow while the other is full", async () => {
    const { client, server } = await pair();
    const up = await client.fill();
    expect(up.sent).toBeGreaterThan(0);
    const [down, below] = await Promise.all([server.sendStream(20 * MB, true), client.drain()]);
    expect(below).toMatchObject({ count: 20 * MB, crc: down.crc, end: "fin" });
    await client.finish();
    expect(await server.drain()).toMatchObject({ count: up.sent, end: "fin" });
  });
});

describe("a short reply and its FIN", () => {
  test("go to the client in one segment if both have arrived", async () => {
    const { client, server } = await pair();
    await client.send("question");
    expect((await server.read(8)).text).toBe("question");
    const before = await client.segments();
    await lb.whileHeld(async () => {
      await server.send("answer");
      await server.finish();
      await server.segments();
    });
    expect(await client.read(100)).toEqual({ text: "answer", end: "fin" });
    expect(await client.segments()).toBe(before + 1);
    await client.send("late words");
    expect((await server.read(10)).text).toBe("late words");
    await client.close();
    expect(await lb.lineOf(client)).toMatchObject({ end: "eof", end_by: "backend", bytes_in: 18, bytes_out: 6 });
  });

  test("arrive complete if the client's socket does not take all of it", async () => {
    // Small segments keep lb's buffer towards the client below what the backend sends.
    const { client, server } = await pair({ rcvbuf: 4096, maxseg: 536 });
    const count = 60_000;
    let sent = { sent: 0, crc: 0 };
    await lb.whileHeld(async () => (sent = await server.sendStream(count, true)));
    expect(sent.sent).toBe(count);
    expect(await client.drain()).toMatchObject({ count, crc: sent.crc, end: "fin" });
    await client.close();
    expect(await lb.lineOf(client)).toMatchObject({ end: "eof", end_by: "backend", bytes_out: count });
  });
});

describe("a short reply followed by a reset", () => {
  test("does not look complete", async () => {
    const { client, server } = await pair();
    await client.send("question");
    expect((await server.read(8)).text).toBe("question");
    await lb.whileHeld(async () => {
      await server.send("half an ans");
      await server.reset();
    });
    expect(await client.read(100)).toMatchObject({ end: "reset" });
    expect(await lb.lineOf(client)).toMatchObject({ end: "reset", end_by: "backend" });
  });

  test("does not look complete either if it comes from a unix socket that was closed with unread bytes of the client", async () => {
    const folder = await mkdtemp(join(tmpdir(), "lb-relay-"));
    const backend = await servers.listen(`unix:${folder}/backend.sock`);
    const bind = `127.0.0.1:${await freePort()}`;
    await using lb = await startLb(config(bind, backend.address));
    const { client, server } = await backend.pairWith(clients.connect(bind));
    await client.send("question");
    expect((await server.read(1)).text).toBe("q");
    await lb.whileHeld(async () => {
      await server.send("half an ans");
      await server.close();
    });
    expect(await client.read(100)).toMatchObject({ end: "reset" });
    expect(await lb.lineOf(client)).toMatchObject({ end: "reset", end_by: "backend" });
    await rm(folder, { recursive: true });
  });
});

describe("a FIN", () => {
  test("of the client is passed on as a FIN, and the whole reply still arrives", async () => {
    const { client, server } = await pair();
    await client.send("all I have to say");
    await client.finish();
    expect(await server.read(100)).toEqual({ text: "all I have to say", end: "fin" });
    const [sent, got] = await Promise.all([
      server.sendStream(20 * MB, true),
      client.drain({ every: 2 * MB, pauseMs: 20 }),
    ]);
    expect(got).toMatchObject({ count: 20 * MB, crc: sent.crc, end: "fin" });
    expect(await lb.lineOf(client)).toMatchObject({ end: "eof", end_by: "client", bytes_in: 17, bytes_out: 20 * MB });
  });

  test("of the backend is passed on as a FIN, and the client can continue to send", async () => {
    const { client, server } = await pair();
    await server.send("hello and goodbye");
    await server.finish();
    expect(await client.read(100)).toEqual({ text: "hello and goodbye", end: "fin" });
    const [sent, got] = await Promise.all([
      client.sendStream(20 * MB, true),
      server.drain({ every: 2 * MB, pauseMs: 20 }),
    ]);
    expect(got).toMatchObject({ count: 20 * MB, crc: sent.crc, end: "fin" });
    expect(await lb.lineOf(client)).toMatchObject({ end: "eof", end_by: "backend", bytes_in: 20 * MB, bytes_out: 17 });
  });

  test("arrives after the last byte, however slowly that is read", async () => {
    for (const direction of ["up", "down"] as const) {
      const { client, server } = await pair();
      const [from, to] = direction === "up" ? [client, server] : [server, client];
      const [sent, got] = await Promise.all([from.sendStream(30 * MB, true), to.drain({ every: MB, pauseMs: 10 })]);
      expect([direction, got]).toMatchObject([direction, { count: 30 * MB, crc: sent.crc, end: "fin" }]);
      await to.finish();
      expect(await from.read(1)).toEqual({ text: "", end: "fin" });
    }
  });

  test.each(["up", "down"] as const)("waits for queued bytes (%s), whatever their number", async (direction) => {
    // In steps smaller than a queue, so that some FINs come while bytes are queued and their sender is not paused.
    const counts = Array.from({ length: 60 }, (_, i) => (i + 1) * 65_536);
    const pairs: { count: number; from: PeerSocket; to: PeerSocket }[] = [];
    for (const count of counts) {
      const { client, server } = await pair(direction === "up" ? {} : { rcvbuf: 8192 });
      pairs.push(direction === "up" ? { count, from: client, to: server } : { count, from: server, to: client });
    }
    const sending = pairs.map(({ count, from }) => from.sendStream(count, true));
    // Nobody reads until nothing moves any more.
    await lb.waitStill();
    const drained = await Promise.all(pairs.map(({ to }) => to.drain()));
    const sent = await Promise.all(sending);
    const expected = counts.map((count, i) => ({ count, crc: sent[i]!.crc, end: "fin" }));
    expect(drained.map(({ count, crc, end }) => ({ count, crc, end }))).toEqual(expected);
    await Promise.all(pairs.map(({ to }) => to.close()));
  });

  test("without a byte is passed on too", async () => {
    const { client, server } = await pair();
    await client.finish();
    expect(await server.read(1)).toEqual({ text: "", end: "fin" });
    await server.finish();
    expect(await client.read(1)).toEqual({ text: "", end: "fin" });
    await eventually("the backend's place is free again", async () => {
      const { pools } = await lb.status();
      return pools[0]!.backends[0]!.open === 0;
    });
  });
});

describe("a reset", () => {
  test.each(["client", "backend"] as const)("of the %s is passed on as a reset at once", async (by) => {
    const { client, server } = await pair();
    await client.send("ping");
    await server.read(4);
    const [from, to] = by === "client" ? [client, server] : [server, client];
    await from.reset();
    expect(await to.read(1)).toEqual({ text: "", end: "reset" });
    expect(await lb.lineOf(client)).toMatchObject({ end: "reset", end_by: by });
  });

  test.each(["client", "backend"] as const)("of the %s is noticed although it is paused", async (by) => {
    const { client, server } = await pair();
    const [from, to] = by === "client" ? [client, server] : [server, client];
    // The other side does not read: when no more bytes move, the sender is paused.
    const { sent } = await from.fill();
    expect(sent).toBeGreaterThan(0);
    await from.reset();
    const got = await to.drain();
    expect(got.end).toBe("reset");
    expect(got.count).toBeLessThanOrEqual(sent);
    expect(await lb.lineOf(client)).toMatchObject({ end: "reset", end_by: by });
  });

  test.each(["client", "backend"] as const)(
    "of a %s that does not read reaches the sender, who is paused",
    async (by) => {
      const { client, server } = await pair();
      const [from, to] = by === "client" ? [server, client] : [client, server];
      await from.fill();
      await to.reset();
      expect(await from.hungUp()).toBe("reset");
      expect(await lb.lineOf(client)).toMatchObject({ end: "reset", end_by: by });
    },
  );

  test.each(["client", "backend"] as const)("of the %s after its FIN is passed on behind the FIN", async (by) => {
    const { client, server } = await pair();
    const [from, to] = by === "client" ? [client, server] : [server, client];
    await from.send("bye");
    await from.finish();
    expect(await to.read(100)).toEqual({ text: "bye", end: "fin" });
    await from.reset();
    expect(await to.hungUp()).toBe("reset");
    expect(await lb.lineOf(client)).toMatchObject({ end: "reset", end_by: by });
  });

  test("of the backend in the middle of its reply, after the client's FIN, does not look like the end of the reply", async () => {
    const { client, server } = await pair();
    await client.finish();
    expect((await server.read(1)).end).toBe("fin");
    await server.send("half of the re");
    await client.read(14);
    await server.reset();
    expect(await client.read(1)).toEqual({ text: "", end: "reset" });
  });

  test("never makes a truncated reply look complete, wherever it is truncated", async () => {
    const cuts = Array.from({ length: 60 }, (_, i) => Math.floor(1.6 ** (i % 30)) + i);
    const pairs: { cut: number; client: PeerSocket; server: PeerSocket }[] = [];
    for (const cut of cuts) pairs.push({ cut, ...(await pair()) });
    const results = await Promise.all(
      pairs.map(async ({ cut, client, server }, i) => {
        const drained = client.drain(i % 3 === 0 ? { every: 65_536, pauseMs: 5 } : undefined);
        await server.sendStream(cut);
        await server.reset();
        const { count, end } = await drained;
        return { cut, count, end };
      }),
    );
    expect(results.filter(({ cut, count, end }) => end !== "reset" || count > cut)).toEqual([]);
  });

  test("ends a connection whose worker is killed in the middle of a reply", async () => {
    const { client, server } = await pair();
    const drained = client.drain({ every: MB, pauseMs: 50 });
    const sending = server.sendStream(500 * MB);
    await eventually("bytes flow", async () => (await lb.status()).listeners[0]!.bytes_out > 3 * MB);
    await Promise.all([lb.restartWorker(0), lb.restartWorker(1)]);
    expect((await drained).end).toBe("reset");
    expect((await sending).end).toBe("reset");
    await lb.waitStatus(({ workers }) => workers.every(({ state }) => state === "running"));
  });
});

describe("every kind of address", () => {
  test.for([
    ["IPv6", "[::1]:0", "[::1]"],
    ["a path", "unix:FOLDER/backend.sock", "unix:FOLDER/front.sock"],
    ["an abstract name", "unix:@ABSTRACT-backend", "unix:@ABSTRACT-front"],
    ["IPv6 in front of a unix socket", "unix:FOLDER/other.sock", "[::1]"],
  ] as const)("carries bytes and ends: %s", async ([, behind, before], context) => {
    if (before === "[::1]") skipWithoutIPv6(context);
    const folder = await mkdtemp(join(tmpdir(), "lb-relay-"));
    const named = (text: string): string => text.replace("FOLDER", folder).replace("ABSTRACT", `lb-${folder}`);
    const backend = await servers.listen(named(behind));
    const bind = before.startsWith("unix:") ? named(before) : `${before}:${await freePort()}`;
    await using lb = await startLb(config(bind, backend.address));
    const { client, server } = await backend.pairWith(clients.connect(bind));
    const [up, above] = await Promise.all([client.sendStream(5 * MB, true), server.drain()]);
    expect(above).toMatchObject({ count: 5 * MB, crc: up.crc, end: "fin" });
    const [down, below] = await Promise.all([server.sendStream(5 * MB, true), client.drain()]);
    expect(below).toMatchObject({ count: 5 * MB, crc: down.crc, end: "fin" });
    const line = await lb.waitLine(({ end }) => end === "eof");
    expect(line).toMatchObject({ bytes_in: 5 * MB, bytes_out: 5 * MB, backend: backend.address });
    expect(line.client).toBe(before.startsWith("unix:") ? "unix" : client.address);
    await rm(folder, { recursive: true });
  });
});

describe("many connections", () => {
  test("that send to a backend which reads nothing are slowed down, and memory stays bounded", async () => {
    const backend = await servers.listen("127.0.0.1:0", { rcvbuf: 65_536 });
    const bind = `127.0.0.1:${await freePort()}`;
    await using lb = await startLb(config(bind, backend.address));
    const before = residentBytes(lb.pid);
    const count = 500;
    const accepted = backend.acceptMany(count);
    const pushing = await clients.pushMany(bind, count);
    const waiting = await accepted;
    // Nothing moves any more, so its memory does not grow further.
    const grown = residentBytes(lb.pid) - before;
    expect(grown).toBeLessThan(count * 400_000);
    await pushing.finish();
    const { counts, ends } = await waiting.drain();
    const sum = (numbers: readonly number[]): number => numbers.reduce((total, number) => total + number, 0);
    expect(sum(counts)).toBe(sum(pushing.sent));
    expect(new Set(ends)).toEqual(new Set(["fin"]));
  });
});
