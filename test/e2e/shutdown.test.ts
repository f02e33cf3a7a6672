// The stop: readiness fails first, no accepted connection is cut before shutdown_timeout, and the ends are spread.
import { describe, expect, test } from "vitest";
import { echo, tagged, type Backend } from "../support/backends.ts";
import { connect, connectMany, isRefused } from "../support/client.ts";
import { eventually } from "../support/eventually.ts";
import { holdThread, workerThreads } from "../support/held-thread.ts";
import { freePort, startLb, type Lb } from "../support/lb.ts";
import { startLoad } from "../support/load.ts";
import { pythonMissing } from "../support/tcp-peer.ts";

function config(port: number, backend: Backend, shutdownTimeout: string, shutdownDelay = "0s"): string {
  return `
    workers = 2
    shutdown_delay = "${shutdownDelay}"
    shutdown_timeout = "${shutdownTimeout}"
    [listeners.web]
    bind = "127.0.0.1:${port}"
    pool = "app"
    [pools.app]
    backends = ["${backend.address}"]
  `;
}

const refuses = (port: number): Promise<true> => eventually("new connections are refused", () => isRefused(port));

const endTimes = (lb: Lb): number[] => lb.accessLines().map(({ time }) => Date.parse(time));

describe("without a connection", () => {
  test.each(["SIGTERM", "SIGINT"] as const)("%s ends the process promptly, with exit code 0", async (signal) => {
    using backend = await echo();
    const port = await freePort();
    await using lb = await startLb(config(port, backend, "30s"));
    const began = performance.now();
    lb.signal(signal);
    expect(await lb.exited).toEqual({ code: 0, signal: null });
    // Far from shutdown_timeout, with the time of a busy machine.
    expect(performance.now() - began).toBeLessThan(10_000);
    expect(
      lb
        .log()
        .map(({ event }) => event)
        .slice(-2),
    ).toEqual(["stopping", "stopped"]);
    await expect(connect(port)).rejects.toThrow("ECONNREFUSED");
  });

  test("the process ends with the last connection", async () => {
    using backend = await echo();
    const port = await freePort();
    await using lb = await startLb(config(port, backend, "30s"));
    const [client] = await connectMany(port, 1);
    lb.signal("SIGTERM");
    await refuses(port);
    expect(await client!.echoes()).toBe(true);
    expect(lb.running).toBe(true);
    client!.finish();
    expect(await client!.ended).toBe("eof");
    expect(await lb.exited).toEqual({ code: 0, signal: null });
    expect(lb.accessLines().map(({ end }) => end)).toEqual(["eof"]);
  });
});

describe("with open connections", () => {
  test("/ready fails at once, new connections are refused, open ones continue and /live answers", async () => {
    using backend = await echo();
    const port = await freePort();
    await using lb = await startLb(config(port, backend, "30s"));
    const clients = await connectMany(port, 10);
    lb.signal("SIGTERM");
    await lb.waitLog(({ event }) => event === "stopping");
    expect(await lb.ready()).toEqual({ status: 503, text: "not ready\nthe process is stopping\n" });
    await refuses(port);
    expect((await lb.fetch("/live")).status).toBe(200);
    expect(await lb.metric("lb_ready")).toBe(0);
    for (const client of clients) expect(await client.echoes()).toBe(true);
    expect((await lb.status()).connections.open).toBe(10);
    for (const client of clients) client.finish();
    expect((await lb.exited).code).toBe(0);
    expect(lb.accessLines().length).toBe(10);
  });

  test("remaining connections are ended within the last fifth of shutdown_timeout, spread over it", async () => {
    using backend = await echo();
    const port = await freePort();
    await using lb = await startLb(config(port, backend, "5s"));
    const clients = await connectMany(port, 100);
    lb.signal("SIGTERM");
    const stopping = Date.parse((await lb.waitLog(({ event }) => event === "stopping")).time);
    expect(await lb.exited).toEqual({ code: 0, signal: null });
    const stopped = Date.parse(lb.log().find(({ event }) => event === "stopped")!.time);
    // The rest is for a busy machine.
    expect(stopped - stopping).toBeLessThan(20_000);

    const lines = lb.accessLines();
    expect(lines.length).toBe(100);
    for (const line of lines) expect(line).toMatchObject({ end: "shutdown", end_by: "lb", bytes_in: 5, bytes_out: 5 });
    const after = endTimes(lb).map((time) => time - stopping);
    expect(Math.min(...after)).toBeGreaterThan(3950);
    // At random over a second, and not together, as far as the machine lets them.
    expect(Math.max(...after) - Math.min(...after)).toBeGreaterThan(500);
    expect(new Set(after.map((ms) => Math.floor(ms / 50))).size).toBeGreaterThan(5);
    for (const client of clients) expect(await client.ended).toBe("reset");
    await eventually("the backend sees them go", () => backend.open.size === 0);
  });

  test.each(["SIGTERM", "SIGINT"] as const)(
    "a second %s resets them in the middle of their answers, logs them, and ends the process with exit code 0",
    async (signal) => {
      using backend = await tagged("half an ans");
      const port = await freePort();
      await using lb = await startLb(config(port, backend, "1h"));
      const clients = await Promise.all(Array.from({ length: 20 }, () => connect(port)));
      for (const client of clients) expect(await client.line()).toBe("half an ans");
      lb.signal("SIGTERM");
      await lb.waitLog(({ event }) => event === "stopping");
      // No byte has moved for as long as a pause that might look like an end.
      await new Promise((resolve) => setTimeout(resolve, 1200));
      lb.signal(signal);
      expect(await lb.exited).toEqual({ code: 0, signal: null });
      for (const client of clients) expect(await client.ended).toBe("reset");
      expect(lb.log().some(({ event }) => event === "stopping at once")).toBe(true);
      const lines = lb.accessLines();
      expect(lines.map(({ client }) => client).toSorted()).toEqual(clients.map(({ address }) => address).toSorted());
      for (const line of lines) expect(line).toMatchObject({ end: "shutdown", end_by: "lb", bytes_out: 12 });
    },
  );

  test("a second signal does so although a worker hangs, and when the first is not a second old", async (context) => {
    if (pythonMissing !== null) context.skip(pythonMissing);
    using backend = await tagged("half an ans");
    const port = await freePort();
    await using lb = await startLb(config(port, backend, "1h"));
    const clients = await Promise.all(Array.from({ length: 20 }, () => connect(port)));
    for (const client of clients) expect(await client.line()).toBe("half an ans");
    const { workers } = await lb.status();
    expect(Math.min(...workers.map(({ open }) => open))).toBeGreaterThan(0);
    using held = await holdThread(workerThreads(lb.pid)[0]!);
    if (held === null) context.skip("this process may not trace another");
    lb.signal("SIGTERM");
    await lb.waitLog(({ event }) => event === "stopping");
    const began = performance.now();
    lb.signal("SIGTERM");
    expect(await lb.exited).toEqual({ code: 0, signal: null });
    // One second for the hanging worker, and the time of a busy machine.
    expect(performance.now() - began).toBeLessThan(10_000);
    for (const client of clients) expect(await client.ended).toBe("reset");
    const lines = lb.accessLines();
    expect(lines.map(({ client }) => client).toSorted()).toEqual(clients.map(({ address }) => address).toSorted());
    for (const line of lines) expect(line).toMatchObject({ end: "shutdown", end_by: "lb", bytes_out: 12 });
    expect(new Set(lines.map(({ worker }) => worker))).toEqual(new Set([0, 1]));
  });

  test('shutdown_timeout = "0s" waits for no connection', async () => {
    using backend = await echo();
    const port = await freePort();
    await using lb = await startLb(config(port, backend, "0s"));
    const clients = await connectMany(port, 5);
    const began = performance.now();
    lb.signal("SIGTERM");
    expect((await lb.exited).code).toBe(0);
    // Far from the default, with the time of a busy machine.
    expect(performance.now() - began).toBeLessThan(10_000);
    for (const client of clients) expect(await client.ended).toBe("reset");
    expect(lb.accessLines().map(({ end }) => end)).toEqual(Array(5).fill("shutdown"));
  });
});

