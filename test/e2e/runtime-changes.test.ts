// An operator's changes at run time, through the admin endpoint: backends drained and readied, added and removed, weights, listeners that
// stop accepting. On three workers, over reloads and a worker's death.
import { describe, expect, test } from "vitest";
import { tagged, type Backend } from "../support/backends.ts";
import { askOften, connect, isRefused } from "../support/client.ts";
import { eventually } from "../support/eventually.ts";
import { freePort, freePorts, startLb, type Lb } from "../support/lb.ts";
import { startLoad } from "../support/load.ts";
import { setUp } from "../support/set-up.ts";

const NAMES = ["a", "b", "c"];
const backends: Backend[] = [];

setUp(async (keep) => {
  for (const name of NAMES) backends.push(await keep(tagged(name)));
});

interface Entry {
  name: string;
  weight?: number;
  address?: string;
}

function config(port: number, entries: Entry[], pool = 'health.type = "off"'): string {
  const list = entries.map(
    ({ name, weight = 1, address = addressOf(name) }) =>
      `{ address = "${address}", name = "${name}", weight = ${weight} }`,
  );
  return `
    workers = 3
    [listeners.in]
    bind = "127.0.0.1:${port}"
    pool = "app"
    [pools.app]
    backends = [${list.join(", ")}]
    ${pool}
  `;
}

const AB: Entry[] = [{ name: "a" }, { name: "b" }];

function addressOf(name: string): string {
  return backends[NAMES.indexOf(name)]!.address;
}

async function order(lb: Lb, what: string, body?: unknown): Promise<{ status: number; message: string }> {
  const [method, path] = what.split(" ");
  const response = await lb.send(method!, path!, body);
  const answer = (await response.json()) as { message?: string; detail?: string };
  return { status: response.status, message: answer.message ?? answer.detail ?? "" };
}

/** Waits until connections of all workers go only to these backends. */
async function served(port: number, names: string[]): Promise<void> {
  await eventually(`connections go to ${names.join(", ")}`, async () => {
    const counts = await askOften(port, 12);
    return names.every((name) => counts[name]! > 0) && Object.keys(counts).length === names.length;
  });
}

const backendOf = async (lb: Lb, name: string) =>
  (await lb.status()).pools[0]!.backends.find((backend) => backend.name === name);

