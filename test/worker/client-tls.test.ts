// The handshake with a client: what is stored and counted when it succeeds, and why it fails. Clients of other TLS libraries are in
// test/e2e/tls.test.ts.
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { connect as connectTls, type ConnectionOptions, type TLSSocket } from "node:tls";
import { describe, expect, test } from "vitest";
import { parseAddress } from "../../src/core/address.ts";
import {
  readTimes,
  HANDSHAKE_TIMES,
  LISTENER,
  TLS_FAILURES,
  tlsFailureCell,
  type TlsFailure,
} from "../../src/shared/counters.ts";
import { ROW, ROW_WORDS } from "../../src/shared/ledger.ts";
import type { TlsServerPlan } from "../../src/messages.ts";
import { ALERTS, fatalAlert } from "../../src/wire/tls-records.ts";
import { awaitHandshake } from "../../src/worker/client-tls.ts";
import { TICK_MS } from "../../src/worker/clock.ts";
import { Connection } from "../../src/worker/connection.ts";
import { Listener } from "../../src/worker/listener.ts";
import { DataPlane } from "../../src/worker/plane.ts";
import { startReading } from "../../src/worker/reading.ts";
import { TlsServer } from "../../src/worker/tls-server.ts";
import { FakeSocket } from "../support/fake-socket.ts";
import { eventually } from "../support/eventually.ts";
import { LiveListener } from "../support/live-connection.ts";
import { calledAfterEach } from "../support/set-up.ts";
import { listenerPlan, plan, workerStart } from "../support/plans.ts";
import { hello, serverName } from "../wire/hello-bytes.ts";

const atEnd = calledAfterEach();

const file = (name: string): string => readFileSync(join(import.meta.dirname, "../config/fixtures", name), "utf8");

const tlsPlan = (given: Partial<TlsServerPlan> = {}): TlsServerPlan => ({
  certificates: [{ cert: file("site.pem"), key: file("site.key"), names: ["a.example"] }],
  unknownSni: "default",
  minVersion: "1.2",
  ciphers: "",
  alpn: ["h2", "http/1.1"],
  clientAuth: "off",
  clientCa: null,
  clientCrl: null,
  ...given,
});

class Stage {
  readonly client = new FakeSocket();
  readonly connection: Connection;
  readonly host: DataPlane;
  readonly listener: Listener;
  readonly #lines: string[] = [];

  constructor() {
    this.host = new DataPlane(workerStart(plan()), (message) => {
      if (message.kind === "access") this.#lines.push(message.text);
    });
    const row = this.host.ledger.take();
    this.host.words.set([...parseAddress("10.0.0.1")!, 999], row * ROW_WORDS + ROW.address);
    this.host.words[row * ROW_WORDS + ROW.clientFd] = -1;
    const server = new TlsServer(tlsPlan({ unknownSni: "reject" }));
    this.listener = new Listener(listenerPlan(), new Map(), server, 0);
    this.connection = new Connection(this.host, this.listener, this.client.socket, row);
    this.host.remember(this.connection);
  }

  get line(): unknown {
    this.host.accessLog.flush();
    return this.#lines.map((line) => JSON.parse(line) as unknown)[0];
  }

  /** Failed handshakes by reason, and successful ones. */
  get counted(): [TlsFailure, number][] {
    const { counters } = this.listener;
    expect([LISTENER.tls12, LISTENER.tls13].map((cell) => counters[cell])).toEqual([0, 0]);
    const all = TLS_FAILURES.map((reason): [TlsFailure, number] => [reason, counters[tlsFailureCell(reason)]!]);
    return all.filter(([, count]) => count > 0);
  }
}

test('with unknown_sni = "reject", a name in no certificate gets the alert unrecognized_name', () => {
  const stage = new Stage();
  startReading(stage.connection, "no");
  stage.connection.clientData(hello({ extensions: [serverName("b.example")] }));
  expect(stage.client.written).toEqual([...fatalAlert(ALERTS.unrecognizedName)]);
  // The alert must reach it.
  expect(stage.client.calls).toEqual(["shutdown"]);
  expect(stage.line).toMatchObject({
    end: "handshake_failed",
    end_by: "client",
    error: "unknown_sni",
    sni: "b.example",
  });
  expect(stage.counted).toEqual([["unknown_sni", 1]]);
});

test("data that is not TLS is refused with the reason not_tls", () => {
  const stage = new Stage();
  startReading(stage.connection, "no");
  stage.connection.clientData(new TextEncoder().encode("GET / HTTP/1.1\r\n"));
  expect(stage.line).toMatchObject({ end: "handshake_failed", end_by: "client", error: "not_tls" });
  expect(stage.counted).toEqual([["not_tls", 1]]);
});

