// Worker threads as a user sees them: connections when one dies, the distribution of clients, and limits that are exact although several
// threads count.
import { spawnSync } from "node:child_process";
import { describe, expect, test } from "vitest";
import { parseAddress } from "../../src/core/address.ts";
import { echo, type Backend } from "../support/backends.ts";
import { connect, connectMany } from "../support/client.ts";
import { eventually } from "../support/eventually.ts";
import { freePort, startLb } from "../support/lb.ts";
import { startLoad } from "../support/load.ts";

describe("a worker that dies", () => {
  test("under load ends only the connections that it had accepted, and each of them has a log line", async () => {
    using backend = await echo();
    const port = await freePort();
    await using lb = await startLb(config(port, backend, "max_connections_per_client = 1000"));
    await using load = startLoad({ ports: [port], concurrency: 50 });
    await load.running;
    for (let death = 0; death < 8; death++) {
      const worker = death % 2;
      expect((await lb.restartWorker(worker)).status).toBe(200);
      await lb.waitStatus(({ workers }) => {
        const { restarts = 0, state = "" } = workers[worker] ?? {};
        return restarts === Math.floor(death / 2) + 1 && state === "running";
      });
      // The next death hits hundreds of connections again.
      await lb.waitAccepted(300);
    }
    const result = await load.stop();

    const { reset = 0, ...others } = result.failures;
    expect(others).toEqual({});
    expect(result.ok).toBe(result.started - reset);
    expect(result.ok).toBeGreaterThan(2000);
    expect(reset).toBeLessThan(8 * 100);
    const lost = lb.accessLines().filter(({ end }) => end === "worker_lost");
    const lostPorts = new Set(lost.map(portOf));
    expect(result.failed.filter((failure) => !lostPorts.has(failure.port)).length).toBe(0);

    // The number of a connection is never used again, not even by the replacement of a dead worker.
    const ids = lb.accessLines().map(({ id }) => id);
    expect(Math.min(...ids)).toBeGreaterThan(0);
    expect(new Set(ids).size).toBe(ids.length);

    const status = await lb.waitIdle();
    expect(status.listeners[0]!.open).toBe(0);
    expect(status.pools[0]!.backends[0]!.open).toBe(0);
    expect(status.workers.map(({ open }) => open)).toEqual([0, 0]);
  });

  test("has its connections' claims on every cap released", async () => {
    using backend = await echo();
    const port = await freePort();
    await using lb = await startLb(`
      workers = 2
      [listeners.web]
      bind = "127.0.0.1:${port}"
      pool = "app"
      max_connections = 40
      max_connections_per_client = 30
      [pools.app]
      backends = [{ address = "${backend.address}", max_connections = 40 }]
    `);
    for (let round = 0; round < 3; round++) {
      const clients = await connectMany(port, 30);
      using oneTooMany = await connect(port);
      expect(await oneTooMany.ended).toBe("reset");
      expect(await lb.lineOf(oneTooMany)).toMatchObject({ end: "client_full", end_by: "lb" });

      await lb.restartWorker(0);
      await lb.restartWorker(1);
      for (const client of clients) {
        expect(await client.ended).toBe("reset");
        const line = { end: "worker_lost", end_by: "lb", listener: "web", pool: "app", bytes_in: 5, bytes_out: 5 };
        expect(await lb.lineOf(client)).toMatchObject(line);
      }
      const runs = (status: { workers: { state: string }[] }): boolean =>
        status.workers.every(({ state }) => state === "running");
      const status = await lb.waitStatus((now) => now.connections.open === 0 && runs(now));
      expect(status.listeners[0]!.open).toBe(0);
      expect(status.pools[0]!.backends[0]!.open).toBe(0);
    }
    // The backend has seen the end of each of them.
    await eventually("no connection left at the backend", () => backend.open.size === 0);
    expect((await lb.ready()).status).toBe(200);
  });

  test("knows after its restart of a backend that came up while it was starting", async () => {
    using backend = await echo();
    const port = await freePort();
    await using lb = await startLb(`
      workers = 1
      [listeners.web]
      bind = "127.0.0.1:${port}"
      pool = "app"
      [pools.app]
      backends = ["${backend.address}"]
      health = { interval = "10ms", rise = 1, fall = 1 }
    `);
    const isUp = (up: boolean) => lb.waitStatus(({ pools }) => pools[0]!.backends[0]!.up === up);
    for (let round = 0; round < 7; round++) {
      const { restarts } = (await lb.status()).workers[0]!;
      backend.stopListening();
      await isUp(false);
      const from = lb.log().length;
      await lb.restartWorker(0);
      const died = await lb.waitLog(({ event }) => event === "worker ended on request", undefined, from);
      // A check sees it within 11 ms, and the thread needs longer than that to boot: most rounds fall between.
      await new Promise((resolve) => setTimeout(resolve, Number(died["restart_in_ms"]) - 10 + 2 * round));
      backend.start();
      await isUp(true);
      await lb.waitStatus(({ workers: [worker] }) => worker!.restarts > restarts && worker!.state === "running");
      using client = await connect(port);
      expect(await client.echoes(), `round ${round}`).toBe(true);
    }
  });

  test("on request is logged as a restart and not as a crash", async () => {
    using backend = await echo();
    const port = await freePort();
    await using lb = await startLb(config(port, backend));
    const from = lb.log().length;
    await lb.restartWorker(1);
    await lb.waitLog(({ event }) => event === "worker started again");
    const said = lb.log().slice(from);
    expect(said.map(({ event }) => event)).toEqual([
      "change by the admin API",
      "worker ended on request",
      "worker started again",
    ]);
    expect(said.filter(({ level }) => level !== "info")).toEqual([]);
  });

  test("does not affect the connections of the others", async () => {
    using backend = await echo();
    const port = await freePort();
    await using lb = await startLb(config(port, backend));
    const clients = await connectMany(port, 40);
    await lb.restartWorker(1);
    await lb.waitLog(({ event }) => event === "worker started again");
    // No other connection has ended yet, so all lines are those of the lost ones.
    const lines = await lb.waitLines(1, () => true);
    expect(lines.every(({ end, worker }) => end === "worker_lost" && worker === 1)).toBe(true);
    const lost = new Set(lines.map(({ client }) => client));
    expect(lost.size).toBeGreaterThan(0);
    expect(lost.size).toBeLessThan(40);
    for (const client of clients) {
      if (lost.has(client.address)) expect(await client.ended).toBe("reset");
      else expect(await client.echoes()).toBe(true);
      client.reset();
    }
  });
});

