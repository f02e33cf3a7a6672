// Each of Bun's undeclared APIs against the kernel and a peer that does not use Bun's sockets. If a test fails here after an upgrade of
// Bun, the data plane can no longer rely on that API.
import { once } from "node:events";
import { connect, createServer, type Server, type Socket as Peer } from "node:net";
import type { Socket } from "bun";
import { describe, expect, test } from "vitest";
import {
  adoptConnecting,
  connectByAddress,
  descriptorOf,
  listenOnAddress,
  listenOnDescriptor,
  readPeer,
} from "../../src/platform/bun.ts";
import { beginConnect, duplicate, closeDescriptor, setBacklog, sockaddr } from "../../src/platform/sockets.ts";
import { blackhole } from "../support/backends.ts";
import { endpoint, listenAt } from "../support/endpoints.ts";
import { eventually } from "../support/eventually.ts";
import { socketOption, SOL_TCP, tcpInfo } from "../support/kernel.ts";
import { freePort } from "../support/lb.ts";
import { synSent } from "../support/proc.ts";
import { calledAfterEach } from "../support/set-up.ts";

const TCP_NODELAY = 1;

const atEnd = calledAfterEach();

/** Records the events of sockets in order, and waits for them. */
class Events {
  readonly seen: string[] = [];
  socket: Socket<unknown> | null = null;
  text = "";
  readonly table = {
    binaryType: "uint8array" as const,
    open: (socket: Socket<unknown>) => {
      this.socket = socket;
      this.seen.push("open");
    },
    data: (_: Socket<unknown>, chunk: Uint8Array) => {
      this.text += Buffer.from(chunk).toString();
      this.seen.push("data");
    },
    drain: () => void this.seen.push("drain"),
    end: () => void this.seen.push("end"),
    close: (socket: Socket<unknown>, error?: Error) => {
      const code = (error as { code?: string } | undefined)?.code;
      this.seen.push(code === undefined ? "close" : `close ${code}`);
      this.seen.push(`fd ${descriptorOf(socket)}`);
    },
    connectError: (_: Socket<unknown>, error: Error) =>
      void this.seen.push(`connectError ${(error as { code?: string }).code}`),
    error: (_: Socket<unknown>, error: Error) => void this.seen.push(`error ${error.message}`),
  };
  until(event: string): Promise<true> {
    return eventually(`${event} after ${this.seen.join(", ")}`, () => this.seen.includes(event));
  }
}

function client(port: number, host = "127.0.0.1"): Peer {
  const peer = connect({ host, port, allowHalfOpen: true });
  atEnd.push(() => peer.destroy());
  return peer;
}

/** A server of another implementation; its accepted sockets. */
async function server(): Promise<{ port: number; accepted: Promise<Peer> }> {
  const listener: Server = createServer({ allowHalfOpen: true });
  atEnd.push(() => listener.close());
  listener.listen(0, "127.0.0.1");
  await once(listener, "listening");
  const accepted = once(listener, "connection").then(([peer]) => {
    atEnd.push(() => (peer as Peer).destroy());
    return peer as Peer;
  });
  return { port: (listener.address() as { port: number }).port, accepted };
}

