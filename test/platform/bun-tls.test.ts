// Bun's undeclared ways with TLS, each against Python's TLS: sockets that become TLS in the middle of their life, contexts
// that are chosen for each connection, and sessions.
import { readFileSync } from "node:fs";
import { createSecureContext } from "node:tls";
import type { Socket } from "bun";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { parseEndpoint } from "../../src/core/address.ts";
import {
  adoptConnecting,
  alpnWire,
  listenOnDescriptor,
  upgradeToClient,
  upgradeToServer,
  type ClientTls,
  type ServerTls,
  type TlsContext,
  type TlsFacts,
  type TlsHandler,
} from "../../src/platform/bun.ts";
import { beginConnect, listenOn, sockaddr } from "../../src/platform/sockets.ts";
import { Authority, type Leaf } from "../support/certificates.ts";
import { eventually } from "../support/eventually.ts";
import { freePort } from "../support/lb.ts";
import { Python, type PythonServer } from "../support/python.ts";

let authority: Authority;
let site: Leaf;
let other: Leaf;
let python: Python;
beforeAll(async () => {
  authority = await Authority.make();
  [site, other] = await Promise.all([authority.leaf("site.test"), authority.leaf("other.test")]);
  python = new Python();
});
afterAll(async () => {
  await python[Symbol.asyncDispose]();
  authority[Symbol.dispose]();
});

const atEnd: (() => unknown)[] = [];
afterEach(async () => {
  for (const undo of atEnd.splice(0).toReversed()) await undo();
});

const contextOf = (options: Parameters<typeof createSecureContext>[0]): TlsContext =>
  createSecureContext(options).context as TlsContext;

function serverTls(leaf: Leaf, more: Partial<ServerTls> = {}): ServerTls {
  const secureContext = contextOf({ cert: readFileSync(leaf.cert), key: readFileSync(leaf.key) });
  return { secureContext, ALPNProtocols: "", requestCert: false, rejectUnauthorized: false, ...more };
}

/** What was heard on one connection, by its TLS socket and by the twin that hears the ciphertext. */
class Heard {
  readonly events: string[] = [];
  text = "";
  cipherBytes = 0;
  socket: Socket<Heard> | null = null;
  error: Error | null = null;
  readonly sessions: Uint8Array[] = [];

  say(event: string): void {
    this.events.push(event);
  }

  until(event: string): Promise<true> {
    return eventually(`${event} after ${this.events.join(", ")}`, () => this.events.includes(event));
  }
}

const tlsHandlers: TlsHandler<Heard> = {
  binaryType: "uint8array",
  open: (socket) => {
    socket.data.socket = socket;
    socket.data.say("open");
  },
  handshake: (socket, done, error) => {
    socket.data.error = error;
    socket.data.say(`handshake ${done}`);
  },
  data: (socket, chunk) => {
    socket.data.text += Buffer.from(chunk).toString();
    socket.data.say("data");
  },
  drain: (socket) => socket.data.say("drain"),
  end: (socket) => socket.data.say("end"),
  close: (socket) => socket.data.say("close"),
  session: (socket, session) => {
    socket.data.sessions.push(session);
    socket.data.say("session");
  },
  error: (socket, error) => {
    socket.data.error = error;
    socket.data.say("error");
  },
};

/** Hears what the plain socket hears: nothing before it is exchanged, the ciphertext afterwards. */
const plainHandlers = (onData: (socket: Socket<Heard>, chunk: Uint8Array) => void) => ({
  binaryType: "uint8array" as const,
  open: () => {},
  data: onData,
  drain: () => {},
  end: () => {},
  close: () => {},
  error: () => {},
});

/** Listens, and makes each connection TLS with what `choose` says once its first bytes are there. */
async function secureListener(
  choose: (bytes: Uint8Array) => ServerTls,
): Promise<{ port: number; heard: Heard[]; twins: Heard[] }> {
  const port = await freePort();
  const fd = listenOn({ kind: "ip", address: [0, 0, 0xffff, 0x7f000001], port }, 16) as number;
  const heard: Heard[] = [];
  const twins: Heard[] = [];
  const handlers = plainHandlers((socket, chunk) => {
    if (socket.data !== fresh) {
      socket.data.cipherBytes += chunk.length;
      return;
    }
    const [data, twin] = [new Heard(), new Heard()];
    heard.push(data);
    twins.push(twin);
    upgradeToServer(socket, { tls: choose(chunk), bytes: chunk, data, twin, handlers: tlsHandlers });
    expect(data.events[0]).toBe("open");
  });
  const fresh = new Heard();
  const listening = listenOnDescriptor(fd, fresh, handlers);
  atEnd.push(() => listening.stop(true));
  return { port, heard, twins };
}

