// The admin endpoint's prediction for a client, compared with what then happens to it.
import { expect, test } from "vitest";
import type { Explanation } from "../../src/observe/live.ts";
import { echo, refusing } from "../support/backends.ts";
import { Authority, certificates, peersMissing } from "../support/certificates.ts";
import { connect } from "../support/client.ts";
import { freePorts, startLb, type Lb } from "../support/lb.ts";
import { Python } from "../support/python.ts";
import { setUpUnless } from "../support/set-up.ts";

let python: Python;
let ca: Authority;

setUpUnless(peersMissing, async (keep) => {
  python = await keep(new Python());
  ca = await keep(Authority.make());
});

async function explained(lb: Lb, body: object): Promise<Explanation> {
  const response = await lb.send("POST", "/api/explain", body);
  expect(response.status).toBe(200);
  return (await response.json()) as Explanation;
}

test("a client is routed and refused as predicted, and a prediction costs no token", async () => {
  await using stack = new AsyncDisposableStack();
  const backends = await Promise.all(Array.from({ length: 5 }, () => echo()));
  for (const backend of backends) stack.use(backend);
  const dead = await refusing();
  const [hashed, limited] = await freePorts(2);
  await using lb = await startLb(`
    workers = 3
    [listeners.hashed]
    bind = "127.0.0.1:${hashed}"
    pool = "hash"
    deny = ["127.0.0.99"]
    [listeners.limited]
    bind = "127.0.0.1:${limited}"
    pool = "pair"
    rate_limit = { rate = "1/h", burst = 2 }
    [pools.hash]
    balance = "source_hash"
    backends = [${[...backends.map(({ address }) => address), dead].map((address) => `"${address}"`).join(", ")}]
    health = { interval = "100ms", fall = 1 }
    [pools.pair]
    backends = [{ address = "${backends[0]!.address}", name = "one" }, "${dead}"]
    health = { interval = "100ms", fall = 1 }
  `);
  await lb.waitStatus(({ pools }) => pools.every((pool) => pool.backends.filter(({ up }) => !up).length === 1));

  const went = new Set<string>();
  for (let i = 2; i < 18; i++) {
    const client = `127.0.0.${i}`;
    const { backend, end, candidates } = await explained(lb, { listener: "hashed", client });
    expect(end).toBeNull();
    expect(candidates.find((one) => one.backend === dead)).toMatchObject({
      usable: false,
      reason: expect.stringMatching(/^down: .*refused/i) as string,
    });
    const visitor = await connect(hashed, { from: client });
    expect(await visitor.echoes()).toBe(true);
    visitor.finish();
    expect((await lb.lineOf(visitor)).backend).toBe(backend);
    went.add(backend!);
  }
  expect(went.size).toBeGreaterThan(1);

  expect(await explained(lb, { listener: "hashed", client: "127.0.0.99" })).toMatchObject({
    end: "denied",
    backend: null,
  });
  const denied = await connect(hashed, { from: "127.0.0.99" });
  expect(await denied.ended).toBe("reset");
  expect(await lb.lineOf(denied)).toMatchObject({ end: "denied" });

  const question = { listener: "limited", client: "127.0.0.50" };
  for (let left = 2; left > 0; left--) {
    // Asked twice, because a request takes nothing.
    await explained(lb, question);
    const { limits, backend } = await explained(lb, question);
    expect(limits.find(({ limit }) => limit === "rate_limit")).toMatchObject({
      current: left,
      max: 2,
      verdict: "passes",
    });
    expect(backend).toBe("one");
    expect(await (await connect(limited, { from: "127.0.0.50" })).echoes()).toBe(true);
  }
  expect(await explained(lb, question)).toMatchObject({ end: "rate_limited", backend: null, pool: "pair" });
  const refused = await connect(limited, { from: "127.0.0.50" });
  expect(await refused.ended).toBe("reset");
  expect(await lb.lineOf(refused)).toMatchObject({ end: "rate_limited" });
});

test("names and protocols choose the route that is said, and are refused as it is said", async () => {
  using backend = await echo();
  const [leaf, other] = await Promise.all([ca.leaf("a.example"), ca.leaf("b.example")]);
  const [port] = await freePorts(1);
  await using lb = await startLb(`
    [listeners.web]
    bind = "127.0.0.1:${port}"
    pool = "rest"
    routes = [{ sni = ["a.example"], alpn = ["h2"], pool = "api" }]
    tls = { ${certificates(leaf, other)}, unknown_sni = "reject", alpn = ["h2", "http/1.1"] }
    [pools.rest]
    backends = ["${backend.address}"]
    [pools.api]
    backends = ["${backend.address}"]
  `);
  for (const [name, alpn] of [
    ["a.example", ["http/1.1", "h2"]],
    ["a.example", ["http/1.1"]],
    ["b.example", ["h2"]],
    ["a.example", ["smtp"]],
    ["c.example", ["h2"]],
  ] as const) {
    const said = await explained(lb, { listener: "web", client: "127.0.0.1", sni: name, alpn });
    const client = await python.connect(port, { tls: { name, alpn: [...alpn] } });
    if (said.end === null) expect(await client.echoes()).toBe(true);
    await client.close();
    const line = await lb.lineOf(client);
    expect([name, alpn, line.end]).toEqual([name, alpn, said.end ?? "eof"]);
    if (said.end === null) expect([name, alpn, line.pool]).toEqual([name, alpn, said.pool]);
  }
  expect(await explained(lb, { listener: "web", client: "127.0.0.1", sni: "A.example", alpn: "h2" })).toMatchObject({
    route: "routes[0]: sni = a.example; alpn = h2",
    pool: "api",
  });
});

test("an invalid request is refused with the reason", async () => {
  const [port] = await freePorts(1);
  await using lb = await startLb(`
    [listeners.web]
    bind = "127.0.0.1:${port}"
    pool = "app"
    [pools.app]
    backends = ["127.0.0.1:1"]
  `);
  const answers = async (body: object | string): Promise<[number, string]> => {
    const response = await lb.send("POST", "/api/explain", body);
    return [response.status, ((await response.json()) as { detail: string }).detail];
  };
  expect(await answers({ listener: "wbe", client: "10.0.0.1" })).toEqual([404, 'there is no listener "wbe"']);
  for (const [body, at] of [
    [{ listener: "web" }, "body.client"],
    [{ client: "10.0.0.1" }, "body.listener"],
    [{ listener: "web", client: "10.0.0.1:80" }, "body.client"],
    [{ listener: "web", client: "10.0.0.0/8" }, "body.client"],
    [{ listener: "web", client: "10.0.0.1", sni: "10.0.0.1" }, "body.sni"],
    [{ listener: "web", client: "10.0.0.1", alpn: [7] }, "body.alpn"],
    [{ listener: "web", client: "10.0.0.1", port: 80 }, "body.port"],
    ["[1]", "body"],
    ["{", "body"],
  ] as const) {
    const [status, detail] = await answers(body);
    expect([body, status, detail.startsWith(at)]).toEqual([body, 400, true]);
  }
});
