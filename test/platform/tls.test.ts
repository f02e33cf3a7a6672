// The behaviour of Bun's TLS on which the data plane relies, most of it undeclared, against Node's TLS API and Python. If a test fails here
// after an upgrade of Bun, src/worker/client-tls.ts, tls-server.ts and dialing.ts can no longer rely on it.
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { connect as connectTcp, createServer, type Socket as Peer } from "node:net";
import { connect as connectTls, createSecureContext, createServer as createTlsServer, type TLSSocket } from "node:tls";
import { join } from "node:path";
import type { Socket } from "bun";
import { describe, expect, test } from "vitest";
import {
  adoptConnecting,
  alpnWire,
  descriptorOf,
  listenOnDescriptor,
  upgradeToClient,
  upgradeToServer,
  type ClientTls,
  type ServerTls,
  type TlsContext,
  tlsFacts,
  type TlsFacts,
} from "../../src/platform/bun.ts";
import { beginConnect, duplicate, hasOnlySentFin, localAddress, sockaddr } from "../../src/platform/sockets.ts";
import { peersMissing } from "../support/certificates.ts";
import { endpoint, listenAt } from "../support/endpoints.ts";
import { eventually } from "../support/eventually.ts";
import { Python } from "../support/python.ts";
import { calledAfterEach } from "../support/set-up.ts";
import { fixture } from "../wire/hello-bytes.ts";

const file = (name: string): string => readFileSync(join(import.meta.dirname, "../config/fixtures", name), "utf8");
const CERT = file("site.pem");
const KEY = file("site.key");
const CA = file("ca.pem");

const context = (options: object = { cert: CERT, key: KEY }): TlsContext =>
  createSecureContext(options).context as TlsContext;

const atEnd = calledAfterEach();

/** Records the events of a TLS socket and its plain twin. */
class Heard {
  readonly seen: string[] = [];
  text = "";
  readonly sessions: Uint8Array[] = [];
  handshake: { done: boolean; code: string | null } | null = null;
  /** At the moment of `handshake`. */
  unheard = false;
  twinBytes = 0;
  socket: Socket<Heard> | null = null;

  get facts(): TlsFacts {
    return tlsFacts(this.socket!);
  }

  /** For the plain socket: its data before and after. */
  static plain(first: (socket: Socket<Heard>, chunk: Uint8Array) => void) {
    return {
      binaryType: "uint8array" as const,
      open: () => undefined,
      data: (socket: Socket<Heard>, chunk: Uint8Array) => {
        if (socket.data.twin) socket.data.of.twinBytes += chunk.length;
        else first(socket, chunk);
      },
      close: () => undefined,
      error: (_: unknown, error: Error) => {
        throw error;
      },
    };
  }

  twin = false;
  get of(): Heard {
    return this.#of ?? this;
  }
  #of: Heard | null = null;
  asTwin(): Heard {
    const twin = new Heard();
    twin.twin = true;
    twin.#of = this;
    return twin;
  }
}

const tlsEvents = {
  binaryType: "uint8array" as const,
  open: (socket: Socket<Heard>) => {
    socket.data.socket = socket;
    socket.data.seen.push("open");
  },
  handshake: (socket: Socket<Heard>, done: boolean, error: Error | null) => {
    socket.data.seen.push("handshake");
    socket.data.handshake = { done, code: (error as { code?: string } | null)?.code ?? null };
    socket.data.unheard = hasOnlySentFin(descriptorOf(socket));
  },
  data: (socket: Socket<Heard>, chunk: Uint8Array) => {
    socket.data.seen.push("data");
    socket.data.text += Buffer.from(chunk).toString("latin1");
  },
  session: (socket: Socket<Heard>, session: Uint8Array) => void socket.data.sessions.push(session),
  end: (socket: Socket<Heard>) => void socket.data.seen.push("end"),
  close: (socket: Socket<Heard>) => void socket.data.seen.push("close"),
  error: (socket: Socket<Heard>, error: Error) =>
    void socket.data.seen.push(`error ${(error as { code?: string }).code}`),
};

const SERVER: ServerTls = {
  secureContext: context(),
  ALPNProtocols: "",
  requestCert: false,
  rejectUnauthorized: false,
};

