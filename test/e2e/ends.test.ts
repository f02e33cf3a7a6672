// Every end of a connection: what its client sees, its line in the access log, and its counter. Each end has its own listener, so that the
// counters show only it.
import { describe, expect, test } from "vitest";
import { blackhole, echo, refusing, silent, tagged, type Backend, type Blackhole } from "../support/backends.ts";
import { Authority, certificates, peersMissing } from "../support/certificates.ts";
import { connect, type Client, type ConnectOptions } from "../support/client.ts";
import { eventually } from "../support/eventually.ts";
import { freePort, startLb, type AccessEntry, type Lb } from "../support/lb.ts";
import { descriptors, synSent } from "../support/proc.ts";
import { setUpUnless } from "../support/set-up.ts";
import { END_NAMES } from "../../src/core/ends.ts";

/** Ends that cannot occur yet. */
const LATER = ["drain", "killed"];

const seen = new Set<string>();
let lb: Lb;
/** Descriptors of the process before the first connection. */
let atStart: number;
let backends: Backend[];
let hole: Blackhole;
const ports = new Map<string, number>();

/** A listener's section of the config; its name is also its pool's by default. */
interface Listener {
  /** Lines of [listeners.NAME]. */
  listener?: string;
  pool?: string;
}

setUpUnless(peersMissing, async (keep) => {
  const echoing = await keep(echo());
  const speaking = await keep(tagged("hello"));
  const dumb = await keep(silent());
  const checked = await keep(echo());
  backends = [echoing, speaking, dumb, checked];
  hole = await keep(blackhole());
  const authority = await keep(Authority.make());
  const leaf = await authority.leaf("site.test");
  const listeners: Record<string, Listener> = {
    plain: { pool: "echo" },
    speaking: { pool: "speaking" },
    idle: { pool: "echo", listener: `timeouts.idle = "300ms"` },
    idle_softly: { pool: "echo", listener: `timeouts.idle = "300ms"\non_abort = "close"` },
    half: { pool: "dumb", listener: `timeouts.half_close = "300ms"` },
    lifetime: { pool: "echo", listener: `timeouts.lifetime = "400ms"` },
    denied: { pool: "echo", listener: `deny = ["127.0.0.9"]` },
    denied_softly: { pool: "echo", listener: `deny = ["127.0.0.9"]\nover_limit = "close"` },
    rate: { pool: "echo", listener: `rate_limit = { rate = "1/h", burst = 1 }` },
    rate_softly: { pool: "echo", listener: `rate_limit = { rate = "1/h", burst = 1 }\nover_limit = "close"` },
    cap: { pool: "echo", listener: "max_connections = 1" },
    cap_softly: { pool: "echo", listener: `max_connections = 1\nover_limit = "close"` },
    client_cap: { pool: "echo", listener: "max_connections_per_client = 1" },
    no_route: {},
    no_backend: { pool: "down" },
    weightless: { pool: "weightless" },
    refused: { pool: "refused" },
    timeout: { pool: "timeout" },
    failed: { pool: "failed" },
    queue: { pool: "full" },
    queued: { pool: "queued" },
    down: { pool: "checked" },
    lost: { pool: "echo" },
    proxied: {
      pool: "echo",
      listener: `proxy_protocol = "required"\ntrusted_proxies = ["127.0.0.1"]\ntimeouts.handshake = "300ms"`,
    },
    secure: {
      pool: "echo",
      listener: `tls.${certificates(leaf)}\ntimeouts.handshake = "300ms"`,
    },
  };
  const text: string[] = ["workers = 1\n"];
  for (const [name, { listener = "", pool }] of Object.entries(listeners)) {
    const port = await freePort();
    ports.set(name, port);
    text.push(
      `[listeners.${name}]\nbind = "127.0.0.1:${port}"`,
      pool === undefined ? "" : `pool = "${pool}"`,
      listener,
    );
  }
  const pools: Record<string, string> = {
    echo: `backends = ["${echoing.address}"]`,
    speaking: `backends = ["${speaking.address}"]`,
    dumb: `backends = ["${dumb.address}"]`,
    down: `backends = ["${await refusing()}"]\nhealth = { interval = "100ms", timeout = "50ms", fall = 1 }`,
    weightless: `backends = [{ address = "${echoing.address}", weight = 0 }]`,
    refused: `backends = ["${await refusing()}"]\nhealth.type = "off"`,
    timeout: `backends = ["${hole.address}"]\nhealth.type = "off"\nconnect_timeout = "300ms"`,
    failed: `backends = ["${echoing.address}"]\nhealth.type = "off"\nsource_address = "192.0.2.1"`,
    full: `backends = [{ address = "${echoing.address}", max_connections = 1 }]`,
    queued: `backends = [{ address = "${echoing.address}", max_connections = 1 }]
      queue = { size = 1, timeout = "300ms" }`,
    checked: `backends = ["${echoing.address}"]\non_down = "reset"
      health = { interval = "100ms", timeout = "50ms", fall = 1, port = ${checked.port} }`,
  };
  for (const [name, lines] of Object.entries(pools)) text.push(`[pools.${name}]\n${lines}`);
  lb = await keep(startLb(text.join("\n")));
  await lb.waitStatus((status) => status.pools.find(({ name }) => name === "down")!.backends[0]!.up === false);
  atStart = descriptors(lb.pid);
});

