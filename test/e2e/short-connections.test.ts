import { expect, test } from "vitest";
import { freePorts, startLb } from "../support/lb.ts";
import { descriptors, residentBytes, synSent } from "../support/proc.ts";
import { connectOften, startAnswering } from "../support/short-connections.ts";

const WARM_UP = 20_000;
const COUNT = 200_000;

test("200,000 short connections are all served and leave descriptors and memory as they were", async () => {
  const [front, back] = await freePorts(2);
  await using _backend = await startAnswering(back);
  await using lb = await startLb(`
      workers = 2
      [listeners.web]
      bind = "127.0.0.1:${front}"
      pool = "app"
      [pools.app]
      backends = ["127.0.0.1:${back}"]
      health.type = "off"
      [log]
      format = "json"
      access = "off"
    `);
  const nothingOpen = () => lb.waitIdle();
  // One-time allocations, such as buffers and compiled code, have happened after these.
  expect((await connectOften(front, WARM_UP)).ok).toBe(WARM_UP);
  await nothingOpen();
  const before = { descriptors: descriptors(lb.pid), bytes: residentBytes(lb.pid) };

  expect((await connectOften(front, COUNT)).ok).toBe(COUNT);
  const { listeners, pools } = await nothingOpen();
  expect(listeners[0]!.ends).toEqual([{ end: "eof", end_by: "backend", count: WARM_UP + COUNT }]);
  expect(pools[0]!.backends[0]).toMatchObject({ open: 0, connects: { succeeded: WARM_UP + COUNT, failed: 0 } });
  expect(await synSent(back)).toBe(0);
  expect(descriptors(lb.pid)).toBeLessThanOrEqual(before.descriptors + 2);
  expect(residentBytes(lb.pid) - before.bytes).toBeLessThan(16e6);
});