/** A server that becomes TLS when `first` bytes have come, which are the initial data. */
function serve(tls: Partial<ServerTls> = {}, first = 1): { port: number; heard: Heard[] } {
  const heard: Heard[] = [];
  const listener = Bun.listen<Heard>({
    hostname: "127.0.0.1",
    port: 0,
    allowHalfOpen: true,
    socket: {
      ...Heard.plain((socket, chunk) => {
        const state = socket.data;
        state.text += Buffer.from(chunk).toString("latin1");
        if (state.text.length < first) return;
        const bytes = new Uint8Array(Buffer.from(state.text, "latin1"));
        state.text = "";
        upgradeToServer(socket, {
          tls: { ...SERVER, ...tls },
          bytes,
          data: state,
          twin: state.asTwin(),
          handlers: tlsEvents,
        });
        state.seen.push("returned");
      }),
      open: (socket) => {
        socket.data = new Heard();
        heard.push(socket.data);
      },
    },
  });
  atEnd.push(() => listener.stop(true));
  return { port: listener.port, heard };
}

async function client(port: number, options: object = {}): Promise<TLSSocket> {
  const socket = connectTls({ port, host: "127.0.0.1", ca: CA, servername: "www.example.com", ...options });
  atEnd.push(() => void socket.destroy());
  await once(socket, "secureConnect");
  return socket;
}

const said = async (socket: Peer | TLSSocket): Promise<string> => String((await once(socket, "data"))[0]);

