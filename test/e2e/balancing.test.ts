// Which backend a connection reaches, by algorithm, over several workers. The algorithms alone: test/policy/.
import { describe, expect, test } from "vitest";
import { tagged, type Backend } from "../support/backends.ts";
import { connect, type Client } from "../support/client.ts";
import { freePort, startLb, type Lb } from "../support/lb.ts";
import { setUp } from "../support/set-up.ts";
import { hello, serverName } from "../wire/hello-bytes.ts";

const NAMES = ["a", "b", "c", "d"];
const backends: Backend[] = [];

setUp(async (keep) => {
  for (const name of NAMES) backends.push(await keep(tagged(name)));
});

function config(port: number, pool: string, names = NAMES, listener = ""): string {
  const list = names.map((name) => {
    const { address } = backends[NAMES.indexOf(name)]!;
    return `{ address = "${address}", name = "${name}", max_connections = 40 }`;
  });
  return `
    workers = 3
    [listeners.in]
    bind = "127.0.0.1:${port}"
    pool = "app"
    ${listener}
    [pools.app]
    backends = [${list.join(", ")}]
    ${pool}
    health.type = "off"
  `;
}

/** The name of the backend that a client from this address reaches. */
async function reached(port: number, from: string): Promise<string> {
  using client = await connect(port, { from });
  return (await client.line()) ?? "nobody";
}

const clients = Array.from({ length: 24 }, (_, i) => `127.0.7.${i + 1}`);

async function choices(port: number): Promise<string[]> {
  const names: string[] = [];
  for (const from of clients) names.push(await reached(port, from));
  return names;
}

const fingerprint = (lb: Lb) => lb.metric("lb_pool_hash_table_fingerprint", { pool: "app" });

describe("source_hash", () => {
  const HASH = `balance = "source_hash"`;

  test("keeps a client at its backend, over workers, processes and reloads; a removed backend moves only its own clients", async () => {
    const port = await freePort();
    await using lb = await startLb(config(port, HASH));
    const usual = await choices(port);
    expect(new Set(usual).size).toBe(NAMES.length);
    expect(await choices(port)).toEqual(usual);

    const elsewhere = await freePort();
    await using other = await startLb(config(elsewhere, HASH, NAMES.toReversed()));
    expect(await choices(elsewhere)).toEqual(usual);
    expect(await fingerprint(other)).toBe(await fingerprint(lb));

    expect((await lb.reload(config(port, HASH, ["a", "b", "d"]))).ok).toBe(true);
    const without = await choices(port);
    // 1/N moves with the backend, and little else (two per cent of the table; none of these clients).
    const strangers = without.filter((name, i) => usual[i] !== "c" && usual[i] !== name);
    expect(strangers.length).toBeLessThanOrEqual(2);
    expect(await fingerprint(lb)).not.toBe(await fingerprint(other));
    expect((await lb.reload(config(port, HASH))).ok).toBe(true);
    expect(await choices(port)).toEqual(usual);
  });

  test("hashes by client_prefix, and by address and port with hash_key", async () => {
    const port = await freePort();
    await using lb = await startLb(config(port, HASH, NAMES, "client_prefix = { ipv4 = 24, ipv6 = 64 }"));
    expect(new Set(await choices(port)).size).toBe(1);
    expect((await lb.reload(config(port, `${HASH}\nhash_key = "client_port"`))).ok).toBe(true);
    const names = new Set<string>();
    for (let i = 0; i < 40; i++) names.add(await reached(port, "127.0.7.1"));
    expect(names.size).toBe(NAMES.length);
  });

  test("hashes the name of the ClientHello, for any client", async () => {
    const port = await freePort();
    await using _lb = await startLb(config(port, `${HASH}\nhash_key = "sni"`));
    const reaches = async (name: string, from: string): Promise<string> => {
      using client = await connect(port, { from });
      client.send(hello({ extensions: [serverName(name)] }));
      return (await client.line()) ?? "nobody";
    };
    const names = new Set<string>();
    for (let i = 0; i < 16; i++) {
      const first = await reaches(`site${i}.example`, clients[i]!);
      expect(await reaches(`SITE${i}.example`, clients[i + 1]!)).toBe(first);
      names.add(first);
    }
    expect(names.size).toBe(NAMES.length);
  });

  test("uses another backend when the client's own is full", async () => {
    const port = await freePort();
    const full = config(port, HASH).replaceAll("max_connections = 40", "max_connections = 1");
    await using _lb = await startLb(full);
    const held: Client[] = [];
    const names: string[] = [];
    for (let i = 0; i < NAMES.length; i++) {
      held.push(await connect(port, { from: clients[0]! }));
      names.push((await held[i]!.line()) ?? "nobody");
    }
    expect(names.toSorted((x, y) => (x < y ? -1 : 1))).toEqual(NAMES);
    for (const client of held) client.reset();
  });
});

describe("first", () => {
  test("fills one backend after the other", async () => {
    const port = await freePort();
    await using _lb = await startLb(
      config(port, `balance = "first"`).replaceAll("max_connections = 40", "max_connections = 3"),
    );
    const held: Client[] = [];
    let names = "";
    for (let i = 0; i < 8; i++) {
      held.push(await connect(port));
      names += await held[i]!.line();
    }
    expect(names).toBe("aaabbbcc");
    for (const client of held) client.reset();
  });
});

describe.each(["random_two", "least_latency"])("%s", (balance) => {
  test("spreads connections that stay open, over all workers", async () => {
    const port = await freePort();
    await using lb = await startLb(config(port, `balance = "${balance}"`));
    const held: Client[] = [];
    for (let i = 0; i < 80; i++) {
      const client = await connect(port);
      held.push(client);
      await client.line();
    }
    for (const name of NAMES) {
      const open = await lb.metric("lb_backend_connections_open", { backend: name });
      expect(open, name).toBeGreaterThan(5);
      expect(open, name).toBeLessThanOrEqual(40);
    }
    for (const client of held) client.reset();
  });
});
