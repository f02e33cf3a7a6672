import { once } from "node:events";
import { mkdtempSync, rmSync, statSync } from "node:fs";
import { connect, createServer, type AddressInfo, type Socket as Peer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { parseAddress } from "../../src/core/address.ts";
import { openLibc } from "../../src/platform/libc.ts";
import {
  beginConnect,
  closeDescriptor,
  duplicate,
  FIN_NEXT,
  isConnectedToItself,
  listenOn,
  peekNext,
  NO_END,
  openFilesLimit,
  ownSockets,
  peerAddress,
  RESET_NEXT,
  resetOnClose,
  setBacklog,
  setKeepalive,
  sockaddr,
} from "../../src/platform/sockets.ts";
import { accepting, type Accepted } from "../support/accepting.ts";
import { endpoint, skipWithoutIPv6 } from "../support/endpoints.ts";
import { eventually } from "../support/eventually.ts";
import {
  countSockets,
  CLOSE_WAIT,
  CLOSED,
  closedOnExec,
  ESTABLISHED,
  SO_KEEPALIVE,
  socketOption,
  SOL_SOCKET,
  SOL_TCP,
  TCP_KEEPCNT,
  TCP_KEEPIDLE,
  TCP_KEEPINTVL,
  tcpInfo,
} from "../support/kernel.ts";
import { freePort } from "../support/lb.ts";
import { descriptors } from "../support/proc.ts";
import { calledAfterEach } from "../support/set-up.ts";

const atEnd = calledAfterEach();
const { listening, serve, visit } = accepting(atEnd);

const codeOf = (made: number | { code: string }): string => (typeof made === "number" ? "no error" : made.code);

describe("sockaddr", () => {
  test("writes each kind of endpoint as the kernel reads it", () => {
    const bytes = (text: string): number[] => [...sockaddr(endpoint(text))];
    expect(bytes("10.1.2.3:8080")).toEqual([2, 0, 0x1f, 0x90, 10, 1, 2, 3, 0, 0, 0, 0, 0, 0, 0, 0]);
    const v6 = [0x20, 0x01, 0x0d, 0xb8, ...Array<number>(11).fill(0), 1];
    expect(bytes("[2001:db8::1]:443")).toEqual([10, 0, 1, 0xbb, 0, 0, 0, 0, ...v6, 0, 0, 0, 0]);
    expect(bytes(":80")).toEqual([10, 0, 0, 80, ...Array<number>(24).fill(0)]);
    expect(bytes("unix:/a")).toEqual([1, 0, 0x2f, 0x61, 0]);
    expect(bytes("unix:@a")).toEqual([1, 0, 0, 0x61]);
  });

  test("has none for a name", () => {
    expect(() => sockaddr(endpoint("name.example:80"))).toThrow("looked up");
  });
});

describe("listenOn", () => {
  test("takes IPv4 and IPv6 on one socket for a port alone", async (context) => {
    skipWithoutIPv6(context);
    const port = await freePort();
    const accepted: Accepted[] = [];
    serve(listening(`:${port}`), accepted);
    await visit({ host: "127.0.0.1", port });
    await visit({ host: "::1", port });
    expect(accepted).toHaveLength(2);
  });

  test("takes no IPv4 on an IPv6 address", async (context) => {
    skipWithoutIPv6(context);
    const port = await freePort();
    serve(listening(`[::]:${port}`), []);
    await visit({ host: "::1", port });
    const refused = connect({ host: "127.0.0.1", port });
    await expect(once(refused, "connect")).rejects.toThrow("ECONNREFUSED");
    // The IPv4 address stays free for others.
    const accepted: Accepted[] = [];
    serve(listening(`0.0.0.0:${port}`), accepted);
    await visit({ host: "127.0.0.1", port });
    expect(accepted).toHaveLength(1);
  });

  test("takes one address and not its neighbour", async () => {
    const port = await freePort();
    serve(listening(`127.0.0.2:${port}`), []);
    await visit({ host: "127.0.0.2", port });
    await expect(once(connect({ host: "127.0.0.3", port }), "connect")).rejects.toThrow("ECONNREFUSED");
  });

  test("listens on a unix socket, by path and by abstract name", async () => {
    const folder = mkdtempSync(join(tmpdir(), "lb-sockets-"));
    atEnd.push(() => rmSync(folder, { recursive: true }));
    const path = join(folder, "a.sock");
    const name = `lb-sockets-test-${process.pid}-${await freePort()}`;
    serve(listening(`unix:${path}`), []);
    serve(listening(`unix:@${name}`), []);
    expect(statSync(path).isSocket()).toBe(true);
    expect((await visit({ path })).text).toBe("0");
    expect((await visit({ path: `\0${name}` })).text).toBe("0");
  });

  test("lets many sockets share one address, unless told not to", async () => {
    const port = await freePort();
    const at = `127.0.0.1:${port}`;
    listening(at);
    listening(at);
    expect(codeOf(listenOn(endpoint(at), 1, false))).toBe("EADDRINUSE");
  });

  test("can only bind, which detects a listening socket at the address, and admits no client if there is none", async () => {
    const [port, other] = [await freePort(), await freePort()];
    listening(`127.0.0.1:${port}`);
    expect(codeOf(listenOn(endpoint(`127.0.0.1:${port}`), null, false))).toBe("EADDRINUSE");
    const bound = listenOn(endpoint(`127.0.0.1:${other}`), null, false) as number;
    atEnd.push(() => closeDescriptor(bound));
    await expect(visit({ host: "127.0.0.1", port: other })).rejects.toThrow("ECONNREFUSED");
  });

  test("reports which call failed and why, and leaves no descriptor behind", async () => {
    const port = await freePort();
    const alone = listenOn(endpoint(`127.0.0.1:${port}`), 1, false) as number;
    atEnd.push(() => closeDescriptor(alone));
    expect(listenOn(endpoint(`127.0.0.1:${port}`), 1)).toEqual({ call: "bind", code: "EADDRINUSE" });
    // TEST-NET-1 (RFC 5737) belongs to nobody.
    expect(listenOn(endpoint(`192.0.2.1:${port}`), 1)).toEqual({ call: "bind", code: "EADDRNOTAVAIL" });
    expect(listenOn(endpoint("unix:/no/such/folder/a.sock"), 1)).toEqual({ call: "bind", code: "ENOENT" });
    const before = descriptors(process.pid);
    for (let i = 0; i < 1000; i++) listenOn(endpoint(`127.0.0.1:${port}`), 1);
    // Other tests run in this process too.
    expect(descriptors(process.pid) - before).toBeLessThan(500);
  });

  test("makes the accept queue as long as asked", async () => {
    const fd = listening(`127.0.0.1:${await freePort()}`, 7);
    expect(tcpInfo(fd).backlog).toBe(7);
    setBacklog(fd, 33);
    expect(tcpInfo(fd).backlog).toBe(33);
  });

  test("makes descriptors that are closed on exec, as are their duplicates and those of connects", async () => {
    const port = await freePort();
    const fd = listening(`127.0.0.1:${port}`);
    const copy = duplicate(fd) as number;
    const connecting = beginConnect(sockaddr(endpoint(`127.0.0.1:${port}`)), null);
    atEnd.push(() => [copy, connecting].forEach((other) => closeDescriptor(other)));
    expect([fd, copy, connecting].map(closedOnExec)).toEqual([true, true, true]);
  });
});

describe("duplicate", () => {
  test("gives a descriptor of the same socket, which outlives the first", async () => {
    const port = await freePort();
    const fd = listenOn(endpoint(`127.0.0.1:${port}`), 8) as number;
    const copy = duplicate(fd) as number;
    atEnd.push(() => closeDescriptor(copy));
    closeDescriptor(fd);
    const accepted: Accepted[] = [];
    serve(copy, accepted);
    await visit({ host: "127.0.0.1", port });
    expect(accepted).toHaveLength(1);
  });

  test("reports why it fails", () => {
    expect(duplicate(999_999)).toEqual({ call: "fcntl", code: "EBADF" });
  });
});

describe("options of a listening socket that every accepted one inherits", () => {
  const keepalive = (fd: number): number[] => [
    socketOption(fd, SOL_SOCKET, SO_KEEPALIVE),
    socketOption(fd, SOL_TCP, TCP_KEEPIDLE),
    socketOption(fd, SOL_TCP, TCP_KEEPINTVL),
    socketOption(fd, SOL_TCP, TCP_KEEPCNT),
  ];

  test("keepalive: the first probe after the time given, two more, a third of it apart", async (context) => {
    skipWithoutIPv6(context);
    const port = await freePort();
    const fd = listening(`:${port}`);
    const accepted: Accepted[] = [];
    serve(fd, accepted);
    setKeepalive(fd, 75_000);
    await visit({ host: "127.0.0.1", port });
    await visit({ host: "::1", port });
    expect(accepted.map((socket) => keepalive(socket.fd))).toEqual([
      [1, 75, 25, 3],
      [1, 75, 25, 3],
    ]);
  });

  test("keepalive: off, and at least a second", async () => {
    const port = await freePort();
    const fd = listening(`127.0.0.1:${port}`);
    const accepted: Accepted[] = [];
    serve(fd, accepted);
    setKeepalive(fd, 1);
    await visit({ host: "127.0.0.1", port });
    setKeepalive(fd, 0);
    await visit({ host: "127.0.0.1", port });
    expect(keepalive(accepted[0]!.fd)).toEqual([1, 1, 1, 3]);
    expect(keepalive(accepted[1]!.fd)[0]).toBe(0);
  });
});

describe("resetOnClose", () => {
  /** What a client sees when its connection is closed. */
  async function endOf(prepare: (fd: number) => void): Promise<string> {
    const port = await freePort();
    const accepted: Accepted[] = [];
    const listener = serve(listening(`127.0.0.1:${port}`), accepted);
    const { peer } = await visit({ host: "127.0.0.1", port });
    prepare(accepted[0]!.fd);
    const { promise, resolve } = Promise.withResolvers<string>();
    peer.on("end", () => resolve("FIN")).on("error", (error) => resolve((error as { code?: string }).code ?? "?"));
    listener.stop(true);
    return promise;
  }

  test("turns a close into a reset", async () => {
    expect(await endOf(() => {})).toBe("FIN");
    expect(await endOf(resetOnClose)).toBe("ECONNRESET");
  });
});

describe("peerAddress", () => {
  const out = new Int32Array(8);
  const read = (fd: number): { words: number[]; port: number } | null => {
    out.fill(-1);
    if (!peerAddress(fd, out, 2)) return null;
    expect([out[0], out[1], out[7]]).toEqual([-1, -1, -1]);
    return { words: [...out.subarray(2, 6)].map((word) => word >>> 0), port: out[6]! };
  };

  test("gives an IPv4 peer in mapped form, whatever the family of the listening socket", async () => {
    const port = await freePort();
    const accepted: Accepted[] = [];
    serve(listening(`:${port}`), accepted);
    const { peer } = await visit({ host: "127.0.0.1", port, localAddress: "127.200.0.9" });
    expect(read(accepted[0]!.fd)).toEqual({ words: [0, 0, 0xffff, 0x7fc80009], port: peer.localPort });
  });

  test("gives an IPv6 peer", async (context) => {
    skipWithoutIPv6(context);
    const port = await freePort();
    const accepted: Accepted[] = [];
    serve(listening(`[::1]:${port}`), accepted);
    const { peer } = await visit({ host: "::1", port });
    expect(read(accepted[0]!.fd)).toEqual({ words: [0, 0, 0, 1], port: peer.localPort });
  });

  test("gives zeros for a peer on a unix socket", async () => {
    const name = `lb-peer-test-${process.pid}-${await freePort()}`;
    const accepted: Accepted[] = [];
    serve(listening(`unix:@${name}`), accepted);
    await visit({ path: `\0${name}` });
    expect(read(accepted[0]!.fd)).toEqual({ words: [0, 0, 0, 0], port: 0 });
  });

  test("reports that there is no peer", async () => {
    expect(read(listening(`127.0.0.1:${await freePort()}`))).toBeNull();
  });
});

describe("peekNext", () => {
  /** A descriptor that is not read, connected to a peer of another implementation. */
  async function connected(): Promise<{ fd: number; peer: Peer }> {
    const server = createServer();
    atEnd.push(() => server.close());
    const accepted = once(server, "connection");
    await once(server.listen(0, "127.0.0.1"), "listening");
    const { port } = server.address() as AddressInfo;
    const fd = beginConnect(sockaddr(endpoint(`127.0.0.1:${port}`)), null);
    atEnd.push(() => closeDescriptor(fd));
    const [peer] = (await accepted) as [Peer];
    atEnd.push(() => peer.destroy());
    return { fd, peer };
  }

  const readByte = (fd: number): number => Number(openLibc()!.recv(fd, new Uint8Array(1), 1, 0));

  test("is a FIN only when every byte before it has been read", async () => {
    const { fd, peer } = await connected();
    expect(peekNext(fd)).toBe(NO_END);
    peer.end("x");
    await once(peer, "finish");
    await eventually("the FIN is there", () => tcpInfo(fd).state === CLOSE_WAIT);
    expect(peekNext(fd)).toBe(NO_END);
    expect(readByte(fd)).toBe(1);
    expect([peekNext(fd), peekNext(fd)]).toEqual([FIN_NEXT, FIN_NEXT]);
  });

  test("is a reset, once, and then looks like a FIN", async () => {
    const { fd, peer } = await connected();
    peer.resetAndDestroy();
    await eventually("the reset is there", () => tcpInfo(fd).state === CLOSED);
    expect([peekNext(fd), peekNext(fd)]).toEqual([RESET_NEXT, FIN_NEXT]);
  });
});

describe("beginConnect", () => {
  test("reaches IPv4, IPv6 and unix sockets", async (context) => {
    skipWithoutIPv6(context);
    const port = await freePort();
    const name = `lb-connect-test-${process.pid}-${port}`;
    const accepted: Accepted[] = [];
    serve(listening(`:${port}`), accepted);
    serve(listening(`unix:@${name}`), accepted);
    for (const to of [`127.0.0.1:${port}`, `[::1]:${port}`, `unix:@${name}`]) {
      const fd = beginConnect(sockaddr(endpoint(to)), null);
      expect(fd).toBeGreaterThan(0);
      atEnd.push(() => closeDescriptor(fd));
    }
    await eventually("all are accepted", () => accepted.length === 3);
  });

  test("connects from a port whose former connection is in TIME_WAIT", async () => {
    const servers = [createServer((peer) => peer.resume()), createServer((peer) => peer.resume())];
    for (const server of servers) {
      server.listen(0, "127.0.0.1");
      await once(server, "listening");
      atEnd.push(() => server.close());
    }
    const [first, second] = servers.map((server) => (server.address() as AddressInfo).port);
    const port = await freePort();
    const source = sockaddr(endpoint(`127.0.0.1:${port}`));
    closeDescriptor(beginConnect(sockaddr(endpoint(`127.0.0.1:${first}`)), source));
    const TIME_WAIT = 6;
    await eventually("the port is in TIME_WAIT", () => countSockets(TIME_WAIT, port) > 0);
    const fd = beginConnect(sockaddr(endpoint(`127.0.0.1:${second}`)), source);
    expect(fd).toBeGreaterThan(0);
    closeDescriptor(fd);
  });

  test("comes from the source address", async () => {
    const port = await freePort();
    const accepted: Accepted[] = [];
    serve(listening(`127.0.0.1:${port}`), accepted);
    const source = sockaddr({ kind: "ip", address: parseAddress("127.0.0.77")!, port: 0 });
    const fd = beginConnect(sockaddr(endpoint(`127.0.0.1:${port}`)), source);
    atEnd.push(() => closeDescriptor(fd));
    await eventually("it is accepted", () => accepted.length === 1);
    expect(accepted[0]!.remoteAddress).toBe("127.0.0.77");
  });

  test("a source address does not concern unix sockets", async () => {
    const name = `lb-source-test-${process.pid}`;
    const accepted: Accepted[] = [];
    serve(listening(`unix:@${name}`), accepted);
    const fd = beginConnect(sockaddr(endpoint(`unix:@${name}`)), sockaddr(endpoint("127.0.0.77:0")));
    expect(fd).toBeGreaterThan(0);
    atEnd.push(() => closeDescriptor(fd));
    await eventually("it is accepted", () => accepted.length === 1);
  });

  test("unseen: a connection that is closed as soon as it is connected is never accepted", async () => {
    const port = await freePort();
    const accepted: Accepted[] = [];
    serve(listening(`127.0.0.1:${port}`), accepted);
    const to = sockaddr(endpoint(`127.0.0.1:${port}`));
    const connectAndClose = async (visibility: "visible" | "unseen"): Promise<void> => {
      const fd = beginConnect(to, null, visibility);
      await eventually("it is connected", () => tcpInfo(fd).state === ESTABLISHED);
      closeDescriptor(fd);
    };
    for (let i = 0; i < 100; i++) await connectAndClose("unseen");
    // The queue is in order: earlier connections would have been accepted before this one.
    await connectAndClose("visible");
    await eventually("the one that is to be seen", () => accepted.length > 0);
    expect(accepted.length).toBe(1);
  });

  const errorNumber = { ENOENT: -2, EADDRNOTAVAIL: -99 };

  test("returns immediate errors at once, and leaves no descriptor open", async () => {
    const local = sockaddr(endpoint("127.0.0.1:1"));
    // TEST-NET-1 (RFC 5737) belongs to nobody.
    const foreign = sockaddr(endpoint("192.0.2.1:0"));
    const before = descriptors(process.pid);
    for (let i = 0; i < 1000; i++) {
      expect(beginConnect(local, foreign)).toBe(errorNumber.EADDRNOTAVAIL);
      expect(beginConnect(sockaddr(endpoint("unix:/no/such.sock")), null)).toBe(errorNumber.ENOENT);
    }
    // Other tests run in this process too.
    expect(descriptors(process.pid) - before).toBeLessThan(500);
  });
});

describe("isConnectedToItself", () => {
  test("is true for a socket that has met itself, and for no other", async (context) => {
    skipWithoutIPv6(context);
    for (const host of ["127.0.0.1", "127.0.0.5", "[::1]"]) {
      const port = await freePort();
      const address = sockaddr(endpoint(`${host}:${port}`));
      // Bound to the port that it connects to, which the kernel sometimes does by itself.
      const itself = beginConnect(address, address);
      expect(itself).toBeGreaterThan(0);
      atEnd.push(() => closeDescriptor(itself));
      await eventually("it is connected", () => tcpInfo(itself).state === ESTABLISHED);
      expect(isConnectedToItself(itself, port)).toBe(true);
      expect(isConnectedToItself(itself, port + 1)).toBe(false);
    }
  });

  test("the same port of another address is not the same socket", async () => {
    const port = await freePort();
    serve(listening(`127.0.0.5:${port}`), []);
    const fd = beginConnect(sockaddr(endpoint(`127.0.0.5:${port}`)), sockaddr(endpoint(`127.0.0.6:${port}`)));
    atEnd.push(() => closeDescriptor(fd));
    await eventually("it is connected", () => tcpInfo(fd).state === ESTABLISHED);
    expect(isConnectedToItself(fd, port)).toBe(false);
  });

  test("nor is a socket that is not connected", async () => {
    const port = await freePort();
    expect(isConnectedToItself(listening(`127.0.0.1:${port}`), port)).toBe(false);
    expect(isConnectedToItself(-1, port)).toBe(false);
  });
});

describe("openFilesLimit", () => {
  test("is the soft limit of this process", async () => {
    const limits = await Bun.file("/proc/self/limits").text();
    const [, soft] = /^Max open files\s+(\S+)/m.exec(limits) ?? [];
    expect(openFilesLimit()).toBe(soft === "unlimited" ? 2 ** 31 : Number(soft));
  });
});

test("this process can make sockets of its own", () => {
  expect(ownSockets()).toBe(true);
});
