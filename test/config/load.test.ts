import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { loadConfig, parseConfig } from "../../src/config/load.ts";
import type { LoadResult } from "../../src/config/load.ts";
import { PROBLEMS_MAX } from "../../src/config/problem.ts";
import type { Config } from "../../src/config/schema.ts";
import { threadCpuMs } from "../support/proc.ts";

const minimal =
  '[listeners.web]\nbind = ":8080"\npool = "app"\n[pools.app]\nbackends = ["127.0.0.1:3000", "127.0.0.1:3001"]\n';
const v4 = (last: number) => [0, 0, 0xffff, last];

function parsed(text: string, env: Record<string, string> = {}): Config {
  const result = parseConfig(text, { file: "/etc/lb/lb.toml", env });
  if (!result.ok) throw new Error(JSON.stringify(result.problems));
  return result.config;
}

function messages(result: LoadResult): string[] {
  return result.ok ? [] : result.problems.map(({ path, message }) => `${path}: ${message}`);
}

describe("the smallest file", () => {
  it("gets every default of the contract", () => {
    const backend = { weight: 1, max_connections: 0, backup: false };
    expect(parsed(minimal)).toEqual({
      workers: "auto",
      max_connections: "auto",
      shutdown_delay: 0,
      shutdown_timeout: 30_000,
      watch: true,
      admin: {
        enabled: true,
        bind: { kind: "ip", address: v4(0x7f000001), port: 9900 },
        token_file: "",
        read_token_file: "",
        tls: null,
        token: null,
        read_token: null,
      },
      log: { level: "info", format: "text", access: "stdout" },
      otel: null,
      listeners: [
        {
          name: "web",
          bind: [{ kind: "any", port: 8080 }],
          protocol: "tcp",
          pool: "app",
          backlog: 4096,
          worker_affinity: "connection",
          keepalive: 75_000,
          allow: [],
          deny: [],
          proxy_protocol: "off",
          trusted_proxies: [],
          client_prefix: { ipv4: 32, ipv6: 64 },
          max_connections: 0,
          max_connections_per_client: 0,
          rate_limit: null,
          over_limit: "reset",
          on_abort: "reset",
          buffer: 64 * 1024,
          dry_run: [],
          bandwidth: { upload: 0, download: 0, per: "connection" },
          timeouts: { handshake: 10_000, idle: 600_000, half_close: 60_000, lifetime: 0 },
          tls: null,
          routes: [],
          responses: 0,
          requests: 0,
          datagram_rate_limit: null,
          quic: false,
          freebind: false,
          transparent: false,
        },
      ],
      pools: [
        {
          name: "app",
          balance: "round_robin",
          hash_key: "client",
          backends: [
            { endpoint: { kind: "ip", address: v4(0x7f000001), port: 3000 }, name: "127.0.0.1:3000", ...backend },
            { endpoint: { kind: "ip", address: v4(0x7f000001), port: 3001 }, name: "127.0.0.1:3001", ...backend },
          ],
          resolve: 30_000,
          connect_timeout: 3000,
          retries: 2,
          source_address: "",
          send_proxy: "off",
          send_proxy_on: "first",
          port: "",
          on_down: "keep",
          slow_start: 0,
          panic_threshold: 0,
          queue: { size: 0, timeout: 5000 },
          keepalive: 75_000,
          health: {
            type: "tcp",
            interval: 2000,
            fast_interval: 0,
            timeout: 1000,
            rise: 2,
            fall: 3,
            port: 0,
            method: "GET",
            path: "/",
            host: "",
            status: "200-399",
            body: "",
            tls: false,
            steps: [],
            send: "",
            expect: "",
            role: "",
            user: "",
            initial: "up",
            agent_port: 0,
          },
          passive: null,
          tls: null,
        },
      ],
    });
  });
});

