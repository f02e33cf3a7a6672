// Failovers of Redis under load, by hand and by Sentinel: which connections end, and which server new ones go to.
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { connect, type Client } from "../support/client.ts";
import { eventually } from "../support/eventually.ts";
import { freePorts, startLb, type LogEntry } from "../support/lb.ts";
import { redisCli, redisServer, startRedis } from "../support/redis.ts";
import { missingOf, Server } from "../support/server.ts";

const INTERVAL_MS = 200;
const QUICK = `interval = "${INTERVAL_MS}ms", timeout = "2s", rise = 1, fall = 1`;

/** The first word of the answer to ROLE; null = no answer. */
async function roleAt(port: number): Promise<string | null> {
  using client = await connect(port).catch(() => null);
  if (client === null) return null;
  client.send("ROLE\r\n");
  await client.line();
  await client.line();
  return (await client.line())?.trim() ?? null;
}

/** Ten answers of the master. Until a worker has heard of the first check, it refuses; a replica never answers. */
async function onlyMasterServes(port: number): Promise<void> {
  let answers = 0;
  await eventually("answers of the master", async () => {
    const role = await roleAt(port);
    expect(["master", null]).toContain(role);
    if (role === "master") answers++;
    return answers >= 10;
  });
}

/** Connections that have worked once and stay open. */
async function hold(port: number, count: number): Promise<Client[]> {
  const held = await Promise.all(Array.from({ length: count }, () => connect(port)));
  for (const client of held) {
    client.send("PING\r\n");
    expect(await client.line()).toBe("+PONG\r");
  }
  return held;
}

/** Clients that connect, write, and leave, repeatedly. */
class Writers {
  readonly writes: { answer: string; atMs: number }[] = [];
  readonly #port: number;
  readonly #loops: Promise<void>[];
  #isOver = false;

  constructor(port: number) {
    this.#port = port;
    this.#loops = Array.from({ length: 4 }, () => this.#loop());
  }

