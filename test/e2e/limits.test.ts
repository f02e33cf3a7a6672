// Limits at their maximum: lists, caps, descriptors, backends that never answer. Each one is enforced, is reported, affects nobody else and
// leaves nothing behind.
import { describe, expect, test } from "vitest";
import { blackhole, echo } from "../support/backends.ts";
import { connect, type Client } from "../support/client.ts";
import { eventually } from "../support/eventually.ts";
import { freePort, freePorts, startLb, type AccessEntry } from "../support/lb.ts";
import { startLoad } from "../support/load.ts";
import { cpuSeconds, descriptors, synSent } from "../support/proc.ts";

function config(port: number, listener: string, backend: string): string {
  return `
    [listeners.web]
    bind = "127.0.0.1:${port}"
    pool = "app"
    ${listener}
    [pools.app]
    backends = ["${backend}"]
  `;
}

/** Connects once per number: which are served, in order. */
async function serve(port: number, count: number, options: { from?: string } = {}): Promise<Client[]> {
  const clients: Client[] = [];
  for (let i = 0; i < count; i++) {
    const client = await connect(port, options);
    if (await client.echoes()) clients.push(client);
  }
  return clients;
}

function resetAll(clients: readonly Client[]): void {
  for (const client of clients) client.reset();
}

describe("allow and deny", () => {
  test("deny takes precedence over allow, and refused clients are reset and logged", async () => {
    using backend = await echo();
    const port = await freePort();
    const lists = `allow = ["127.0.0.0/8"]\ndeny = ["127.0.1.0/24", "127.0.2.7"]`;
    await using lb = await startLb(config(port, lists, backend.address));
    for (const from of ["127.0.0.1", "127.0.2.6", "127.255.255.254"]) {
      using client = await connect(port, { from });
      expect(await client.echoes()).toBe(true);
    }
    for (const from of ["127.0.1.0", "127.0.1.255", "127.0.2.7"]) {
      using client = await connect(port, { from });
      expect(await client.ended).toBe("reset");
      expect(await lb.lineOf(client)).toMatchObject({
        end: "denied",
        end_by: "lb",
      });
    }
    expect((await lb.reload(config(port, `allow = ["127.0.9.0/24"]`, backend.address))).ok).toBe(true);
    using client = await connect(port);
    expect(await client.ended).toBe("reset");
    using allowed = await connect(port, { from: "127.0.9.1" });
    expect(await allowed.echoes()).toBe(true);
  });

  test('over_limit = "close" ends a refused client with FIN, even if it has sent data', async () => {
    using backend = await echo();
    const port = await freePort();
    await using lb = await startLb(config(port, `deny = ["127.0.0.1"]\nover_limit = "close"`, backend.address));
    for (let i = 0; i < 20; i++) {
      using client = await connect(port);
      client.send("hello\n");
      expect(await client.ended).toBe("eof");
    }
    expect((await lb.waitLines(20, ({ end }) => end === "denied")).length).toBe(20);
    expect(backend.bytesIn).toBe(0);
  });

  test("100,000 networks have no measurable cost", async () => {
    using backend = await echo();
    const [port, plain] = await freePorts(2);
    // Every second address, so that none of them merge.
    const networks = Array.from({ length: 100_000 }, (_, i) => `"10.${i >> 15}.${(i >> 7) & 255}.${(2 * i) & 255}/32"`);
    await using lb = await startLb(`
      workers = 2
      [listeners.long]
      bind = "127.0.0.1:${port}"
      pool = "app"
      deny = [${networks.join(", ")}]
      [listeners.short]
      bind = "127.0.0.1:${plain}"
      pool = "app"
      [pools.app]
      backends = ["${backend.address}"]
    `);
    expect(cpuSeconds(lb.pid)).toBeLessThan(5);
    const cost = async (target: number): Promise<number> => {
      const before = cpuSeconds(lb.pid);
      const { ok } = await startLoad({ ports: [target], concurrency: 20, total: 2000 }).done;
      expect(ok).toBe(2000);
      return cpuSeconds(lb.pid) - before;
    };
    await cost(plain);
    // Best of three each, alternating: other work of the machine can only add to it.
    const costs = { long: Infinity, short: Infinity };
    for (let i = 0; i < 3; i++) {
      costs.short = Math.min(costs.short, await cost(plain));
      costs.long = Math.min(costs.long, await cost(port));
    }
    expect(costs.long).toBeLessThan(1.5 * costs.short + 0.05);
    using client = await connect(port);
    expect(await client.echoes()).toBe(true);
  });
});

