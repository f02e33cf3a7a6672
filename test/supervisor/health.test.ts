import { describe, expect, test } from "vitest";
import { CHECKS_AT_ONCE_MAX, HealthChecks } from "../../src/supervisor/health.ts";
import { Registry, type PoolRecord } from "../../src/supervisor/registry.ts";
import { blackhole, echo, refusing, silent, sink } from "../support/backends.ts";
import { configOf } from "../support/config.ts";
import { eventually } from "../support/eventually.ts";
import { countSockets, SYN_SENT } from "../support/kernel.ts";

interface Change {
  backend: string;
  up: boolean;
  reason: string;
  atMs: number;
}

/** Checks of the pools of a config, with what they say; the supervisor's part, which sets `up`, is played here. */
function follow(toml: string) {
  const registry = new Registry();
  const changes: Change[] = [];
  const checks = new HealthChecks((id, up, reason) => {
    const backend = registry.backendById.get(id)!;
    backend.up = up;
    changes.push({ backend: backend.name, up, reason, atMs: performance.now() });
  });
  const take = (text: string): readonly PoolRecord[] => {
    registry.commit(registry.draft(configOf(text), 1000, () => []));
    checks.follow(registry.pools);
    return registry.pools;
  };
  take(toml);
  const facts = (name: string) => {
    const backend = registry.pools.flatMap(({ backends }) => backends).find((one) => one.name === name);
    return checks.facts(backend?.id ?? -1);
  };
  return { changes, checks, facts, take, pools: () => registry.pools, [Symbol.dispose]: () => checks.stop() };
}

function pool(backends: readonly string[], health: string): string {
  const list = backends.map((address) => JSON.stringify(address)).join(", ");
  return `[listeners.web]\nbind = ":8080"\npool = "app"\n[pools.app]\nbackends = [${list}]\nhealth = ${health}\n`;
}

const QUICK = `{ interval = "30ms", timeout = "300ms", rise = 2, fall = 3 }`;

describe("a backend", () => {
  test("that answers is left up and told of by nobody", async () => {
    using backend = await echo();
    using health = follow(pool([backend.address], QUICK));
    await eventually("five checks", () => health.facts(backend.address)!.success >= 5);
    expect(health.changes).toEqual([]);
    expect(health.facts(backend.address)).toMatchObject({ failure: 0, lastError: null });
    // A check is a connect and nothing else, and it leaves nothing open.
    expect(backend.bytesIn).toBe(0);
    await eventually("it is closed", () => backend.open.size <= 1);
  });

  test("goes down after `fall` failures and comes up after `rise` successes, each told once", async () => {
    using backend = await echo();
    backend.stop();
    using health = follow(pool([backend.address], QUICK));
    await eventually("down", () => health.changes.length === 1);
    expect(health.changes[0]).toMatchObject({ backend: backend.address, up: false, reason: "connection refused" });
    expect(health.facts(backend.address)).toMatchObject({ success: 0, failure: 3, lastError: "connection refused" });
    await eventually("more failures", () => health.facts(backend.address)!.failure >= 6);
    expect(health.changes.length).toBe(1);
    backend.start();
    await eventually("up", () => health.changes.length === 2);
    expect(health.changes[1]).toMatchObject({ up: true });
    expect(health.facts(backend.address)).toMatchObject({ success: 2, lastError: null });
    expect(Date.now() - health.facts(backend.address)!.sinceMs).toBeLessThan(1000);
  });

  test("is first checked at once, not an interval later", async () => {
    const address = await refusing();
    const began = performance.now();
    using health = follow(pool([address], `{ interval = "5s", fall = 1 }`));
    await eventually("down", () => health.changes.length === 1);
    // A tenth of the interval, so that a thousand checks do not begin in one moment.
    expect(performance.now() - began).toBeLessThan(700);
  });

  test("that does not answer within the timeout has failed, and its connect is cancelled", async () => {
    await using hole = await blackhole();
    using health = follow(pool([hole.address], `{ interval = "40ms", timeout = "60ms", fall = 2 }`));
    await eventually("down", () => health.changes.length === 1);
    expect(health.changes[0]).toMatchObject({ up: false, reason: "connect timed out" });
    await eventually("ten failures", () => health.facts(hole.address)!.failure >= 10);
    // One is under way at the most.
    expect(countSockets(SYN_SENT, hole.port)).toBeLessThanOrEqual(1);
    health.checks.stop();
    await eventually("no SYN is left", () => countSockets(SYN_SENT, hole.port) === 0);
  });

  test("is checked at the check's own port where there is one", async () => {
    const address = await refusing();
    using gate = await silent();
    using health = follow(pool([address], `{ interval = "30ms", fall = 1, rise = 1, port = ${gate.port} }`));
    await eventually("checks", () => health.facts(address)!.success >= 3);
    gate.stop();
    await eventually("down", () => health.changes.length === 1);
  });

  test("may be a unix socket", async () => {
    const path = `/tmp/lb-health-${process.pid}.sock`;
    const toml = pool([`unix:${path}`], QUICK);
    using health = follow(toml);
    await eventually("down", () => health.changes.length === 1);
    const server = Bun.listen({ unix: path, socket: { data: () => undefined } });
    try {
      await eventually("up", () => health.changes.length === 2);
    } finally {
      server.stop(true);
    }
  });
});

