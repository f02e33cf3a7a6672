// Admission, in a data plane of the test's own thread that listens on real sockets: which clients are admitted, what the others see, and
// that every claim is released.
import { mkdtempSync, rmSync } from "node:fs";
import { connect as connectUnix } from "node:net";
import { once } from "node:events";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { parseAddress, parseCidr } from "../../src/core/address.ts";
import { cidrTable, type CidrTable } from "../../src/core/cidr-set.ts";
import type { End, EndedBy } from "../../src/core/ends.ts";
import type { FromWorker, ListenerPlan, Plan } from "../../src/messages.ts";
import { beginConnect, closeDescriptor, resetOnClose, sockaddr } from "../../src/platform/sockets.ts";
import { claim, claimed, giveBack } from "../../src/shared/cells.ts";
import { clientMemory } from "../../src/shared/clients.ts";
import { endCell, LISTENER, WORKER } from "../../src/shared/counters.ts";
import { DataPlane } from "../../src/worker/plane.ts";
import { echo } from "../support/backends.ts";
import { connect, type Client } from "../support/client.ts";
import { listenAt, skipWithoutIPv6 } from "../support/endpoints.ts";
import { eventually } from "../support/eventually.ts";
import { freePort } from "../support/lb.ts";
import { backendPlan, listenerPlan, plan, poolPlan, workerStart } from "../support/plans.ts";
import { calledAfterEach } from "../support/set-up.ts";

const atEnd = calledAfterEach();

const table = (...cidrs: string[]): CidrTable | null =>
  cidrTable(
    cidrs.map((text) => {
      const cidr = parseCidr(text);
      if ("bad" in cidr) throw new Error(cidr.bad);
      return cidr;
    }),
  );

class Stage {
  readonly messages: FromWorker[] = [];
  readonly port: number;
  readonly plan: ListenerPlan;
  readonly plane: DataPlane;

  constructor(port: number, given: Partial<ListenerPlan>, of: Partial<Plan>, backend: string, at: string) {
    this.port = port;
    const pool = poolPlan({ backends: [backendPlan({ address: backend })] });
    this.plan = listenerPlan({ pool: pool.id, ...given });
    const fd = listenAt(at, 64);
    const socket = { key: at, index: 0, listener: this.plan.id, fd, hostname: "", port, backlog: 64 };
    const whole = plan({ listeners: [this.plan], pools: [pool], sockets: [socket], maxConnections: 20, ...of });
    this.plane = new DataPlane(workerStart(whole), (message) => this.messages.push(message));
    atEnd.push(async () => {
      closeDescriptor(fd);
      this.plane.stop(0, 0);
      await eventually("the plane has stopped", () => this.messages.some(({ kind }) => kind === "stopped"));
    });
  }

  ends(end: End, by: EndedBy = "lb"): number {
    return this.plan.counters[endCell(end, by)]!;
  }

  /** Connects from an address of the loopback network. */
  async client(from = "127.0.0.1", host = "127.0.0.1"): Promise<Client> {
    const client = await connect(this.port, { host, from });
    atEnd.push(() => client[Symbol.dispose]());
    return client;
  }

  async echoes(from?: string): Promise<Client> {
    const client = await this.client(from);
    expect(await client.echoes()).toBe(true);
    return client;
  }

  /** A client from there is refused with this end. */
  async refuses(end: End, from?: string): Promise<void> {
    const before = this.ends(end);
    const client = await this.client(from);
    expect(await client.ended).toBe("reset");
    expect(this.ends(end)).toBe(before + 1);
  }

  get open(): number[] {
    return [claimed(this.plane.open), claimed(this.plan.open)];
  }

  async closed(client: Client): Promise<void> {
    const [open] = this.open;
    client.reset();
    await eventually("the place is given back", () => this.open[0] === open! - 1);
  }
}

async function stage(given: Partial<ListenerPlan> = {}, of: Partial<Plan> = {}, at?: string): Promise<Stage> {
  const backend = await echo();
  atEnd.push(() => backend.stop());
  const port = await freePort();
  return new Stage(port, given, of, backend.address, at ?? `:${port}`);
}

describe("allow and deny", () => {
  test("admit the clients in `allow`, and everyone if it is empty", async () => {
    const listed = await stage({ allow: table("127.0.1.0/24", "127.0.0.5") });
    await listed.echoes("127.0.1.77");
    await listed.echoes("127.0.0.5");
    await listed.refuses("denied", "127.0.0.6");
    const open = await stage();
    await open.echoes("127.0.0.6");
  });

  test("refuse the clients in `deny`, even if they are in `allow` too", async () => {
    const both = await stage({ allow: table("127.0.0.0/8"), deny: table("127.0.1.0/24") });
    await both.echoes("127.0.0.1");
    await both.refuses("denied", "127.0.1.1");
  });

  test("apply to IPv6 clients", async (context) => {
    skipWithoutIPv6(context);
    const v6 = await stage({ deny: table("::1") });
    const refused = await connect(v6.port, { host: "::1" });
    expect(await refused.ended).toBe("reset");
    expect(v6.ends("denied")).toBe(1);
    await v6.echoes("127.0.0.1");
  });

  test("claim no place for refused clients", async () => {
    const denied = await stage({ deny: table("127.0.0.0/8") });
    await denied.refuses("denied");
    expect(denied.open).toEqual([0, 0]);
    expect(denied.plan.counters[LISTENER.accepted]).toBe(1);
    expect([denied.plane.counters[WORKER.accepted], denied.plane.counters[WORKER.ended]]).toEqual([1, 1]);
  });
});