/** Connects to a server of Python's and becomes TLS when the connection stands. */
async function secureClient(server: PythonServer, tls: ClientTls, session?: Uint8Array): Promise<Heard> {
  const endpoint = parseEndpoint(server.address);
  if (endpoint.kind === "bad") throw new Error(endpoint.why);
  const [data, twin] = [new Heard(), new Heard()];
  const handlers = plainHandlers(() => {});
  const connected = (socket: Socket<Heard>): void => {
    if (data.events.length > 0) return;
    upgradeToClient(socket, { tls, data, twin, handlers: tlsHandlers });
    expect(data.events[0]).toBe("open");
    if (session !== undefined) (data.socket as unknown as TlsFacts).setSession(session);
  };
  adoptConnecting(beginConnect(sockaddr(endpoint), null), twin, {
    ...handlers,
    drain: connected,
    connectError: () => {},
  });
  await eventually("the handshake", () => data.events.some((event) => event.startsWith("handshake")));
  atEnd.push(() => data.socket?.terminate());
  return data;
}

const clientTls = (more: Partial<ClientTls> = {}): ClientTls => ({
  secureContext: contextOf({ ca: readFileSync(authority.cert) }),
  ALPNProtocols: "",
  rejectUnauthorized: true,
  serverName: "site.test",
  ...more,
});

describe("upgradeTLS({ isServer, initialData })", () => {
  test("does the handshake with a hello that was read already, and speaks TLS from then on", async () => {
    const { port, heard, twins } = await secureListener(() => serverTls(site));
    const peer = await python.connect(port, { tls: { name: "site.test", ca: authority.cert } });
    expect(peer.error).toBeNull();
    await peer.send("hello");
    await heard[0]!.until("data");
    expect(heard[0]!.text).toBe("hello");
    heard[0]!.socket!.write("welcome\n");
    expect((await peer.read("\n")).data).toBe("welcome\n");
    // The plain twin goes on hearing, and hears ciphertext only.
    expect(twins[0]!.cipherBytes).toBeGreaterThan("hello".length);
  });

  test("works in the middle of a connection, behind bytes that are not TLS", async () => {
    const preface = "PROXY UNKNOWN\r\n";
    const { port, heard } = await secureListener(() => serverTls(site));
    // The listener upgrades with the first bytes it gets; here they are cut off by hand.
    const plain = await freePort();
    const fd = listenOn({ kind: "ip", address: [0, 0, 0xffff, 0x7f000001], port: plain }, 16) as number;
    const [data, twin] = [new Heard(), new Heard()];
    let before = Buffer.alloc(0);
    const fresh = new Heard();
    const listening = listenOnDescriptor(
      fd,
      fresh,
      plainHandlers((socket, chunk) => {
        if (socket.data !== fresh) return;
        before = Buffer.concat([before, chunk]);
        if (before.length <= preface.length) return;
        const bytes = before.subarray(preface.length);
        upgradeToServer(socket, { tls: serverTls(site), bytes, data, twin, handlers: tlsHandlers });
      }),
    );
    atEnd.push(() => listening.stop(true));
    const peer = await python.connect(plain, { preface, tls: { name: "site.test", ca: authority.cert } });
    expect([peer.error, String(before.subarray(0, preface.length))]).toEqual([null, preface]);
    await peer.send("hello");
    await data.until("data");
    expect(data.text).toBe("hello");
    // What is in front of the hello is no hello.
    expect((await python.connect(port, { preface, tls: {} })).error).not.toBeNull();
    expect(heard[0]!.events).not.toContain("handshake true");
  });

  test("takes the context that was chosen for the connection", async () => {
    const leaves = [site, other];
    const { port } = await secureListener(() => serverTls(leaves.shift()!));
    for (const leaf of [site, other]) {
      expect((await python.connect(port, { tls: {} })).tls).toMatchObject({ fingerprint: leaf.fingerprint });
    }
  });

  test("speaks the protocol of ALPN that both have, and tells it and the version", async () => {
    const { port, heard } = await secureListener(() =>
      serverTls(site, { ALPNProtocols: alpnWire(["h2", "http/1.1"]) }),
    );
    const peer = await python.connect(port, { tls: { alpn: ["spdy", "http/1.1"], max: "1.2" } });
    expect(peer.tls).toMatchObject({ alpn: "http/1.1", version: "TLSv1.2" });
    const { socket } = heard[0]!;
    await heard[0]!.until("handshake true");
    expect(socket!.alpnProtocol).toBe("http/1.1");
    expect((socket as unknown as TlsFacts).getTLSVersion()).toBe("TLSv1.2");
  });

  test("asks for a client's certificate where it is told to, and says whether it is good", async () => {
    const secureContext = contextOf({
      cert: readFileSync(site.cert),
      key: readFileSync(site.key),
      ca: readFileSync(authority.cert),
    });
    const { port, heard } = await secureListener(() => serverTls(site, { secureContext, requestCert: true }));
    const good = await python.connect(port, { tls: { cert: other.cert, key: other.key } });
    await good.send("x");
    await heard[0]!.until("data");
    expect(heard[0]!.socket!.authorized).toBe(true);
    const strange = await authority.selfSigned("stranger.test");
    const bad = await python.connect(port, { tls: { cert: strange.cert, key: strange.key } });
    await bad.send("x");
    await heard[1]!.until("data");
    expect(heard[1]!.socket!.authorized).toBe(false);
  });

  test("resumes a session within one context", async () => {
    const tls = serverTls(site);
    const { port, heard } = await secureListener(() => tls);
    const first = await python.connect(port, { tls: { name: "site.test" } });
    expect([first.error, first.tls?.reused]).toEqual([null, false]);
    await heard[0]!.until("handshake true");
    expect(heard[0]!.socket!.isSessionReused()).toBe(false);
  });

  test("sends close_notify and FIN at shutdown, and hears the peer's as an end", async () => {
    const { port, heard } = await secureListener(() => serverTls(site));
    const peer = await python.connect(port, { tls: {} });
    await heard[0]!.until("handshake true");
    heard[0]!.socket!.shutdown();
    expect(await peer.read()).toEqual({ data: "", end: "close_notify" });

    const second = await python.connect(port, { tls: {} });
    await second.finish();
    await heard[1]!.until("end");
  });
});