/** The whole configuration contract; unsupported options have their defaults. */
const everything = `
workers          = "auto"
max_connections  = "auto"
shutdown_delay   = "0s"
shutdown_timeout = "30s"
watch            = true

[admin]
enabled    = true
bind       = "127.0.0.1:9900"
read_token_file = ""
tls        = {}
token_file = "admin.token"

[log]
level  = "info"
format = "text"
access = "stdout"
syslog = "unix:/dev/log"

[listeners.web]
bind     = "0.0.0.0:8080"
protocol = "tcp"
pool     = "web"
backlog  = 4096
worker_affinity = "connection"
keepalive = "75s"
allow = []
deny  = []
proxy_protocol  = "off"
trusted_proxies = []
client_prefix              = { ipv4 = 32, ipv6 = 64 }
max_connections            = 0
max_connections_per_client = 0
rate_limit = { rate = "100/s", burst = 200 }
over_limit = "reset"
on_abort   = "reset"
dry_run    = []
bandwidth = { upload = "10MB/s", download = "10MB/s", per = "connection" }

[listeners.web.timeouts]
handshake  = "10s"
idle       = "10m"
half_close = "1m"
lifetime   = "0s"

[pools.web]
balance  = "round_robin"
hash_key = "client"
backends = [
  "10.0.0.11:80",
  { address = "10.0.0.12:80", name = "big", weight = 3, max_connections = 500, backup = true },
]
resolve         = "30s"
connect_timeout = "3s"
retries         = 2
source_address  = ""
send_proxy      = "off"
on_down         = "keep"
slow_start      = "0s"
panic_threshold = 0
queue           = { size = 0, timeout = "5s" }
keepalive       = "75s"

[pools.web.health]
type     = "tcp"
interval = "2s"
fast_interval = "0s"
timeout  = "1s"
rise     = 2
fall     = 3
port     = 0
method   = "GET"
path     = "/"
host     = ""
status   = "200-399"
body     = ""
tls      = false
steps    = []
send     = ""
expect   = ""
role     = ""
initial  = "up"
agent_port = 0
user     = ""
`;

describe("a file with every option", () => {
  const result = parseConfig(everything, {
    file: "/etc/lb/lb.toml",
    env: {},
    readFile: () => new TextEncoder().encode("  the-token\n"),
  });

  it("is valid, and names the files to watch", () => {
    expect(messages(result)).toEqual([]);
    expect(result.files).toEqual(["/etc/lb/lb.toml", "/etc/lb/admin.token"]);
    expect(result).toMatchObject({ ok: true, warnings: [], text: everything });
  });

  it("has its values converted", () => {
    expect(result).toMatchObject({
      config: {
        admin: { token: "the-token" },
        listeners: [{ rate_limit: { rate: 100, burst: 200 }, bandwidth: { upload: 1e7, download: 1e7 } }],
        pools: [
          { backends: [{ name: "10.0.0.11:80" }, { name: "big", weight: 3, max_connections: 500, backup: true }] },
        ],
      },
    });
  });
});

