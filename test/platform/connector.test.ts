import { describe, expect, test } from "vitest";
import type { Socket } from "bun";
import { once } from "node:events";
import { createServer, type AddressInfo } from "node:net";
import { descriptorOf } from "../../src/platform/bun.ts";
import { Connector, isSelfConnected, type Destination } from "../../src/platform/connector.ts";
import { ownSockets, sockaddr } from "../../src/platform/sockets.ts";
import { endpoint } from "../support/endpoints.ts";
import { eventually } from "../support/eventually.ts";
import { freePort } from "../support/lb.ts";
import { calledAfterEach } from "../support/set-up.ts";

const atEnd = calledAfterEach();

/** The events of one connector's sockets, each with the data of its socket. */
class Events {
  readonly seen: string[] = [];
  readonly sockets: Socket<string>[] = [];
  readonly connector = new Connector<string>({
    binaryType: "uint8array",
    open: (socket) => {
      this.sockets.push(socket);
      atEnd.push(() => socket.terminate());
      this.seen.push(`open ${socket.data}`);
    },
    drain: (socket) => void this.seen.push(`drain ${socket.data}`),
    data: () => {},
    end: () => {},
    close: (socket, error) => void this.seen.push(`close ${socket.data} ${(error as { code?: string }).code}`),
    error: () => {},
  });
}

const at = (text: string): Destination => ({ endpoint: endpoint(text), sockaddr: sockaddr(endpoint(text)) });

async function listening(): Promise<{ port: number; peers: string[] }> {
  const peers: string[] = [];
  const server = createServer((peer) => void peers.push(peer.remoteAddress ?? ""));
  atEnd.push(() => server.close());
  await once(server.listen(0, "127.0.0.1"), "listening");
  return { port: (server.address() as AddressInfo).port, peers };
}

describe.skipIf(!ownSockets())("with sockets of its own, a connector", () => {
  test("passes the socket first and reports that it is connected", async () => {
    const { port } = await listening();
    const events = new Events();
    const fd = events.connector.connect(at(`127.0.0.1:${port}`), null, "a");
    expect(events.seen).toEqual(["open a"]);
    expect(descriptorOf(events.sockets[0]!)).toBe(fd);
    await eventually("it is connected", () => events.seen.includes("drain a"));
    expect(isSelfConnected(events.sockets[0]!, fd, port)).toBe(false);
  });

  test("connects from the source address", async () => {
    const { port, peers } = await listening();
    const events = new Events();
    events.connector.connect(at(`127.0.0.1:${port}`), sockaddr(endpoint("127.0.0.9:0")), "a");
    await eventually("the server has accepted it", () => peers.length === 1);
    expect(peers).toEqual(["127.0.0.9"]);
  });

  test("reports a refused connect with the errno's name, to the data of that attempt", async () => {
    const { port } = await listening();
    const events = new Events();
    events.connector.connect(at(`127.0.0.1:${await freePort()}`), null, "refused");
    events.connector.connect(at(`127.0.0.1:${port}`), null, "fine");
    await eventually("both are decided", () => events.seen.length === 4);
    expect(events.seen.toSorted()).toEqual(["close refused ECONNREFUSED", "drain fine", "open fine", "open refused"]);
  });

  test("returns the errno of a connect that fails at once, and no event follows", async () => {
    const events = new Events();
    expect(events.connector.connect(at("unix:/no/such.sock"), null, "a")).toBe(-2);
    const { port } = await listening();
    events.connector.connect(at(`127.0.0.1:${port}`), null, "later");
    await eventually("the later one is connected", () => events.seen.includes("drain later"));
    expect(events.seen).toEqual(["open later", "drain later"]);
  });

  test("recognizes a socket that is its own peer", async () => {
    const port = await freePort();
    const events = new Events();
    // Bound to the port that it connects to, which the kernel sometimes does by itself.
    const fd = events.connector.connect(at(`127.0.0.1:${port}`), sockaddr(endpoint(`127.0.0.1:${port}`)), "a");
    expect(fd).toBeGreaterThan(0);
    await eventually("it is connected", () => events.seen.includes("drain a"));
    expect(isSelfConnected(events.sockets[0]!, fd, port)).toBe(true);
  });
});