describe("worker_affinity", () => {
  test('"connection" spreads the connections of one client over all workers', async () => {
    const port = await freePort();
    await using lb = await startLb(refusesAll(`bind = "127.0.0.1:${port}"`));
    await startLoad({ ports: [port], concurrency: 20, total: 400 }).done;
    const lines = await lb.waitLines(400, () => true);
    const shares = countBy(lines.map(({ worker }) => worker));
    expect([...shares.keys()].toSorted((a, b) => a - b)).toEqual([0, 1, 2, 3]);
    // A fair spread gives each 100 ± 9 (one standard deviation).
    for (const share of shares.values()) expect(share).toBeGreaterThan(50);
  });

  test('"client" keeps each client with one worker, and all workers have clients', async () => {
    const port = await freePort();
    await using lb = await startLb(refusesAll(`bind = "127.0.0.1:${port}"\nworker_affinity = "client"`));
    const addresses = Array.from({ length: 40 }, (_, i) => `127.0.${i % 3}.${10 + i}`);
    await startLoad({ ports: [port], concurrency: 20, total: 400, from: addresses }).done;
    const byClient = workersByClient(await lb.waitLines(400, () => true));
    expect(byClient.size).toBe(40);
    expect([...byClient.values()].filter((workers) => workers.size > 1)).toEqual([]);
    expect(new Set([...byClient.values()].flatMap((workers) => [...workers]))).toEqual(new Set([0, 1, 2, 3]));
  });

  test('"client" does so for IPv6, by the /64 of the address', async (context) => {
    const setUp = ["ip link set lo up"];
    const networks = Array.from({ length: 20 }, (_, i) => `fd00:0:0:${(i + 16).toString(16)}:`);
    const addresses = networks.flatMap((network) => [`${network}:1`, `${network}:2:3`]);
    for (const address of addresses) setUp.push(`ip -6 addr add ${address}/128 dev lo nodad`);
    const wrapper = ["unshare", "-n", "sh", "-c", `${setUp.join(" && ")} && exec "$@"`, "--"];
    const trouble = spawnSync(wrapper[0]!, [...wrapper.slice(1), "true"]);
    if (trouble.status !== 0)
      context.skip(`no network namespace with IPv6 here: ${String(trouble.error ?? trouble.stderr).trim()}`);

    await using lb = await startLb(refusesAll(`bind = "[::]:8080"\nworker_affinity = "client"`), { wrapper });
    const within = ["nsenter", `--net=/proc/${lb.pid}/ns/net`];
    await startLoad({ ports: [8080], host: "fd00::10:0:0:0:1", concurrency: 20, total: 400, from: addresses }, within)
      .done;
    const lines = await lb.waitLines(400, () => true);
    const byNetwork = workersByClient(lines.map((line) => ({ ...line, client: networkOf(line.client) })));
    expect(workersByClient(lines).size).toBe(40);
    expect(byNetwork.size).toBe(20);
    expect([...byNetwork.values()].filter((workers) => workers.size > 1)).toEqual([]);
    expect(new Set([...byNetwork.values()].flatMap((workers) => [...workers]))).toEqual(new Set([0, 1, 2, 3]));
  });
});

