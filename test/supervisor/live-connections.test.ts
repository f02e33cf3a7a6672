// The list of live connections from the ledgers of two workers, with its filters, and the ends on an operator's request.
import { beforeEach, describe, expect, test } from "vitest";
import { parseCidr, type Cidr } from "../../src/core/address.ts";
import type { ConnectionFilter, ConnectionQuery, ConnectionStatus } from "../../src/observe/live.ts";
import { ActiveConfig } from "../../src/supervisor/active-config.ts";
import { ByteRates } from "../../src/supervisor/byte-rates.ts";
import { LiveConnections } from "../../src/supervisor/live-connections.ts";
import { Registry } from "../../src/supervisor/registry.ts";
import { ListeningSockets } from "../../src/supervisor/sockets.ts";
import { ROW, ROW_FLOAT, ROW_FLOATS, ROW_WORDS } from "../../src/shared/ledger.ts";
import { configOf } from "../support/config.ts";
import { WorkerOfRows, type LiveRow } from "../support/live-rows.ts";
import { recordingLog } from "../support/recording-log.ts";

const CONFIG = configOf(`
  [listeners.web]
  bind = ":8080"
  pool = "app"
  [listeners.db]
  bind = ":8081"
  pool = "data"
  [pools.app]
  backends = [{ address = "127.0.0.1:1", name = "one" }, "127.0.0.1:2"]
  [pools.data]
  backends = [{ address = "db.example:3", name = "db" }]
`);

let registry: Registry;
let workers: WorkerOfRows[];
let live: LiveConnections;
beforeEach(() => {
  registry = new Registry();
  const addresses = () =>
    [
      [0, 0, 0xffff, 0x0a000001],
      [0, 0, 0xffff, 0x0a000002],
    ] as const;
  const { log } = recordingLog();
  new ActiveConfig(CONFIG, { registry, sockets: new ListeningSockets(), addresses, log }).put(CONFIG);
  workers = [new WorkerOfRows(0), new WorkerOfRows(1)];
  live = new LiveConnections(registry, () => workers, new ByteRates());
});

function idOf(records: readonly { id: number; name: string }[], name: string): number {
  return records.find((record) => record.name === name)!.id;
}

/** A connection of the listener web to its backend one, by default. */
function web(more: LiveRow = {}): LiveRow {
  const pool = registry.pools[0]!;
  return { listener: idOf(registry.listeners, "web"), pool: pool.id, backend: pool.backends[0]!.id, ...more };
}

function db(more: LiveRow = {}): LiveRow {
  const pool = registry.pools[1]!;
  return { listener: idOf(registry.listeners, "db"), pool: pool.id, backend: pool.backends[0]!.id, ...more };
}

function net(text: string): Cidr {
  return parseCidr(text) as Cidr;
}

function list(query: ConnectionQuery = {}): { total: number; connections: ConnectionStatus[] } {
  const answer = live.list(query);
  if (!answer.ok) throw new Error(answer.error.detail);
  return answer.value;
}

function refused(filter: ConnectionFilter): object {
  const answer = live.list(filter);
  return answer.ok ? answer : answer.error;
}

