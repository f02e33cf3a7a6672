// Metrics of the running binary that only the system or another thread knows.
import { spawnSync } from "node:child_process";
import { expect, test } from "vitest";
import { echo, refusing } from "../support/backends.ts";
import { connect, connectMany } from "../support/client.ts";
import { eventually } from "../support/eventually.ts";
import { holdThread, workerThreads } from "../support/held-thread.ts";
import { freePort, freePorts, startLb } from "../support/lb.ts";
import { cpuSeconds, descriptors, residentBytes } from "../support/proc.ts";
import { pythonMissing, TcpPeers } from "../support/tcp-peer.ts";

function config(port: number, backend: string): string {
  return `
    workers = 1
    [listeners.web]
    bind = "127.0.0.1:${port}"
    pool = "app"
    [pools.app]
    backends = ["${backend}"]
  `;
}

test("the bytes of a backend are counted while a connection is open, and are neither lost nor doubled by its end", async (context) => {
  if (pythonMissing !== null) context.skip(pythonMissing);
  await using peers = new TcpPeers();
  using backend = await echo();
  const port = await freePort();
  const head = "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n";
  // Some are tried in vain first; bytes that the client sent meanwhile belong to the one that answers.
  await using lb = await startLb(`
    workers = 1
    [listeners.web]
    bind = "127.0.0.1:${port}"
    pool = "app"
    proxy_protocol = "required"
    trusted_proxies = ["127.0.0.1"]
    [pools.app]
    backends = ["${await refusing()}", "${backend.address}"]
    health.type = "off"
  `);
  const bytes = async (): Promise<(number | null)[]> =>
    Promise.all(
      ["sent", "received"].map((way) => lb.metric(`lb_backend_${way}_bytes_total`, { backend: backend.address })),
    );
  const count = 3_000_000;
  const bulk = await peers.connect(`127.0.0.1:${port}`);
  await bulk.send(`${head}first\n`);
  expect((await bulk.read(6)).text).toBe("first\n");
  using small = await connect(port);
  small.send(`${head}hello\n`);
  expect(await small.line()).toBe("hello");
  expect(await bytes()).toEqual([12, 12]);

  const [, back] = await Promise.all([bulk.sendStream(count), bulk.read(count)]);
  expect(back.text.length).toBe(count);
  expect(await bytes()).toEqual([count + 12, count + 12]);

  small.finish();
  expect(await small.ended).toBe("eof");
  await lb.lineOf({ from: "192.0.2.1" });
  expect(await bytes()).toEqual([count + 12, count + 12]);
  await lb.restartWorker(0);
  expect((await bulk.read(1)).end).toBe("reset");
  await lb.waitLog(({ event }) => event === "worker started again");
  expect(await bytes()).toEqual([count + 12, count + 12]);
  expect(await lb.metric("lb_backend_connections_ended_total", { backend: backend.address })).toBe(2);
  expect(await lb.metric("lb_backend_sent_bytes_total")).toBe(count + 12);
});

test("connections that came to a backend are in the histograms of lives and of first bytes, refused ones are not", async () => {
  using backend = await echo();
  const [port, refusing] = await freePorts(2);
  await using lb = await startLb(`${config(port!, backend.address)}
    [listeners.refusing]
    bind = "127.0.0.1:${refusing}"
    pool = "app"
    deny = ["127.0.0.1"]`);
  using client = await connect(port!);
  using silent = await connect(port!);
  expect(await client.echoes()).toBe(true);
  const counts = (listener: string): Promise<(number | null)[]> =>
    Promise.all(
      ["lb_first_byte_seconds_count", "lb_connection_duration_seconds_count"].map((name) =>
        lb.metric(name, { listener }),
      ),
    );
  expect(await counts("web")).toEqual([1, 0]);
  expect(await client.echoes()).toBe(true);
  client.finish();
  silent.finish();
  await lb.waitIdle();
  expect(await counts("web")).toEqual([1, 2]);
  using refused = await connect(refusing!);
  await refused.ended;
  await lb.waitLine(({ listener }) => listener === "refusing");
  expect(await counts("refusing")).toEqual([0, 0]);
});