test("a rate limit is exact over all workers together", async () => {
  using backend = await echo();
  const port = await freePort();
  const limit = `rate_limit = { rate = "50/s", burst = 10 }`;
  await using lb = await startLb(config(port, backend, limit).replace("workers = 2", "workers = 4"));
  const { ok, failures } = await startLoad({ ports: [port], concurrency: 50, rate: 250, total: 1000 }).done;
  expect(failures).toEqual({ reset: 1000 - ok });
  const lines = await lb.waitLines(1000, () => true);
  expect(lines.filter(({ end }) => end === "rate_limited").length).toBe(1000 - ok);
  // A client that is late gets back no tokens, so the number follows from the times of all connections, as lb has seen them.
  const times = lines.map(({ time, duration_ms }) => Date.parse(time) - duration_ms).toSorted((a, b) => a - b);
  let [tokens, lastMs, admitted] = [10, times[0]!, 0];
  for (const ms of times) {
    tokens = Math.min(10, tokens + (ms - lastMs) / 20);
    lastMs = ms;
    if (tokens < 1) continue;
    tokens--;
    admitted++;
  }
  expect(Math.abs(ok - admitted)).toBeLessThanOrEqual(5);
  // All four had a share.
  expect(new Set(lines.map(({ worker }) => worker))).toEqual(new Set([0, 1, 2, 3]));
});

// ---------------------------------------------------------------------- parts

/** Two workers. */
function config(port: number, backend: Backend, listener = ""): string {
  return `
    workers = 2
    [listeners.web]
    bind = "127.0.0.1:${port}"
    pool = "app"
    ${listener}
    [pools.app]
    backends = ["${backend.address}"]
  `;
}

/** Four workers and no backend: every connection ends at once with a line that says which worker had it. */
function refusesAll(listener: string): string {
  return `
    workers = 4
    [listeners.web]
    ${listener}
    pool = "app"
    [pools.app]
    backends = ["127.0.0.1:1"]
    health = { type = "off" }
  `;
}

function portOf({ client }: { client: string }): number {
  return Number(client.slice(client.lastIndexOf(":") + 1));
}

function countBy<T>(values: readonly T[]): Map<T, number> {
  const counts = new Map<T, number>();
  for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1);
  return counts;
}

function workersByClient(lines: readonly { client: string; worker: number }[]): Map<string, Set<number>> {
  const byClient = new Map<string, Set<number>>();
  for (const { client, worker } of lines) {
    const address = client.slice(0, client.lastIndexOf(":"));
    byClient.set(address, (byClient.get(address) ?? new Set()).add(worker));
  }
  return byClient;
}

/** The /64 of "[fd00:0:0:1::2]:80", with something that looks like a port behind it. */
function networkOf(client: string): string {
  const [w0, w1] = parseAddress(client.slice(1, client.indexOf("]"))) ?? [];
  return `${w0} ${w1}:0`;
}