describe("a backend", () => {
  test("that is drained keeps its connections and gets no new ones, over a reload and a worker's death", async () => {
    const port = await freePort();
    await using lb = await startLb(config(port, AB));
    const held = await connect(port);
    const name = (await held.line())!;
    const other = name === "a" ? "b" : "a";
    const drained = await order(lb, `PATCH /api/pools/app/backends/${name}`, { state: "drain" });
    expect(drained).toEqual({ status: 200, message: `pool app, backend ${name}: takes no new connections` });
    await served(port, [other]);
    expect(await held.echoes()).toBe(true);
    expect(await backendOf(lb, name)).toMatchObject({ state: "drain", changes: ["drain by API"], up: true, weight: 1 });
    expect(await lb.metric("lb_backend_drained", { backend: name })).toBe(1);
    expect(await lb.metric("lb_backend_drained", { backend: other })).toBe(0);

    expect((await lb.reload(config(port, AB, 'health.type = "off"\nretries = 1'))).ok).toBe(true);
    await served(port, [other]);
    expect(await held.echoes()).toBe(true);
    for (const worker of [0, 1, 2]) await lb.restartWorker(worker);
    await lb.waitStatus(({ workers }) => workers.every(({ state, restarts }) => state === "running" && restarts === 1));
    expect(await askOften(port, 12)).toEqual({ [other]: 12 });

    await order(lb, `PATCH /api/pools/app/backends/${name}`, { state: "ready" });
    await served(
      port,
      AB.map((entry) => entry.name),
    );
    expect(await backendOf(lb, name)).toMatchObject({ state: "ready", changes: [] });
    held.reset();
  });

  test("gets no connection any more once the API has answered, also in a pool so large that changes of health are sent later", async () => {
    const port = await freePort();
    const idle = Array.from({ length: 600 }, (_, i) => ({
      name: `idle-${i}`,
      address: `127.0.0.1:${1 + i}`,
      weight: 0,
    }));
    await using lb = await startLb(config(port, [...AB, ...idle]));
    for (let round = 0; round < 10; round++) {
      const [drained, other] = round % 2 === 0 ? ["a", "b"] : ["b", "a"];
      await order(lb, `PATCH /api/pools/app/backends/${drained}`, { state: "drain" });
      expect(await askOften(port, 4)).toEqual({ [other!]: 4 });
      await order(lb, `PATCH /api/pools/app/backends/${drained}`, { state: "ready" });
    }
  });

  test("that is drained with a timeout loses its remaining connections then, as `drain`", async () => {
    const port = await freePort();
    await using lb = await startLb(config(port, [{ name: "a" }, { name: "b", weight: 0 }]));
    const held = [await connect(port), await connect(port), await connect(port)];
    for (const client of held) expect(await client.line()).toBe("a");
    await order(lb, "PATCH /api/pools/app/backends/b", { weight: 1 });
    await order(lb, "PATCH /api/pools/app/backends/a", { state: "drain", timeout: "400ms" });
    expect((await backendOf(lb, "a"))!.changes[0]).toMatch(/^drain by API, its connections end at \d/);
    await served(port, ["b"]);
    for (const client of held) expect(await client.ended).toBe("reset");
    for (const line of await lb.waitLines(held.length, ({ end }) => end === "drain")) {
      expect(line).toMatchObject({ end_by: "lb", backend: "a" });
      expect(line.duration_ms).toBeGreaterThanOrEqual(400);
    }
    await lb.waitIdle();
    expect(await lb.metric("lb_listener_connections_ended_total", { end: "drain" })).toBe(3);
    expect(await backendOf(lb, "a")).toMatchObject({ state: "drain", changes: ["drain by API"], open: 0 });
  });

  test("in maintenance is not checked; ready, its first check decides", async () => {
    const [a] = backends;
    const port = await freePort();
    await using lb = await startLb(config(port, AB, 'health = { interval = "50ms", timeout = "500ms" }'));
    await lb.waitStatus(({ pools }) => pools[0]!.backends.every(({ health }) => health.checks.success > 0));
    await order(lb, "PATCH /api/pools/app/backends/a", { state: "maintenance" });
    a!.stop();
    const checksOfB = (await backendOf(lb, "b"))!.health.checks.success;
    await lb.waitStatus(({ pools }) => pools[0]!.backends[1]!.health.checks.success > checksOfB + 5);
    expect(await backendOf(lb, "a")).toMatchObject({ state: "maintenance", up: true });
    expect(lb.log().some(({ event }) => event === "backend down")).toBe(false);
    await served(port, ["b"]);
    await order(lb, "PATCH /api/pools/app/backends/a", { state: "ready" });
    expect(await lb.waitLog(({ event }) => event === "backend down")).toMatchObject({ backend: "a" });
    a!.start();
    await lb.waitLog(({ event }) => event === "backend up");
  });

  test("has the weight that the operator gives it until the file's own changes", async () => {
    const port = await freePort();
    await using lb = await startLb(config(port, AB));
    const set = await order(lb, "PATCH /api/pools/app/backends/b", { weight: 3 });
    expect(set).toEqual({ status: 200, message: "pool app, backend b: weight 3, the file says 1" });
    const isSplit = async (a: number, b: number): Promise<void> => {
      await eventually(`a and b are ${a} to ${b}`, async () => {
        const counts = await askOften(port, 24);
        return Math.abs((counts["b"] ?? 0) - (24 * b) / (a + b)) <= 3;
      });
    };
    await isSplit(1, 3);
    expect(await backendOf(lb, "b")).toMatchObject({
      weight: 3,
      file_weight: 1,
      changes: ["weight 3 by API, file says 1"],
    });
    expect((await lb.reload(config(port, [{ name: "a", weight: 2 }, { name: "b" }]))).ok).toBe(true);
    expect(await backendOf(lb, "b")).toMatchObject({ weight: 3, file_weight: 1 });
    expect(
      (
        await lb.reload(
          config(port, [
            { name: "a", weight: 2 },
            { name: "b", weight: 2 },
          ]),
        )
      ).ok,
    ).toBe(true);
    expect(await backendOf(lb, "b")).toMatchObject({ weight: 2, file_weight: 2, changes: [] });
    expect(await lb.waitLog(({ event }) => event === "run-time change dropped")).toMatchObject({
      what: "pools.app.backends.b: weight 3 by API, and the file says 2 now",
    });
    await isSplit(1, 1);
    await order(lb, "PATCH /api/pools/app/backends/b", { weight: 0 });
    await served(port, ["a"]);
    await order(lb, "PATCH /api/pools/app/backends/b", { weight: null });
    await isSplit(1, 1);
  });

  test("can be added and removed; the file has the last word when its entry changes", async () => {
    const port = await freePort();
    await using lb = await startLb(config(port, AB));
    const before = (await lb.status()).config;
    const added = await order(lb, "POST /api/pools/app/backends", { address: addressOf("c"), name: "c" });
    expect(added).toEqual({ status: 200, message: "pool app: backend c is added" });
    await served(port, NAMES);
    expect(await backendOf(lb, "c")).toMatchObject({ changes: ["added by API"], file_weight: null });
    const removed = await order(lb, "DELETE /api/pools/app/backends/a");
    expect(removed).toEqual({ status: 200, message: "pool app: backend a is removed" });
    await served(port, ["b", "c"]);
    // The file was not read for that.
    expect((await lb.status()).config).toMatchObject({ loaded_at: before.loaded_at, reloads: before.reloads });

    expect((await lb.reload(config(port, AB, 'health.type = "off"\nretries = 1'))).ok).toBe(true);
    expect((await lb.status()).pools[0]).toMatchObject({
      backends: [{ name: "b" }, { name: "c" }],
      changes: ["backend a removed by API"],
    });
    await served(port, ["b", "c"]);
    expect((await lb.reload(config(port, [{ name: "a", weight: 2 }, { name: "b" }]))).ok).toBe(true);
    await served(port, NAMES);
    expect((await lb.status()).pools[0]!.changes).toEqual([]);
    await order(lb, "DELETE /api/pools/app/backends/c");
    await served(port, ["a", "b"]);
  });

  test("that is unknown, doubled or wrongly described is refused, and nothing changes", async () => {
    const port = await freePort();
    await using lb = await startLb(config(port, AB));
    const generation = (await lb.status()).config.generation;
    const refused: [string, unknown, number, string][] = [
      ["PATCH /api/pools/none/backends/a", { state: "drain" }, 404, 'there is no pool "none"'],
      ["PATCH /api/pools/app/backends/x", { state: "drain" }, 404, 'pool app has no backend "x"'],
      ["PATCH /api/pools/app/backends/a", {}, 400, "nothing to change"],
      ["PATCH /api/pools/app/backends/a", { weight: 3, timeout: "3s" }, 400, "timeout has no meaning here"],
      ["PATCH /api/pools/app/backends/a", { weight: 257 }, 400, "weight"],
      ["PATCH /api/pools/app/backends/a", { state: "off" }, 400, "state"],
      [
        "POST /api/pools/app/backends",
        { address: "127.0.0.1:1", name: "a" },
        409,
        "has a backend of the name a already",
      ],
      ["POST /api/pools/app/backends", { address: addressOf("b"), name: "z" }, 409, "has a backend of the address"],
      ["POST /api/pools/app/backends", { name: "z" }, 400, "address"],
      ["POST /api/pools/none/backends", { address: "127.0.0.1:1" }, 404, 'there is no pool "none"'],
      ["DELETE /api/pools/app/backends/x", undefined, 404, 'pool app has no backend "x"'],
      ["PATCH /api/listeners/none", { state: "drain" }, 404, 'there is no listener "none"'],
      ["PATCH /api/listeners/in", {}, 400, "state"],
    ];
    for (const [what, body, status, message] of refused) {
      const answer = await order(lb, what, body);
      expect(answer, what).toMatchObject({ status });
      expect(JSON.stringify(answer), what).toContain(JSON.stringify(message).slice(1, -1));
    }
    const { pools, config: active } = await lb.status();
    expect(active.generation).toBe(generation);
    expect(pools[0]!.backends.every(({ changes }) => changes.length === 0)).toBe(true);
  });
});

