// What else besides health decides whether a backend takes connections, and how many: slow start and panic mode.
import { expect, test } from "vitest";
import { tagged } from "../support/backends.ts";
import { askOften } from "../support/client.ts";
import { eventually } from "../support/eventually.ts";
import { freePort, startLb } from "../support/lb.ts";
import { setUp } from "../support/set-up.ts";
import type { Backend } from "../support/backends.ts";

const NAMES = ["a", "b", "c", "d"];
const backends: Backend[] = [];

setUp(async (keep) => {
  for (const name of NAMES) backends.push(await keep(tagged(name)));
});

function config(port: number, names: string[], pool: string): string {
  const list = names.map((name) => `{ address = "${backends[NAMES.indexOf(name)]!.address}", name = "${name}" }`);
  return `
    workers = 3
    [listeners.in]
    bind = "127.0.0.1:${port}"
    pool = "app"
    [pools.app]
    backends = [${list.join(", ")}]
    health = { interval = "50ms", timeout = "500ms", rise = 1, fall = 1 }
    ${pool}
  `;
}

test("slow_start: the share of a backend that comes up again grows with its ramp, over all workers and a reload", async () => {
  const [, b] = backends;
  const port = await freePort();
  const text = (retries: number) => config(port, ["a", "b"], `slow_start = "6s"\nretries = ${retries}`);
  await using lb = await startLb(text(1));
  const ramp = async (): Promise<number> => (await lb.status()).pools[0]!.backends[1]!.ramp_percent;
  // Each worker takes turns of its own: two of them begin with a, so that a may be one ahead.
  const halves = await askOften(port, 20);
  expect(halves["a"]! + halves["b"]!).toBe(20);
  expect(Math.abs(halves["a"]! - 10)).toBeLessThanOrEqual(1);
  b!.stop();
  await lb.waitLog(({ event }) => event === "backend down");
  await eventually("b gets nothing", async () => (await askOften(port, 9))["b"] === undefined);
  b!.start();
  await lb.waitLog(({ event }) => event === "backend up");
  const shares: number[] = [];
  let isReloaded = false;
  for (let before = await ramp(); before < 100;) {
    const share = ((await askOften(port, 60))["b"] ?? 0) / 60;
    const after = await ramp();
    shares.push(share);
    // A worker that has just begun to pick is up to a turn away from the exact share.
    expect(share).toBeGreaterThanOrEqual(before / (100 + before) - 0.1);
    expect(share).toBeLessThanOrEqual(after / (100 + after) + 0.1);
    if (!isReloaded && after > 40 && after < 90) {
      isReloaded = true;
      expect((await lb.reload(text(2))).ok).toBe(true);
      expect(await ramp()).toBeGreaterThanOrEqual(after);
    }
    before = await ramp();
  }
  expect(shares.length).toBeGreaterThan(0);
  expect(await lb.metric("lb_backend_ramp_ratio", { backend: "b" })).toBe(1);
  const counts = await askOften(port, 60);
  expect(counts["b"]).toBeGreaterThanOrEqual(27);
  expect(counts["b"]).toBeLessThanOrEqual(33);
});

test("panic_threshold: health is ignored while too few backends are up", async () => {
  const port = await freePort();
  await using lb = await startLb(config(port, NAMES, "panic_threshold = 50\nretries = 0"));
  expect(await lb.metric("lb_pool_panic", { pool: "app" })).toBe(0);
  const [, ...others] = backends;
  const [b, c, d] = others;
  c!.stop();
  d!.stop();
  await lb.waitStatus(({ pools }) => pools[0]!.backends.filter(({ up }) => up).length === 2);
  await eventually("two serve alone", async () => (await askOften(port, 12))["reset"] === undefined);
  b!.stop();
  const began = await lb.waitLog(({ event }) => event === "pool in panic, health is ignored");
  expect(began).toMatchObject({ level: "warn", pool: "app", tier: "primaries", backends_up: 1, backends: 4 });
  await eventually("all are tried", async () => {
    const counts = await askOften(port, 24);
    return counts["reset"] === 18 && counts["a"] === 6;
  });
  expect(await lb.metric("lb_pool_panic", { pool: "app" })).toBe(1);
  expect((await lb.status()).pools[0]!.panic).toBe(true);
  for (const other of others) other.start();
  await lb.waitLog(({ event }) => event === "pool no longer in panic");
  await eventually("each gets its share", async () => (await askOften(port, 12))["reset"] === undefined);
});