describe("caps", () => {
  test("of the listener: the next client is refused, and admitted when one has gone", async () => {
    const capped = await stage({ maxConnections: 2 });
    const first = await capped.echoes();
    await capped.echoes();
    await capped.refuses("listener_full");
    expect(capped.open).toEqual([2, 2]);
    await capped.closed(first);
    await capped.echoes();
  });

  test("of the process: the same, and the supervisor is notified, but not each time", async () => {
    const capped = await stage({}, { maxConnections: 1 });
    // Another worker holds the only place.
    claim(capped.plane.open, 0);
    await capped.refuses("process_full");
    await capped.refuses("process_full");
    await capped.refuses("process_full");
    expect(capped.messages.filter(({ kind }) => kind === "over_budget")).toHaveLength(1);
    giveBack(capped.plane.open);
    await capped.echoes();
  });

  test("of a client: others are not affected", async () => {
    const capped = await stage({ maxConnectionsPerClient: 1, clients: clientMemory(64) });
    const first = await capped.echoes("127.0.0.1");
    await capped.refuses("client_full", "127.0.0.1");
    await capped.echoes("127.0.0.2");
    await capped.closed(first);
    await capped.echoes("127.0.0.1");
  });

  test("of a client: all addresses within the client prefix are one client", async () => {
    const clientPrefix = { ipv4: 24, ipv6: 64 };
    const capped = await stage({ maxConnectionsPerClient: 1, clients: clientMemory(64), clientPrefix });
    await capped.echoes("127.0.7.1");
    await capped.refuses("client_full", "127.0.7.200");
    await capped.echoes("127.0.8.1");
  });

  test.each([0, 1, 8, 31])("of a client: a prefix of %d bits masks the other bits", async (ipv4) => {
    const capped = await stage({
      maxConnectionsPerClient: 1,
      clients: clientMemory(64),
      clientPrefix: { ipv4, ipv6: 64 },
    });
    await capped.echoes("127.0.0.2");
    await capped.refuses("client_full", "127.0.0.3");
    if (ipv4 === 31) await capped.echoes("127.0.0.4");
    else await capped.refuses("client_full", "127.255.0.4");
  });

  test("are released by clients that a later limit refuses", async () => {
    const limits = { maxConnections: 5, maxConnectionsPerClient: 1, clients: clientMemory(64) };
    const capped = await stage(limits);
    await capped.echoes();
    for (let i = 0; i < 10; i++) await capped.refuses("client_full");
    expect(capped.open).toEqual([1, 1]);
  });
});

describe("the rate limit", () => {
  test("admits the burst, and others are not affected", async () => {
    const limited = await stage({ rateLimit: { rate: 0.01, burst: 3 }, clients: clientMemory(64) });
    for (let i = 0; i < 3; i++) await limited.echoes("127.0.0.1");
    await limited.refuses("rate_limited", "127.0.0.1");
    await limited.refuses("rate_limited", "127.0.0.1");
    await limited.echoes("127.0.0.2");
    expect(limited.open).toEqual([4, 4]);
  });
});

describe("the end that a refused client sees", () => {
  test('is a FIN with over_limit = "close", even with unread bytes', async () => {
    const closing = await stage({ overLimit: "close", deny: table("127.0.0.0/8") });
    const client = await closing.client();
    client.send("hello?");
    expect(await client.ended).toBe("eof");
    // Further bytes of the client do not cause a reset.
    client.send("anybody?");
    client.finish();
    await eventually("the end is counted", () => closing.ends("denied") === 1);
    expect(client.end).toBe("eof");
  });
});

describe("a client on a unix socket", () => {
  test('is admitted, counted as one client, and "unix" in the log', async () => {
    const folder = mkdtempSync(join(tmpdir(), "lb-listener-"));
    atEnd.push(() => rmSync(folder, { recursive: true }));
    const path = join(folder, "a.sock");
    const unix = await stage({ maxConnectionsPerClient: 1, clients: clientMemory(64) }, {}, `unix:${path}`);
    const peer = connectUnix(path);
    atEnd.push(() => void peer.destroy());
    peer.write("ping");
    expect(String((await once(peer, "data"))[0])).toBe("ping");
    const second = connectUnix(path);
    second.on("error", () => {});
    await once(second, "close");
    expect(unix.ends("client_full")).toBe(1);
    peer.destroy();
    const line = await eventually("the line", () => {
      const texts = unix.messages.flatMap((message) => (message.kind === "access" ? [message.text] : []));
      return texts
        .join("")
        .split("\n")
        .find((text) => text.includes('"eof"'));
    });
    expect(JSON.parse(line)).toMatchObject({ client: "unix", bytes_in: 4, bytes_out: 4, end_by: "client" });
  });
});

describe("a connection that was reset in the accept queue", () => {
  test("ends as the client's reset, and never as a connection of the client before it", async () => {
    const late = await stage();
    // Its row of the ledger is used again.
    await late.closed(await late.echoes("127.0.1.77"));
    // The plane shares this thread, so it accepts only after this turn of the loop.
    const to = sockaddr({ kind: "ip", address: parseAddress("127.0.0.1")!, port: late.port });
    for (let i = 0; i < 5; i++) {
      const fd = beginConnect(to, null);
      resetOnClose(fd);
      closeDescriptor(fd);
    }
    await eventually("all have ended", () => late.plane.counters[WORKER.ended] === 6);
    expect(late.ends("reset", "client")).toBe(6);
    expect(late.open).toEqual([0, 0]);
    late.plane.accessLog.flush();
    const text = late.messages.flatMap((message) => (message.kind === "access" ? [message.text] : [])).join("");
    expect(text.match(/"client":"[^"]*"/g)?.slice(1)).toEqual(Array<string>(5).fill('"client":"0.0.0.0:0"'));
  });
});
