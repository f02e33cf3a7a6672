// Live connections of a process with three workers: listed, filtered and ended through the admin endpoint.
import { expect, test } from "vitest";
import type { ClientList, ClientStatus, ConnectionList } from "../../src/observe/live.ts";
import { echo } from "../support/backends.ts";
import { peersMissing } from "../support/certificates.ts";
import { connect, type Client } from "../support/client.ts";
import { freePorts, startLb, type Lb } from "../support/lb.ts";
import { Python } from "../support/python.ts";
import { setUpUnless } from "../support/set-up.ts";

let python: Python;

setUpUnless(peersMissing, async (keep) => {
  python = await keep(new Python());
});

async function list(lb: Lb, query = ""): Promise<ConnectionList> {
  const response = await lb.fetch(`/api/connections${query}`);
  expect(response.status).toBe(200);
  return (await response.json()) as ConnectionList;
}

async function kill(lb: Lb, path: string): Promise<{ status: number; body: Record<string, unknown> }> {
  const response = await lb.send("DELETE", `/api/connections${path}`);
  return { status: response.status, body: (await response.json()) as Record<string, unknown> };
}

/** This many working connections from an address. */
function opened(count: number, port: number, from: string): Promise<Client[]> {
  return Promise.all(
    Array.from({ length: count }, async () => {
      const client = await connect(port, { from });
      expect(await client.echoes()).toBe(true);
      return client;
    }),
  );
}

test("connections of all workers are listed, filtered and ended, and nothing else is", async () => {
  using first = await echo();
  using second = await echo();
  const [web, db] = await freePorts(2);
  await using lb = await startLb(`
    workers = 3
    [listeners.web]
    bind = "127.0.0.1:${web}"
    pool = "app"
    [listeners.db]
    bind = "127.0.0.1:${db}"
    pool = "data"
    [pools.app]
    backends = [{ address = "${first.address}", name = "one" }]
    [pools.data]
    backends = ["${second.address}"]
  `);
  const mine = await opened(20, web, "127.0.0.2");
  const others = await opened(10, web, "127.0.0.3");
  const data = await opened(5, db, "127.0.0.2");

  const all = await list(lb);
  expect(all.total).toBe(35);
  const clients = all.connections.map(({ client }) => client);
  expect(clients.toSorted()).toEqual([...mine, ...others, ...data].map(({ address }) => address).toSorted());
  expect(new Set(all.connections.map(({ id }) => id)).size).toBe(35);
  // The kernel spreads them: that 35 all go to one of three workers is one in 3^34.
  expect(new Set(all.connections.map(({ worker }) => worker)).size).toBeGreaterThan(1);
  const one = all.connections.find(({ client }) => client === mine[0]!.address);
  expect(one).toMatchObject({ listener: "web", peer: null, sni: null, pool: "app", backend: "one", phase: "relaying" });
  expect([one!.bytes_in, one!.bytes_out]).toEqual([5, 5]);

  const total = async (query: string): Promise<number> => (await list(lb, query)).total;
  expect(await total("?client=127.0.0.2")).toBe(25);
  expect(await total("?client=127.0.0.0/30&listener=web")).toBe(30);
  expect(await total(`?backend=${encodeURIComponent(second.address)}`)).toBe(5);
  expect(await total("?pool=data&client=127.0.0.3")).toBe(0);
  const limited = await list(lb, "?limit=3&sort=-age_ms");
  expect([limited.total, limited.connections.length]).toEqual([35, 3]);

  // One by its id.
  const target = mine[3]!;
  const { id } = all.connections.find(({ client }) => client === target.address)!;
  expect(await kill(lb, `/${id}`)).toMatchObject({ status: 200, body: { ended: 1 } });
  expect(await target.ended).toBe("reset");
  expect(await lb.lineOf(target)).toMatchObject({ id, end: "killed", end_by: "lb" });
  expect(await kill(lb, `/${id}`)).toMatchObject({ status: 404, body: { error: "no_such_connection" } });

  // By a filter.
  expect(await kill(lb, "?client=127.0.0.2&listener=web")).toMatchObject({ status: 200, body: { ended: 19 } });
  for (const client of mine) expect(await client.ended).toBe("reset");
  for (const client of [...others, ...data]) expect(await client.echoes("still")).toBe(true);
  expect(await lb.metric("lb_listener_connections_ended_total", { end: "killed", end_by: "lb" })).toBe(20);
  expect(await total("")).toBe(15);

  // None without a condition, or with a misspelled one.
  expect(await kill(lb, "")).toMatchObject({ status: 400, body: { error: "no_condition" } });
  expect(await kill(lb, "?clint=127.0.0.3")).toMatchObject({ status: 400 });
  expect(await kill(lb, "?client=127.0.0.3/8")).toMatchObject({ status: 400 });
  expect(await kill(lb, "?listener=wbe")).toMatchObject({ status: 404 });
  expect((await lb.fetch("/api/connections?client=127.0.0.3", { method: "DELETE" })).status).toBe(403);
  expect(await total("")).toBe(15);
  for (const query of ["?limit=100001", "?limit=-1", "?sort=age", "?client=me"])
    expect((await lb.fetch(`/api/connections${query}`)).status).toBe(400);
});