describe("a listener", () => {
  test("that is drained accepts no connection, keeps open ones over a reload, and resumes", async () => {
    const [port, other] = await freePorts(2);
    const text = (more = ""): string => `${config(port, AB)}${more}
      [listeners.other]
      bind = "127.0.0.1:${other}"
      pool = "app"
    `;
    await using lb = await startLb(text());
    const held = await connect(port);
    await held.line();
    const drained = await order(lb, "PATCH /api/listeners/in", { state: "drain" });
    expect(drained).toMatchObject({ status: 200, message: expect.stringContaining("accepts no new connections") });
    await eventually("nobody comes in", () => isRefused(port));
    expect(await held.echoes()).toBe(true);
    expect(await isRefused(other)).toBe(false);
    expect(await lb.ready()).toMatchObject({ status: 503, text: expect.stringContaining("listener in is drained") });
    expect((await lb.ready("in")).status).toBe(503);
    expect((await lb.ready("other")).status).toBe(200);
    expect((await lb.status()).listeners[0]).toMatchObject({
      name: "in",
      state: "drain",
      changes: ["drain by API"],
      bind: [`127.0.0.1:${port}`],
    });
    expect((await lb.reload(text("retries = 1"))).ok).toBe(true);
    expect(await isRefused(port)).toBe(true);
    for (const worker of [0, 1, 2]) await lb.restartWorker(worker);
    await lb.waitStatus(({ workers }) => workers.every(({ state, restarts }) => state === "running" && restarts === 1));
    expect(await isRefused(port)).toBe(true);
    expect(await order(lb, "PATCH /api/listeners/in", { state: "ready" })).toMatchObject({ status: 200 });
    await served(port, ["a", "b"]);
    expect((await lb.ready()).status).toBe(200);
    held.reset();
  });

  test("that is drained and resumed under load loses no connection that it accepted", async () => {
    const port = await freePort();
    await using lb = await startLb(config(port, AB));
    await using load = startLoad({ ports: [port], concurrency: 16, rate: 1500, tagged: true });
    await load.running;
    for (let i = 0; i < 3; i++) {
      expect((await order(lb, "PATCH /api/listeners/in", { state: "drain" })).status).toBe(200);
      await eventually("nobody comes in", () => isRefused(port));
      expect((await order(lb, "PATCH /api/listeners/in", { state: "ready" })).status).toBe(200);
      await lb.waitAccepted(50);
    }
    const { ok, failures } = await load.stop();
    expect(ok).toBeGreaterThan(100);
    expect({ ...failures, refused: 0 }).toEqual({ refused: 0 });
  });
});