describe("upgradeTLS as a client", () => {
  test("asks for the name, verifies the certificate and speaks TLS", async () => {
    const server = await python.serve({ tls: { cert: site.cert, key: site.key } });
    const heard = await secureClient(server, clientTls());
    expect(heard.events).toContain("handshake true");
    heard.socket!.write("ping");
    await heard.until("data");
    expect(heard.text).toBe("ping");
    expect((await server.nth(0)).tls).toMatchObject({ name: "site.test" });
  });

  test("says what is wrong with the certificate by its code", async () => {
    const server = await python.serve({ tls: { cert: other.cert, key: other.key } });
    const heard = await secureClient(server, clientTls());
    expect(heard.events).toContain("handshake false");
    expect(heard.error).toMatchObject({ code: "ERR_TLS_CERT_ALTNAME_INVALID" });
    const lax = await secureClient(server, clientTls({ rejectUnauthorized: false }));
    // It says so, and is usable.
    lax.socket!.write("ping");
    await lax.until("data");
    expect(lax.text).toBe("ping");
  });

  test("gives sessions out, and resumes the one that it is given", async () => {
    const server = await python.serve({ tls: { cert: site.cert, key: site.key } });
    const tls = clientTls();
    const first = await secureClient(server, tls);
    first.socket!.write("ping");
    await first.until("session");
    expect(first.socket!.isSessionReused()).toBe(false);
    const second = await secureClient(server, tls, first.sessions.at(-1)!);
    second.socket!.write("ping");
    await second.until("data");
    expect(second.socket!.isSessionReused()).toBe(true);
    expect((await server.nth(1)).tls).toMatchObject({ reused: true });
  });
});

test("alpnWire puts each name behind its length", () => {
  expect(alpnWire([])).toBe("");
  expect(alpnWire(["h2", "http/1.1"])).toBe("\u0002h2\u0008http/1.1");
});