describe("Bun.listen({ fd })", () => {
  test("serves a listening descriptor; stop closes it", async () => {
    const port = await freePort();
    const fd = listenAt(`127.0.0.1:${port}`);
    const events = new Events();
    const listening = listenOnDescriptor(fd, "data", events.table);
    const peer = client(port);
    peer.write("hello");
    await events.until("data");
    expect(events.text).toBe("hello");
    expect(events.socket!.data).toBe("data");
    listening.stop(false);
    await expect(once(client(port), "connect")).rejects.toThrow("ECONNREFUSED");
    // The accepted connection continues.
    events.socket!.write("still here");
    expect(String((await once(peer, "data"))[0])).toBe("still here");
  });

  test("stop(true) also closes what it accepted", async () => {
    const port = await freePort();
    const events = new Events();
    const listening = listenOnDescriptor(listenAt(`127.0.0.1:${port}`), null, events.table);
    const peer = client(port);
    await events.until("open");
    listening.stop(true);
    await once(peer.resume(), "end");
  });

  test("leaves reading open after the FIN of the client, and after its own", async () => {
    const port = await freePort();
    const events = new Events();
    const listening = listenOnDescriptor(listenAt(`127.0.0.1:${port}`), null, events.table);
    atEnd.push(() => listening.stop(true));
    const first = client(port);
    first.end("bye");
    await events.until("end");
    events.socket!.write("answer");
    expect(String((await once(first, "data"))[0])).toBe("answer");
    events.socket!.shutdown();
    // After lb's own FIN the connection is complete: the end has come already.
    await events.until("close");

    const second = client(port);
    await eventually("the second is open", () => events.seen.filter((event) => event === "open").length === 2);
    events.socket!.shutdown();
    await once(second.resume(), "end");
    second.write("after the FIN");
    await eventually("its bytes", () => events.text.endsWith("after the FIN"));
    const before = events.seen.length;
    second.end();
    await eventually("its end", () => events.seen.length > before);
    // No "end": a close without an error is the client's FIN then.
    expect(events.seen.slice(before)).toEqual(["close", "fd -1"]);
  });

  test("sets the backlog to 511, and it can be changed afterwards", async () => {
    const fd = listenAt(`127.0.0.1:${await freePort()}`, 7);
    const listening = listenOnDescriptor(fd, null, new Events().table);
    atEnd.push(() => listening.stop(true));
    expect(tcpInfo(fd).backlog).toBe(511);
    setBacklog(fd, 1024);
    expect(tcpInfo(fd).backlog).toBe(1024);
  });

  test("in another thread: connections that are queued when that thread dies are served by the next", async () => {
    const port = await freePort();
    const fd = listenAt(`127.0.0.1:${port}`);
    atEnd.push(() => closeDescriptor(fd));
    const worker = new Worker(new URL("./serving-thread.ts", import.meta.url).href);
    const says = (what: string): Promise<void> =>
      new Promise((resolve) => {
        worker.addEventListener("message", (event) => event.data === what && resolve());
      });
    const serving = says("serving");
    worker.postMessage(duplicate(fd));
    await serving;
    const first = client(port);
    expect(String((await once(first, "data"))[0])).toBe("thread");
    // The thread is busy for ever, so the next client waits in the queue.
    const busy = says("busy");
    first.write("spin");
    await busy;
    const waiting = client(port);
    await once(waiting, "connect");
    const gone = once(worker as never, "close");
    worker.terminate();
    await gone;
    const events = new Events();
    const listening = listenOnDescriptor(duplicate(fd) as number, null, events.table);
    atEnd.push(() => listening.stop(true));
    await events.until("open");
    events.socket!.write("main");
    expect(String((await once(waiting, "data"))[0])).toBe("main");
  });
});

describe("Bun.listen({ reusePort })", () => {
  test("lets several listen on one port", async () => {
    const port = await freePort();
    const [one, other] = [new Events(), new Events()];
    const listeners = [one, other].map((events) => listenOnAddress("127.0.0.1", port, null, events.table));
    atEnd.push(...listeners.map((listening) => () => listening.stop(true)));
    const peers = Array.from({ length: 60 }, () => client(port));
    await Promise.all(peers.map((peer) => once(peer, "connect")));
    const opened = (): number => [...one.seen, ...other.seen].filter((event) => event === "open").length;
    await eventually("all are accepted", () => opened() === 60);
    expect(one.seen.length).toBeGreaterThan(0);
    expect(other.seen.length).toBeGreaterThan(0);
  });
});

