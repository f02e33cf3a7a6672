// Which side caused an error on a TLS socket: the peer, or a handler of lb. The product's tables of handlers run on real TLS sockets.
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { connect as connectTcp, createServer } from "node:net";
import { connect as connectTls, createServer as createTlsServer, createSecureContext } from "node:tls";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { adoptConnecting, listenOnDescriptor, upgradeToClient, type TlsContext } from "../../src/platform/bun.ts";
import { beginConnect, duplicate, localAddress, sockaddr } from "../../src/platform/sockets.ts";
import {
  tlsBackendEvents,
  tlsClientEvents,
  type BackendSide,
  type ClientSide,
} from "../../src/worker/socket-events.ts";
import { endpoint, listenAt } from "../support/endpoints.ts";
import { calledAfterEach } from "../support/set-up.ts";

const file = (name: string): string => readFileSync(join(import.meta.dirname, "../config/fixtures", name), "utf8");
const CERT = file("site.pem");
const KEY = file("site.key");
const secureContext = createSecureContext({ cert: CERT, key: KEY }).context as TlsContext;

const atEnd = calledAfterEach();

/** The data of both sockets: reports the errors that it gets. */
class Side implements ClientSide, BackendSide {
  readonly said = Promise.withResolvers<string>();
  readonly host = {
    crash: (error: unknown): never => {
      this.said.resolve(`crash: ${(error as Error).message}`);
      return undefined as never;
    },
  };
  clientTlsFailed(): void {
    this.said.resolve("fault of the client's connection");
  }
  backendTlsFailed(): void {
    this.said.resolve("fault of the backend's connection");
  }
  // Like a handler with a bug: Buffer.from throws ERR_INVALID_ARG_TYPE.
  clientData(): void {
    Buffer.from(5 as never);
  }
  backendData(): void {
    Buffer.from(5 as never);
  }
  clientOpened(): void {}
  clientEnded(): void {}
  clientClosed(): void {}
  clientDrained(): void {}
  clientHandshake(): void {}
  backendOpened(): void {}
  backendEnded(): void {}
  backendClosed(): void {}
  backendDrained(): void {}
  backendRefused(): void {}
  backendTlsOpened(socket: { write(bytes: string): number; terminate(): void }): void {
    atEnd.push(() => socket.terminate());
  }
  backendHandshake(socket: { write(bytes: string): number }): void {
    socket.write("ping");
  }
  backendSession(): void {}
}

/** A TCP relay that, once told to, corrupts the last byte of each chunk from `side`. */
async function spoiling(port: number, side: "client" | "server"): Promise<{ port: number; spoil: () => void }> {
  let armed = false;
  const spoiled = (chunk: Buffer): Buffer => {
    if (armed) chunk[chunk.length - 1]! ^= 1;
    return chunk;
  };
  const server = createServer((near) => {
    const far = connectTcp(port, "127.0.0.1");
    atEnd.push(() => [near, far].forEach((socket) => socket.destroy()));
    for (const socket of [near, far]) socket.on("error", () => undefined);
    near.on("data", (chunk: Buffer) => far.write(side === "client" ? spoiled(chunk) : chunk));
    far.on("data", (chunk: Buffer) => near.write(side === "server" ? spoiled(chunk) : chunk));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  atEnd.push(() => server.close());
  return { port: (server.address() as { port: number }).port, spoil: () => (armed = true) };
}

const FAULTS = [
  ["a throw of our own, with an ERR_ code", false, /^crash: The first argument must be of type string/],
  ["a record that is spoiled", true, /^fault of the (client|backend)'s connection$/],
] as const;

describe.each(FAULTS)("%s", (_, spoils, verdict) => {
  test("on a client's socket", async () => {
    const data = new Side();
    const fd = listenAt("127.0.0.1:0", 16);
    const name = new Int32Array(5);
    const again = duplicate(fd) as number;
    localAddress(again, name, 0);
    const listener = listenOnDescriptor(fd, data, tlsClientEvents, {
      secureContext,
      ALPNProtocols: "",
      requestCert: false,
      rejectUnauthorized: false,
    });
    atEnd.push(() => listener.stop(true));
    const relay = await spoiling(name[4]!, "client");
    const peer = connectTls({ port: relay.port, host: "127.0.0.1", rejectUnauthorized: false });
    atEnd.push(() => void peer.destroy());
    peer.on("error", () => undefined);
    await once(peer, "secureConnect");
    if (spoils) relay.spoil();
    peer.write("ping");
    expect(await data.said.promise).toMatch(verdict);
  });

  test("on a backend's socket", async () => {
    const data = new Side();
    const server = createTlsServer({ cert: CERT, key: KEY }, (socket) => {
      socket.on("error", () => undefined);
      socket.on("data", () => {
        if (spoils) relay.spoil();
        socket.write("pong");
      });
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    atEnd.push(() => server.close());
    const relay = await spoiling((server.address() as { port: number }).port, "server");
    let begun = false;
    const plain = {
      binaryType: "uint8array" as const,
      open: () => undefined,
      data: () => undefined,
      close: () => undefined,
      drain: (socket: never) => {
        if (begun) return;
        begun = true;
        upgradeToClient<BackendSide>(socket, {
          tls: { secureContext, ALPNProtocols: "", rejectUnauthorized: false, serverName: "www.example.com" },
          data: data,
          twin: data,
          handlers: tlsBackendEvents,
        });
      },
    };
    adoptConnecting(beginConnect(sockaddr(endpoint(`127.0.0.1:${relay.port}`)), null), data, plain as never);
    expect(await data.said.promise).toMatch(verdict);
  });
});
