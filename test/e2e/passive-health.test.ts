// Passive health: real traffic takes a backend out of the set, counted over all workers, while its active checks find it up or
// do not exist.
import { expect, test } from "vitest";
import { refusing, tagged, type Backend } from "../support/backends.ts";
import { connect } from "../support/client.ts";
import { eventually } from "../support/eventually.ts";
import { freePort, startLb } from "../support/lb.ts";

function config(port: number, backends: string[], pool: string): string {
  const list = backends.map((address, i) => `{ address = "${address}", name = "${"abc"[i]}" }`);
  return `
    workers = 3
    [listeners.in]
    bind = "127.0.0.1:${port}"
    pool = "app"
    [pools.app]
    backends = [${list.join(", ")}]
    health.type = "off"
    ${pool}
  `;
}

/** What a backend says that resets afterwards. */
const ANSWER = "r";

async function ask(port: number): Promise<string> {
  using client = await connect(port);
  client.send("hello");
  const line = await client.line();
  if (line === null) return await client.ended;
  if (line === ANSWER) {
    // Its reset is asked for once the answer has passed lb.
    client.send("again");
    await client.ended;
  }
  return line;
}

test("failed connects on three workers eject a backend at exactly `failures`, and it returns", async () => {
  using a = await tagged("a");
  const dead = await refusing();
  const port = await freePort();
  const passive = `passive = { failures = 12, window = "60s", eject_for = "1s" }`;
  await using lb = await startLb(config(port, [a.address, dead], passive));
  // The client notices nothing: another backend is tried. No check would find the dead one.
  await eventually("b is ejected", async () => {
    expect(await ask(port)).toBe("a");
    return lb.log().some(({ event }) => event === "backend ejected");
  });
  const ejected = await lb.waitLog(({ event }) => event === "backend ejected");
  expect(ejected).toMatchObject({ level: "warn", pool: "app", backend: "b", for: "1s", backends_ejected: 1 });
  expect(ejected["reason"]).toMatch(/^1[2-9] failed connects within 1m$/);
  const b = (await lb.status()).pools[0]!.backends[1]!;
  // Every failure is seen by one worker, and all of them count.
  expect(b.connects.refused).toBeGreaterThanOrEqual(12);
  expect(b.connects.refused).toBeLessThan(24);
  expect(await lb.metric("lb_backend_ejections_total", { backend: "b", reason: "connect" })).toBe(1);
  expect(await lb.metric("lb_backend_up", { backend: "b" })).toBe(1);
  await lb.waitLog(({ event }) => event === "backend returned");
  expect((await lb.status()).pools[0]!.backends[1]!.ejected_until).toBeNull();
  // It is still dead: the second ejection in a row is twice as long.
  await eventually("b is ejected again", async () => {
    await ask(port);
    return lb.log().some(({ event, in_a_row }) => event === "backend ejected" && in_a_row === 2);
  });
  expect(lb.log().findLast(({ event }) => event === "backend ejected")).toMatchObject({ for: "2s" });
  const status = (await lb.status()).pools[0]!.backends[1]!;
  expect(Date.parse(status.ejected_until!)).toBeGreaterThan(Date.now() - 60_000);
  const before = status.connects.attempted;
  for (let i = 0; i < 12; i++) await ask(port);
  const after = (await lb.status()).pools[0]!.backends[1]!;
  if (after.ejected_until !== null) expect(after.connects.attempted).toBe(before);
});

/** Accepts, and resets as soon as the client has said something; if `answers`, only when it speaks again after the answer. */
function resetting(answers: boolean): { address: string; stop: () => void } {
  const server = Bun.listen<{ answered: boolean }>({
    hostname: "127.0.0.1",
    port: 0,
    socket: {
      open: (socket) => void (socket.data = { answered: !answers }),
      data(socket) {
        if (socket.data.answered) socket.terminate();
        else socket.write(`${ANSWER}\n`);
        socket.data.answered = true;
      },
    },
  });
  return { address: `127.0.0.1:${server.port}`, stop: () => server.stop(true) };
}

test("early resets eject if they are counted; a reset after the first byte of an answer never does", async () => {
  using a: Backend = await tagged("a");
  const [early, late] = [resetting(false), resetting(true)];
  const port = await freePort();
  const passive = (count: string) =>
    `passive = { failures = 4, window = "60s", eject_for = "60s", count = [${count}] }`;
  const backends = [a.address, early.address, late.address];
  await using lb = await startLb(config(port, backends, passive(`"connect"`)));
  const ejections = async (): Promise<number[]> =>
    (await lb.status()).pools[0]!.backends.map((b) => b.ejections.reduce((sum, { count }) => sum + count, 0));
  for (let i = 0; i < 36; i++) await ask(port);
  // A report takes 10 ms at most to leave a worker.
  await lb.waitIdle();
  expect(await ejections()).toEqual([0, 0, 0]);
  expect((await lb.reload(config(port, backends, passive(`"connect", "early_reset"`)))).ok).toBe(true);
  await eventually("b is ejected", async () => {
    await ask(port);
    return lb.log().some(({ event }) => event === "backend ejected");
  });
  expect(await lb.waitLog(({ event }) => event === "backend ejected")).toMatchObject({
    backend: "b",
    reason: expect.stringMatching(/^\d early resets within 1m$/),
  });
  expect(await lb.metric("lb_backend_ejected", { backend: "b" })).toBe(1);
  expect(await lb.metric("lb_backend_ejections_total", { backend: "b", reason: "early_reset" })).toBe(1);
  await eventually("b gets nothing any more", async () => {
    const before = (await lb.status()).pools[0]!.backends[1]!.connects.attempted;
    for (let i = 0; i < 9; i++) await ask(port);
    return (await lb.status()).pools[0]!.backends[1]!.connects.attempted === before;
  });
  for (let i = 0; i < 18; i++) await ask(port);
  expect(await ejections()).toEqual([0, 1, 0]);
  early.stop();
  late.stop();
});
