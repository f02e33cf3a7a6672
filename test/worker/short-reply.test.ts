// On real sockets, with what the kernel says of them.
import { once } from "node:events";
import { createServer, type AddressInfo, type Socket as Peer } from "node:net";
import { expect, test } from "vitest";
import { beginConnect, closeDescriptor, FIN_NEXT, NO_END, RESET_NEXT, sockaddr } from "../../src/platform/sockets.ts";
import { corkForFin, uncork } from "../../src/worker/short-reply.ts";
import { endpoint } from "../support/endpoints.ts";
import { eventually } from "../support/eventually.ts";
import { CLOSE_WAIT, CLOSED, ESTABLISHED, socketOption, SOL_TCP, tcpInfo } from "../support/kernel.ts";
import { calledAfterEach } from "../support/set-up.ts";

const TCP_CORK = 3;
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

test("holds the client's segment back where the backend's FIN is next, until it is let go", async () => {
  const [client, backend] = [await connected(), await connected()];
  backend.peer.end();
  await eventually("the FIN is there", () => tcpInfo(backend.fd).state === CLOSE_WAIT);
  expect(corkForFin(client.fd, backend.fd)).toBe(FIN_NEXT);
  expect(corked(client.fd)).toBe(true);
  uncork(client.fd);
  expect(corked(client.fd)).toBe(false);
});

test("touches nothing where more may come, or a reset is next", async () => {
  const [client, backend] = [await connected(), await connected()];
  expect(corkForFin(client.fd, backend.fd)).toBe(NO_END);
  expect(corked(client.fd)).toBe(false);
  backend.peer.resetAndDestroy();
  await eventually("the reset is there", () => tcpInfo(backend.fd).state === CLOSED);
  expect(corkForFin(client.fd, backend.fd)).toBe(RESET_NEXT);
  expect(corked(client.fd)).toBe(false);
});

test("does nothing without descriptors", () => {
  expect([corkForFin(-1, 1), corkForFin(1, -1)]).toEqual([NO_END, NO_END]);
  uncork(-1);
});