describe("an accepted socket that becomes a TLS server", () => {
  test("uses the bytes that were read before, however many, and calls the handlers in order", async () => {
    // The second must wait for half of a hello, the third for a whole one and more.
    for (const first of [1, 500, 1000]) {
      const { port, heard } = serve({}, first);
      const peer = await client(port);
      peer.write("ping");
      const [state] = heard;
      await eventually("the bytes are there", () => state!.text === "ping");
      // `open` comes before the call returns; the handshake is reported before any byte.
      expect(state!.seen.slice(0, 2)).toEqual(["open", "returned"]);
      expect(state!.seen.indexOf("handshake")).toBeLessThan(state!.seen.indexOf("data"));
      expect(state!.handshake?.done).toBe(true);
      state!.socket!.write("pong");
      expect(await said(peer)).toBe("pong");
      // The twin gets ciphertext, but not the hello.
      expect(state!.twinBytes).toBeGreaterThan(4);
    }
  });

  test("knows its version, and whether its session was resumed", async () => {
    const { port, heard } = serve();
    let session: Buffer | undefined;
    for (const [i, version] of (["TLSv1.3", "TLSv1.3", "TLSv1.2"] as const).entries()) {
      const peer = await client(port, { minVersion: version, maxVersion: version, ...(i === 1 ? { session } : {}) });
      peer.on("session", (ticket: Buffer) => (session = ticket));
      await eventually("the handshake is done", () => heard[i]?.handshake?.done === true);
      expect(heard[i]!.facts.getTLSVersion()).toBe(version);
      expect(heard[i]!.socket!.isSessionReused()).toBe(i === 1);
      // TLS 1.3 tickets are sent with the first bytes.
      heard[i]!.socket!.write("hello");
      if (i === 0) await eventually("a session is there", () => session !== undefined);
    }
  });

  test("chooses a protocol by the server's order, and ends the handshake if there is none in common", async () => {
    const { port, heard } = serve({ ALPNProtocols: alpnWire(["h2", "http/1.1"]) });
    const peer = await client(port, { ALPNProtocols: ["http/1.1", "h2"] });
    expect(peer.alpnProtocol).toBe("h2");
    await eventually("the server knows", () => heard[0]?.handshake?.done === true);
    expect(heard[0]!.socket!.alpnProtocol).toBe("h2");
    const refused = connectTls({ port, host: "127.0.0.1", rejectUnauthorized: false, ALPNProtocols: ["spdy/1"] });
    atEnd.push(() => void refused.destroy());
    await once(refused, "error");
    await eventually("the server knows", () => heard[1]?.handshake !== null);
    expect(heard[1]!.handshake).toEqual({ done: false, code: "EPROTO" });
  });

  test("reports whether a client's certificate is valid, and completes the handshake in any case", async () => {
    const asks = { secureContext: context({ cert: CERT, key: KEY, ca: CA }), requestCert: true };
    for (const rejectUnauthorized of [false, true]) {
      const { port, heard } = serve({ ...asks, rejectUnauthorized });
      const own = await client(port, { cert: CERT, key: KEY });
      await eventually("the server knows", () => heard[0]?.handshake !== null);
      expect(heard[0]!.socket!.authorized).toBe(true);
      own.destroy();
      const none = connectTls({ port, host: "127.0.0.1", rejectUnauthorized: false });
      none.on("error", () => undefined);
      atEnd.push(() => void none.destroy());
      await eventually("the server knows", () => heard.length > 1 && heard[1]!.handshake !== null);
      // None at all: no error if it is optional.
      expect(heard[1]!.handshake!.done).toBe(!rejectUnauthorized);
      expect(heard[1]!.socket?.authorized ?? false).toBe(false);
    }
  });

  test("reports data that is not TLS as a failed handshake, and closes", async () => {
    const { port, heard } = serve();
    const peer = connectTcp(port, "127.0.0.1");
    atEnd.push(() => void peer.destroy());
    peer.on("error", () => undefined);
    peer.write("GET / HTTP/1.0\r\n\r\n");
    await eventually("it is told", () => heard[0]?.seen.includes("close") === true);
    expect(heard[0]!.handshake).toMatchObject({ done: false, code: "EPROTO" });
  });

  test("has no deadline of its own for an incomplete hello", async () => {
    const { port, heard } = serve();
    const peer = connectTcp(port, "127.0.0.1");
    atEnd.push(() => void peer.destroy());
    peer.on("error", () => undefined);
    peer.write(fixture("openssl-tls13").subarray(0, 100));
    await eventually("it is TLS", () => heard[0]?.seen.includes("returned") === true);
    expect(heard[0]!.handshake).toBeNull();
    const closed = new Promise((resolve) => peer.once("close", resolve));
    heard[0]!.socket!.terminate();
    await closed;
  });

  test("needs a `data` or a `drain` handler: without one the upgrade throws", async () => {
    const thrown = Promise.withResolvers<unknown>();
    const listener = Bun.listen<Heard>({
      hostname: "127.0.0.1",
      port: 0,
      data: new Heard(),
      socket: Heard.plain((socket) => {
        try {
          upgradeToServer(socket, {
            tls: SERVER,
            bytes: new Uint8Array(1),
            data: new Heard(),
            twin: new Heard(),
            handlers: { open: () => undefined },
          });
          thrown.resolve(null);
        } catch (error) {
          thrown.resolve(error);
        }
        socket.terminate();
      }),
    });
    atEnd.push(() => listener.stop(true));
    const peer = connectTcp(listener.port, "127.0.0.1");
    peer.on("error", () => undefined);
    peer.write("x");
    expect(String(await thrown.promise)).toMatch(/"data" or "drain"/);
  });
});