describe("the list", () => {
  test("has every fact of a connection", () => {
    const row = { client: "2001:db8::1", port: 99, peer: "10.9.9.9", sni: "a.example", bytesIn: 5, bytesOut: 7 };
    const { id } = workers[1]!.open(web({ ...row, ageMs: 2500 }));
    expect(list()).toEqual({
      total: 1,
      connections: [
        {
          id,
          listener: "web",
          client: "[2001:db8::1]:99",
          peer: "10.9.9.9:5000",
          sni: "a.example",
          pool: "app",
          backend: "one",
          phase: "relaying",
          age_ms: expect.any(Number) as number,
          bytes_in: 5,
          bytes_out: 7,
          rate_in: 2,
          rate_out: 3,
          worker: 1,
        },
      ],
    });
    expect(list().connections[0]!.age_ms).toBeGreaterThanOrEqual(2500);
  });

  test("has null for unknown values", () => {
    workers[0]!.open({ listener: idOf(registry.listeners, "web"), phase: "reading" });
    expect(list().connections[0]).toMatchObject({ peer: null, sni: null, pool: null, backend: null, phase: "reading" });
  });

  test("is empty without connections", () => {
    expect(list()).toEqual({ total: 0, connections: [] });
  });

  test("filters by listener, pool, backend and client, and by all of them together", () => {
    workers[0]!.open(web({ client: "10.0.0.1" }));
    workers[1]!.open(web({ client: "10.0.0.2", backend: registry.pools[0]!.backends[1]!.id }));
    workers[1]!.open(db({ client: "10.0.0.1" }));
    workers[1]!.open(db({ client: "2001:db8::7", backend: registry.pools[1]!.backends[1]!.id }));
    const count = (query: ConnectionQuery): number => list(query).total;
    expect(count({ listener: "web" })).toBe(2);
    expect(count({ pool: "data" })).toBe(2);
    expect(count({ backend: "one" })).toBe(1);
    expect(count({ backend: "127.0.0.1:2" })).toBe(1);
    expect(count({ client: net("10.0.0.1") })).toBe(2);
    expect(count({ client: net("10.0.0.0/8") })).toBe(3);
    expect(count({ client: net("2001:db8::/32") })).toBe(1);
    expect(count({ client: net("10.0.0.1"), listener: "web" })).toBe(1);
    expect(count({ client: net("10.0.0.2"), listener: "db" })).toBe(0);
    // A name with two addresses means both; with an address it means that one.
    expect(count({ backend: "db" })).toBe(2);
    expect(count({ backend: "db@10.0.0.2:3" })).toBe(1);
  });

  test.each([
    [{ listener: "wbe" }, "no_such_listener", 'there is no listener "wbe"'],
    [{ pool: "none" }, "no_such_pool", 'there is no pool "none"'],
    [{ backend: "none" }, "no_such_backend", 'there is no backend "none"'],
  ])("refuses %j with the reason and the cure", (filter, name, detail) => {
    expect(refused(filter)).toMatchObject({ name, detail, cure: expect.stringMatching(/./) as string });
  });

  test("is sorted by age by default, and cut at the limit, and has the total number", () => {
    const ages = [300, 100, 200].map((ageMs, i) => workers[i % 2]!.open(web({ ageMs, bytesOut: 1000 - ageMs })).id);
    const ids = (query: ConnectionQuery): number[] => list(query).connections.map(({ id }) => id);
    expect(ids({})).toEqual([ages[0], ages[2], ages[1]]);
    expect(ids({ sort: "-age_ms" })).toEqual([ages[1], ages[2], ages[0]]);
    expect(ids({ sort: "bytes_out", limit: 2 })).toEqual([ages[1], ages[2]]);
    expect(ids({ sort: "id" })).toEqual(ages.toReversed());
    expect(list({ limit: 1 }).total).toBe(3);
  });

  test("finds the first few of many without storing all", () => {
    const worker = new WorkerOfRows(0, 5000);
    workers = [worker];
    for (let i = 0; i < 5000; i++) worker.open(web({ bytesIn: (i * 7919) % 5000 }));
    const { total, connections } = list({ sort: "bytes_in", limit: 3 });
    expect([total, ...connections.map(({ bytes_in }) => bytes_in)]).toEqual([5000, 4999, 4998, 4997]);
  });
});

