// 5,000 live connections: the time for a list of them, printed but not asserted, and the end of all.
import { expect, test } from "vitest";
import type { ConnectionList } from "../../src/observe/live.ts";
import { connect, type Client } from "../support/client.ts";
import { echo } from "../support/backends.ts";
import { freePort, startLb } from "../support/lb.ts";
import { residentBytes } from "../support/proc.ts";

const CONNECTIONS = 5000;
const LISTS = 20;
const TOGETHER = 100;

test(`${CONNECTIONS} connections are listed, and ended with a reset for each`, async () => {
  using backend = await echo();
  const port = await freePort();
  await using lb = await startLb(`
    workers = 2
    [listeners.web]
    bind = "127.0.0.1:${port}"
    pool = "app"
    [pools.app]
    backends = ["${backend.address}"]
    health.type = "off"
  `);
  const clients: Client[] = [];
  while (clients.length < CONNECTIONS) {
    clients.push(...(await Promise.all(Array.from({ length: TOGETHER }, () => connect(port, { from: "127.0.0.2" })))));
  }
  await lb.waitStatus(({ connections }) => connections.open === CONNECTIONS);

  const times: number[] = [];
  const rss: number[] = [];
  for (let i = 0; i < LISTS; i++) {
    const from = performance.now();
    const text = await (await lb.fetch("/api/connections?sort=rate_out")).text();
    times.push(performance.now() - from);
    rss.push(residentBytes(lb.pid));
    if (i > 0) continue;
    const { total, connections } = JSON.parse(text) as ConnectionList;
    expect([total, new Set(connections.map(({ id }) => id)).size]).toEqual([CONNECTIONS, CONNECTIONS]);
  }
  const [best, median] = [Math.min(...times), times.toSorted((a, b) => a - b)[LISTS / 2]!];
  const kilobytes = Math.round((rss.at(-1)! - rss[1]!) / 1024);
  console.log(
    `${CONNECTIONS} connections listed over HTTP: ${best.toFixed(0)} ms at best, ${median.toFixed(0)} ms in the median of ${LISTS}; ` +
      `resident memory ${kilobytes} KB more than after the second`,
  );

  // All of them are ended in portions, and each client sees a reset.
  const response = await lb.send("DELETE", "/api/connections?client=127.0.0.2");
  expect(await response.json()).toMatchObject({ ended: CONNECTIONS });
  for (const client of clients) expect(await client.ended).toBe("reset");
  await lb.waitIdle();
});
