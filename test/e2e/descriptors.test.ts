// The descriptor budget at its limits: no purpose uses another's share, and the process survives every shortage.
import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { readdirSync } from "node:fs";
import { connect as connectTcp, type Socket } from "node:net";
import { expect, test } from "vitest";
import { echo } from "../support/backends.ts";
import { connect, connectMany } from "../support/client.ts";
import { eventually } from "../support/eventually.ts";
import { freePort, freePorts, startLb, type Lb } from "../support/lb.ts";
import { descriptors } from "../support/proc.ts";

const config = (port: number, workers: number, backend: string): string => `
  workers = ${workers}
  watch = false
  [listeners.web]
  bind = "127.0.0.1:${port}"
  pool = "app"
  [pools.app]
  backends = ["${backend}"]
`;

/** Sets the soft limit of open files of the running process. */
function limitFiles(lb: Lb, soft: number | string): void {
  execFileSync("prlimit", ["--pid", String(lb.pid), `--nofile=${soft}:`]);
}

test("a reload to more workers than the open-files limit allows is refused with the required limit, and changes nothing", async () => {
  using backend = await echo();
  const port = await freePort();
  await using lb = await startLb(config(port, 2, backend.address), { ulimit: 256 });
  await lb.write(config(port, 64, backend.address));
  for (let i = 0; i < 3; i++) {
    const answer = await lb.send("POST", "/api/reload");
    expect(answer.status).toBe(422);
    const { message } = (await answer.json()) as { message: string };
    expect(message).toMatch(/workers = 64 .* need.* an open-files limit of at least \d+, and it is 256: .*ulimit -n/);
  }
  // Descriptors that open late, such as those of starting threads, exist by the answer to the second status.
  expect((await lb.status()).workers).toHaveLength(2);
  expect((await lb.status()).workers.every(({ state }) => state === "running")).toBe(true);
  using client = await connect(port);
  expect(await client.echoes()).toBe(true);
});

test("a worker that dies while no descriptor is free is started again once there are some", async () => {
  using backend = await echo();
  const port = await freePort();
  await using lb = await startLb(config(port, 2, backend.address), { ulimit: 1024 });
  using alive = await connect(port);
  expect(await alive.echoes()).toBe(true);
  // Connected before, because nobody is accepted afterwards.
  const admin = connectTcp(Number(new URL(lb.adminUrl).port), "127.0.0.1");
  await once(admin, "connect");
  admin.write("GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n");
  await once(admin, "data");

  // The worker that does not have the connection.
  const worker = (await lb.status()).workers.findIndex(({ open }) => open === 0);
  const inUse = Math.max(...readdirSync(`/proc/${lb.pid}/fd`).map(Number));
  limitFiles(lb, 3);
  expect(inUse).toBeGreaterThan(3);
  admin.write(
    `POST /api/workers/${worker}/restart HTTP/1.1\r\nHost: localhost\r\nX-Lb-Admin: 1\r\nContent-Length: 0\r\n\r\n`,
  );
  const { reason } = await lb.waitLog(({ event }) => event === "worker could not be started");
  expect(reason).toContain("open-files limit");
  expect(lb.running).toBe(true);
  expect(await alive.echoes("still here")).toBe(true);

  limitFiles(lb, 1024);
  await lb.waitLog(({ event }) => event === "worker started again");
  admin.destroy();
  expect((await lb.status()).workers.every(({ state }) => state === "running")).toBe(true);
});

/** Connects to the admin endpoint and begins a request that it never completes. */
function stalledRequests(lb: Lb, count: number): Socket[] {
  const port = Number(new URL(lb.adminUrl).port);
  return Array.from({ length: count }, () => {
    const socket = connectTcp(port, "127.0.0.1");
    socket.on("error", () => undefined);
    socket.on("connect", () => socket.write("GET /metrics HTTP/1.1\r\nHost: localhost\r\n"));
    return socket;
  });
}

test("connections to the admin endpoint have a cap, and it answers beyond it", async () => {
  using backend = await echo();
  const port = await freePort();
  await using lb = await startLb(config(port, 2, backend.address), { ulimit: 256 });
  const rest = descriptors(lb.pid);
  const flood = stalledRequests(lb, 300);
  try {
    await eventually("most of them are closed", () => flood.filter(({ closed }) => closed).length > 250);
    expect((await lb.fetch("/live")).status).toBe(200);
    expect((await lb.status()).pools[0]!.backends[0]!.up).toBe(true);
    // The share of this limit, and what is requested meanwhile.
    expect(descriptors(lb.pid)).toBeLessThanOrEqual(rest + 12);
    using client = await connect(port);
    expect(await client.echoes()).toBe(true);
  } finally {
    for (const socket of flood) socket.destroy();
  }
});

test("neither refused clients nor a flood of admin connections take descriptors from open connections or health checks", async () => {
  using backend = await echo();
  const [port, closed] = await freePorts(2);
  await using lb = await startLb(
    `
    workers = 2
    [listeners.web]
    bind = "127.0.0.1:${port}"
    pool = "app"
    [listeners.closed]
    bind = "127.0.0.1:${closed}"
    pool = "app"
    deny = ["127.0.0.0/8"]
    over_limit = "close"
    [pools.app]
    backends = ["${backend.address}"]
    on_down = "reset"
    health = { interval = "100ms", timeout = "10s", fall = 1 }
  `,
    { ulimit: 1024 },
  );
  const alive = await connectMany(port, 432);
  const admin = stalledRequests(lb, 400);
  const denied: Socket[] = [];
  for (let i = 0; i < 1365; i++) {
    const socket = connectTcp(closed, "127.0.0.1");
    socket.on("error", () => undefined);
    denied.push(socket);
  }
  try {
    await lb.waitLines(1365, ({ end }) => end === "denied", 60_000);
    expect((await lb.fetch("/live")).status).toBe(200);
    // Some more checks, while the refused clients still linger.
    const { success } = (await lb.status()).pools[0]!.backends[0]!.health.checks;
    const { pools } = await lb.waitStatus(
      (status) => status.pools[0]!.backends[0]!.health.checks.success > success + 3,
    );
    expect(pools[0]!.backends[0]!.health.checks.failure).toBe(0);
    expect(lb.log().filter(({ event }) => event === "backend down")).toEqual([]);
    for (const client of alive) expect(await client.echoes("still here")).toBe(true);
  } finally {
    for (const socket of [...denied, ...admin]) socket.destroy();
    for (const client of alive) client.reset();
  }
});
