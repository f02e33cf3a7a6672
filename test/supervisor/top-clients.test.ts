// The top clients, computed from the ledgers and the tables of two workers.
import { beforeEach, describe, expect, test } from "vitest";
import { parseAddress, parseCidr, type Cidr } from "../../src/core/address.ts";
import type { ClientQuery, ClientStatus } from "../../src/observe/live.ts";
import { monotonicMs } from "../../src/platform/clock.ts";
import { ACTIVITY, type Activity, activityMemory, ClientActivity } from "../../src/shared/client-activity.ts";
import { ActiveConfig } from "../../src/supervisor/active-config.ts";
import { ByteRates } from "../../src/supervisor/byte-rates.ts";
import { LiveConnections } from "../../src/supervisor/live-connections.ts";
import { Registry } from "../../src/supervisor/registry.ts";
import { ListeningSockets } from "../../src/supervisor/sockets.ts";
import { TopClients } from "../../src/supervisor/top-clients.ts";
import { configOf } from "../support/config.ts";
import { WorkerOfRows } from "../support/live-rows.ts";
import { recordingLog } from "../support/recording-log.ts";

const CONFIG = configOf(`
  [listeners.web]
  bind = ":8080"
  pool = "app"
  [listeners.wide]
  bind = ":8081"
  pool = "app"
  client_prefix = { ipv4 = 24, ipv6 = 48 }
  [pools.app]
  backends = ["127.0.0.1:1"]
`);

class ActiveWorkerOfRows extends WorkerOfRows {
  readonly activity = new ClientActivity(activityMemory());

  ended(which: Activity, amount: number, listener: number, client: string): void {
    const [w0, w1, w2, w3] = parseAddress(client)!;
    this.activity.add(which, amount, monotonicMs(), listener, { w0: w0 | 0, w1: w1 | 0, w2: w2 | 0, w3: w3 | 0 });
  }
}

let workers: ActiveWorkerOfRows[];
let web: number;
let wide: number;
let top: TopClients;
beforeEach(() => {
  const registry = new Registry();
  const { log } = recordingLog();
  new ActiveConfig(CONFIG, { registry, sockets: new ListeningSockets(), addresses: () => [], log }).put(CONFIG);
  [web, wide] = registry.listeners.map(({ id }) => id) as [number, number];
  workers = [new ActiveWorkerOfRows(0), new ActiveWorkerOfRows(1)];
  const rates = new ByteRates();
  const live = new LiveConnections(registry, () => workers, rates);
  top = new TopClients({ registry, workers: () => workers, rates, match: (filter) => live.match(filter) });
});

function list(query: ClientQuery = {}): ClientStatus[] {
  const answer = top.list(query);
  if (!answer.ok) throw new Error(answer.error.detail);
  return answer.value.clients;
}

const NONE = { open: 0, new_connections: 0, bytes_in: 0, bytes_out: 0, refusals: 0 };
const names = (query: ClientQuery): string[] => list(query).map(({ client }) => client);

describe("the counts of a client", () => {
  test("are those of all workers, of open and of ended connections", () => {
    workers[0]!.open({ listener: web, client: "10.0.0.1", bytesIn: 10, bytesOut: 20 });
    workers[1]!.open({ listener: web, client: "10.0.0.1" });
    for (const worker of workers) worker.ended(ACTIVITY.connections, 3, web, "10.0.0.1");
    workers[0]!.ended(ACTIVITY.bytesOut, 1000, web, "10.0.0.1");
    workers[1]!.ended(ACTIVITY.refusals, 4, web, "10.0.0.1");
    expect(list()).toEqual([
      {
        client: "10.0.0.1",
        open: 2,
        new_connections: 8,
        bytes_in: 10,
        bytes_out: 1020,
        refusals: 4,
        error: { new_connections: 0, bytes_in: 0, bytes_out: 0, refusals: 0 },
      },
    ]);
  });

  test("count one minute of an old connection's rate, and do not count it as new", () => {
    workers[0]!.open({ listener: web, client: "10.0.0.1", ageMs: 600_000, bytesIn: 6_000_000 });
    const [client] = list();
    expect(client).toMatchObject({ open: 1, new_connections: 0 });
    expect(client!.bytes_in).toBeGreaterThan(590_000);
    expect(client!.bytes_in).toBeLessThan(610_000);
  });

  test("report by how much they may be too high", () => {
    const [worker] = workers;
    // More clients than a table has entries.
    for (let i = 0; i < 2000; i++) worker!.ended(ACTIVITY.refusals, 1, web, `10.1.${i >> 8}.${i & 255}`);
    const clients = list({ sort: "refusals", limit: 1000 });
    expect(clients.length).toBeGreaterThan(100);
    for (const { refusals, error } of clients) expect(refusals - error.refusals).toBe(1);
  });
});

describe("a client", () => {
  test("is defined by client_prefix, and is the same over listeners with the same prefix", () => {
    workers[0]!.open({ listener: wide, client: "10.0.0.1" });
    workers[1]!.open({ listener: wide, client: "10.0.0.2" });
    workers[0]!.open({ listener: wide, client: "2001:db8:1:2::3" });
    workers[0]!.open({ listener: web, client: "10.0.0.1" });
    workers[0]!.open({ listener: web, client: "2001:db8:1:2::3" });
    expect(Object.fromEntries(list().map(({ client, open }) => [client, open]))).toEqual({
      "10.0.0.0/24": 2,
      "2001:db8:1::/48": 1,
      "10.0.0.1": 1,
      "2001:db8:1:2::/64": 1,
    });
  });

  test("of a listener that is in no config any more is omitted", () => {
    workers[0]!.open({ listener: 999, client: "10.0.0.1" });
    workers[0]!.ended(ACTIVITY.connections, 1, 998, "10.0.0.1");
    expect(list()).toEqual([]);
  });
});

describe("the list", () => {
  beforeEach(() => {
    workers[0]!.open({ listener: web, client: "10.0.0.1" });
    workers[0]!.open({ listener: web, client: "10.0.0.1" });
    workers[0]!.open({ listener: wide, client: "10.7.0.9" });
    workers[0]!.ended(ACTIVITY.connections, 9, web, "10.0.0.2");
    workers[0]!.ended(ACTIVITY.bytesIn, 5, web, "10.0.0.3");
    workers[1]!.ended(ACTIVITY.refusals, 5, web, "10.0.0.4");
  });

  test.each([
    [undefined, "10.0.0.1"],
    ["open", "10.0.0.1"],
    ["new_connections", "10.0.0.2"],
    ["bytes", "10.0.0.3"],
    ["bytes_in", "10.0.0.3"],
    ["refusals", "10.0.0.4"],
  ] as const)("sorted by %s begins with the largest", (sort, first) => {
    expect(names(sort === undefined ? {} : { sort })[0]).toBe(first);
  });

  test("is cut at the limit, and has the total number", () => {
    const answer = top.list({ limit: 2 });
    expect(answer).toMatchObject({ ok: true, value: { total: 5 } });
    expect(list({ limit: 2 })).toHaveLength(2);
  });

  test("filters by listener and by address", () => {
    expect(names({ listener: "wide" })).toEqual(["10.7.0.0/24"]);
    expect(names({ client: parseCidr("10.0.0.4") as Cidr })).toEqual(["10.0.0.4"]);
    expect(list({ client: parseCidr("10.0.0.4") as Cidr })[0]).toMatchObject({ ...NONE, refusals: 5 });
    expect(top.list({ listener: "wbe" })).toMatchObject({ ok: false, error: { name: "no_such_listener" } });
  });
});