describe("max_connections", () => {
  test("of the process applies to all listeners together", async () => {
    using backend = await echo();
    const [a, b] = await freePorts(2);
    await using lb = await startLb(`
      workers = 4
      max_connections = 10
      [listeners.a]
      bind = "127.0.0.1:${a}"
      pool = "app"
      [listeners.b]
      bind = "127.0.0.1:${b}"
      pool = "app"
      [pools.app]
      backends = ["${backend.address}"]
    `);
    const clients = [...(await serve(a, 6)), ...(await serve(b, 6))];
    expect(clients.length).toBe(10);
    const refused = await lb.waitLines(2, () => true);
    for (const line of refused)
      expect(line).toMatchObject({ listener: "b", end: "process_full", end_by: "lb", bytes_in: 0 });
    expect((await lb.status()).connections).toMatchObject({ open: 10, max: 10 });
    expect(await lb.metric("lb_connections_open")).toBe(10);
    expect(await lb.waitLog(({ event }) => event.startsWith("at max_connections"))).toMatchObject({ level: "warn" });
    resetAll(clients);
    await lb.waitIdle();
    const again = await serve(a, 11);
    expect(again.length).toBe(10);
    resetAll(again);
  });

  test("of a listener applies to that listener only", async () => {
    using backend = await echo();
    const [a, b] = await freePorts(2);
    await using lb = await startLb(`
      workers = 4
      [listeners.a]
      bind = "127.0.0.1:${a}"
      pool = "app"
      max_connections = 5
      [listeners.b]
      bind = "127.0.0.1:${b}"
      pool = "app"
      [pools.app]
      backends = ["${backend.address}"]
    `);
    const clients = await serve(a, 8);
    expect(clients.length).toBe(5);
    const others = await serve(b, 8);
    expect(others.length).toBe(8);
    const { listeners } = await lb.status();
    expect(listeners.map(({ name, open, max_connections }) => ({ name, open, max_connections }))).toEqual([
      { name: "a", open: 5, max_connections: 5 },
      { name: "b", open: 8, max_connections: 0 },
    ]);
    expect(listeners[0]!.ends).toEqual([{ end: "listener_full", end_by: "lb", count: 3 }]);
    clients.pop()!.reset();
    await lb.waitStatus((status) => status.listeners[0]!.open === 4);
    const one = await serve(a, 2);
    expect(one.length).toBe(1);
    resetAll([...clients, ...others, ...one]);
  });

  test("per client counts addresses by client_prefix", async () => {
    using backend = await echo();
    const port = await freePort();
    const limits = (prefix: number): string =>
      `max_connections_per_client = 3\nclient_prefix = { ipv4 = ${prefix}, ipv6 = 64 }`;
    await using lb = await startLb(`workers = 4\n${config(port, limits(32), backend.address)}`);
    const first = await serve(port, 5, { from: "127.0.5.1" });
    const second = await serve(port, 5, { from: "127.0.5.2" });
    expect([first.length, second.length]).toEqual([3, 3]);
    resetAll([...first, ...second]);
    await lb.waitIdle();

    await using other = await startLb(`workers = 4\n${config(await freePort(), limits(24), backend.address)}`);
    const otherPort = Number((await other.status()).listeners[0]!.bind[0]!.split(":")[1]);
    const network: Client[] = [];
    for (const host of ["127.0.5.1", "127.0.5.2", "127.0.5.3", "127.0.5.4"]) {
      network.push(...(await serve(otherPort, 1, { from: host })));
    }
    expect(network.length).toBe(3);
    const neighbours = await serve(otherPort, 4, { from: "127.0.6.1" });
    expect(neighbours.length).toBe(3);
    network.pop()!.reset();
    await other.waitLine(({ end }) => end === "reset");
    const next = await serve(otherPort, 2, { from: "127.0.5.200" });
    expect(next.length).toBe(1);
    resetAll([...network, ...neighbours, ...next]);
  });

  test("caps are exact under a flood from several clients on several workers", async () => {
    using backend = await echo();
    const port = await freePort();
    await using lb = await startLb(`workers = 4\n${config(port, "max_connections = 17", backend.address)}`);
    // Nobody holds them open: each ends as soon as it has its answer, so the cap is reached repeatedly.
    const { ok, failures } = await startLoad({ ports: [port], concurrency: 60, total: 3000 }).done;
    expect(ok + (failures.reset ?? 0)).toBe(3000);
    expect(failures.reset).toBeGreaterThan(0);
    const status = await lb.waitIdle();
    expect(status.listeners[0]!.open).toBe(0);
    const clients = await serve(port, 20);
    expect(clients.length).toBe(17);
    resetAll(clients);
  });
});