const visit = (listener: string, options?: ConnectOptions): Promise<Client> => connect(ports.get(listener)!, options);

/** A client of this listener that is served. */
async function served(listener: string, options?: ConnectOptions): Promise<Client> {
  const client = await visit(listener, options);
  expect(await client.echoes()).toBe(true);
  return client;
}

/** The client's line has it, and so do the listener's counters, of which no other has changed. */
async function expectEnd(
  listener: string,
  client: Client,
  expected: Partial<AccessEntry> & { end: string; end_by: string },
  of: Lb = lb,
): Promise<void> {
  // The kernel may reuse the port of one listener's client for the client of another.
  const line = await of.waitLine((entry) => entry.listener === listener && entry.client === client.address);
  expect(line).toMatchObject(expected);
  const { end, end_by } = expected;
  expect(await of.metric("lb_listener_connections_ended_total", { listener, end, end_by })).toBe(1);
  seen.add(end);
}

/** The number of ended connections of a listener. */
const endsOf = (listener: string, of: Lb = lb): Promise<number | null> =>
  of.metric("lb_listener_connections_ended_total", { listener });

describe("eof", () => {
  test("by the client", async () => {
    using client = await served("plain");
    client.finish();
    expect(await client.ended).toBe("eof");
    await expectEnd("plain", client, {
      end: "eof",
      end_by: "client",
      bytes_in: 5,
      bytes_out: 5,
      pool: "echo",
      retries: 0,
    });
  });

  test("by the backend", async () => {
    using client = await visit("speaking");
    expect(await client.line()).toBe("hello");
    const [connection] = backends[1]!.open;
    connection!.shutdown();
    expect(await client.ended).toBe("eof");
    client.finish();
    await expectEnd("speaking", client, { end: "eof", end_by: "backend", bytes_in: 0, bytes_out: 6 });
  });

  test("without a byte either way is counted and not logged", async () => {
    const before = (await endsOf("plain"))!;
    using client = await visit("plain");
    client.finish();
    expect(await client.ended).toBe("eof");
    await lb.waitStatus(({ listeners }) => listeners.find(({ name }) => name === "plain")!.open === 0);
    expect(await endsOf("plain")).toBe(before + 1);
    // Later lines are written by now.
    using later = await served("plain");
    later.finish();
    await lb.lineOf(later);
    expect(lb.accessLines().some((line) => line.client === client.address)).toBe(false);
  });
});

describe("reset", () => {
  test("by the client", async () => {
    using client = await served("lost");
    client.reset();
    await expectEnd("lost", client, { end: "reset", end_by: "client", bytes_in: 5, bytes_out: 5 });
  });

  test("by the backend", async () => {
    using client = await visit("speaking");
    await client.line();
    const [connection] = backends[1]!.open;
    connection!.terminate();
    expect(await client.ended).toBe("reset");
    await expectEnd("speaking", client, { end: "reset", end_by: "backend", bytes_out: 6 });
  });
});

