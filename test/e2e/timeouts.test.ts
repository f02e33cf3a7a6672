// Every timeout as a client measures it: never early, and late only by the machine's delay. The tests wait for real time, so they all run
// at once.
import { describe, expect, test } from "vitest";
import { blackhole, echo, send, silent, type Backend } from "../support/backends.ts";
import { connect, connectMany, type Client } from "../support/client.ts";
import { freePort, startLb, type Lb } from "../support/lb.ts";
import { setUp } from "../support/set-up.ts";

/** Two ticks of 50 ms, and the delay of a busy machine. The exact times are tested on a fake clock. */
const LATE_MS = 15_000;
/** A worker's clock lags while its thread waits for a CPU, and idle time is counted on its clock. */
const STALL_MS = 250;
/** A timeout that bytes put off. */
const KEPT_MS = 1200;

let lb: Lb;
let echoing: Backend;
let speaking: Backend;
const ports = new Map<string, number>();

setUp(async (keep) => {
  echoing = await keep(echo());
  const dumb = await keep(silent());
  speaking = await keep(silent());
  const holes = await Promise.all([blackhole(), blackhole(), blackhole()].map(keep));
  const listeners = {
    idle: `pool = "echo"\ntimeouts.idle = "1s"`,
    idle_dumb: `pool = "dumb"\ntimeouts.idle = "${KEPT_MS}ms"`,
    never: `pool = "echo"\ntimeouts = { idle = "0s", half_close = "0s", lifetime = "0s" }`,
    half: `pool = "dumb"\ntimeouts = { half_close = "700ms", idle = "1h" }`,
    half_spoken: `pool = "speaking"\ntimeouts = { half_close = "${KEPT_MS}ms", idle = "1h" }`,
    half_never: `pool = "dumb"\ntimeouts = { half_close = "0s", idle = "1h" }`,
    lifetime: `pool = "echo"\ntimeouts.lifetime = "2s"`,
    handshake: `pool = "echo"\nproxy_protocol = "required"\ntrusted_proxies = ["127.0.0.1"]\ntimeouts.handshake = "1500ms"`,
    connect: `pool = "one_hole"`,
    retried: `pool = "three_holes"`,
  };
  const text = ["workers = 2"];
  for (const [name, lines] of Object.entries(listeners)) {
    const port = await freePort();
    ports.set(name, port);
    text.push(`[listeners.${name}]\nbind = "127.0.0.1:${port}"\n${lines}`);
  }
  const [first] = holes;
  const all = holes.map(({ address }) => `"${address}"`).join(", ");
  text.push(`[pools.echo]\nbackends = ["${echoing.address}"]\nhealth.type = "off"`);
  text.push(`[pools.dumb]\nbackends = ["${dumb.address}"]\nhealth.type = "off"`);
  text.push(`[pools.speaking]\nbackends = ["${speaking.address}"]\nhealth.type = "off"`);
  const attempts = `health.type = "off"\nconnect_timeout = "500ms"\nretries = 2`;
  text.push(`[pools.one_hole]\nbackends = ["${first!.address}"]\n${attempts}`);
  text.push(`[pools.three_holes]\nbackends = [${all}]\n${attempts}`);
  lb = await keep(startLb(text.join("\n")));
});

const visit = (listener: string): Promise<Client> => connect(ports.get(listener)!);
const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** The time from `sinceMs` to the end of the client's connection. */
async function endOf(client: Client, sinceMs: number): Promise<number> {
  await client.ended;
  return performance.now() - sinceMs;
}

/** Many clients, a little apart from each other, so that every moment between two ticks occurs. */
async function many(count: number, measure: (number: number) => Promise<number>): Promise<number[]> {
  return Promise.all(
    Array.from({ length: count }, async (_, i) => {
      await pause(i * 17);
      return measure(i);
    }),
  );
}

function expectAll(times: readonly number[], fromMs: number, toMs = fromMs): void {
  expect(Math.min(...times)).toBeGreaterThanOrEqual(fromMs - STALL_MS);
  expect(Math.max(...times)).toBeLessThan(toMs + LATE_MS);
}

/** A byte every 400 ms puts KEPT_MS off. If this process was late with one, that proves nothing, and another client tries. */
async function expectPutOff(visitor: () => Promise<Client>, speak: (client: Client) => void): Promise<Client> {
  for (;;) {
    const from = performance.now();
    using client = await visitor();
    let last = from;
    let longest = 0;
    for (let i = 0; i < 5; i++) {
      await pause(400);
      const now = performance.now();
      longest = Math.max(longest, now - last);
      last = now;
      speak(client);
    }
    const time = await endOf(client, last);
    if (longest > KEPT_MS - STALL_MS) continue;
    expect(last - from).toBeGreaterThan(KEPT_MS);
    expectAll([time], KEPT_MS);
    return client;
  }
}

describe.concurrent("idle", () => {
  test("counts from the last byte in either direction", async () => {
    const times = await many(20, async () => {
      using client = await visit("idle");
      const began = performance.now();
      expect(await client.echoes()).toBe(true);
      return await endOf(client, began);
    });
    expectAll(times, 1000);
  });

  test("counts from accept if no byte is sent", async () => {
    const times = await many(10, async () => {
      const began = performance.now();
      using client = await visit("idle");
      return await endOf(client, began);
    });
    expectAll(times, 1000);
  });

  test("does not end a connection on which only the client sends", async () => {
    await expectPutOff(
      () => visit("idle_dumb"),
      (client) => client.send("x"),
    );
  });

  test('"0s" disables it', async () => {
    using client = await visit("never");
    expect(await client.echoes()).toBe(true);
    await pause(2500);
    expect(await client.echoes()).toBe(true);
    // Nor does half_close = "0s" end a connection that only one side has ended.
    client.finish();
    expect(await client.ended).toBe("eof");
  });
});

