// Real listening sockets, served by a data plane of the test's own thread.
import { connect, type Socket as Peer } from "node:net";
import { once } from "node:events";
import { lstatSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import { connect as connectTls } from "node:tls";
import { beforeEach, describe, expect, test } from "vitest";
import type { SocketPlan } from "../../src/messages.ts";
import { closeDescriptor, ownSockets } from "../../src/platform/sockets.ts";
import { LISTENER } from "../../src/shared/counters.ts";
import { Listener } from "../../src/worker/listener.ts";
import { DataPlane } from "../../src/worker/plane.ts";
import { Serving } from "../../src/worker/serving.ts";
import { TlsServer } from "../../src/worker/tls-server.ts";
import { listenAt } from "../support/endpoints.ts";
import { eventually } from "../support/eventually.ts";
import { tcpInfo } from "../support/kernel.ts";
import { freePort } from "../support/lb.ts";
import { listenerPlan, plan, workerStart } from "../support/plans.ts";
import { calledAfterEach } from "../support/set-up.ts";

const atEnd = calledAfterEach();

const file = (name: string): string => readFileSync(join(import.meta.dirname, "../config/fixtures", name), "utf8");

let cells: Int32Array;
let closed: number;
let serving: Serving;
beforeEach(() => {
  cells = new Int32Array(8);
  closed = 0;
  const host = new DataPlane(workerStart(plan({ maxConnections: 100 })), () => undefined);
  serving = new Serving(host, cells, () => closed++);
  atEnd.push(() => {
    serving.retireAll();
    serving.closeRetired();
    host.stop(0, 0);
  });
});

/** A listener without a pool: it counts a connection and resets it. */
function listener(tls: TlsServer | null = null): Listener {
  return new Listener(listenerPlan(), new Map(), tls, 0);
}

function tlsServer(): TlsServer {
  return new TlsServer({
    certificates: [{ cert: file("site.pem"), key: file("site.key"), names: ["a.example"] }],
    unknownSni: "default",
    minVersion: "1.2",
    ciphers: "",
    alpn: [],
    clientAuth: "off",
    clientCa: null,
    clientCrl: null,
  });
}

/** A listening socket of the supervisor. */
async function socketFor({ plan: { id } }: Listener, backlog = 16): Promise<SocketPlan> {
  const port = await freePort();
  const fd = listenAt(`127.0.0.1:${port}`, backlog);
  atEnd.push(() => closeDescriptor(fd));
  return { key: `127.0.0.1:${port}`, index: 0, listener: id, fd, hostname: "127.0.0.1", port, backlog };
}

const listenersOf = (...all: Listener[]): Map<number, Listener> => new Map(all.map((one) => [one.plan.id, one]));

/** Serves the sockets with the listeners, like a plan. */
function apply(sockets: SocketPlan[], ...listeners: Listener[]): void {
  const all = listenersOf(...listeners);
  serving.serve(sockets, all, serving.begin(sockets, all));
}

async function visit({ port }: SocketPlan): Promise<Peer> {
  const peer = connect({ host: "127.0.0.1", port }).on("error", () => undefined);
  atEnd.push(() => peer.destroy());
  await once(peer, "connect");
  return peer;
}

const accepted = ({ counters }: Listener): number => counters[LISTENER.accepted]!;
const served = (): number => cells.filter((fd) => fd !== 0).length;

/** Whether a descriptor of this process is open and another of the same socket. */
function isSameSocket(fd: number, other: number): boolean {
  const link = (of: number): string =>
    lstatSync(`/proc/self/fd/${of}`, { throwIfNoEntry: false }) ? readlinkSync(`/proc/self/fd/${of}`) : "";
  return link(fd) === link(other);
}

describe.skipIf(!ownSockets())("a socket of the plan", () => {
  test("is served on a duplicate, which is reported to the supervisor", async () => {
    const web = listener();
    const socket = await socketFor(web);
    apply([socket], web);
    expect(served()).toBe(1);
    expect(cells[0]).not.toBe(socket.fd);
    await visit(socket);
    await eventually("it is accepted", () => accepted(web) === 1);
  });

  test("is served by its listener of the last plan, on the same descriptor and with the new backlog", async () => {
    const first = listener();
    const socket = await socketFor(first);
    apply([socket], first);
    const fd = cells[0];
    const next = new Listener({ ...first.plan, counters: first.plan.counters.slice() }, new Map(), null, 0);
    apply([{ ...socket, backlog: 5 }], next);
    expect(cells[0]).toBe(fd);
    expect(tcpInfo(socket.fd).backlog).toBe(5);
    await visit(socket);
    await eventually("it is accepted", () => accepted(next) === 1);
    expect(accepted(first)).toBe(0);
  });

  test("is served by another descriptor once it accepts as TLS, and the first is not reported as closed", async () => {
    const plain = listener();
    const socket = await socketFor(plain);
    apply([socket], plain);
    const first = cells[0]!;
    expect(isSameSocket(first, socket.fd)).toBe(true);
    const secure = new Listener(plain.plan, new Map(), tlsServer(), 0);
    expect(secure.acceptsTls).not.toBeNull();
    apply([socket], secure);
    expect(served()).toBe(1);
    await eventually("the first descriptor is closed", () => !isSameSocket(first, socket.fd));
    const client = connectTls({ host: "127.0.0.1", port: socket.port, rejectUnauthorized: false });
    client.on("error", () => undefined);
    atEnd.push(() => client.destroy());
    await eventually("the handshake", () => secure.counters[LISTENER.tls13] === 1);
    expect([serving.draining, closed]).toEqual([false, 0]);
  });

  test("has its queue emptied before it is closed when the next plan does not have it", async () => {
    const web = listener();
    const socket = await socketFor(web);
    apply([socket], web);
    // The supervisor's own descriptor keeps the socket open; the worker's is closed.
    const queued = await visit(socket);
    apply([], web);
    expect([serving.draining, served(), closed]).toEqual([true, 1, 0]);
    await eventually("the one in the queue is accepted", () => accepted(web) === 1);
    await eventually("the socket is closed", () => closed === 1);
    expect([serving.draining, served()]).toEqual([false, 0]);
    expect(queued.destroyed || queued.readable).toBe(true);
    await visit(socket);
    expect(tcpInfo(socket.fd).queued).toBe(1);
    expect(accepted(web)).toBe(1);
  });

  test("is closed at once if the worker cannot wait, and only once", async () => {
    const web = listener();
    const sockets = [await socketFor(web), await socketFor(web)];
    apply(sockets, web);
    serving.retireAll();
    expect([serving.draining, closed]).toEqual([true, 0]);
    serving.closeRetired();
    expect([serving.draining, closed, served()]).toEqual([false, 2, 0]);
    // Their timers run out.
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect(closed).toBe(2);
  });

  test("leaves the supervisor no descriptors to replace when the worker ends: other threads reuse their numbers", async () => {
    const web = listener();
    apply([await socketFor(web), await socketFor(web)], web);
    expect(served()).toBe(2);
    serving.abandon();
    expect(served()).toBe(0);
  });

  test("is served by address if the supervisor has no descriptor for it", async () => {
    const web = listener();
    const port = await freePort();
    const key = `127.0.0.1:${port}`;
    const socket = { key, index: 0, listener: web.plan.id, fd: -1, hostname: "127.0.0.1", port, backlog: 16 };
    apply([socket], web);
    await visit(socket);
    await eventually("it is accepted", () => accepted(web) === 1);
  });
});

describe.skipIf(!ownSockets())("a plan that cannot be served", () => {
  test("changes nothing: no socket has begun, and queues keep their length", async () => {
    const web = listener();
    const socket = await socketFor(web, 7);
    apply([socket], web);
    const secure = new Listener(web.plan, new Map(), tlsServer(), 0);
    const broken = { ...(await socketFor(web)), fd: 999_999 };
    const holders = (): number =>
      readdirSync("/proc/self/fd").filter((fd) => isSameSocket(Number(fd), socket.fd)).length;
    expect(holders()).toBe(2);
    expect(() => serving.begin([{ ...socket, backlog: 99 }, broken], listenersOf(secure))).toThrow("EBADF");
    await eventually("the descriptor of the one that had begun is closed", () => holders() === 2);
    expect(tcpInfo(socket.fd).backlog).toBe(7);
    expect(served()).toBe(1);
    await visit(socket);
    await eventually("it is accepted", () => accepted(web) === 1);
  });

  test("says which listener is missing", async () => {
    const web = listener();
    const socket = await socketFor(web);
    expect(() => serving.begin([socket], new Map())).toThrow(`no listener ${web.plan.id} for ${socket.key}`);
  });
});