describe("parsed values", () => {
  it("makes paths absolute, from the folder of the config", () => {
    const { listeners, pools, log, admin } = parsed(
      `[log]\naccess = "logs/access.log"\n[admin]\nbind = "unix:admin.sock"\n[listeners.a]\nbind = ["unix:run/a.sock", "unix:@a"]\npool = "p"\n[pools.p]\nbackends = ["unix:../b.sock"]`,
    );
    expect(listeners[0]?.bind).toEqual([
      { kind: "unix", path: "/etc/lb/run/a.sock" },
      { kind: "abstract", name: "a" },
    ]);
    expect(pools[0]?.backends[0]).toMatchObject({
      endpoint: { kind: "unix", path: "/etc/b.sock" },
      name: "unix:../b.sock",
    });
    expect(log.access).toEqual({ file: "/etc/lb/logs/access.log" });
    expect(admin.bind).toEqual({ kind: "unix", path: "/etc/lb/admin.sock" });
  });

  it("reads CIDRs and single addresses of both families", () => {
    const { listeners } = parsed(minimal.replace("pool =", 'allow = ["10.0.0.0/8", "2001:db8::/32", "::1"]\npool ='));
    expect(listeners[0]?.allow).toEqual([
      { address: v4(0x0a000000), prefix: 104 },
      { address: [0x20010db8, 0, 0, 0], prefix: 32 },
      { address: [0, 0, 0, 1], prefix: 128 },
    ]);
  });

  it("sets the burst of a rate without one to what the rate allows in a second, at least 1", () => {
    const burst = (rate: string) =>
      parsed(minimal.replace("pool =", `rate_limit.rate = "${rate}"\npool =`)).listeners[0]?.rate_limit;
    expect(burst("600/m")).toEqual({ rate: 10, burst: 10 });
    expect(burst("1/h")).toEqual({ rate: 1 / 3600, burst: 1 });
  });

  it("keeps listeners and pools in the order of the file, under any name", () => {
    const text = ["zeta", "constructor", "alpha", "toString"].map(
      (name, i) => `[listeners.${name}]\nbind = ":${i + 1}"\npool = "p"\n`,
    );
    const { listeners } = parsed(`${text.join("")}[pools.p]\nbackends = ["10.0.0.1:1"]`);
    expect(listeners.map(({ name }) => name)).toEqual(["zeta", "constructor", "alpha", "toString"]);
  });
});

describe("variables of the environment", () => {
  it("are put into strings, and $${ is a literal ${", () => {
    const config = parsed(
      '[listeners.web]\nbind = "${HOST}:${PORT}"\npool = "app"\n[log]\naccess = "$${x}${EMPTY}$"\n[pools.app]\nbackends = ["127.0.0.1:3000"]',
      { HOST: "10.0.0.1", PORT: "8080", EMPTY: "" },
    );
    expect(config.listeners[0]?.bind).toEqual([{ kind: "ip", address: v4(0x0a000001), port: 8080 }]);
    expect(config.log.access).toEqual({ file: "/etc/lb/${x}$" });
  });

  it("are not looked up twice", () => {
    const text = minimal.replace("[listeners", '[log]\naccess = "${A}"\n[listeners');
    expect(parsed(text, { A: "${B}" }).log.access).toEqual({ file: "/etc/lb/${B}" });
  });

  it("are an error if they are not set, inherited properties included", () => {
    const result = parseConfig(minimal.replace(":8080", "${toString}"), { file: "lb.toml", env: {} });
    expect(messages(result)).toEqual(["listeners.web.bind: the environment variable toString is not set"]);
  });
});

describe("the admin endpoint", () => {
  const withAdmin = (lines: string) => parseConfig(`[admin]\n${lines}\n${minimal}`, { file: "lb.toml", env: {} });

  it.each(["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "unix:/run/a.sock", "unix:@a"])("needs no token at %s", (bind) => {
    expect(messages(withAdmin(`bind = "${bind}"`))).toEqual([]);
  });

  it.each(["0.0.0.0:1", ":1", "[::]:1", "10.0.0.1:1", "[2001:db8::1]:1"])("needs a token at %s", (bind) => {
    expect(messages(withAdmin(`bind = "${bind}"`))[0]).toContain("token_file is required");
  });

  it("needs none if it is disabled", () => {
    expect(messages(withAdmin('bind = ":8080"\nenabled = false'))).toEqual([]);
  });
});