describe.concurrent("half_close", () => {
  test("counts from the FIN", async () => {
    const times = await many(10, async () => {
      using client = await visit("half");
      client.send("question");
      const began = performance.now();
      client.finish();
      return await endOf(client, began);
    });
    expectAll(times, 700);
  });

  test("counts from the FIN after a silence that was longer", async () => {
    using client = await visit("half");
    client.send("question");
    await pause(1200);
    const began = performance.now();
    client.finish();
    expectAll([await endOf(client, began)], 700);
  });

  test("starts again with each byte from the other side", async () => {
    const client = await expectPutOff(
      async () => {
        const one = await visit("half_spoken");
        one.finish();
        return one;
      },
      () => speaking.open.forEach((socket) => send(socket, new TextEncoder().encode("x"))),
    );
    expect(client.text).toBe("xxxxx");
  });

  test('"0s" disables it', async () => {
    using client = await visit("half_never");
    client.send("question");
    client.finish();
    await pause(2000);
    expect(client.end).toBeNull();
  });
});

describe.concurrent("lifetime", () => {
  test("ends a connection within its last tenth at random, however busy it is", async () => {
    const times = await many(30, async () => {
      const began = performance.now();
      using client = await visit("lifetime");
      const talking = setInterval(() => client.send("still here\n"), 100);
      const time = await endOf(client, began);
      clearInterval(talking);
      return time;
    });
    expectAll(times, 1800, 2000);
    // At random: not all in one tick.
    expect(Math.max(...times) - Math.min(...times)).toBeGreaterThan(60);
  });
});

describe.concurrent("handshake", () => {
  test("counts from accept, for a silent client and for one that sends slowly", async () => {
    const header = "PROXY TCP4 192.0.2.1 192.0.2.2 1 2";
    const times = await many(12, async (number) => {
      const began = performance.now();
      using client = await visit("handshake");
      let sent = 0;
      const dribble = number % 2 === 0 ? null : setInterval(() => client.send(header[sent++]!), 50);
      const time = await endOf(client, began);
      if (dribble !== null) clearInterval(dribble);
      return time;
    });
    expectAll(times, 1500);
  });

  test("ends with the head: later data may be slow", async () => {
    using client = await visit("handshake");
    client.send("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n");
    await pause(2000);
    expect(await client.echoes()).toBe(true);
  });
});

test("the log line of a client is right if another listener had a client from the same port", async () => {
  const from = "127.60.0.1";
  using first = await connect(ports.get("connect")!, { from });
  await lb.lineOf(first);
  using second = await connect(ports.get("retried")!, { from, fromPort: first.port });
  expect(second.address).toBe(first.address);
  expect(await lb.lineOf(second)).toMatchObject({ listener: "retried", retries: 2 });
});

describe.concurrent("connect_timeout", () => {
  test("ends a connection whose one backend does not answer", async () => {
    const times = await many(10, async () => {
      const began = performance.now();
      using client = await visit("connect");
      return await endOf(client, began);
    });
    expectAll(times, 500);
  });

  test("applies to each attempt", async () => {
    const began = performance.now();
    using client = await visit("retried");
    const time = await endOf(client, began);
    expect(time).toBeGreaterThanOrEqual(1500);
    expect(time).toBeLessThan(1500 + 3 * LATE_MS);
    const line = await lb.lineOf(client);
    expect(line).toMatchObject({ end: "connect_timeout", retries: 2 });
  });
});

describe.concurrent("shutdown_timeout", () => {
  test("ends remaining connections within its last fifth, and then the process", async () => {
    const port = await freePort();
    const config = `shutdown_timeout = "1500ms"\n[listeners.all]\nbind = "127.0.0.1:${port}"\npool = "echo"`;
    await using stopping = await startLb(`${config}\n[pools.echo]\nbackends = ["${echoing.address}"]`);
    const clients = await connectMany(port, 20);
    const began = performance.now();
    stopping.signal("SIGTERM");
    const times = await Promise.all(clients.map((client) => endOf(client, began)));
    expectAll(times, 1200, 1500);
    expect(await stopping.exited).toEqual({ code: 0, signal: null });
    expectAll([performance.now() - began], 1200, 1500 + LATE_MS);
  });
});

describe.concurrent("an idle worker", () => {
  test("gives the next client its full timeout", async () => {
    const port = await freePort();
    const config = `workers = 1\n[listeners.all]\nbind = "127.0.0.1:${port}"\npool = "echo"`;
    const timeouts = `timeouts = { idle = "600ms", lifetime = "700ms" }`;
    await using _quiet = await startLb(`${config}\n${timeouts}\n[pools.echo]\nbackends = ["${echoing.address}"]`);
    for (let i = 0; i < 2; i++) {
      const began = performance.now();
      using client = await connect(port);
      expectAll([await endOf(client, began)], 600);
      // The clock of a worker without connections stands still; when it continues, that time must not count as idle.
      await pause(1500);
    }
  });
});
