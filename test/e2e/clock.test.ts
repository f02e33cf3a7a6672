// The wall clock is set while lb runs: the times in the access log. Only the process under test sees the other time.
import { existsSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { echo } from "../support/backends.ts";
import { connect } from "../support/client.ts";
import { freePort, startLb } from "../support/lb.ts";
import { calledAfterEach } from "../support/set-up.ts";

const LIBRARIES = ["x86_64-linux-gnu", "aarch64-linux-gnu"].map(
  (machine) => `/usr/lib/${machine}/faketime/libfaketimeMT.so.1`,
);
const HOUR_MS = 3_600_000;

const cleanUp = calledAfterEach();

test("setting the wall clock changes the times in the access log, but not durations or the shutdown", async (context) => {
  const library = LIBRARIES.find((path) => existsSync(path));
  if (library === undefined) return context.skip("libfaketime is not installed");
  using backend = await echo();
  const port = await freePort();
  const folder = await mkdtemp(join(tmpdir(), "lb-clock-"));
  cleanUp.push(() => rm(folder, { recursive: true }));
  const clock = join(folder, "clock");
  await writeFile(clock, "+0\n");
  const env = {
    LD_PRELOAD: library,
    FAKETIME_TIMESTAMP_FILE: clock,
    FAKETIME_NO_CACHE: "1",
    FAKETIME_DONT_FAKE_MONOTONIC: "1",
  };
  const config = `
    workers = 1
    shutdown_timeout = "1h"
    [listeners.web]
    bind = "127.0.0.1:${port}"
    pool = "app"
    [pools.app]
    backends = ["${backend.address}"]
    health.type = "off"
  `;
  await using lb = await startLb(config, { env });
  const off = (time: string): number => Date.parse(time) - Date.now();

  using before = await connect(port);
  expect(await before.echoes()).toBe(true);
  const began = performance.now();
  await writeFile(clock, "+1h\n");
  before.finish();
  const line = await lb.lineOf(before);
  expect(line.duration_ms).toBeLessThan(performance.now() - began + 60_000);
  expect(Math.abs(off(line.time) - HOUR_MS)).toBeLessThan(60_000);

  // A worker that has started after the step, and one that dies: neither mixes the clocks of two threads.
  using lost = await connect(port);
  expect(await lost.echoes()).toBe(true);
  await lb.restartWorker(0);
  const lostLine = await lb.lineOf(lost);
  expect(lostLine).toMatchObject({ end: "worker_lost" });
  expect(Math.abs(off(lostLine.time) - HOUR_MS)).toBeLessThan(60_000);
  expect(lostLine.duration_ms).toBeGreaterThanOrEqual(0);
  expect(lostLine.duration_ms).toBeLessThan(60_000);
  await lb.waitLog(({ event }) => event === "worker started again");
  using after = await connect(port);
  expect(await after.echoes()).toBe(true);
  await writeFile(clock, "-1h\n");
  const said = lb.log().length;
  await lb.restartWorker(0);
  const lostAgain = await lb.lineOf(after);
  expect(Math.abs(off(lostAgain.time) + HOUR_MS)).toBeLessThan(60_000);
  expect(Math.abs(lostAgain.duration_ms)).toBeLessThan(60_000);
  await lb.waitLog(({ event }) => event === "worker started again", undefined, said);

  // shutdown_timeout is an hour on every thread's clock.
  using live = await connect(port);
  expect(await live.echoes()).toBe(true);
  lb.signal("SIGTERM");
  await lb.waitLog(({ event }) => event === "stopping");
  expect(await live.echoes()).toBe(true);
  live.finish();
  expect(await live.ended).toBe("eof");
  expect((await lb.exited).code).toBe(0);
});