  async #loop(): Promise<void> {
    while (!this.#isOver) {
      using client = await connect(this.#port);
      const atMs = performance.now();
      client.send("SET key value\r\n");
      const answer = (await client.line())?.trim() ?? (await client.ended);
      this.writes.push({ answer: answer.startsWith("-READONLY") ? "readonly" : answer, atMs });
      // Leaves the processor to the servers while nobody takes writes.
      if (answer !== "+OK") await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }

  /** The first good write that began after this time. */
  async goodAfter(ms: number): Promise<number> {
    const find = () => this.writes.find(({ answer, atMs }) => atMs > ms && answer === "+OK");
    await eventually("a good write", () => find() !== undefined, 30_000);
    return find()!.atMs;
  }

  bad(): string[] {
    return this.writes.filter(({ answer }) => answer !== "+OK").map(({ answer }) => answer);
  }

  async end(): Promise<void> {
    this.#isOver = true;
    await Promise.all(this.#loops);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.end();
  }
}

test("a swap of the roles: connections to the old master are reset, and new ones go to the new master", async (context) => {
  const missing = await missingOf("redis-server", "redis-cli");
  if (missing !== null) context.skip(missing);
  const [front, first, second] = await freePorts(3);
  await using a = await redisServer(first);
  await using b = await redisServer(second, "--replicaof", "127.0.0.1", String(first));
  await eventually("the replica has joined", async () =>
    (await redisCli(second, "info", "replication")).includes("master_link_status:up"),
  );
  await using lb = await startLb(`
    workers = 2
    listeners.redis = { bind = "127.0.0.1:${front}", pool = "master" }
    [pools.master]
    backends = ["127.0.0.1:${first}", "127.0.0.1:${second}"]
    on_down = "reset"
    health = { type = "redis", role = "master", ${QUICK} }
  `);
  await lb.waitStatus(({ pools }) => pools[0]!.backends[0]!.up && !pools[0]!.backends[1]!.up);
  await onlyMasterServes(front);
  const held = await hold(front, 10);
  await using writers = new Writers(front);
  await eventually("load", () => writers.writes.length >= 100);
  expect(writers.bad()).toEqual([]);

  await redisCli(second, "replicaof", "no", "one");
  await redisCli(first, "replicaof", "127.0.0.1", String(second));
  const swappedMs = performance.now();
  for (const client of held) expect(await client.ended).toBe("reset");
  const resetMs = performance.now() - swappedMs;
  const goodMs = await writers.goodAfter(swappedMs);
  await lb.waitStatus(({ pools }) => !pools[0]!.backends[0]!.up && pools[0]!.backends[1]!.up);
  const settledMs = performance.now();
  const { length } = writers.writes;
  await eventually("more writes", () => writers.writes.length >= length + 200);
  await writers.end();
  console.log(
    `failover under load, interval ${INTERVAL_MS} ms: old connections reset after ${resetMs.toFixed(0)} ms, new master written to after ` +
      `${(goodMs - swappedMs).toFixed(0)} ms, ${writers.bad().length} of ${writers.writes.length} writes refused in between`,
  );
  // A worker learns it a moment after the supervisor.
  const late = writers.writes.filter(({ answer, atMs }) => answer !== "+OK" && atMs > settledMs + 1000);
  expect(late).toEqual([]);
  expect((await lb.status()).pools[0]!.backends[0]).toMatchObject({
    up: false,
    health: { last_error: 'expected role:master, found "role:slave"' },
  });
  for (const server of [a, b]) expect(server.log()).not.toMatch(/error/i);
});

describe("Sentinel", () => {
  /** Three Sentinels that fail over half a second after the master is gone, once two of them agree. */
  async function startSentinels(servers: AsyncDisposableStack, ports: number[], master: number): Promise<void> {
    for (const port of ports) {
      const server = servers.use(await Server.make("sentinel"));
      const file = join(server.dir, "sentinel.conf");
      const lines = [
        `port ${port}`,
        "bind 127.0.0.1",
        `dir ${server.dir}`,
        `sentinel monitor db 127.0.0.1 ${master} 2`,
      ];
      lines.push("sentinel down-after-milliseconds db 500", "sentinel failover-timeout db 5000");
      await writeFile(file, lines.join("\n"));
      server.start(["redis-sentinel", [file]]);
    }
    for (const port of ports) {
      await eventually("the Sentinels know each other and the replicas", async () => {
        const known = await redisCli(port, "sentinel", "master", "db").catch(() => "");
        return /^num-slaves\n2$/m.test(known) && /^num-other-sentinels\n2$/m.test(known);
      });
    }
  }

  test("promotes a replica: writes go on there, and never to the old master when it comes back", async (context) => {
    const missing = await missingOf("redis-server", "redis-cli", "redis-sentinel");
    if (missing !== null) context.skip(missing);
    const [front, side, first, ...more] = await freePorts(8);
    const [second, third, ...watching] = more as number[];
    await using servers = new AsyncDisposableStack();
    const old = servers.use(await redisServer(first));
    for (const port of [second!, third!])
      servers.use(await redisServer(port, "--replicaof", "127.0.0.1", String(first)));
    // A Sentinel asks the master for its replicas once, and then every ten seconds.
    await eventually(
      "replicas",
      async () => (await redisCli(first, "info", "replication")).match(/state=online/g)?.length === 2,
    );
    await startSentinels(servers, watching, first);
    const backends = [first, second, third].map((port) => `"127.0.0.1:${port}"`).join(", ");
    // As docs/health-checks.md recommends for three servers: only the master that Sentinel knows has replicas.
    const steps = `{ send = "INFO replication\\r\\nQUIT\\r\\n", expect_regex = "^role:master" }, { expect_regex = "^connected_slaves:[1-9]" }`;
    await using lb = await startLb(`
      workers = 2
      listeners.redis = { bind = "127.0.0.1:${front}", pool = "master" }
      [pools.master]
      backends = [${backends}]
      on_down = "reset"
      health = { type = "exchange", steps = [${steps}], initial = "down", ${QUICK} }
      [listeners.side]
      bind = "127.0.0.1:${side}"
      pool = "role"
      [pools.role]
      backends = [${backends}]
      health = { type = "redis", role = "master", ${QUICK} }
    `);
    const backendsUp = async (): Promise<boolean[]> => (await lb.status()).pools[0]!.backends.map(({ up }) => up);
    await eventually("the master is up", async () => (await backendsUp()).join() === "true,false,false");
    await onlyMasterServes(front);
    const held = await hold(front, 10);
    await using writers = new Writers(front);
    await eventually("load", () => writers.writes.length >= 100);
    expect(writers.bad()).toEqual([]);

    const killedMs = performance.now();
    await old.end("SIGKILL");
    // Its kernel ends them, with FIN where no bytes are unread.
    for (const client of held) await client.ended;
    const endedMs = performance.now();
    let promoted = 0;
    await eventually(
      "a promotion",
      async () => {
        for (const port of [second!, third!]) if ((await roleAt(port)) === "master") promoted = port;
        return promoted !== 0;
      },
      30_000,
    );
    const [promotedMs, promotedAt] = [performance.now(), Date.now()];
    const isNew = ({ event, pool, backend }: LogEntry) =>
      event === "backend up" && pool === "role" && backend === `127.0.0.1:${promoted}`;
    const roleMs = Date.parse((await lb.waitLog(isNew)).time) - promotedAt;
    const goodMs = await writers.goodAfter(endedMs);
    await eventually("the new master is up", async () => (await backendsUp()).filter(Boolean).length === 1);
    console.log(
      `Sentinel, interval ${INTERVAL_MS} ms: connections ended ${(endedMs - killedMs).toFixed(0)} ms after kill -9, promotion after ` +
        `${(promotedMs - killedMs).toFixed(0)} ms, up by its role ${roleMs} ms later, a write to the master with replicas ` +
        `${(goodMs - promotedMs).toFixed(0)} ms later`,
    );

    // It says that it is a master, until Sentinel tells it otherwise some ten seconds later.
    startRedis(old, first);
    await eventually("the old master", async () => (await roleAt(first)) === "master");
    const checks = async () => (await lb.status()).pools[0]!.backends[0]!.health;
    const { failure } = (await checks()).checks;
    await eventually("checks of it", async () => (await checks()).checks.failure >= failure + 5);
    expect(await checks()).toMatchObject({ up: false, checks: { success: expect.any(Number) } });
    expect((await checks()).last_error).toMatch(/^no \/\^connected_slaves/);
    expect(await redisCli(first, "get", "key")).toBe("\n");
    expect(await redisCli(promoted, "get", "key")).toBe("value\n");
    await writers.end();
    expect(new Set(writers.bad())).not.toContain("readonly");
  });
});