describe("files", () => {
  let folder = "";
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), "lb-config-"));
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  const write = (name: string, content: string | Uint8Array) => {
    const path = join(folder, name);
    writeFileSync(path, content);
    return path;
  };

  it("are read, and named files are relative to them", () => {
    write("t", "secret-token\n");
    const path = write("lb.toml", `admin.bind = ":9900"\nadmin.token_file = "t"\n${minimal}`);
    const result = loadConfig(path, {});
    expect(messages(result)).toEqual([]);
    expect(result).toMatchObject({
      ok: true,
      config: { admin: { token: "secret-token" } },
      files: [path, join(folder, "t")],
    });
  });

  it("that are missing, folders, not UTF-8 or too large are reported as such", () => {
    expect(messages(loadConfig(join(folder, "none.toml"), {}))).toEqual([": cannot be read: there is no such file"]);
    expect(messages(loadConfig(folder, {}))).toEqual([": cannot be read: it is a directory"]);
    expect(messages(loadConfig("/dev/zero", {}, { once: true }))[0]).toContain("larger than 16 MiB");
    expect(messages(loadConfig("/dev/zero", {}))[0]).toContain("it is not a regular file");
    const bytes = write("bytes.toml", Uint8Array.of(0x23, 0x0a, 0x23, 0xff, 0x0a));
    expect(loadConfig(bytes, {})).toMatchObject({
      ok: false,
      problems: [{ line: 2, message: "expected UTF-8, found other bytes" }],
    });
  });

  it("that are pipes are refused at once, with no writer to wait for; the token's as well", () => {
    const pipe = join(folder, "pipe");
    spawnSync("mkfifo", [pipe]);
    const why = "cannot be read: it is not a regular file";
    expect(messages(loadConfig(pipe, {}))[0]).toContain(why);
    const path = write("piped.toml", `admin.token_file = "pipe"\n${minimal}`);
    for (const once of [false, true]) expect(messages(loadConfig(path, {}, { once }))[0]).toContain(why);
    // A link counts as its target.
    write("real.toml", minimal);
    symlinkSync("real.toml", join(folder, "link.toml"));
    expect(messages(loadConfig(join(folder, "link.toml"), {}))).toEqual([]);
  });

  it("that contain no token are refused without showing their content", () => {
    write("bad", "top secret words");
    const path = write("bad.toml", `admin.token_file = "bad"\n${minimal}`);
    const result = loadConfig(path, {});
    expect(result.ok).toBe(false);
    expect(JSON.stringify(result)).not.toContain("secret");
  });
});

it("places every problem, in the order of the file", () => {
  const result = parseConfig(`workers = 0\n${minimal}retries = -1\nnope = 1\n`, { file: "lb.toml", env: {} });
  expect(result.ok ? [] : result.problems.map(({ line, column }) => [line, column])).toEqual([
    [1, 1],
    [7, 1],
    [8, 1],
  ]);
});

it("takes time in proportion to the number of backends", () => {
  const measure = (loads: number, count: number): number => {
    const list = Array.from({ length: count }, (_, i) => `"10.${i >> 16}.${(i >> 8) & 255}.${i & 255}:80"`).join(",\n");
    const text = `[listeners.a]\nbind = ":1"\npool = "p"\n[pools.p]\nbackends = [${list}]`;
    const started = threadCpuMs();
    for (let i = 0; i < loads; i++) expect(messages(parseConfig(text, { file: "x", env: {} }))).toEqual([]);
    return threadCpuMs() - started;
  };
  // In quadratic time, one config with the backends of twenty would take twenty times as long as they. One small config may take no time:
  // the kernel counts a thread's CPU time in ticks of some milliseconds.
  const parts = measure(20, 1000);
  expect(measure(1, 20_000) / parts).toBeLessThan(8);
});

describe("the timeout of a health check", () => {
  const loaded = (health: string) => parseConfig(`${minimal}health = ${health}\n`, { file: "lb.toml", env: {} });

  it.each([
    ["is the default", "{}", 1000],
    ["is the interval where that is shorter than the default", '{ interval = "200ms" }', 200],
    ["is the default where the interval is longer", '{ interval = "5s" }', 1000],
    ["is what the config gives", '{ interval = "200ms", timeout = "300ms" }', 300],
  ])("%s", (_what, health, timeout) => {
    const result = loaded(health);
    if (!result.ok) throw new Error(JSON.stringify(result.problems));
    expect(result.config.pools[0]!.health.timeout).toBe(timeout);
    expect(result.warnings.map(({ path }) => path)).toEqual(timeout === 300 ? ["pools.app.health.timeout"] : []);
  });
});

