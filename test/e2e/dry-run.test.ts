// Limits in dry_run: counted and logged as if enforced, while everything passes.
import { expect, test } from "vitest";
import { echo } from "../support/backends.ts";
import { connect, type Client } from "../support/client.ts";
import { freePort, startLb, type Lb } from "../support/lb.ts";

function config(port: number, backend: string, dryRun: string, bandwidth: string): string {
  return `
    workers = 2
    [listeners.web]
    bind = "127.0.0.1:${port}"
    pool = "app"
    max_connections_per_client = 2
    rate_limit = { rate = "1/h", burst = 4 }
    bandwidth = ${bandwidth}
    dry_run = ${dryRun}
    [pools.app]
    backends = ["${backend}"]
  `;
}

const ALL = `["rate_limit", "max_connections_per_client", "bandwidth"]`;

async function counted(lb: Lb): Promise<Record<string, number | null>> {
  const of = (limit: string): Promise<number | null> => lb.metric("lb_dry_run_total", { listener: "web", limit });
  return {
    rate: await of("rate_limit"),
    cap: await of("max_connections_per_client"),
    bandwidth: await of("bandwidth"),
  };
}

/** The limits that the log names for this connection, which ends here. */
async function dryRunOf(lb: Lb, client: Client): Promise<string | undefined> {
  client.reset();
  return (await lb.lineOf(client)).dry_run;
}

async function served(port: number): Promise<Client> {
  const client = await connect(port);
  expect(await client.echoes()).toBe(true);
  return client;
}

test("limits in dry_run count and log the connections that they would refuse, and refuse none", async () => {
  using backend = await echo();
  const port = await freePort();
  await using lb = await startLb(config(port, backend.address, ALL, `{ download = "1GB/s" }`));
  expect(await counted(lb)).toEqual({ rate: 0, cap: 0, bandwidth: 0 });
  const [first, second] = [await served(port), await served(port)];
  const third = await served(port);
  expect(await counted(lb)).toEqual({ rate: 0, cap: 1, bandwidth: 0 });
  expect(await dryRunOf(lb, first)).toBeUndefined();
  // The third has no place and took no token: a connection after the first is like the second.
  const fourth = await served(port);
  expect(await counted(lb)).toEqual({ rate: 0, cap: 1, bandwidth: 0 });
  expect(await dryRunOf(lb, second)).toBeUndefined();
  expect(await dryRunOf(lb, third)).toBe("max_connections_per_client");
  expect(await dryRunOf(lb, fourth)).toBeUndefined();
  const fifth = await served(port);
  expect(await dryRunOf(lb, fifth)).toBeUndefined();
  // The four tokens are used.
  const sixth = await served(port);
  expect(await dryRunOf(lb, sixth)).toBe("rate_limit");
  expect(await counted(lb)).toEqual({ rate: 1, cap: 1, bandwidth: 0 });
  // The others are enforced as before.
  expect((await lb.reload(config(port, backend.address, `["max_connections_per_client"]`, "{}"))).ok).toBe(true);
  using refused = await connect(port);
  expect(await refused.ended).toBe("reset");
  expect(await lb.lineOf(refused)).toMatchObject({ end: "rate_limited" });
});

test.each(["connection", "client", "listener"])(
  "a bandwidth limit per %s in dry_run counts the connections that it would delay, and delays none",
  async (per) => {
    using backend = await echo();
    const port = await freePort();
    const limit = `{ download = "100KB/s", per = "${per}" }`;
    await using lb = await startLb(config(port, backend.address, ALL, limit));
    const line = `${"x".repeat(99_999)}\n`;
    const began = performance.now();
    const busy = await connect(port);
    for (let i = 0; i < 20; i++) {
      busy.send(line);
      expect(await busy.line()).toHaveLength(line.length - 1);
    }
    // At the limit it would take 20 s.
    expect(performance.now() - began).toBeLessThan(15_000);
    expect(await dryRunOf(lb, busy)).toBe("bandwidth");
    expect(await counted(lb)).toEqual({ rate: 0, cap: 0, bandwidth: 1 });
    await new Promise((resolve) => setTimeout(resolve, 300));
    const idle = await served(port);
    expect(await dryRunOf(lb, idle)).toBeUndefined();
    expect(await counted(lb)).toEqual({ rate: 0, cap: 0, bandwidth: 1 });
  },
);
