// Health checks of many backends at once, with the open files of a small machine: the configured interval, and the detection of a dead
// backend beside pools that do not answer.
import { expect, test } from "vitest";
import { blackhole, echo } from "../support/backends.ts";
import { freePort, startLb, type Lb } from "../support/lb.ts";

const INTERVAL_MS = 2000;
const FAST = 1000;
const SILENT = 500;

/** Addresses of 127.0.0.0/8, all of them this machine's. */
const addresses = (net: number, count: number, port: number): string =>
  Array.from({ length: count }, (_, i) => `"127.${net}.${i >> 8}.${i & 255}:${port}"`).join(", ");

async function checksOf(lb: Lb, pool: string): Promise<{ counts: number[]; failures: number; atMs: number }> {
  const { pools } = await lb.status();
  const checks = pools.find(({ name }) => name === pool)!.backends.map(({ health }) => health.checks);
  return {
    counts: checks.map(({ success }) => success),
    failures: checks.reduce((sum, { failure }) => sum + failure, 0),
    atMs: performance.now(),
  };
}

test("1,000 backends keep their interval and a failure is detected in time, beside 500 that do not answer", async () => {
  await using hole = await blackhole({ host: "0.0.0.0" });
  using fast = await echo({ host: "0.0.0.0" });
  using victim = await echo();
  const port = await freePort();
  // All with the defaults: a check every 2 s, which may take 1 s.
  const toml = `
    workers = 1
    listeners.web = { bind = "127.0.0.1:${port}", pool = "app" }
    [pools.silent]
    backends = [${addresses(2, SILENT, hole.port)}]
    health.fall = 1000
    [pools.fast]
    backends = [${addresses(1, FAST, fast.port)}]
    [pools.app]
    backends = ["${victim.address}"]
    health.fall = 1
  `;
  await using lb = await startLb(toml, { ulimit: 1024 });
  // The first round, and the start of the process.
  await new Promise((resolve) => setTimeout(resolve, 2 * INTERVAL_MS));
  let perBackend: number[];
  let mean: number;
  let failures: number;
  let attempts = 0;
  // Other programs may need the machine, but not all the time.
  do {
    const first = await checksOf(lb, "fast");
    await new Promise((resolve) => setTimeout(resolve, 5 * INTERVAL_MS));
    const last = await checksOf(lb, "fast");
    failures = last.failures - first.failures;
    const rounds = (last.atMs - first.atMs) / INTERVAL_MS;
    perBackend = last.counts.map((count, i) => (count - first.counts[i]!) / rounds);
    mean = perBackend.reduce((sum, part) => sum + part, 0) / FAST;
  } while (++attempts < 5 && (failures > 0 || mean <= 0.85 || Math.min(...perBackend) <= 0.6));
  console.log(`checks made of those promised: ${mean.toFixed(3)}, at the least ${Math.min(...perBackend).toFixed(3)}`);
  expect(failures).toBe(0);
  expect(mean).toBeGreaterThan(0.85);
  expect(Math.min(...perBackend)).toBeGreaterThan(0.6);

  const diedMs = Date.now();
  victim.stop();
  const down = await lb.waitLog(({ event, pool }) => event === "backend down" && pool === "app", 60_000);
  const tookMs = Date.parse(down.time) - diedMs;
  console.log(`a death is seen after ${tookMs} ms, with interval ${INTERVAL_MS} ms and fall = 1`);
  // The rest is for a busy machine; behind the silent ones it would be 30 s.
  expect(tookMs).toBeLessThan(10 * INTERVAL_MS);
});
