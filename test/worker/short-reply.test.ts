// On real sockets, checked with the kernel's view of them.
import { dlopen, FFIType } from "bun:ffi";
import { once } from "node:events";
import { createServer, type AddressInfo, type Socket as Peer } from "node:net";
import { expect, test } from "vitest";
import { BandwidthRate } from "../../src/policy/bandwidth.ts";
import { bandwidthMemory, SharedBandwidth } from "../../src/shared/bandwidth.ts";
import { TimeCells } from "../../src/shared/time-cells.ts";
import { beginConnect, closeDescriptor, FIN_NEXT, NO_END, RESET_NEXT, sockaddr } from "../../src/platform/sockets.ts";
import { Flow } from "../../src/worker/flow.ts";
import { Pace } from "../../src/worker/pace.ts";
import { endAfter, forwardBeforeFin } from "../../src/worker/short-reply.ts";
import { endpoint } from "../support/endpoints.ts";
import { FakeSocket } from "../support/fake-socket.ts";
import { eventually } from "../support/eventually.ts";
import { CLOSE_WAIT, CLOSED, ESTABLISHED, segmentsSent, socketOption, SOL_TCP, tcpInfo } from "../support/kernel.ts";
import { calledAfterEach } from "../support/set-up.ts";
import { encode } from "../support/stage.ts";

const TCP_CORK = 3;
const SHUT_WR = 1;
const libc = dlopen("libc.so.6", { shutdown: { args: [FFIType.i32, FFIType.i32], returns: FFIType.i32 } }).symbols;
const atEnd = calledAfterEach();

/** A descriptor that nobody reads, and its peer. */
async function connected(): Promise<{ fd: number; peer: Peer }> {
  const server = createServer();
  atEnd.push(() => server.close());
  const accepted = once(server, "connection");
  await once(server.listen(0, "127.0.0.1"), "listening");
  const fd = beginConnect(sockaddr(endpoint(`127.0.0.1:${(server.address() as AddressInfo).port}`)), null);
  atEnd.push(() => closeDescriptor(fd));
  const [peer] = (await accepted) as [Peer];
  atEnd.push(() => peer.destroy());
  await eventually("it is connected", () => tcpInfo(fd).state === ESTABLISHED);
  return { fd, peer };
}

const corked = (fd: number): boolean => socketOption(fd, SOL_TCP, TCP_CORK) === 1;

/** A flow to a client whose TLS socket takes this many bytes. */
function towards(room: number): { flow: Flow; taken: () => number } {
  const socket = new FakeSocket();
  socket.room = room;
  const flow = new Flow();
  flow.to = socket.socket;
  return { flow, taken: () => socket.written.length };
}

test("distinguishes a FIN that is next from a reset and from more data", async () => {
  const [client, backend, other] = [await connected(), await connected(), await connected()];
  expect(endAfter(client.fd, backend.fd)).toBe(NO_END);
  backend.peer.end();
  await eventually("the FIN is there", () => tcpInfo(backend.fd).state === CLOSE_WAIT);
  expect(endAfter(client.fd, backend.fd)).toBe(FIN_NEXT);
  other.peer.resetAndDestroy();
  await eventually("the reset is there", () => tcpInfo(other.fd).state === CLOSED);
  expect(endAfter(client.fd, other.fd)).toBe(RESET_NEXT);
  expect([endAfter(-1, 1), endAfter(1, -1)]).toEqual([NO_END, NO_END]);
});

test("a reply and the FIN after it are one segment", async () => {
  const { fd, peer } = await connected();
  const came: Buffer[] = [];
  peer.on("data", (bytes: Buffer) => came.push(bytes));
  const ended = once(peer, "end");
  const before = segmentsSent(fd);
  expect(forwardBeforeFin(towards(0).flow, fd, false, encode("reply"))).toBe(true);
  libc.shutdown(fd, SHUT_WR);
  expect(segmentsSent(fd) - before).toBe(1);
  await ended;
  expect(Buffer.concat(came).toString()).toBe("reply");
});

test("data that a client does not take waits in its flow, and the socket is not corked", async () => {
  const { fd, peer } = await connected();
  peer.pause();
  const { flow, taken } = towards(1000);
  const size = 32 * 1024 * 1024;
  expect(forwardBeforeFin(flow, fd, false, new Uint8Array(size))).toBe(true);
  expect(taken()).toBe(1000);
  expect(flow.waiting).toBeGreaterThan(0);
  expect(flow.waiting).toBeLessThan(size - 1000);
});

test("a client that is gone is reported", async () => {
  const { fd, peer } = await connected();
  peer.resetAndDestroy();
  await eventually("the reset is there", () => tcpInfo(fd).state === CLOSED);
  expect(forwardBeforeFin(towards(0).flow, fd, false, encode("reply"))).toBe(false);
});

test("with TLS the socket is corked, unless bytes have to wait", async () => {
  const { fd } = await connected();
  expect(forwardBeforeFin(towards(2).flow, fd, true, encode("reply"))).toBe(true);
  expect(corked(fd)).toBe(false);
  const all = towards(5);
  expect(forwardBeforeFin(all.flow, fd, true, encode("reply"))).toBe(true);
  expect([corked(fd), all.taken()]).toEqual([true, 5]);
});

test("a reply within the bandwidth limit and the FIN after it are one segment; a longer one is not held back", async () => {
  const { fd } = await connected();
  const { flow, taken } = towards(1000);
  // 100 bytes are saved at first.
  flow.pace = new Pace(new SharedBandwidth(new TimeCells(bandwidthMemory(1)), 0, "download", new BandwidthRate(1000)));
  const before = segmentsSent(fd);
  expect(forwardBeforeFin(flow, fd, false, new Uint8Array(5))).toBe(true);
  expect([flow.drained, flow.pace.credit, segmentsSent(fd) - before]).toEqual([true, 0, 0]);
  expect(forwardBeforeFin(flow, fd, false, new Uint8Array(200))).toBe(true);
  expect([flow.drained, taken() + flow.waiting]).toEqual([false, 200]);
  libc.shutdown(fd, SHUT_WR);
  expect(segmentsSent(fd) - before).toBe(1);
});