test("process_* match the kernel's figures", async () => {
  using backend = await echo();
  const port = await freePort();
  const beforeMs = Date.now();
  await using lb = await startLb(config(port, backend.address));
  const clients = await connectMany(port, 20);
  const value = async (name: string): Promise<number> => (await lb.metric(name))!;
  expect(Math.abs((await value("process_start_time_seconds")) * 1000 - beforeMs)).toBeLessThan(20_000);
  const cpu = await value("process_cpu_seconds_total");
  expect(cpu).toBeGreaterThan(0);
  // The kernel counts in steps of 10 ms.
  expect(cpu).toBeLessThanOrEqual(cpuSeconds(lb.pid) + 0.05);
  const resident = await value("process_resident_memory_bytes");
  expect(resident / residentBytes(lb.pid)).toBeGreaterThan(0.5);
  expect(resident / residentBytes(lb.pid)).toBeLessThan(2);
  const open = await value("process_open_fds");
  // The admin endpoint's own connections vary.
  expect(Math.abs(open - descriptors(lb.pid))).toBeLessThan(10);
  expect(open).toBeGreaterThan(40);
  expect(await value("process_max_fds")).toBe((await lb.status()).connections.open_files_limit);
  for (const client of clients) client.reset();
  await lb.waitIdle();
  await eventually("descriptors are given back", async () => (await value("process_open_fds")) < open - 30);
});

test("a blocked worker is shown while it is blocked, and as a delay afterwards", async (context) => {
  if (pythonMissing !== null) context.skip(pythonMissing);
  using backend = await echo();
  const port = await freePort();
  await using lb = await startLb(config(port, backend.address));
  const blocked = (): Promise<number> =>
    lb.metric("lb_worker_event_loop_blocked_seconds", { worker: "0" }) as Promise<number>;
  // Without connections there is no clock, and no delay.
  expect(await blocked()).toBe(0);
  const [client] = await connectMany(port, 1);
  await eventually("the delay is measured", async () => {
    return (await lb.metric("lb_worker_event_loop_delay_seconds_count", { worker: "0" }))! > 3;
  });
  const longer = async (): Promise<number> => {
    const all = (await lb.metric("lb_worker_event_loop_delay_seconds_bucket", { worker: "0", le: "+Inf" }))!;
    return all - (await lb.metric("lb_worker_event_loop_delay_seconds_bucket", { worker: "0", le: "1" }))!;
  };
  const before = await longer();
  {
    using held = await holdThread(workerThreads(lb.pid)[0]!);
    if (held === null) context.skip("this process may not trace another");
    await eventually("the block is seen", async () => (await blocked()) > 1.5);
    expect((await lb.fetch("/live")).status).toBe(200);
  }
  expect(await client!.echoes()).toBe(true);
  await eventually("the delay is counted", async () => (await longer()) > before);
  await eventually("the block is over", async () => (await blocked()) < 1);
});

test("the status has the operator's state and the health of each backend", async () => {
  using backend = await echo();
  await using lb = await startLb(config(await freePort(), backend.address));
  const { name, backends } = (await lb.status()).pools[0]!;
  expect(name).toBe("app");
  expect(backends).toMatchObject([
    {
      name: backend.address,
      address: backend.address,
      state: "ready",
      weight: 1,
      health: { up: true, last_error: null },
    },
  ]);
  expect(Date.parse(backends[0]!.health.since)).toBeGreaterThan(0);
});

const hasPromtool = spawnSync("promtool", ["--version"]).status === 0;
test.skipIf(!hasPromtool)("promtool has no complaint about the whole page (needs promtool)", async () => {
  using backend = await echo();
  await using lb = await startLb(config(await freePort(), backend.address));
  const { status, stdout, stderr } = spawnSync("promtool", ["check", "metrics"], {
    input: await lb.metrics(),
    encoding: "utf8",
  });
  expect({ status, stdout, stderr }).toEqual({ status: 0, stdout: "", stderr: "" });
});