test("without free descriptors no thread spins, the log says it once, the admin endpoint answers, and lb recovers", async () => {
  using backend = await echo();
  const port = await freePort();
  const toml = `workers = 2\n${config(port, "", backend.address)}`;
  await using lb = await startLb(toml, { ulimit: 100 });
  const { max, open_files_limit } = (await lb.status()).connections;
  expect(open_files_limit).toBe(100);
  expect(max).toBeGreaterThan(5);
  expect(max).toBeLessThan(50);

  const clients = await Promise.all(Array.from({ length: 200 }, () => connect(port)));
  const served = await Promise.all(clients.map((client) => client.echoes()));
  const alive = clients.filter((_, i) => served[i]);
  expect(clients.filter(({ end }) => end === "reset").length).toBe(200 - alive.length);
  expect(alive.length).toBe(max);
  expect(descriptors(lb.pid)).toBeLessThan(100);

  const before = cpuSeconds(lb.pid);
  const began = performance.now();
  // Probes of monitoring, and clients that connect anyway.
  for (let i = 0; i < 20; i++) {
    expect((await lb.ready()).status).toBe(200);
    using late = await connect(port);
    expect(await late.ended).toBe("reset");
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  expect((cpuSeconds(lb.pid) - before) / ((performance.now() - began) / 1000)).toBeLessThan(0.25);
  expect(lb.log().filter(({ event }) => event.startsWith("at max_connections")).length).toBe(1);
  expect(lb.log().filter(({ level }) => level === "error")).toEqual([]);
  for (const client of alive) expect(await client.echoes("still here")).toBe(true);

  resetAll(alive);
  await lb.waitIdle();
  await lb.waitLog(({ event }) => event === "below max_connections again");
  const again = await serve(port, max + 3);
  expect(again.length).toBe(max);
  resetAll(again);
  expect((await lb.waitIdle()).pools[0]!.backends[0]!.up).toBe(true);
});

test("a backend that never answers costs no more than its deadline, and does not affect other pools", async () => {
  await using hole = await blackhole();
  using backend = await echo();
  const [dark, light] = await freePorts(2);
  const timeoutMs = 300;
  await using lb = await startLb(`
    workers = 2
    [listeners.dark]
    bind = "127.0.0.1:${dark}"
    pool = "dark"
    [listeners.light]
    bind = "127.0.0.1:${light}"
    pool = "light"
    [pools.dark]
    backends = ["${hole.address}"]
    connect_timeout = "${timeoutMs}ms"
    retries = 0
    health = { type = "off" }
    [pools.light]
    backends = ["${backend.address}"]
  `);
  const alone = await startLoad({ ports: [light], concurrency: 1, rate: 200, total: 300 }).done;
  expect(alone.failures).toEqual({});
  const rest = descriptors(lb.pid);

  const rate = 1000;
  await using flood = startLoad({ ports: [dark], concurrency: 5000, rate });
  await eventually("the flood is there", async () => (await synSent(hole.port)) > 50);
  const besideLoad = startLoad({ ports: [light], concurrency: 1, rate: 200 });
  let most = 0;
  await lb.waitStatus((status) => status.listeners[1]!.accepted > alone.started + 100);
  do {
    most = Math.max(most, await synSent(hole.port));
  } while ((await lb.status()).listeners[0]!.accepted < 2500);
  const beside = await besideLoad.stop();
  const { started, ok, failures } = await flood.stop();

  expect(ok).toBe(0);
  expect(failures).toEqual({ reset: started });
  expect(beside.failures).toEqual({});
  // A connection that waited for one of the others would need their deadline.
  expect(beside.latencyMs.median).toBeLessThan(Math.max(timeoutMs / 2, 10 * alone.latencyMs.median));
  const lines = await lb.waitLines(started, ({ listener }) => listener === "dark");
  expect(lines.length).toBe(started);
  for (const line of lines)
    expect(line).toMatchObject({ end: "connect_timeout", end_by: "backend", error: "ETIMEDOUT" });
  // Each had one socket, for as long as it was open; a reading of the kernel's table takes a moment.
  expect(most).toBeGreaterThan(20);
  expect(most).toBeLessThan(1.5 * mostAtOnce(lines));
  // The deadline, a tick of the clock, and what a busy machine adds to some.
  const durations = lines.map((line) => line.duration_ms).toSorted((a, b) => a - b);
  expect(durations[0]).toBeGreaterThan(0.8 * timeoutMs);
  expect(durations[durations.length >> 2]).toBeLessThan(2 * timeoutMs);
  // Nothing is left: no sockets, no descriptors and no claims.
  await eventually("no SYN is left", async () => (await synSent(hole.port)) === 0);
  await lb.waitStatus(({ connections, pools }) => connections.open === 0 && pools[0]!.backends[0]!.open === 0);
  await eventually("the descriptors are back", () => descriptors(lb.pid) <= rest + 3);
});

/** The maximum number of connections that were open at the same time. */
function mostAtOnce(lines: AccessEntry[]): number {
  const events = lines.flatMap(({ time, duration_ms }) => {
    const ended = Date.parse(time);
    // To the next millisecond on both sides: the line's times are rounded.
    return [[ended - duration_ms - 1, 1] as const, [ended + 1, -1] as const];
  });
  let [open, most] = [0, 0];
  for (const [, change] of events.toSorted(([a], [b]) => a - b)) most = Math.max(most, (open += change));
  return most;
}