describe("type = tls", () => {
  test("a backend that does not speak TLS is down, even where nothing is verified", async () => {
    using plain = await echo();
    using mute = await sink();
    const health = `{ type = "tls", interval = "30ms", timeout = "150ms", fall = 2, rise = 1 }`;
    using followed = follow(pool([plain.address, mute.address], health));
    await eventually("both are down", () => followed.changes.length === 2, 5000);
    for (const change of followed.changes) expect(change.reason).toContain("TLS handshake");
    await eventually("nothing stays open", () => plain.open.size <= 1 && mute.open.size <= 1);
  });
});

describe("many checks", () => {
  test("are spread by their jitter: they neither begin nor go on together", async () => {
    using backend = await echo();
    const addresses = Array.from({ length: 20 }, (_, i) => `127.0.8.${i + 1}:${backend.port}`);
    const times: number[][] = addresses.map(() => []);
    const servers = addresses.map((address, i) =>
      Bun.listen({
        hostname: address.split(":")[0]!,
        port: backend.port,
        socket: { open: (socket) => (times[i]!.push(performance.now()), void socket.end()), data: () => undefined },
      }),
    );
    try {
      using _ = follow(pool(addresses, `{ interval = "300ms" }`));
      await eventually("four checks of each", () => times.every((list) => list.length >= 4));
      const firsts = times.map(([first]) => first!);
      expect(Math.max(...firsts) - Math.min(...firsts)).toBeGreaterThan(5);
      const gaps = times.flatMap((list) => list.slice(1).map((at, i) => at - list[i]!));
      expect(Math.min(...gaps)).toBeGreaterThan(0.9 * 300 - 15);
      expect(new Set(gaps.map((gap) => Math.round(gap / 5))).size).toBeGreaterThan(3);
    } finally {
      for (const server of servers) server.stop(true);
    }
  });

  test("wait for their turn: no more than so many are under way, and each one gets it", async () => {
    await using hole = await blackhole();
    const count = 3 * CHECKS_AT_ONCE_MAX;
    // One backend of each pool; all are the same address.
    const pools = Array.from(
      { length: count },
      (_, i) =>
        `[pools.p${i}]\nbackends = [{ address = "${hole.address}", name = "hole${i}" }]\n` +
        `health = { interval = "50ms", timeout = "100ms", fall = 1 }`,
    );
    const toml = `[listeners.web]\nbind = ":8080"\npool = "p0"\n${pools.join("\n")}\n`;
    using health = follow(toml);
    let most = 0;
    await eventually("all are down", () => {
      most = Math.max(most, countSockets(SYN_SENT, hole.port));
      return health.changes.length === count;
    });
    expect(most).toBeGreaterThan(CHECKS_AT_ONCE_MAX / 2);
    expect(most).toBeLessThanOrEqual(CHECKS_AT_ONCE_MAX);
    health.checks.stop();
    await eventually("no SYN is left", () => countSockets(SYN_SENT, hole.port) === 0);
  });
});

describe("after a reload", () => {
  test("the checks of what stays go on with their history, of what goes end, of what comes begin", async () => {
    using a = await echo();
    using b = await echo();
    using c = await echo();
    using health = follow(pool([a.address, b.address], QUICK));
    await eventually("checks", () => health.facts(a.address)!.success >= 3 && health.facts(b.address)!.success >= 3);
    const { sinceMs, success } = health.facts(a.address)!;
    health.take(pool([a.address, c.address], QUICK));
    expect(health.facts(b.address)).toBeNull();
    expect(health.facts(a.address)!.sinceMs).toBe(sinceMs);
    expect(health.facts(a.address)!.success).toBeGreaterThanOrEqual(success);
    const { accepted } = b;
    await eventually("checks of c", () => health.facts(c.address)!.success >= 5);
    expect(b.accepted).toBeLessThanOrEqual(accepted + 1);
  });

  test("another interval holds at once, not after the old one", async () => {
    using a = await echo();
    using health = follow(pool([a.address], `{ interval = "50ms" }`));
    await eventually("a check", () => health.facts(a.address)!.success >= 1);
    health.take(pool([a.address], `{ interval = "10m", timeout = "1s" }`));
    const { success } = health.facts(a.address)!;
    health.take(pool([a.address], QUICK));
    await eventually("more checks", () => health.facts(a.address)!.success >= success + 3, 2000);
  });

  test("a backend that was down comes up when its checks are switched off, and is checked again when they are on", async () => {
    const address = await refusing();
    using health = follow(pool([address], QUICK));
    await eventually("down", () => health.changes.length === 1);
    health.take(pool([address], `{ type = "off" }`));
    expect(health.pools()[0]!.backends[0]!.up).toBe(true);
    health.take(pool([address], QUICK));
    await eventually("down again", () => health.pools()[0]!.backends[0]!.up === false);
  });

  test("other rules begin from what the backend is now", async () => {
    using a = await echo();
    a.stop();
    using health = follow(pool([a.address], QUICK));
    await eventually("down", () => health.changes.length === 1);
    health.take(pool([a.address], `{ interval = "30ms", rise = 1, fall = 5 }`));
    a.start();
    await eventually("up", () => health.changes.length === 2);
    expect(health.changes[1]).toMatchObject({ up: true });
  });
});

test("stopped, nothing is checked and nothing is said any more", async () => {
  using a = await echo();
  await using hole = await blackhole();
  using health = follow(pool([a.address, hole.address], `{ interval = "20ms", timeout = "10s" }`));
  await eventually("checks", () => a.accepted >= 3 && countSockets(SYN_SENT, hole.port) === 1);
  health.checks.stop();
  const { accepted } = a;
  await eventually("the connect is cancelled", () => countSockets(SYN_SENT, hole.port) === 0);
  expect(a.accepted).toBeLessThanOrEqual(accepted + 1);
  expect(health.changes).toEqual([]);
});