describe("timeouts", () => {
  test("idle_timeout", async () => {
    using client = await served("idle");
    expect(await client.ended).toBe("reset");
    await expectEnd("idle", client, { end: "idle_timeout", end_by: "lb" });
  });

  test('idle_timeout with FIN, with on_abort = "close"', async () => {
    using client = await served("idle_softly");
    expect(await client.ended).toBe("eof");
    await expectEnd("idle_softly", client, { end: "idle_timeout", end_by: "lb" });
  });

  test("half_close_timeout", async () => {
    using client = await visit("half");
    client.send("all\n");
    client.finish();
    expect(await client.ended).toBe("reset");
    await expectEnd("half", client, { end: "half_close_timeout", end_by: "lb", bytes_in: 4 });
  });

  test("lifetime", async () => {
    using client = await served("lifetime");
    expect(await client.ended).toBe("reset");
    await expectEnd("lifetime", client, { end: "lifetime", end_by: "lb" });
  });

  test("handshake_timeout", async () => {
    using client = await visit("proxied");
    client.send("PROXY TCP4 ");
    expect(await client.ended).toBe("reset");
    await expectEnd("proxied", client, { end: "handshake_timeout", end_by: "lb" });
  });
});

describe("clients that a listener refuses", () => {
  const refuse = async (listener: string, options: ConnectOptions, how: "reset" | "eof"): Promise<Client> => {
    const client = await visit(listener, options);
    expect(await client.ended).toBe(how);
    return client;
  };

  test.each([
    ["denied", "reset"],
    ["denied_softly", "eof"],
  ] as const)("denied (%s): the client sees %s", async (listener, how) => {
    using client = await refuse(listener, { from: "127.0.0.9" }, how);
    await expectEnd(listener, client, { end: "denied", end_by: "lb", bytes_in: 0, bytes_out: 0 });
    using other = await served(listener);
    other.finish();
    await other.ended;
  });

  test.each([
    ["rate", "reset"],
    ["rate_softly", "eof"],
  ] as const)("rate_limited (%s): the client sees %s", async (listener, how) => {
    using first = await served(listener);
    using client = await refuse(listener, {}, how);
    await expectEnd(listener, client, { end: "rate_limited", end_by: "lb" });
    expect(await first.echoes()).toBe(true);
  });

  test.each([
    ["cap", "reset"],
    ["cap_softly", "eof"],
  ] as const)("listener_full (%s): the client sees %s", async (listener, how) => {
    using first = await served(listener);
    using client = await refuse(listener, {}, how);
    await expectEnd(listener, client, { end: "listener_full", end_by: "lb" });
    expect(await first.echoes()).toBe(true);
  });

  test("client_full", async () => {
    using first = await served("client_cap");
    using client = await refuse("client_cap", {}, "reset");
    await expectEnd("client_cap", client, { end: "client_full", end_by: "lb" });
    using other = await served("client_cap", { from: "127.0.0.2" });
    expect([await first.echoes(), await other.echoes()]).toEqual([true, true]);
  });

  test("process_full", async () => {
    const port = await freePort();
    const config = `max_connections = 1\n[listeners.all]\nbind = "127.0.0.1:${port}"\npool = "echo"`;
    await using small = await startLb(`${config}\n[pools.echo]\nbackends = ["${backends[0]!.address}"]`);
    using first = await connect(port);
    expect(await first.echoes()).toBe(true);
    using client = await connect(port);
    expect(await client.ended).toBe("reset");
    await expectEnd("all", client, { end: "process_full", end_by: "lb" }, small);
    await small.waitLog(({ event }) => event.includes("max_connections"));
  });

  test("proxy_header_bad: a required header is missing", async () => {
    using client = await visit("proxied");
    client.send("GET / HTTP/1.1\r\n\r\n");
    expect(await client.ended).toBe("reset");
    await expectEnd("proxied", client, { end: "proxy_header_bad", end_by: "client" });
  });

  test("handshake_failed: the client does not use TLS", async () => {
    using client = await visit("secure");
    client.send("GET / HTTP/1.1\r\n\r\n");
    await client.ended;
    await expectEnd("secure", client, { end: "handshake_failed", end_by: "client" });
  });
});