describe("a row that changes while it is read", () => {
  test("is omitted while its connection or its address is being written", () => {
    const { row } = workers[0]!.open(web());
    workers[0]!.ledger.floats[row * ROW_FLOATS + ROW_FLOAT.id] = 0;
    expect(list().total).toBe(0);
  });

  test("is omitted when another connection gets it before the answer is made", () => {
    const [worker] = workers;
    const first = worker!.open(web({ client: "10.0.0.1" }));
    const { ledger } = worker!;
    // The reader has read the id, and the row belongs to another connection when it reads on.
    const isStill = ledger.isStill.bind(ledger);
    let calls = 0;
    ledger.isStill = (...args) => {
      if (++calls === 1) {
        ledger.release(first.row);
        worker!.open(web({ client: "10.0.0.2" }));
      }
      return isStill(...args);
    };
    expect(list({ client: net("10.0.0.1") })).toEqual({ total: 0, connections: [] });
  });

  test("is omitted when another connection gets it while the answer is made", () => {
    const [worker] = workers;
    const first = worker!.open(web({ client: "10.0.0.1" }));
    const { ledger } = worker!;
    const sni = ledger.sni.bind(ledger);
    ledger.sni = (row) => {
      ledger.release(first.row);
      worker!.open(web({ client: "10.0.0.2" }));
      return sni(row);
    };
    expect(list()).toEqual({ total: 1, connections: [] });
  });

  test("is omitted if a PROXY header has changed its address meanwhile", () => {
    const [worker] = workers;
    const { row } = worker!.open(web({ client: "10.0.0.1" }));
    const { ledger } = worker!;
    const isStill = ledger.isStill.bind(ledger);
    ledger.isStill = (...args) => {
      ledger.words[row * ROW_WORDS + ROW.proxied] = 1;
      return isStill(...args);
    };
    expect(list({ client: net("10.0.0.1") }).total).toBe(0);
  });
});

describe("rates", () => {
  test("are computed from the bytes since an earlier request that is at least a second old", async () => {
    const { row } = workers[0]!.open(web({ ageMs: 100_000, bytesIn: 1_000_000, bytesOut: 2_000_000 }));
    // Without a sample: over the whole life.
    expect(list().connections[0]).toMatchObject({ rate_in: 10_000, rate_out: 20_000 });
    await new Promise((resolve) => setTimeout(resolve, 1100));
    workers[0]!.count(row, 5000, 0);
    // This request's sample becomes the base.
    const { rate_in, rate_out } = list().connections[0]!;
    expect(rate_in).toBeGreaterThan(100);
    expect(rate_in).toBeLessThanOrEqual(5000);
    expect(rate_out).toBe(0);
  });

  test("of a connection that took a row after the sample are computed from its start", async () => {
    const { row } = workers[0]!.open(web({ ageMs: 100_000, bytesIn: 1_000_000 }));
    list();
    await new Promise((resolve) => setTimeout(resolve, 1100));
    workers[0]!.ledger.release(row);
    workers[0]!.open(web({ ageMs: 500, bytesIn: 700 }));
    expect(list().connections[0]).toMatchObject({ rate_in: 700 });
  });
});

describe("ends by an operator", () => {
  test("end one connection by its id, in any worker", async () => {
    workers[0]!.open(web());
    const { id } = workers[1]!.open(web());
    expect(await live.endOne(id)).toMatchObject({ ok: true, value: 1 });
    expect(workers.map(({ asked }) => asked)).toEqual([[], [{ end: "killed", ids: [id] }]]);
    expect(await live.endOne(id)).toMatchObject({ ok: false, error: { name: "no_such_connection" } });
  });

  test("end all connections that match a filter", async () => {
    for (const client of ["10.0.0.1", "10.0.0.2", "10.0.1.1"])
      for (const worker of workers) worker.open(web({ client }));
    expect(await live.end({ client: net("10.0.0.0/24") })).toMatchObject({ ok: true, value: 4 });
    expect(list().connections.map(({ client }) => client)).toEqual(["10.0.1.1:4000", "10.0.1.1:4000"]);
  });

  test("need a condition", async () => {
    workers[0]!.open(web());
    expect(await live.end({})).toMatchObject({ ok: false, error: { name: "no_condition" } });
    expect(workers[0]!.asked).toEqual([]);
  });
});