describe("a listening descriptor with TLS", () => {
  /** Serves a descriptor of the listening socket, which can be replaced by another one. */
  function listening(tls: Partial<ServerTls> = {}, fd = listenAt("127.0.0.1:0", 16)) {
    const heard: Heard[] = [];
    const again = duplicate(fd) as number;
    const events = {
      ...tlsEvents,
      open: (socket: Socket<Heard>) => {
        heard.push((socket.data = new Heard()));
        tlsEvents.open(socket);
      },
    };
    const listener = listenOnDescriptor(fd, null as never, events, { ...SERVER, ...tls });
    atEnd.push(() => listener.stop(true));
    const name = new Int32Array(5);
    localAddress(again, name, 0);
    return { listener, heard, again, port: name[4]! };
  }

  test("calls `open` when it has accepted, then `handshake`, with the requested name", async () => {
    const { port, heard } = listening({ ALPNProtocols: alpnWire(["h2"]) });
    const peer = connectTcp(port, "127.0.0.1");
    await eventually("it is accepted", () => heard.length === 1);
    expect(heard[0]!.seen).toEqual(["open"]);
    peer.destroy();
    const secure = await client(port, { ALPNProtocols: ["h2"] });
    secure.write("ping");
    await eventually("the bytes are there", () => heard[1]?.text === "ping");
    expect(heard[1]!.seen.filter((event) => event !== "drain")).toEqual(["open", "handshake", "data"]);
    expect(heard[1]!.facts.getServername()).toBe("www.example.com");
    expect(heard[1]!.facts.getTLSVersion()).toBe("TLSv1.3");
    expect(heard[1]!.socket!.alpnProtocol).toBe("h2");
  });

  test("reports a FIN before the handshake is done as ECONNRESET, while the descriptor is still open", async () => {
    const { port, heard } = listening();
    for (const [i, bytes] of [0, 1, 100].entries()) {
      const peer = connectTcp(port, "127.0.0.1");
      peer.on("error", () => undefined);
      peer.end(fixture("openssl-tls13").subarray(0, bytes));
      await eventually("it is told", () => heard[i]?.seen.includes("close") === true);
      expect(heard[i]).toMatchObject({ handshake: { done: false, code: "ECONNRESET" }, unheard: bytes === 0 });
    }
  });

  test("keeps its queue and its accepted sockets when it stops", async () => {
    const one = listening();
    const before = await client(one.port);
    const underWay = connectTcp(one.port, "127.0.0.1");
    await eventually("it is accepted", () => one.heard.length === 2);
    const other = createSecureContext({ cert: file("other.pem"), key: file("other.key") }).context as TlsContext;
    const two = listening({ secureContext: other }, one.again);
    one.listener.stop(false);
    const after = connectTls({ port: one.port, host: "127.0.0.1", rejectUnauthorized: false });
    atEnd.push(() => void after.destroy());
    await once(after, "secureConnect");
    expect(after.getPeerCertificate().fingerprint).not.toBe(before.getPeerCertificate().fingerprint);
    expect(two.heard.length).toBe(1);
    const late = connectTls({ socket: underWay, ca: CA, servername: "www.example.com" });
    atEnd.push(() => void late.destroy());
    await once(late, "secureConnect");
    before.write("still there");
    await eventually("the bytes are there", () => one.heard[0]!.text === "still there");
  });
});

describe.skipIf(peersMissing !== null)("an end", () => {
  test.each(["1.2", "1.3"] as const)(
    "is reported alike with close_notify and with a bare FIN (TLS %s)",
    async (version) => {
      if (peersMissing !== null) return;
      using python = new Python();
      const { port, heard } = serve();
      for (const [i, how] of (["closeNotify", "fin", "finish"] as const).entries()) {
        const peer = await python.connect(port, { tls: { min: version, max: version } });
        await peer.send("bye");
        await peer[how]();
        await eventually(`the end is heard (${how})`, () => heard[i]!.seen.includes("end"));
        expect(heard[i]!.text).toBe("bye");
        expect(heard[i]!.seen).not.toContain("close");
        // Half closed: this side continues, and ends with close_notify and FIN together.
        heard[i]!.socket!.write("you too");
        heard[i]!.socket!.shutdown();
        expect(await peer.read()).toEqual({ data: "you too", end: "close_notify" });
        expect(await peer.rawEnd()).toBe("fin");
      }
    },
  );
});

// ---------------------------------------------------------------------- as client

const CLIENT: ClientTls = {
  secureContext: context({ ca: CA }),
  ALPNProtocols: "",
  rejectUnauthorized: true,
  serverName: "www.example.com",
};

/** Connects, becomes a TLS client, and waits for the result of the handshake. */
async function upgrade(port: number, tls: Partial<ClientTls> = {}, session: Uint8Array | null = null): Promise<Heard> {
  const heard = new Heard();
  let begun = false;
  adoptConnecting<Heard>(beginConnect(sockaddr(endpoint(`127.0.0.1:${port}`)), null), heard, {
    ...Heard.plain(() => undefined),
    drain: (socket) => {
      if (begun) return;
      begun = true;
      const options = { ...CLIENT, ...tls };
      if (options.serverName === "") delete options.serverName;
      const handlers = {
        ...tlsEvents,
        open: (secure: Socket<Heard>) => {
          tlsEvents.open(secure);
          if (session !== null) heard.facts.setSession(session);
        },
      };
      upgradeToClient(socket, { tls: options, data: heard, twin: heard.asTwin(), handlers });
    },
  });
  atEnd.push(() => heard.socket?.terminate());
  await eventually("the handshake has ended", () => heard.handshake !== null);
  return heard;
}