test("the handshake has its full timeout from accept on", () => {
  const stage = new Stage();
  awaitHandshake(stage.connection);
  const { wheel } = stage.host;
  const begun = wheel.now;
  while (wheel.now < begun + 10_000) wheel.advance(wheel.now + TICK_MS);
  expect(stage.line).toBeUndefined();
  for (let i = 0; i < 3; i++) wheel.advance(wheel.now + TICK_MS);
  expect(stage.line).toMatchObject({ end: "handshake_timeout", end_by: "lb" });
  expect(stage.counted).toEqual([["timeout", 1]]);
});

test.each([
  ["error:100000b8:SSL routines:OPENSSL_internal:NO_SHARED_CIPHER", "no_shared_cipher"],
  ["error:100000f0:SSL routines:OPENSSL_internal:UNSUPPORTED_PROTOCOL", "protocol_version"],
  ["error:1000009c:SSL routines:OPENSSL_internal:HTTP_REQUEST", "not_tls"],
  ["something new", "other"],
] as const)("a fault of the handshake is named: %s", (message, reason) => {
  const stage = new Stage();
  awaitHandshake(stage.connection);
  stage.connection.clientTlsFailed(new Error(message));
  expect(stage.line).toMatchObject({ end: "handshake_failed", error: reason });
  expect(stage.counted).toEqual([[reason, 1]]);
});

test("a client that resets the connection during the handshake is not a failed handshake", () => {
  const stage = new Stage();
  awaitHandshake(stage.connection);
  stage.connection.clientClosed(Object.assign(new Error("reset"), { code: "ECONNRESET" }));
  expect(stage.line).toMatchObject({ end: "reset", end_by: "client" });
  expect(stage.counted).toEqual([]);
});

/** Handshakes whose duration was counted. */
const timed = (counters: Float64Array): number =>
  readTimes(HANDSHAKE_TIMES, (at) => counters[at]!).buckets.reduce((a, b) => a + b, 0);

describe.each([
  ["accepted as TLS", "default"],
  // A name that may be rejected has to be read first.
  ["adopted with its ClientHello", "reject"],
] as const)("a handshake on a socket that is %s", (_, unknownSni) => {
  async function start(given: Partial<TlsServerPlan> = {}): Promise<LiveListener> {
    const live = await LiveListener.start(atEnd, { listener: { tls: tlsPlan({ unknownSni, ...given }) } });
    expect(live.listener.acceptsTls !== null).toBe(unknownSni === "default");
    return live;
  }

  function client({ port }: LiveListener, given: ConnectionOptions = {}): TLSSocket {
    const options = { host: "127.0.0.1", port, servername: "a.example", rejectUnauthorized: false };
    const socket = connectTls({ ...options, ...given }).on("error", () => undefined);
    atEnd.push(() => socket.destroy());
    return socket;
  }

  test("notes name, version and protocol, is counted with its duration, and then a backend is dialed", async () => {
    const live = await start();
    const socket = client(live, { ALPNProtocols: ["http/1.1", "h2"] });
    socket.write("question");
    const backend = await live.backend(0);
    const asked = await new Promise<Buffer>((resolve) => backend.once("data", resolve));
    expect(asked.toString()).toBe("question");
    backend.end("answer");
    const answer = await new Promise<Buffer>((resolve) => socket.once("data", resolve));
    expect(answer.toString()).toBe("answer");
    const [connection] = live.connections;
    // The server's order of preference decides.
    expect(connection!.facts).toMatchObject({ sni: "a.example", tlsVersion: "TLSv1.3", alpn: "h2", certificate: null });
    expect(live.plane.ledger.sni(connection!.row)).toBe("a.example");
    const { counters } = live.listener;
    expect([LISTENER.tls12, LISTENER.tls13].map((cell) => counters[cell])).toEqual([0, 1]);
    expect(timed(counters)).toBe(1);
    socket.end();
    await eventually("the line", () => live.lines.length > 0);
    expect(live.lines[0]).toMatchObject({ end: "eof", sni: "a.example", tls: "TLSv1.3", bytes_in: 8, bytes_out: 6 });
  });

  test("is counted by its version, and separately if it resumes a session", async () => {
    const live = await start();
    const { counters } = live.listener;
    const version = { maxVersion: "TLSv1.2" } as const;
    const first = client(live, version);
    // The server may be done before the client has read the ticket.
    await once(first, "secureConnect");
    await eventually("the first handshake", () => counters[LISTENER.tls12] === 1);
    const session = first.getSession()!;
    client(live, { ...version, session });
    await eventually("the second handshake", () => counters[LISTENER.tls12 + 1] === 1);
    expect([counters[LISTENER.tls12], counters[LISTENER.tls13]]).toEqual([1, 0]);
    expect(timed(counters)).toBe(2);
  });
});
