// What is read of a client before it is routed, from a fake socket. There is no pool, so clients that pass have no route.
import { describe, expect, test } from "vitest";
import { parseAddress, parseCidr } from "../../src/core/address.ts";
import { cidrTable } from "../../src/core/cidr-set.ts";
import type { ListenerPlan } from "../../src/messages.ts";
import { ROW, ROW_WORDS } from "../../src/shared/ledger.ts";
import { TICK_MS } from "../../src/worker/clock.ts";
import { Connection } from "../../src/worker/connection.ts";
import type { HeadNeeds } from "../../src/worker/head.ts";
import { Listener } from "../../src/worker/listener.ts";
import { DataPlane } from "../../src/worker/plane.ts";
import { startReading } from "../../src/worker/reading.ts";
import { FakeSocket } from "../support/fake-socket.ts";
import { listenerPlan, plan, workerStart } from "../support/plans.ts";
import { hello, serverName } from "../wire/hello-bytes.ts";

const encode = (text: string): Uint8Array => new TextEncoder().encode(text);
const HEADER = encode("PROXY TCP4 198.51.100.7 192.0.2.1 4711 443\r\n");
const HELLO = hello({ extensions: [serverName("www.example.com")] });
/** A route that asks for a name, so that the ClientHello is read. */
const BY_NAME = { routes: [{ sni: ["other.example"], alpn: [], clients: null, pool: 1 }] };

class Stage {
  readonly client = new FakeSocket();
  readonly connection: Connection;
  readonly host: DataPlane;
  readonly #lines: string[] = [];

  constructor(proxyHeader: HeadNeeds["proxyHeader"], given: Partial<ListenerPlan> = {}) {
    this.host = new DataPlane(workerStart(plan()), (message) => {
      if (message.kind === "access") this.#lines.push(message.text);
    });
    const row = this.host.ledger.take();
    this.host.words.set([...parseAddress("10.0.0.1")!, 999], row * ROW_WORDS + ROW.address);
    this.host.words[row * ROW_WORDS + ROW.clientFd] = -1;
    const listener = new Listener(listenerPlan(given), new Map(), null, 0);
    this.connection = new Connection(this.host, listener, this.client.socket, row);
    this.host.remember(this.connection);
    startReading(this.connection, proxyHeader);
  }

  /** How it has ended; null = it has not. */
  get line(): Record<string, unknown> | null {
    this.host.accessLog.flush();
    expect(this.#lines.length).toBeLessThan(2);
    return this.#lines.length === 0 ? null : (JSON.parse(this.#lines[0]!) as Record<string, unknown>);
  }

  hear(...chunks: Uint8Array[]): this {
    for (const chunk of chunks) this.connection.clientData(chunk);
    return this;
  }
}

describe("a PROXY header", () => {
  test("is accepted wherever it is split, and then its client address counts", () => {
    for (let at = 1; at < HEADER.length; at++) {
      const stage = new Stage("required").hear(HEADER.slice(0, at));
      expect(stage.line).toBeNull();
      expect(stage.host.ledger.phase(stage.connection.row)).toBe("reading");
      stage.hear(HEADER.slice(at));
      expect(stage.line).toMatchObject({ end: "no_route", client: "198.51.100.7:4711", peer: "10.0.0.1:999" });
      expect(stage.connection.facts?.addressed).toEqual({ address: parseAddress("192.0.2.1"), port: 443 });
    }
  });

  test("is checked against the listener's lists with its client address", () => {
    const cidr = parseCidr("198.51.100.0/24");
    if ("bad" in cidr) throw new Error(cidr.bad);
    const stage = new Stage("required", { deny: cidrTable([cidr]) }).hear(HEADER);
    expect(stage.line).toMatchObject({ end: "denied", end_by: "lb", client: "198.51.100.7:4711" });
  });

  test("must come if it is required, and may be missing if it is optional", () => {
    expect(new Stage("required").hear(encode("GET /")).line).toMatchObject({ end: "proxy_header_bad" });
    expect(new Stage("optional").hear(encode("GET /")).line).toMatchObject({ end: "no_route", client: "10.0.0.1:999" });
  });
});

describe("a ClientHello", () => {
  test("contains the name, which is then in the ledger for other threads", () => {
    const stage = new Stage("no", BY_NAME).hear(HELLO.slice(0, 20));
    expect(stage.line).toBeNull();
    const names: string[] = [];
    const { ledger } = stage.host;
    const { finish } = stage.connection;
    stage.connection.finish = (...args) => {
      names.push(ledger.sni(stage.connection.row));
      finish.apply(stage.connection, args);
    };
    stage.hear(HELLO.slice(20));
    expect(names).toEqual(["www.example.com"]);
    expect(stage.line).toMatchObject({ end: "no_route", sni: "www.example.com" });
  });

  test("may come after a PROXY header in one piece", () => {
    const both = new Uint8Array([...HEADER, ...HELLO]);
    const line = { client: "198.51.100.7:4711", sni: "www.example.com" };
    expect(new Stage("required", BY_NAME).hear(both).line).toMatchObject(line);
  });
});

describe("a client that stalls", () => {
  test("is an orderly end before its first byte, and a failure after it", () => {
    const silent = new Stage("no", BY_NAME);
    silent.connection.clientEnded();
    expect(silent.line).toMatchObject({ end: "eof", end_by: "client" });
    const cut = new Stage("no", BY_NAME).hear(HELLO.slice(0, 20));
    cut.connection.clientEnded();
    expect(cut.line).toMatchObject({ end: "handshake_failed", error: "closed" });
    const header = new Stage("required").hear(HEADER.slice(0, 20));
    header.connection.clientEnded();
    expect(header.line).toMatchObject({ end: "proxy_header_bad", error: "closed" });
  });

  test("has the full `timeouts.handshake`, and the log names the likely cause if it is silent", () => {
    const stage = new Stage("no", BY_NAME);
    const { wheel } = stage.host;
    const begun = wheel.now;
    while (wheel.now < begun + 10_000) wheel.advance(wheel.now + TICK_MS);
    expect(stage.line).toBeNull();
    for (let i = 0; i < 3; i++) wheel.advance(wheel.now + TICK_MS);
    expect(stage.line).toMatchObject({
      end: "handshake_timeout",
      end_by: "lb",
      error: expect.stringContaining("the server speaks first") as string,
    });
  });
});