async function tlsServer(options: object = {}): Promise<{ port: number; names: (string | false)[] }> {
  const names: (string | false)[] = [];
  const server = createTlsServer({ cert: CERT, key: KEY, ...options }, (socket) => {
    names.push(socket.servername as string | false);
    socket.on("error", () => undefined);
    socket.pipe(socket);
  });
  server.on("tlsClientError", () => undefined);
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  atEnd.push(() => server.close());
  return { port: (server.address() as { port: number }).port, names };
}

describe("a connected socket that becomes a TLS client", () => {
  test("succeeds when the certificate is valid and has the name", async () => {
    const { port, names } = await tlsServer();
    const heard = await upgrade(port);
    expect(heard.handshake).toEqual({ done: true, code: null });
    heard.socket!.write("ping");
    await eventually("the echo is there", () => heard.text === "ping");
    expect(names).toEqual(["www.example.com"]);
  });

  test("fails with the fault of the certificate: chain before name", async () => {
    const { port } = await tlsServer();
    expect((await upgrade(port, { serverName: "other.test" })).handshake).toEqual({
      done: false,
      code: "ERR_TLS_CERT_ALTNAME_INVALID",
    });
    const stranger = { secureContext: context({ ca: file("other.pem") }) };
    for (const serverName of ["www.example.com", "other.test"]) {
      const { handshake } = await upgrade(port, { ...stranger, serverName });
      expect(handshake?.done).toBe(false);
      expect(handshake?.code).toMatch(/^UNABLE_TO_(VERIFY_LEAF_SIGNATURE|GET_ISSUER_CERT_LOCALLY)$/);
    }
  });

  test("reports the fault without verification too, and is usable: its code has an underscore, that of a failure has none", async () => {
    const { port } = await tlsServer();
    const mismatch = await upgrade(port, { serverName: "other.test", rejectUnauthorized: false });
    expect(mismatch.handshake?.code).toBe("ERR_TLS_CERT_ALTNAME_INVALID");
    mismatch.socket!.write("ping");
    await eventually("the echo is there", () => mismatch.text === "ping");
    const old = await tlsServer({ maxVersion: "TLSv1.2" });
    const strict = { secureContext: context({ ca: CA, minVersion: "TLSv1.3" }), rejectUnauthorized: false };
    expect((await upgrade(old.port, strict)).handshake).toEqual({ done: false, code: "EPROTO" });
    const closing = createServer((socket) => socket.once("data", () => socket.end()));
    closing.listen(0, "127.0.0.1");
    await once(closing, "listening");
    atEnd.push(() => closing.close());
    const gone = await upgrade((closing.address() as { port: number }).port, { rejectUnauthorized: false });
    expect(gone.handshake).toEqual({ done: false, code: "ECONNRESET" });
  });

  test("without a name sends none, and reports a name mismatch for every certificate with a valid chain", async () => {
    const { port, names } = await tlsServer();
    const heard = await upgrade(port, { serverName: "", rejectUnauthorized: false });
    expect(heard.handshake).toEqual({ done: false, code: "ERR_TLS_CERT_ALTNAME_INVALID" });
    expect(heard.socket!.getPeerCertificate()).toMatchObject({
      subjectaltname: expect.stringContaining("DNS:*.example.com"),
    });
    await eventually("the server is connected", () => names.length === 1);
    expect(names).toEqual([false]);
  });

  test.each(["TLSv1.2", "TLSv1.3"])("gets sessions, and resumes one that is set in `open` (%s)", async (version) => {
    const { port } = await tlsServer({ minVersion: version, maxVersion: version });
    const first = await upgrade(port);
    expect(first.socket!.isSessionReused()).toBe(false);
    // TLS 1.3 tickets are sent with the first bytes.
    first.socket!.write("ping");
    await eventually("a session is there", () => first.sessions.length > 0);
    const second = await upgrade(port, {}, first.sessions.at(-1));
    expect(second.handshake).toEqual({ done: true, code: null });
    expect(second.socket!.isSessionReused()).toBe(true);
  });
});
