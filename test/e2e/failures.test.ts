// Backends that die, hang, answer wrongly and return, as separate processes behind three workers.
import { expect, test } from "vitest";
import { BackendProcess } from "../support/backend-process.ts";
import { connect } from "../support/client.ts";
import { eventually } from "../support/eventually.ts";
import { freePort, startLb, type Lb } from "../support/lb.ts";
import { startLoad } from "../support/load.ts";

const INTERVAL_MS = 500;
/** A healthy backend on a busy machine answers within it. */
const TIMEOUT_MS = 3000;
const ANSWER_MS = 3000;
const NAMES = ["a", "b", "c"];

function config(port: number, backends: readonly BackendProcess[], retries = 2): string {
  const list = backends.map(({ address }, i) => `{ address = "${address}", name = "${NAMES[i]}" }`);
  return `
    workers = 3
    [listeners.web]
    bind = "127.0.0.1:${port}"
    pool = "app"
    [pools.app]
    backends = [${list.join(", ")}]
    retries = ${retries}
    [pools.app.health]
    type = "exchange"
    expect = "ready"
    interval = "${INTERVAL_MS}ms"
    timeout = "${TIMEOUT_MS}ms"
    fall = 1
    rise = 1
  `;
}

const startAll = () => Promise.all(NAMES.map((name) => BackendProcess.start(`ready ${name}`)));

/** The greeting of a new connection, or how it ended instead. */
async function ask(port: number): Promise<string> {
  using client = await connect(port);
  // A worker that does not know yet that a backend hangs may connect to it.
  const name = (await client.line(ANSWER_MS).catch(() => "silence")) ?? (await client.ended);
  if (!name.startsWith("ready")) return name;
  return (await client.echoes()) ? name : "no echo";
}

async function healthOf(lb: Lb, name: string) {
  return (await lb.status()).pools[0]!.backends.find((backend) => backend.name === name)!;
}

/** The log line that says that the backend has gone down or come up, from the `from`th line on. */
const change = (lb: Lb, event: "backend down" | "backend up", backend: string, from: number) =>
  lb.waitLog((line) => line.event === event && line["backend"] === backend, undefined, from);

test("no connection that begins after a backend was killed sees an error, also while lb reloads, and one failed check takes the backend out", async () => {
  const backends = await startAll();
  await using _a = backends[0]!;
  await using b = backends[1]!;
  await using _c = backends[2]!;
  const port = await freePort();
  await using lb = await startLb(config(port, backends));
  await lb.waitStatus(({ pools }) => pools[0]!.backends.every(({ health }) => health.checks.success > 0));
  await using load = startLoad({ ports: [port], concurrency: 20, rate: 500, tagged: true, timeoutMs: 20_000 });
  await load.running;
  await lb.waitAccepted(200);
  const { failure } = (await healthOf(lb, "b")).health.checks;
  expect(failure).toBe(0);

  const from = lb.log().length;
  const killedAt = await b.kill();
  // Less than a second passes between the death and these: lb does not know of it yet.
  const names = await Promise.all(Array.from({ length: 60 }, () => ask(port)));
  expect(new Set(names)).toEqual(new Set(["ready a", "ready c"]));

  const down = await change(lb, "backend down", "b", from);
  const dead = await healthOf(lb, "b");
  // The first failed check took it out. It comes within one interval and its jitter, and a refusal needs no timeout.
  expect(dead.health.checks.failure).toBeGreaterThanOrEqual(1);
  const downAfterMs = Date.parse(down.time) - killedAt;
  const boundMs = 1.1 * INTERVAL_MS + TIMEOUT_MS;
  console.log(`a killed backend was out after ${downAfterMs} ms (interval + timeout: ${boundMs} ms)`);
  // The rest is for a busy machine.
  expect(downAfterMs).toBeLessThan(boundMs + 3000);

  // From now on no connection tries it, also after a reload. Connects that began before are still counted.
  await lb.waitAccepted(50);
  const { attempted } = (await healthOf(lb, "b")).connects;
  expect((await lb.reload(config(port, backends, 1))).ok).toBe(true);
  await lb.waitAccepted(200);
  const after = await healthOf(lb, "b");
  expect({ up: after.up, attempted: after.connects.attempted }).toEqual({ up: false, attempted });

  await b.restart();
  await change(lb, "backend up", "b", from);
  await eventually(
    "b serves again",
    async () => (await healthOf(lb, "b")).connects.succeeded > after.connects.succeeded,
  );
  const { started, ok, failed, epochMs, byTag } = await load.stop();
  // Clients that were connected to b when it died may have seen that.
  expect(failed.filter(({ atMs, ms }) => epochMs + atMs - ms > killedAt)).toEqual([]);
  expect(started - ok).toBeLessThanOrEqual(20);
  expect(Object.keys(byTag).toSorted()).toEqual(["ready a", "ready b", "ready c"]);
  expect(lb.log().filter(({ level }) => level === "error")).toEqual([]);
});

test("a backend that hangs or answers wrongly gets no connections until it recovers, and the others serve meanwhile", async () => {
  const backends = await startAll();
  await using a = backends[0]!;
  await using b = backends[1]!;
  await using c = backends[2]!;
  const port = await freePort();
  await using lb = await startLb(config(port, backends));
  await lb.waitStatus(({ pools }) => pools[0]!.backends.every(({ health }) => health.checks.success > 0));
  const servedBy = async (...expected: string[]) => {
    await eventually(`only ${expected.join(" and ")} serve`, async () => {
      const names = await Promise.all(Array.from({ length: 30 }, () => ask(port)));
      return [...new Set(names)].toSorted().join() === expected.map((name) => `ready ${name}`).join();
    });
  };
  await servedBy("a", "b", "c");

  let from = lb.log().length;
  await a.hang();
  expect((await change(lb, "backend down", "a", from))["reason"]).toMatch(/timed out|no answer/);
  await servedBy("b", "c");

  from = lb.log().length;
  await b.greet("out of order");
  expect((await change(lb, "backend down", "b", from))["reason"]).toContain("ready");
  await servedBy("c");
  expect((await lb.reload(config(port, backends, 1))).ok).toBe(true);
  await servedBy("c");

  // The last one dies: none is left, and the log says so for each connection.
  from = lb.log().length;
  await c.kill();
  await change(lb, "backend down", "c", from);
  {
    await eventually("every worker knows", async () => {
      using client = await connect(port);
      await client.ended;
      return (await lb.lineOf(client)).end === "no_backend";
    });
  }

  from = lb.log().length;
  a.goOn();
  await change(lb, "backend up", "a", from);
  await b.greet("ready b");
  await change(lb, "backend up", "b", from);
  await c.restart();
  await change(lb, "backend up", "c", from);
  await servedBy("a", "b", "c");
  expect((await lb.waitIdle()).pools[0]!.backends.map(({ open }) => open)).toEqual([0, 0, 0]);
});
