import { once } from "node:events";
import { connect } from "node:net";
import { describe, expect, test } from "vitest";
import { dropNewConnections, setAffinity, takeNewConnections } from "../../src/platform/socket-bpf.ts";
import { beginConnect, closeDescriptor, listenOn, sockaddr } from "../../src/platform/sockets.ts";
import { accepting, type Accepted } from "../support/accepting.ts";
import { endpoint } from "../support/endpoints.ts";
import { eventually } from "../support/eventually.ts";
import { ESTABLISHED, SYN_SENT, tcpInfo } from "../support/kernel.ts";
import { freePort } from "../support/lb.ts";
import { calledAfterEach } from "../support/set-up.ts";

const atEnd = calledAfterEach();
const { listening, serve, visit } = accepting(atEnd);

describe("setAffinity", () => {
  const SOCKETS = 4;

  /** A group of sockets on a port, each of them served. */
  async function group(address: string): Promise<{ fds: number[]; accepted: Accepted[]; port: number }> {
    const port = await freePort();
    const fds = Array.from({ length: SOCKETS }, () => listening(`${address}:${port}`));
    const accepted: Accepted[] = [];
    fds.forEach((fd, by) => serve(fd, accepted, by));
    return { fds, accepted, port };
  }

  /** Connects `times` times from each source; returns the sockets that got the connections, by source. */
  async function visitsFrom(
    sources: readonly string[],
    port: number,
    times: number,
  ): Promise<Map<string, Set<string>>> {
    const takers = new Map<string, Set<string>>();
    for (const localAddress of sources) {
      const visits = await Promise.all(
        Array.from({ length: times }, () => visit({ host: "127.0.0.1", port, localAddress })),
      );
      takers.set(localAddress, new Set(visits.map(({ text }) => text)));
      for (const { peer } of visits) peer.destroy();
    }
    return takers;
  }

  const union = (takers: Map<string, Set<string>>): string[] =>
    [...new Set([...takers.values()].flatMap((set) => [...set]))].toSorted();
  const sources = Array.from({ length: 32 }, (_, i) => `127.0.${i % 3}.${i + 1}`);

  test.each(["127.0.0.1", ""])(
    '"client" always gives one source to the same socket, bound to "%s"',
    async (address) => {
      const { fds, port } = await group(address);
      expect(setAffinity(fds[0]!, "client", SOCKETS, SOCKETS)).toBe(true);
      const takers = await visitsFrom(sources, port, 4);
      for (const [source, set] of takers) expect([source, set.size]).toEqual([source, 1]);
      expect(union(takers)).toEqual(["0", "1", "2", "3"]);
    },
  );

  test('"connection" spreads one source over all sockets', async () => {
    const { fds, port } = await group("127.0.0.1");
    expect(setAffinity(fds[0]!, "client", SOCKETS, SOCKETS)).toBe(true);
    expect(setAffinity(fds[0]!, "connection", SOCKETS, SOCKETS)).toBe(true);
    expect(union(await visitsFrom(["127.0.0.1"], port, 100))).toEqual(["0", "1", "2", "3"]);
  });

  test.each(["connection", "client"] as const)('"%s" gives no more connections to excluded sockets', async (by) => {
    const { fds, port } = await group("127.0.0.1");
    expect(setAffinity(fds[0]!, by, 2, SOCKETS)).toBe(true);
    expect(union(await visitsFrom(sources, port, 3))).toEqual(["0", "1"]);
    expect(setAffinity(fds[0]!, by, SOCKETS, SOCKETS)).toBe(true);
    expect(union(await visitsFrom(sources, port, 3))).toEqual(["0", "1", "2", "3"]);
  });

  test("keeps the connections in the queue of an excluded socket", async () => {
    const port = await freePort();
    const fds = Array.from({ length: 2 }, () => listening(`127.0.0.1:${port}`));
    const waiting = Array.from({ length: 20 }, () => visit({ host: "127.0.0.1", port }));
    await eventually("all of them wait", () => fds.reduce((sum, fd) => sum + tcpInfo(fd).queued, 0) === 20);
    expect(tcpInfo(fds[1]!).queued).toBeGreaterThan(0);
    setAffinity(fds[0]!, "connection", 1, 2);
    const accepted: Accepted[] = [];
    fds.forEach((fd, by) => serve(fd, accepted, by));
    await Promise.all(waiting);
    expect(new Set(accepted.map(({ by }) => by))).toEqual(new Set([0, 1]));
  });
});

describe("dropNewConnections", () => {
  test("allows the queue to be emptied while new SYNs stay unanswered, until the socket is closed", async () => {
    const port = await freePort();
    const fd = listenOn(endpoint(`127.0.0.1:${port}`), 16) as number;
    const queued = connect({ host: "127.0.0.1", port });
    atEnd.push(() => queued.destroy());
    await once(queued, "connect");
    const sockaddrOf = sockaddr(endpoint(`127.0.0.1:${port}`));
    // On loopback the kernel has handled the SYN when connect(2) returns.
    const before = beginConnect(sockaddrOf, null);
    expect(tcpInfo(before).state).toBe(ESTABLISHED);
    dropNewConnections(fd);
    const after = beginConnect(sockaddrOf, null);
    expect(tcpInfo(after).state).toBe(SYN_SENT);
    atEnd.push(() => [before, after].forEach((client) => closeDescriptor(client)));

    const accepted: Accepted[] = [];
    const listener = serve(fd, accepted);
    await once(queued, "data");
    // An accepted socket inherits the filter; its data and its FIN must pass.
    queued.write("echo");
    expect(String((await once(queued, "data"))[0])).toBe("echo");
    await eventually("both in the queue are accepted", () => accepted.length === 2);
    expect(tcpInfo(after).state).toBe(SYN_SENT);

    closeDescriptor(fd);
    listener.stop(false);
    // The client's kernel tries again after a second, and is then refused.
    await eventually("the SYN is answered", () => tcpInfo(after).state !== SYN_SENT);
    expect(tcpInfo(after).state).not.toBe(ESTABLISHED);
    queued.end();
    await once(queued, "end");
  });
  test("is undone by takeNewConnections: the next SYN is answered", async () => {
    const port = await freePort();
    const fd = listenOn(endpoint(`127.0.0.1:${port}`), 16) as number;
    const sockaddrOf = sockaddr(endpoint(`127.0.0.1:${port}`));
    dropNewConnections(fd);
    const held = beginConnect(sockaddrOf, null);
    expect(tcpInfo(held).state).toBe(SYN_SENT);
    takeNewConnections(fd);
    const next = beginConnect(sockaddrOf, null);
    expect(tcpInfo(next).state).toBe(ESTABLISHED);
    for (const socket of [held, next, fd]) closeDescriptor(socket);
  });
});
