import { once } from "node:events";
import { unlinkSync } from "node:fs";
import { connect } from "node:net";
import type { Socket } from "bun";
import { describe, expect, test } from "vitest";
import { closeDescriptor } from "../../src/platform/sockets.ts";
import { HealthChecks } from "../../src/supervisor/health.ts";
import { Registry, type PoolRecord } from "../../src/supervisor/registry.ts";
import { blackhole, echo, refusing, silent, sink, tagged } from "../support/backends.ts";
import { configOf } from "../support/config.ts";
import { listenAt } from "../support/endpoints.ts";
import { eventually } from "../support/eventually.ts";
import { countAtOnce, countSockets, SYN_SENT } from "../support/kernel.ts";

interface Change {
  backend: string;
  up: boolean;
  reason: string;
  atMs: number;
}

/** Checks of the pools of a config, with their reports; the test plays the supervisor, which sets `up`. */
function follow(toml: string, places = 64) {
  const registry = new Registry();
  const changes: Change[] = [];
  const unknown: string[] = [];
  const reports: string[] = [];
  const checks = new HealthChecks({
    places,
    onChange: (id, up, reason) => {
      const backend = registry.backendById.get(id)!;
      backend.up = up;
      changes.push({ backend: backend.name, up, reason, atMs: performance.now() });
    },
    onAgent: (id, report) => {
      const backend = registry.backendById.get(id)!;
      backend.agent = report;
      const { up, state, percent } = report;
      reports.push(`${backend.name} ${up ? "up" : "down"} ${state} ${percent}%`);
    },
    onUnknown: (_, reason) => void unknown.push(reason),
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
  const agent = (name: string) => {
    const backend = registry.pools.flatMap(({ backends }) => backends).find((one) => one.name === name);
    return checks.agent(backend?.id ?? -1);
  };
  return {
    changes,
    unknown,
    reports,
    agent,
    checks,
    facts,
    take,
    pools: () => registry.pools,
    [Symbol.dispose]: () => checks.stop(),
  };
}

function pool(backends: readonly string[], health: string, more = ""): string {
  const list = backends.map((address) => JSON.stringify(address)).join(", ");
  return `[listeners.web]\nbind = ":8080"\npool = "app"\n[pools.app]\nbackends = [${list}]\nhealth = ${health}\n${more}`;
}

/** With a PROXY header to send, a check completes the handshake and the backend sees it. */
const SEEN = `send_proxy = "v1"\n`;

const QUICK = `{ interval = "30ms", timeout = "300ms", rise = 2, fall = 3 }`;

describe("a backend", () => {
  test("that answers stays up, and nothing is reported", async () => {
    using backend = await echo();
    using health = follow(pool([backend.address], QUICK));
    await eventually("ten checks", () => health.facts(backend.address)!.success >= 10);
    expect(health.changes).toEqual([]);
    const { success, failure, lastError } = health.facts(backend.address)!;
    expect({ failure, lastError }).toEqual({ failure: 0, lastError: null });
    // The program sees a check only if this thread stalls for longer than the kernel delays the ACK.
    expect(backend.accepted).toBeLessThanOrEqual(success / 2);
  });

  test("goes down after `fall` failures and up after `rise` successes, each reported once", async () => {
    using backend = await echo();
    using health = follow(pool([backend.address], QUICK));
    await eventually("a check", () => health.facts(backend.address)!.success >= 1);
    backend.stop();
    await eventually("down", () => health.changes.length === 1);
    expect(health.changes[0]).toMatchObject({ backend: backend.address, up: false, reason: "connection refused" });
    // On a busy machine a fourth check may have failed since.
    const { failure, failures, lastError } = health.facts(backend.address)!;
    expect(failure).toBeGreaterThanOrEqual(3);
    expect(failures).toEqual({ refused: failure, timeout: 0, tls: 0, answer: 0, failed: 0 });
    expect(lastError).toBe("connection refused");
    const { success } = health.facts(backend.address)!;
    await eventually("more failures", () => health.facts(backend.address)!.failure >= 6);
    expect(health.changes.length).toBe(1);
    const startedMs = Date.now();
    backend.start();
    await eventually("up", () => health.changes.length === 2);
    expect(health.changes[1]).toMatchObject({ up: true });
    expect(health.facts(backend.address)).toMatchObject({ success: success + 2, lastError: null });
    expect(health.facts(backend.address)!.sinceMs).toBeGreaterThanOrEqual(startedMs);
  });

  test("that is down at the first check is down at once, without `fall` failures", async () => {
    using health = follow(pool([await refusing()], `{ interval = "10s", fall = 1000 }`));
    await eventually("down", () => health.changes.length === 1);
    expect(health.changes[0]).toMatchObject({ up: false, reason: "connection refused" });
  });

  test("with initial = down comes up at the first success, without `rise` successes", async () => {
    using backend = await echo();
    using health = follow(pool([backend.address], `{ interval = "10s", rise = 1000, initial = "down" }`));
    expect(health.pools()[0]!.backends[0]!.up).toBe(false);
    await eventually("up", () => health.changes.length === 1);
    expect(health.changes[0]).toMatchObject({ up: true });
    expect(health.facts(backend.address)).toMatchObject({ success: 1, failure: 0 });
  });

  test("is checked at `fast_interval` while its state is changing", async () => {
    using backend = await echo();
    const health = `{ interval = "1s", fast_interval = "20ms", timeout = "1s", rise = 60, fall = 60 }`;
    using checks = follow(pool([backend.address], `{ interval = "30ms" }`));
    await eventually("a check", () => checks.facts(backend.address)!.success >= 1);
    backend.stop();
    checks.take(pool([backend.address], health));
    await eventually("down", () => checks.changes.length === 1);
    backend.start();
    await eventually("up", () => checks.changes.length === 2, 60_000);
    // One interval of 1 s, not sixty.
    expect(checks.changes[1]!.atMs - checks.changes[0]!.atMs).toBeLessThan(40_000);
  });

  test("is first checked at once, not an interval later", async () => {
    const address = await refusing();
    const began = performance.now();
    using health = follow(pool([address], `{ interval = "20s", fall = 1 }`));
    await eventually("down", () => health.changes.length === 1);
    // Within a tenth of the interval, so that a thousand checks do not start together; the rest is for a busy machine.
    expect(performance.now() - began).toBeLessThan(15_000);
  });

  test("that does not answer within the timeout fails, and its connect is cancelled", async () => {
    await using hole = await blackhole();
    using health = follow(pool([hole.address], `{ interval = "40ms", timeout = "60ms", fall = 2 }`));
    await eventually("down", () => health.changes.length === 1);
    expect(health.changes[0]).toMatchObject({ up: false, reason: "connect timed out" });
    await eventually("ten failures", () => health.facts(hole.address)!.failure >= 10);
    // At most one is in flight.
    expect(countSockets(SYN_SENT, hole.port)).toBeLessThanOrEqual(1);
    health.checks.stop();
    await eventually("no SYN is left", () => countSockets(SYN_SENT, hole.port) === 0);
  });

  test("is checked at the check's own port if there is one", async () => {
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
  test("a backend that does not speak TLS is down, even if nothing is verified", async () => {
    using plain = await echo();
    using mute = await sink();
    const health = `{ type = "tls", interval = "30ms", timeout = "150ms", fall = 2, rise = 1 }`;
    using followed = follow(pool([plain.address, mute.address], health));
    await eventually("both are down", () => followed.changes.length === 2);
    for (const change of followed.changes) expect(change.reason).toContain("TLS handshake");
    await eventually("nothing stays open", () => plain.open.size <= 1 && mute.open.size <= 1);
  });
});

describe("a check by TCP", () => {
  test("is reset before the backend's program accepts it, also if the program sends first", async () => {
    using quiet = await echo();
    using greeter = await tagged("welcome");
    using health = follow(pool([quiet.address, greeter.address], `{ interval = "10ms" }`));
    const accepted = (): number => quiet.accepted + greeter.accepted;
    // The programs see a check if this process stalls for longer than the 200 ms by which the kernel delays the ACK; it does not stall
    // all the time.
    let seen = Infinity;
    for (let tries = 0; tries < 30 && seen > 0; tries++) {
      const before = accepted();
      const wanted = [quiet, greeter].map(({ address }) => ({ address, success: health.facts(address)!.success + 50 }));
      await eventually("50 checks of each", () =>
        wanted.every(({ address, success }) => health.facts(address)!.success >= success),
      );
      seen = accepted() - before;
    }
    expect(seen).toBe(0);
    expect(health.changes).toEqual([]);
  });

  test("of a unix socket is accepted and closed without a byte: the kernel has no handshake to leave out", async () => {
    const path = `/tmp/lb-health-seen-${process.pid}.sock`;
    let accepted = 0;
    let bytes = 0;
    const server = Bun.listen({
      unix: path,
      socket: { open: () => void accepted++, data: (_, chunk) => void (bytes += chunk.length) },
    });
    try {
      using health = follow(pool([`unix:${path}`], QUICK));
      await eventually("checks", () => health.facts(`unix:${path}`)!.success >= 3 && accepted >= 3);
      expect(bytes).toBe(0);
    } finally {
      server.stop(true);
    }
  });

  test("comes from the pool's source_address", async () => {
    const froms = new Set<string>();
    const server = Bun.listen({
      hostname: "127.0.0.1",
      port: 0,
      socket: { open: (socket) => void froms.add(socket.remoteAddress), data: () => undefined },
    });
    try {
      const address = `127.0.0.1:${server.port}`;
      using health = follow(pool([address], QUICK, `source_address = "127.0.0.77"\n${SEEN}`));
      await eventually("checks", () => health.facts(address)!.success >= 3 && froms.size > 0);
      expect([...froms]).toEqual(["127.0.0.77"]);
    } finally {
      server.stop(true);
    }
  });
});

describe("a check that this machine cannot make", () => {
  test("is neither a success nor a failure, and is reported once", async () => {
    using backend = await echo();
    // TEST-NET-1 (RFC 5737) is no address of this machine: bind(2) returns EADDRNOTAVAIL.
    const elsewhere = `source_address = "192.0.2.1"\n`;
    using health = follow(pool([backend.address], `{ interval = "10ms", fall = 1 }`, elsewhere));
    const reason = "not checked: EADDRNOTAVAIL on this machine";
    await eventually("it was tried", () => health.facts(backend.address)!.lastError === reason);
    health.take(pool([backend.address], `{ interval = "10ms", fall = 1 }`));
    await eventually("it can be made", () => health.facts(backend.address)!.success >= 3);
    expect(health.facts(backend.address)).toMatchObject({ failure: 0, lastError: null });
    expect(health.changes).toEqual([]);
    expect(health.unknown).toEqual([reason]);
  });

  test("does not include a unix socket whose queue is full: that is the backend's failure", async () => {
    const path = `/tmp/lb-health-full-${process.pid}.sock`;
    const fd = listenAt(`unix:${path}`, 0);
    const waiting = connect(path);
    try {
      await once(waiting, "connect");
      using health = follow(pool([`unix:${path}`], QUICK));
      await eventually("down", () => health.changes.length === 1);
      expect(health.changes[0]).toMatchObject({ up: false, reason: "connect failed: the accept queue is full" });
    } finally {
      waiting.destroy();
      closeDescriptor(fd);
      unlinkSync(path);
    }
  });
});

describe("many checks", () => {
  test("are spread by their jitter: they neither start together nor stay in step", async () => {
    using backend = await echo();
    const addresses = Array.from({ length: 20 }, (_, i) => `127.0.8.${i + 1}:${backend.port}`);
    let times: number[][] = addresses.map(() => []);
    const servers = addresses.map((address, i) =>
      Bun.listen({
        hostname: address.split(":")[0]!,
        port: backend.port,
        socket: { open: (socket) => (times[i]!.push(performance.now()), void socket.end()), data: () => undefined },
      }),
    );
    try {
      let [spreadMs, median, different] = [0, 0, 0];
      // On a busy machine checks are seen late, and together.
      for (let tries = 0; tries < 10 && !(spreadMs > 5 && median > 0.9 * 300); tries++) {
        times = addresses.map(() => []);
        using _ = follow(pool(addresses, `{ interval = "300ms" }`, SEEN));
        await eventually("four checks of each", () => times.every((list) => list.length >= 4));
        const firsts = times.map(([first]) => first!);
        spreadMs = Math.max(...firsts) - Math.min(...firsts);
        const gaps = times.flatMap((list) => list.slice(1).map((at, i) => at - list[i]!));
        median = gaps.toSorted((a, b) => a - b)[gaps.length >> 1]!;
        different = new Set(gaps.map((gap) => Math.round(gap / 5))).size;
      }
      expect(spreadMs).toBeGreaterThan(5);
      expect(median).toBeGreaterThan(0.9 * 300);
      expect(different).toBeGreaterThan(3);
    } finally {
      for (const server of servers) server.stop(true);
    }
  });

  test("wait for their turn: the number in flight is bounded, and each one gets its turn", async () => {
    const places = 16;
    await using hole = await blackhole();
    const count = 2 * places;
    // One backend per pool; all have the same address.
    const pools = Array.from(
      { length: count },
      (_, i) =>
        `[pools.p${i}]\nbackends = [{ address = "${hole.address}", name = "hole${i}" }]\n` +
        `health = { interval = "50ms", timeout = "100ms", fall = 1 }`,
    );
    const toml = `[listeners.web]\nbind = ":8080"\npool = "p0"\n${pools.join("\n")}\n`;
    using health = follow(toml, places);
    let most = 0;
    await eventually("all are down", () => {
      most = Math.max(most, countAtOnce(SYN_SENT, hole.port));
      return health.changes.length === count;
    });
    expect(most).toBeGreaterThan(places / 2);
    expect(most).toBeLessThanOrEqual(places);
    // From now on half of the places are for backends that answer.
    await eventually("those of the first round are over", () => countSockets(SYN_SENT, hole.port) <= places / 2);
    most = 0;
    await eventually("two more checks of each", () => {
      most = Math.max(most, countAtOnce(SYN_SENT, hole.port));
      return health.pools().every(({ backends }) => health.facts(backends[0]!.name)!.failure >= 3);
    });
    expect(most).toBe(places / 2);
    health.checks.stop();
    await eventually("no SYN is left", () => countSockets(SYN_SENT, hole.port) === 0);
  });

  test("of a pool with silent backends do not delay those of another pool", async () => {
    await using hole = await blackhole({ host: "0.0.0.0" });
    using backend = await echo();
    const silent = Array.from({ length: 250 }, (_, i) => `"127.0.9.${i + 1}:${hole.port}"`);
    // A round of the silent ones takes 42 s or more with the six places that they may hold at first, and then the four.
    const toml = `
      listeners.web = { bind = ":8080", pool = "app" }
      [pools.silent]
      backends = [${silent.join(", ")}]
      health = { interval = "100ms", timeout = "1s", fall = 1000 }
      [pools.app]
      backends = ["${backend.address}"]
      health = { interval = "100ms", timeout = "1s", fall = 1 }
    `;
    using health = follow(toml, 8);
    await eventually("the silent ones hold many places", () => countSockets(SYN_SENT, hole.port) >= 4);
    await eventually("checks", () => health.facts(backend.address)!.success >= 5);
    const diedMs = performance.now();
    backend.stop();
    // The silent ones go down at their first result.
    const isItsOwn = ({ backend: name }: Change): boolean => name === backend.address;
    await eventually("down", () => health.changes.some(isItsOwn));
    const tookMs = health.changes.find(isItsOwn)!.atMs - diedMs;
    console.log(`a death is seen after ${tookMs.toFixed(0)} ms, beside 250 silent backends with 8 places`);
    // The interval, with its jitter, on a busy machine; behind the silent ones it would be 35 s.
    expect(tookMs).toBeLessThan(15_000);
  });

  test("start an interval apart, however long they take", async () => {
    await using hole = await blackhole();
    using health = follow(pool([hole.address], `{ interval = "200ms", timeout = "190ms", fall = 1000 }`));
    await eventually("the first failure", () => health.facts(hole.address)!.failure >= 1);
    // Five take 1 s; an interval after each end it would be 1.95 s. Other programs may need the machine, but not all the time.
    const times: number[] = [];
    while (times.length < 20 && !times.some((ms) => ms < 1400)) {
      const { failure } = health.facts(hole.address)!;
      const beganMs = performance.now();
      await eventually("five more", () => health.facts(hole.address)!.failure >= failure + 5);
      times.push(performance.now() - beganMs);
    }
    expect(Math.min(...times)).toBeLessThan(1400);
  });
});

describe("an agent", () => {
  const agent = (says: () => string) =>
    Bun.listen({
      hostname: "127.0.0.1",
      port: 0,
      socket: { open: (socket) => void socket.end(says()), data: () => undefined },
    });

  test("takes its backend down and up at once, and sets its state and its percentage of the weight", async () => {
    using backend = await echo();
    let line = "up\n";
    const server = agent(() => line);
    const health = `{ interval = "30ms", timeout = "5s", rise = 1000, fall = 1000, agent_port = ${server.port} }`;
    using checks = follow(pool([backend.address], health));
    const facts = () => checks.agent(backend.address);
    try {
      await eventually("a check", () => checks.facts(backend.address)!.success >= 1);
      line = "down # for maintenance\n";
      await eventually("down", () => checks.changes.length === 1);
      expect(checks.changes[0]).toMatchObject({ up: false, reason: "its agent says down: for maintenance" });
      line = "50%\n";
      await eventually("half", () => facts()?.report.percent === 50);
      expect(facts()?.downReason).toBe("its agent says down: for maintenance");
      // Only "up" ends "down".
      expect(checks.changes.length).toBe(1);
      line = "up\n";
      await eventually("up", () => checks.changes.length === 2);
      const report = { up: true, state: "ready", percent: 50 };
      expect(facts()).toEqual({ report, downReason: null, lastError: null });
      line = "drain";
      await eventually("drained", () => facts()?.report.state === "drain");
      // An unknown report changes nothing.
      line = "hello\n";
      await eventually("not understood", () => facts()?.lastError === 'the agent says "hello"');
      expect(facts()?.report.state).toBe("drain");
      server.stop(true);
      await eventually("gone", () => facts()?.lastError === "connection refused");
      expect(facts()?.report.state).toBe("drain");
      expect(checks.reports).toEqual(
        ["down ready 100%", "down ready 50%", "up ready 50%", "up drain 50%"].map(
          (report) => `${backend.address} ${report}`,
        ),
      );
      expect(checks.changes.length).toBe(2);
      // Without the agent, its last report is forgotten.
      checks.take(pool([backend.address], `{ interval = "30ms", timeout = "5s" }`));
      expect(facts()).toBeNull();
      expect(checks.reports.at(-1)).toBe(`${backend.address} up ready 100%`);
    } finally {
      server.stop(true);
    }
  });

  test("that reports up does not bring up a backend whose health check fails, and works without health checks", async () => {
    const address = await refusing();
    const server = agent(() => "up\n");
    try {
      using checks = follow(pool([address], `{ interval = "30ms", timeout = "5s", agent_port = ${server.port} }`));
      await eventually("down", () => checks.changes.length === 1);
      await eventually(
        "both were asked",
        () => checks.facts(address)!.failure >= 3 && checks.agent(address)?.lastError === null,
      );
      expect(checks.changes.length).toBe(1);
      checks.take(pool([address], `{ type = "off", interval = "30ms", timeout = "5s", agent_port = ${server.port} }`));
      await eventually("up", () => checks.changes.length === 2);
    } finally {
      server.stop(true);
    }
  });

  test("that reports maint stops the health checks, and the first result after it alone sets the state", async () => {
    using backend = await echo();
    let [line, asked] = ["up\n", 0];
    const server = agent(() => {
      asked++;
      return line;
    });
    try {
      // By `fall` it would take longer than this test waits.
      const health = `{ interval = "100ms", timeout = "5s", rise = 1000, fall = 1000, agent_port = ${server.port} }`;
      using checks = follow(pool([backend.address], health));
      const facts = () => checks.facts(backend.address)!;
      await eventually("a check", () => facts().success >= 1);
      line = "maint\n";
      await eventually("maint", () => checks.agent(backend.address)?.report.state === "maint");
      backend.stop();
      const { success, failure } = facts();
      // The agent is still asked.
      const before = asked;
      await eventually("ten intervals", () => asked >= before + 10);
      expect(facts()).toMatchObject({ success, failure });
      expect(checks.changes).toEqual([]);
      line = "ready\n";
      await eventually("down", () => checks.changes.length === 1);
      expect(checks.changes[0]).toMatchObject({ up: false, reason: "connection refused" });
    } finally {
      server.stop(true);
    }
  });

  test("keeps what it reported last while its backend is in an operator's maintenance", async () => {
    using backend = await echo();
    let line = "down 30%\n";
    const server = agent(() => line);
    try {
      const text = pool([backend.address], `{ interval = "30ms", timeout = "5s", agent_port = ${server.port} }`);
      using checks = follow(text);
      await eventually("down", () => checks.changes.length === 1);
      line = "";
      const [record] = checks.pools();
      const target = { name: record!.backends[0]!.config.name, address: null };
      record!.changes.setState(target, "maintenance", null);
      checks.checks.follow(checks.pools());
      expect(checks.facts(backend.address)).toBeNull();
      record!.changes.setState(target, "ready", null);
      checks.checks.follow(checks.pools());
      await eventually("checks", () => checks.facts(backend.address)!.success >= 5);
      expect(checks.agent(backend.address)?.report).toEqual({ up: false, state: "ready", percent: 30 });
      expect(checks.changes.length).toBe(1);
    } finally {
      server.stop(true);
    }
  });

  test("of another port is asked at once, and what the former one still answers does not count", async () => {
    using backend = await echo();
    const held: Socket[] = [];
    const first = Bun.listen({
      hostname: "127.0.0.1",
      port: 0,
      socket: { open: (socket) => void held.push(socket), data: () => undefined },
    });
    const second = agent(() => "40%\n");
    try {
      const health = (port: number) =>
        pool([backend.address], `{ type = "off", interval = "30ms", timeout = "10s", agent_port = ${port} }`);
      using checks = follow(health(first.port));
      await eventually("a request", () => held.length === 1);
      checks.take(health(second.port));
      held[0]!.end("down\n");
      await eventually("an answer", () => checks.agent(backend.address)?.report.percent === 40);
      expect(checks.changes).toEqual([]);
    } finally {
      first.stop(true);
      second.stop(true);
    }
  });

  test("that reports down keeps a backend down over a reload", async () => {
    using backend = await echo();
    const server = agent(() => "down\n");
    const health = (more: string) =>
      pool([backend.address], `{ interval = "30ms", timeout = "5s", agent_port = ${server.port}${more} }`);
    try {
      using checks = follow(health(""));
      await eventually("down", () => checks.changes.length === 1);
      checks.take(health(", rise = 1"));
      const { success } = checks.facts(backend.address)!;
      await eventually("more checks", () => checks.facts(backend.address)!.success >= success + 5);
      expect(checks.changes.length).toBe(1);
      expect(checks.pools()[0]!.backends[0]!.up).toBe(false);
      checks.take(pool([backend.address], QUICK));
      expect(checks.changes[1]).toMatchObject({ up: true });
    } finally {
      server.stop(true);
    }
  });
});

describe("after a reload", () => {
  test("checks of kept backends continue with their history, those of removed ones end, those of new ones start", async () => {
    using a = await echo();
    using b = await echo();
    using c = await echo();
    using health = follow(pool([a.address, b.address], QUICK, SEEN));
    await eventually("checks", () => health.facts(a.address)!.success >= 3 && health.facts(b.address)!.success >= 3);
    const { sinceMs, success } = health.facts(a.address)!;
    health.take(pool([a.address, c.address], QUICK, SEEN));
    expect(health.facts(b.address)).toBeNull();
    expect(health.facts(a.address)!.sinceMs).toBe(sinceMs);
    expect(health.facts(a.address)!.success).toBeGreaterThanOrEqual(success);
    const { accepted } = b;
    await eventually("checks of c", () => health.facts(c.address)!.success >= 5);
    expect(b.accepted).toBeLessThanOrEqual(accepted + 1);
  });

  test("a new interval applies at once, not after the old one", async () => {
    using a = await echo();
    using health = follow(pool([a.address], `{ interval = "50ms" }`));
    await eventually("a check", () => health.facts(a.address)!.success >= 1);
    health.take(pool([a.address], `{ interval = "10m", timeout = "1s" }`));
    const { success } = health.facts(a.address)!;
    health.take(pool([a.address], QUICK));
    await eventually("more checks", () => health.facts(a.address)!.success >= success + 3);
  });

  test("a backend that was down goes up when its checks are switched off, and is checked again when they are on", async () => {
    const address = await refusing();
    using health = follow(pool([address], QUICK));
    await eventually("down", () => health.changes.length === 1);
    health.take(pool([address], `{ type = "off" }`));
    expect(health.pools()[0]!.backends[0]!.up).toBe(true);
    health.take(pool([address], QUICK));
    await eventually("down again", () => health.pools()[0]!.backends[0]!.up === false);
  });

  test("the first answer to another question decides alone", async () => {
    using a = await echo();
    const other = await refusing();
    using health = follow(pool([a.address], QUICK));
    await eventually("a check", () => health.facts(a.address)!.success >= 1);
    health.take(pool([a.address], `{ interval = "30ms", timeout = "1s", fall = 1000, port = ${other.split(":")[1]} }`));
    await eventually("down", () => health.changes.length === 1);
    expect(health.facts(a.address)!.failure).toBe(1);
  });

  test("an answer to the question of before does not count", async () => {
    let [answers, open] = [true, 0];
    const server = Bun.listen({
      hostname: "127.0.0.1",
      port: 0,
      socket: {
        open: () => void open++,
        data: (socket) => void (answers && socket.end("y")),
        close: () => void open--,
      },
    });
    try {
      const address = `127.0.0.1:${server.port}`;
      const asked = `{ type = "exchange", send = "x", expect = "y", interval = "30ms", timeout = "1s" }`;
      // The check that is cancelled has the only place.
      using health = follow(pool([address], asked), 1);
      await eventually("a check", () => health.facts(address)!.success >= 1);
      answers = false;
      await eventually("a check without an answer", () => open === 1);
      // Its failure would be the first result after the reload, and would decide alone.
      health.take(pool([address], `{ interval = "30ms", fall = 1000, rise = 1000 }`));
      await eventually("the check is over", () => open === 0);
      const { success } = health.facts(address)!;
      await eventually("checks", () => health.facts(address)!.success >= success + 5);
      expect(health.facts(address)!.failure).toBe(0);
      expect(health.changes).toEqual([]);
    } finally {
      server.stop(true);
    }
  });

  test("new rules start from the current state of the backend", async () => {
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

test("nothing is checked or reported after stop", async () => {
  using a = await echo();
  await using hole = await blackhole();
  using health = follow(pool([a.address, hole.address], `{ interval = "20ms", timeout = "10s" }`, SEEN));
  await eventually("checks", () => a.accepted >= 3 && countSockets(SYN_SENT, hole.port) === 1);
  health.checks.stop();
  const { accepted } = a;
  await eventually("the connect is cancelled", () => countSockets(SYN_SENT, hole.port) === 0);
  expect(a.accepted).toBeLessThanOrEqual(accepted + 1);
  expect(health.changes).toEqual([]);
});