it("reports a route whose protocols are of a wrong type, on a listener whose protocols are compared with them", () => {
  const text = `
    [listeners.a]
    bind = ":1"
    [listeners.a.tls]
    certificates = [{ cert = "a.pem", key = "a.key" }]
    alpn = ["h2"]
    [[listeners.a.routes]]
    alpn = { a = 1 }
    pool = "p"
    [pools.p]
    backends = ["10.0.0.1:80"]
    tls = { alpn = ["http/1.1"] }
  `;
  const found = messages(parseConfig(text, { file: "x", env: {} }));
  expect(found).toContainEqual(expect.stringContaining("expected an array of protocols"));
  expect(found).not.toContainEqual(expect.stringContaining("could not be checked"));
});

describe("more problems than are shown", () => {
  const unknown = (count: number) => Array.from({ length: count }, (_, i) => `unknown_${i} = 1\n`).join("");
  const parse = (text: string) => parseConfig(text, { file: "lb.toml", env: {} });

  it("are counted: the first PROBLEMS_MAX are located, in the order of the file", () => {
    const result = parse(unknown(PROBLEMS_MAX + 50) + minimal);
    if (result.ok) throw new Error("no problem was found");
    expect([result.problems.length, result.omitted]).toEqual([PROBLEMS_MAX, 50]);
    expect(result.problems.map(({ line }) => line)).toEqual(Array.from({ length: PROBLEMS_MAX }, (_, i) => i + 1));
  });

  it("are all shown up to the limit", () => {
    const result = parse(unknown(PROBLEMS_MAX) + minimal);
    if (result.ok) throw new Error("no problem was found");
    expect([result.problems.length, result.omitted]).toEqual([PROBLEMS_MAX, 0]);
  });

  it("are counted too if they are found after the types, or are warnings", () => {
    const listener = (i: number) => `[listeners.l${i}]\nbind = ":${i + 1}"\npool = "nowhere"\n`;
    const references = parse(Array.from({ length: PROBLEMS_MAX + 7 }, (_, i) => listener(i)).join("") + minimal);
    expect(references).toMatchObject({ ok: false, omitted: 7 });
    const unused = Array.from({ length: PROBLEMS_MAX + 7 }, (_, i) => `[pools.p${i}]\nbackends = ["127.0.0.1:1"]\n`);
    const warned = parse(minimal + unused.join(""));
    if (!warned.ok) throw new Error(JSON.stringify(warned.problems));
    expect([warned.warnings.length, warned.omitted]).toEqual([PROBLEMS_MAX, 7]);
  });
});

describe("a pool that is no table", () => {
  it("is reported like any other problem, and the rest of the file is checked", () => {
    const text = `${minimal}[pools]\nbackends = ["127.0.0.1:1"]\n`.replace("[pools]\nbackends", "[pools]\nother");
    const result = parseConfig(text, { file: "/etc/lb/lb.toml", env: {} });
    expect(messages(result)).toEqual([expect.stringMatching(/^pools\.other: expected a table, .* found an array$/)]);
  });
});

describe("a table where a number is expected", () => {
  const file = (pool: string): string => `[listeners.a]\nbind = ":1"\npool = "p"\n[pools.p]\n${pool}\n`;

  it.each([
    ["slow_start", 'backends = ["127.0.0.1:1"]\nbalance = "first"\nslow_start = {}'],
    ["weight", 'backends = [{ address = "127.0.0.1:1", weight = {} }]\nbalance = "first"'],
    ["max_connections", 'backends = [{ address = "127.0.0.1:1", max_connections = {} }]\nqueue = { size = 1 }'],
  ])("is the only problem, also for warnings that compare %s", (_, pool) => {
    const result = parseConfig(file(pool), { file: "lb.toml", env: {} });
    expect(result).toMatchObject({ ok: false, problems: [{ message: expect.stringMatching(/^expected .* table$/) }] });
  });
});
