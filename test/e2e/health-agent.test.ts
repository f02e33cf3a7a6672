// Agents of backends (HAProxy's agent-check): their reports decide which connections a backend gets, on every worker.
import { expect, test } from "vitest";
import { tagged } from "../support/backends.ts";
import { connect, type Client } from "../support/client.ts";
import { freePort, startLb } from "../support/lb.ts";

test("an agent's percentage of the weight, drain and down apply in all workers, and after a reload", async () => {
  using a = await tagged("a");
  const port = await freePort();
  let line = "50%\n";
  const agent = Bun.listen({
    hostname: "127.0.0.1",
    port: 0,
    socket: { open: (socket) => void socket.end(line), data: () => undefined },
  });
  const front = await freePort();
  const toml = (more = "") => `
    workers = 2
    listeners.web = { bind = "127.0.0.1:${front}", pool = "app" }
    [pools.app]
    backends = [{ address = "127.0.0.1:${a.port}", name = "a" }, { address = "127.0.0.2:${port}", name = "b" }]
    on_down = "reset"
    health = { type = "off", interval = "30ms", timeout = "5s", agent_port = ${agent.port}${more} }
  `;
  const other = Bun.listen({
    hostname: "127.0.0.2",
    port: agent.port,
    socket: { open: (socket) => void socket.end("up\n"), data: () => undefined },
  });
  const second = Bun.listen({
    hostname: "127.0.0.2",
    port,
    socket: { open: (socket) => void socket.write("b\n"), data: () => undefined },
  });
  const ask = async (): Promise<[string, Client]> => {
    const client = await connect(front);
    return [(await client.line()) ?? (await client.ended), client];
  };
  const counts = async (times: number): Promise<Record<string, number>> => {
    const found: Record<string, number> = { a: 0, b: 0 };
    for (let i = 0; i < times; i++) {
      const [tag, client] = await ask();
      client.reset();
      found[tag] = (found[tag] ?? 0) + 1;
    }
    return found;
  };
  try {
    await using lb = await startLb(toml());
    const agentOf = async () => (await lb.status()).pools[0]!.backends[0]!.health.agent;
    await lb.waitLog(({ event, backend }) => event === "backend's agent reports" && backend === "a");
    expect(await agentOf()).toEqual({ up: true, state: "ready", percent: 50, last_error: null });
    const shares = await counts(90);
    // Each of two workers rounds its own turns.
    expect(shares["a"]).toBeGreaterThanOrEqual(28);
    expect(shares["a"]).toBeLessThanOrEqual(32);

    let [tag, held] = await ask();
    while (tag !== "a") [tag, held] = await ask();
    line = "drain\n";
    await lb.waitStatus(({ pools }) => pools[0]!.backends[0]!.health.agent?.state === "drain");
    expect(await counts(20)).toEqual({ a: 0, b: 20 });
    expect((await lb.reload(toml(", rise = 1"))).ok).toBe(true);
    expect(await counts(20)).toEqual({ a: 0, b: 20 });
    // Open connections continue until the agent reports down.
    expect((await lb.status()).pools[0]!.backends[0]).toMatchObject({ up: true });
    line = "fail # disk full\n";
    expect(await held.ended).toBe("reset");
    expect(await lb.waitLog(({ event }) => event === "backend down")).toMatchObject({
      backend: "a",
      reason: "its agent says fail: disk full",
    });
    // The weight of before is kept until the agent gives another one.
    line = "100%, up\n";
    await lb.waitLog(({ event }) => event === "backend up");
    // Each worker has a turn of its own.
    const { a, b } = await counts(40);
    expect(Math.abs(a! - b!)).toBeLessThanOrEqual(4);
  } finally {
    for (const server of [agent, other, second]) server.stop(true);
  }
});
