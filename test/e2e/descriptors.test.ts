// The descriptor budget where it is reached: no purpose takes from another, and the process outlives every shortage.
import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { readdirSync } from "node:fs";
import { connect as connectTcp } from "node:net";
import { expect, test } from "vitest";
import { echo } from "../support/backends.ts";
import { connect } from "../support/client.ts";
import { freePort, startLb, type Lb } from "../support/lb.ts";

const config = (port: number, workers: number, backend: string): string => `
  workers = ${workers}
  watch = false
  [listeners.web]
  bind = "127.0.0.1:${port}"
  pool = "app"
  [pools.app]
  backends = ["${backend}"]
`;

const POST = { method: "POST", headers: { "X-Lb-Admin": "1" } };

/** Sets the soft limit of open files of the running process. */
function limitFiles(lb: Lb, soft: number | string): void {
  execFileSync("prlimit", ["--pid", String(lb.pid), `--nofile=${soft}:`]);
}

test("a reload to more workers than the open files allow is refused with the figure, and changes nothing", async () => {
  using backend = await echo();
  const port = await freePort();
  await using lb = await startLb(config(port, 2, backend.address), { ulimit: 256 });
  await lb.write(config(port, 64, backend.address));
  for (let i = 0; i < 3; i++) {
    const answer = await lb.fetch("/api/reload", POST);
    expect(answer.status).toBe(422);
    const { message } = (await answer.json()) as { message: string };
    expect(message).toMatch(/workers = 64 .* need.* an open-files limit of at least \d+, and it is 256: .*ulimit -n/);
  }
  // What comes late, such as threads that were half started, is there by the answer to the second status.
  expect((await lb.status()).workers).toHaveLength(2);
  expect((await lb.status()).workers.every(({ state }) => state === "running")).toBe(true);
  using client = await connect(port);
  expect(await client.echoes()).toBe(true);
});

test("a worker that dies while no descriptor is free is started again when there are some", async () => {
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

  // The worker that the connection is not with.
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
  await lb.waitLog(({ event }) => event === "worker started again", 30_000);
  admin.destroy();
  expect((await lb.status()).workers.every(({ state }) => state === "running")).toBe(true);
}, 60_000);