describe("during shutdown_delay", () => {
  test("/ready and /ready/LISTENER fail at once, new connections are served, the backends are checked", async () => {
    using backend = await echo();
    const port = await freePort();
    const toml = `${config(port, backend, "30s", "3s")}\n[pools.app.health]\ninterval = "50ms"`;
    await using lb = await startLb(toml);
    lb.signal("SIGTERM");
    const stopping = await lb.waitLog(({ event }) => event === "stopping");
    expect(stopping).toMatchObject({ shutdown_delay_ms: 3000, shutdown_timeout_ms: 30_000 });
    const reason = "not ready\nthe process is stopping\n";
    expect(await lb.ready()).toEqual({ status: 503, text: reason });
    expect(await lb.ready("web")).toEqual({ status: 503, text: reason });
    const [client] = await connectMany(port, 1);
    const checks = (await lb.status()).pools[0]!.backends[0]!.health.checks.success;
    await lb.waitStatus(({ pools }) => pools[0]!.backends[0]!.health.checks.success > checks);
    await refuses(port);
    const refusedAfterMs = Date.now() - Date.parse(stopping.time);
    expect(refusedAfterMs).toBeGreaterThanOrEqual(2990);
    // Then shutdown_timeout begins.
    expect(await client!.echoes()).toBe(true);
    client!.finish();
    expect(await lb.exited).toEqual({ code: 0, signal: null });
  });

  test("a second signal ends it at once", async () => {
    using backend = await echo();
    const port = await freePort();
    await using lb = await startLb(config(port, backend, "30s", "10m"));
    await connectMany(port, 3);
    lb.signal("SIGTERM");
    await lb.waitLog(({ event }) => event === "stopping");
    lb.signal("SIGTERM");
    expect(await lb.exited).toEqual({ code: 0, signal: null });
  });
});

test("under load every accepted or queued connection is served, and later ones are refused", async () => {
  using backend = await echo();
  const port = await freePort();
  for (let round = 0; round < 3; round++) {
    await using lb = await startLb(config(port, backend, "20s"));
    await using load = startLoad({ ports: [port], concurrency: 100, rate: 4000 });
    await load.running;
    await lb.waitStatus(({ listeners }) => listeners[0]!.accepted > 1000);
    lb.signal("SIGTERM");
    expect(await lb.exited).toEqual({ code: 0, signal: null });
    const { started, ok, failures } = await load.stop();
    const { refused = 0, ...others } = failures;
    expect(others).toEqual({});
    expect(ok + refused).toBe(started);
    expect(refused).toBeGreaterThan(0);
    expect(lb.accessLines().filter(({ end }) => end !== "eof")).toEqual([]);
    expect(lb.accessLines().length).toBe(ok);
  }
});