describe("connections without a backend", () => {
  test.each([
    ["no_route", { end: "no_route", end_by: "lb" }],
    ["no_backend", { end: "no_backend", end_by: "lb", pool: "down" }],
    ["weightless", { end: "no_backend", end_by: "lb", pool: "weightless" }],
    ["refused", { end: "connect_refused", end_by: "backend", error: "ECONNREFUSED", pool: "refused" }],
    ["timeout", { end: "connect_timeout", end_by: "backend", error: "ETIMEDOUT", pool: "timeout" }],
    ["failed", { end: "connect_failed", end_by: "lb", error: "EADDRNOTAVAIL", pool: "failed" }],
  ])("%s", async (listener, expected) => {
    using client = await visit(listener);
    expect(await client.ended).toBe("reset");
    await expectEnd(listener, client, { ...expected, bytes_in: 0, bytes_out: 0 });
    expect(await endsOf(listener)).toBe(1);
  });

  test("queue_full: every backend is at its cap", async () => {
    using first = await served("queue");
    using client = await visit("queue");
    expect(await client.ended).toBe("reset");
    await expectEnd("queue", client, { end: "queue_full", end_by: "lb", pool: "full" });
    expect(await first.echoes()).toBe(true);
  });

  test("queue_timeout: every backend is at its cap for as long as a connection may wait", async () => {
    using first = await served("queued");
    using client = await visit("queued");
    expect(await client.ended).toBe("reset");
    await expectEnd("queued", client, { end: "queue_timeout", end_by: "lb", pool: "queued" });
    expect(await first.echoes()).toBe(true);
  });
});

test("no end leaves a descriptor or an unfinished connect behind", async () => {
  // Before a worker is killed, because its descriptors close with it.
  await lb.waitIdle();
  await eventually("as many descriptors as at the start", () => descriptors(lb.pid) <= atStart + 2);
  expect(await synSent(hole.port)).toBe(0);
  for (const pool of (await lb.status()).pools) {
    for (const { name, open } of pool.backends) expect([pool.name, name, open]).toEqual([pool.name, name, 0]);
  }
});

describe("connections that lb ends", () => {
  test("backend_down", async () => {
    using client = await served("down");
    backends[3]!.stop();
    expect(await client.ended).toBe("reset");
    await expectEnd("down", client, { end: "backend_down", end_by: "lb", bytes_in: 5, bytes_out: 5 });
  });

  test("shutdown", async () => {
    const port = await freePort();
    const config = `shutdown_timeout = "300ms"\n[listeners.all]\nbind = "127.0.0.1:${port}"\npool = "echo"`;
    const stopping = await startLb(`${config}\n[pools.echo]\nbackends = ["${backends[0]!.address}"]`);
    using client = await connect(port);
    expect(await client.echoes()).toBe(true);
    stopping.signal("SIGTERM");
    await client.ended;
    const line = await stopping.lineOf(client);
    expect(line).toMatchObject({ end: "shutdown", end_by: "lb", bytes_in: 5, bytes_out: 5 });
    expect(await stopping.exited).toEqual({ code: 0, signal: null });
    await stopping.stop();
    seen.add("shutdown");
  });

  test("worker_lost", async () => {
    using client = await served("plain");
    expect((await lb.restartWorker(0)).status).toBeLessThan(300);
    expect(await client.ended).toBe("reset");
    await expectEnd("plain", client, { end: "worker_lost", end_by: "lb", bytes_in: 5, bytes_out: 5, pool: "echo" });
    await lb.waitStatus(({ workers }) => workers[0]!.state === "running" && workers[0]!.restarts === 1);
    using next = await served("plain");
    next.finish();
    await next.ended;
  });
});

test("every end occurs in these tests, except those that do not exist yet", () => {
  expect([...seen, ...LATER].toSorted()).toEqual(END_NAMES.toSorted());
});