test('a killed connection is reset on both sides, even with on_abort = "close" and before it relays', async () => {
  const server = await python.serve({ mode: "manual" });
  const [web, head] = await freePorts(2);
  await using lb = await startLb(`
      [listeners.web]
      bind = "127.0.0.1:${web}"
      pool = "app"
      on_abort = "close"
      [listeners.head]
      bind = "127.0.0.1:${head}"
      pool = "app"
      over_limit = "close"
      proxy_protocol = "required"
      trusted_proxies = ["127.0.0.1"]
      [pools.app]
      backends = ["${server.address}"]
      health.type = "off"
    `);
  const client = await python.connect(web);
  const backend = await server.nth(0);
  await backend.send("half an ans");
  expect(await client.read("half an ans")).toMatchObject({ data: "half an ans" });
  const reading = await python.connect(head, { preface: "PROXY TCP4 " });
  const { connections } = await list(lb, "?listener=head");
  expect(connections).toMatchObject([{ phase: "reading", pool: "app", backend: null }]);

  expect(await kill(lb, "?client=127.0.0.1")).toMatchObject({ body: { ended: 2 } });
  expect(await client.read()).toEqual({ data: "", end: "reset" });
  expect(await backend.read()).toMatchObject({ end: "reset" });
  expect(await reading.read()).toEqual({ data: "", end: "reset" });
  expect(await lb.lineOf(client)).toMatchObject({ end: "killed", end_by: "lb", bytes_out: 11 });
});

test("the top clients are those with the most open connections, new connections, bytes or refusals, over all workers", async () => {
  using backend = await echo();
  const [port] = await freePorts(1);
  await using lb = await startLb(`
    workers = 3
    [listeners.web]
    bind = "127.0.0.1:${port}"
    pool = "app"
    rate_limit = { rate = "1/h", burst = 30 }
    deny = ["127.0.0.9"]
    [pools.app]
    backends = ["${backend.address}"]
  `);
  const clients = async (query: string): Promise<ClientStatus[]> => {
    const response = await lb.fetch(`/api/clients${query}`);
    expect(response.status).toBe(200);
    return ((await response.json()) as ClientList).clients;
  };
  // Many open, many new, much data, many refused.
  const open = await opened(12, port, "127.0.0.2");
  for (const client of await opened(30, port, "127.0.0.3")) client.finish();
  const [bulk] = await opened(1, port, "127.0.0.4");
  bulk!.send("x".repeat(100_000));
  await bulk!.until(() => bulk!.text.length === 100_000);
  for (let i = 0; i < 5; i++) expect(await (await connect(port, { from: "127.0.0.3" })).ended).toBe("reset");
  for (let i = 0; i < 7; i++) expect(await (await connect(port, { from: "127.0.0.9" })).ended).toBe("reset");
  await lb.waitLines(42, () => true);

  const [first] = await clients("?sort=open");
  expect(first).toMatchObject({ client: "127.0.0.2", open: 12, new_connections: 12, refusals: 0 });
  expect((await clients("?sort=new_connections&limit=1"))[0]).toMatchObject({
    client: "127.0.0.3",
    open: 0,
    new_connections: 30,
    bytes_in: 150,
    bytes_out: 150,
    refusals: 5,
    error: { new_connections: 0, bytes_in: 0, bytes_out: 0, refusals: 0 },
  });
  expect((await clients("?sort=bytes"))[0]).toMatchObject({ client: "127.0.0.4", open: 1, bytes_in: 100_005 });
  const refused = await clients("?sort=refusals");
  expect(refused.slice(0, 2).map(({ client, refusals }) => [client, refusals])).toEqual([
    ["127.0.0.9", 7],
    ["127.0.0.3", 5],
  ]);
  // A worker's counts outlive its thread.
  await lb.restartWorker(0);
  await lb.waitStatus(({ workers }) => workers[0]!.restarts === 1 && workers[0]!.state === "running");
  expect((await clients("?sort=new_connections&client=127.0.0.3"))[0]).toMatchObject({ new_connections: 30 });
  expect((await lb.fetch("/api/clients?sort=oepn")).status).toBe(400);
  expect((await lb.fetch("/api/clients?listener=none")).status).toBe(404);
  expect(open).toHaveLength(12);
});

test("rates come from two requests", async () => {
  using backend = await echo();
  const [port] = await freePorts(1);
  await using lb = await startLb(`
    [listeners.web]
    bind = "127.0.0.1:${port}"
    pool = "app"
    [pools.app]
    backends = ["${backend.address}"]
  `);
  const [client] = await opened(1, port, "127.0.0.2");
  await list(lb);
  // Later requests have a base for the rate.
  await new Promise((resolve) => setTimeout(resolve, 1100));
  client!.send("x".repeat(50_000));
  await client!.until(() => client!.text.length === 50_000);
  const { rate_in, rate_out } = (await list(lb)).connections[0]!;
  expect([rate_in > 0, rate_in <= 50_000, rate_out > 0]).toEqual([true, true, true]);
});