describe("Bun.connect({ fd })", () => {
  test("adopts a connect in progress: open at once, drain when it is connected", async () => {
    const { port, accepted } = await server();
    const events = new Events();
    adoptConnecting(beginConnect(sockaddr(endpoint(`127.0.0.1:${port}`)), null), "data", events.table);
    expect(events.seen).toEqual(["open"]);
    expect(events.socket!.data).toBe("data");
    await events.until("drain");
    expect(events.seen).toEqual(["open", "drain"]);
    const peer = await accepted;
    events.socket!.write("hello");
    expect(String((await once(peer, "data"))[0])).toBe("hello");
    peer.end("bye");
    await events.until("end");
    expect(events.text).toBe("bye");
    events.socket!.shutdown();
    await events.until("close");
  });

  test("calls drain also if the connect is complete at once, as on a unix socket", async () => {
    const name = `lb-adopt-test-${process.pid}-${await freePort()}`;
    const accepting = listenOnDescriptor(listenAt(`unix:@${name}`), null, new Events().table);
    atEnd.push(() => accepting.stop(true));
    const events = new Events();
    adoptConnecting(beginConnect(sockaddr(endpoint(`unix:@${name}`)), null), null, events.table);
    await events.until("drain");
    expect(events.seen).toEqual(["open", "drain"]);
    events.socket!.terminate();
  });

  test("accepts no byte before it is connected", async () => {
    await using hole = await blackhole();
    const events = new Events();
    adoptConnecting(beginConnect(sockaddr(endpoint(hole.address)), null), null, events.table);
    expect(events.socket!.write("early")).toBe(0);
    events.socket!.terminate();
  });

  test("reports a failed connect with its errno's name", async () => {
    const events = new Events();
    adoptConnecting(beginConnect(sockaddr(endpoint(`127.0.0.1:${await freePort()}`)), null), null, events.table);
    await events.until("close ECONNREFUSED");
    expect(events.seen).toEqual(["open", "close ECONNREFUSED", "fd -1"]);
  });

  test("is cancelled by terminate, and nothing is left in the kernel", async () => {
    await using hole = await blackhole();
    const events = Array.from({ length: 20 }, () => new Events());
    for (const one of events) {
      adoptConnecting(beginConnect(sockaddr(endpoint(hole.address)), null), null, one.table);
    }
    expect(await synSent(hole.port)).toBe(20);
    for (const one of events) one.socket!.terminate();
    expect(await synSent(hole.port)).toBe(0);
  });

  test("sends small writes at once", async () => {
    const { port } = await server();
    const events = new Events();
    adoptConnecting(beginConnect(sockaddr(endpoint(`127.0.0.1:${port}`)), null), null, events.table);
    await events.until("drain");
    expect(socketOption(descriptorOf(events.socket!), SOL_TCP, TCP_NODELAY)).toBe(1);
    events.socket!.terminate();
  });
});

describe("Bun.connect by address", () => {
  test.each(["127.0.0.1", "abstract"])("calls open when it is connected (%s)", async (where) => {
    const port = await freePort();
    const at = where === "abstract" ? `unix:@lb-by-address-${process.pid}-${port}` : `${where}:${port}`;
    const accepting = listenOnDescriptor(listenAt(at), null, new Events().table);
    atEnd.push(() => accepting.stop(true));
    const events = new Events();
    connectByAddress(endpoint(at), null, events.table);
    await events.until("open");
    events.socket!.terminate();
  });

  test("calls connectError, without an unhandled rejection, when it fails", async () => {
    const events = new Events();
    connectByAddress(endpoint(`127.0.0.1:${await freePort()}`), null, events.table);
    await events.until("connectError ECONNREFUSED");
    expect(events.seen).toEqual(["connectError ECONNREFUSED"]);
  });
});

describe("an accepted socket", () => {
  test("has a descriptor until it is closed", async () => {
    const port = await freePort();
    const events = new Events();
    const listening = listenOnDescriptor(listenAt(`127.0.0.1:${port}`), null, events.table);
    atEnd.push(() => listening.stop(true));
    const peer = client(port);
    await events.until("open");
    expect(descriptorOf(events.socket!)).toBeGreaterThan(2);
    expect(socketOption(descriptorOf(events.socket!), SOL_TCP, TCP_NODELAY)).toBe(1);
    peer.resetAndDestroy();
    await events.until("close ECONNRESET");
    expect(events.seen).toEqual(["open", "close ECONNRESET", "fd -1"]);
  });

  test("reports its peer's address", async () => {
    const port = await freePort();
    const events = new Events();
    const listening = listenOnDescriptor(listenAt(`:${port}`), null, events.table);
    atEnd.push(() => listening.stop(true));
    const peer = client(port);
    await events.until("open");
    const words = new Int32Array(5);
    expect(readPeer(events.socket!, descriptorOf(events.socket!), words, 0)).toBe(true);
    expect([...words]).toEqual([0, 0, 0xffff, 0x7f000001, peer.localPort]);
  });

  test("reads nothing while it is paused, but a reset is seen", async () => {
    const port = await freePort();
    const events = new Events();
    const table = {
      ...events.table,
      open: (socket: Socket<unknown>) => {
        events.table.open(socket);
        socket.pause();
      },
    };
    const listening = listenOnDescriptor(listenAt(`127.0.0.1:${port}`), null, table);
    atEnd.push(() => listening.stop(true));
    const peer = client(port);
    peer.write("waits");
    await events.until("open");
    // Another connection, opened later, has passed bytes: the paused one had its chance to be read.
    const later = client(port);
    later.write("waits");
    await eventually("the later one is open", () => events.seen.filter((event) => event === "open").length === 2);
    expect(events.seen).not.toContain("data");
    later.destroy();
    peer.resetAndDestroy();
    await events.until("close ECONNRESET");
  });
});
