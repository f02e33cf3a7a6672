// The soak: everything at once, for LB_SOAK_SECONDS (20 here, 360 by `npm run soak`). Clients and backends check every byte and every end
// over plain TCP, TLS and PROXY headers, with half-closes, resets, slow readers and a limit per client, while the config is reloaded with
// other names and backends, workers die and backends die. A cut is allowed if the log has a reason for it; a wrong byte, or a cut that
// looks like an orderly end, never is. At the end nothing may be left: no claim, no descriptor, no memory.
import { expect, test } from "vitest";
import { Authority, certificates, peersMissing } from "../support/certificates.ts";
import { eventually } from "../support/eventually.ts";
import { freePort, freePorts, startLb, type AccessEntry, type Lb } from "../support/lb.ts";
import { descriptors, residentBytes } from "../support/proc.ts";
import { Random } from "../support/random.ts";
import { SoakPeers, type SoakListener, type SoakResult } from "../support/soak-peers.ts";

const SECONDS = Number(process.env["LB_SOAK_SECONDS"] ?? 20);
const SEED = Number(process.env["LB_SOAK_SEED"] ?? Math.floor(Math.random() * 1e6));
const THREADS = 16;

/** The first part fills pools, tables and code caches that stay; the memory after it is the reference. */
const WARM_UP_MS = Math.min(60_000, SECONDS * 300);
/** Maximum memory at the end: relative to that after the first part, plus some bytes, because a heap varies. */
const MEMORY_FACTOR = 1.2;
const MEMORY_SLACK_BYTES = 48 * 1024 * 1024;
const SETTLE_MS = 30_000;

const CLIENT_MAX = 4;
const LIMITED_FROM = "127.9.9.9";

/** Reasons that the log may have for a connection that was cut. */
const CUT_ENDS: { readonly [end: string]: readonly string[] } = {
  backend_down: ["lb"],
  worker_lost: ["lb"],
  reset: ["backend", "client"],
  connect_refused: ["backend"],
  connect_failed: ["backend"],
  connect_timeout: ["backend"],
  handshake_failed: ["backend"],
  no_backend: ["lb"],
  client_full: ["lb"],
};

class Soak {
  readonly random = new Random(SEED);
  readonly lb: Lb;
  readonly peers: SoakPeers;
  readonly config: (extra: string, backends: number) => string;
  #extras = 0;
  reloads = 0;
  deaths = 0;

  constructor(lb: Lb, peers: SoakPeers, config: (extra: string, backends: number) => string) {
    this.lb = lb;
    this.peers = peers;
    this.config = config;
  }

  /** Duration of the clients, while everything possible happens to lb. */
  async churn(listeners: SoakListener[], ms: number): Promise<SoakResult> {
    await this.peers.begin({ listeners, threads: THREADS, seed: SEED });
    const end = performance.now() + ms;
    while (performance.now() < end) {
      const dice = this.random.below(6);
      if (dice < 2) await this.reload();
      else if (dice < 4) await this.killWorker();
      else if (dice < 5) await this.killBackend();
      await pause(300 + this.random.below(700));
    }
    await this.peers.extra(0);
    return this.peers.end();
  }

  /** Another name each time, and other backends. */
  async reload(): Promise<void> {
    const port = await freePort();
    await this.peers.extra(0);
    const { ok, error } = await this.lb.reload(
      this.config(
        `[listeners.extra${++this.#extras}]\nbind = "127.0.0.1:${port}"\npool = "app"`,
        2 + this.random.below(2),
      ),
    );
    expect([ok, error]).toEqual([true, null]);
    this.reloads++;
    await this.peers.extra(port);
  }

  async killWorker(): Promise<void> {
    await this.lb.waitStatus(({ workers }) => workers.every(({ state }) => state === "running"));
    expect((await this.lb.restartWorker(this.random.below(2))).ok).toBe(true);
    this.deaths++;
  }

  async killBackend(): Promise<void> {
    await this.peers.kill("a");
    await pause(200 + this.random.below(800));
    await this.peers.revive("a");
    this.deaths++;
  }

  /** What lb holds when nothing is open and no new client comes. */
  async atRest(bounds?: { files: number; memory: number }): Promise<{ files: number; memory: number }> {
    await this.lb.waitStatus(({ workers }) => workers.every(({ state }) => state === "running"));
    await this.lb.waitIdle();
    let least = { files: Infinity, memory: Infinity };
    // A heap is returned with delay: the minimum of many readings is what is really held.
    for (const deadline = performance.now() + SETTLE_MS; performance.now() < deadline; await pause(250)) {
      least = {
        files: Math.min(least.files, descriptors(this.lb.pid)),
        memory: Math.min(least.memory, residentBytes(this.lb.pid)),
      };
      if (bounds === undefined ? performance.now() > deadline - SETTLE_MS + 5000 : within(least, bounds)) break;
    }
    return least;
  }
}

function within(held: { files: number; memory: number }, bounds: { files: number; memory: number }): boolean {
  return held.files <= bounds.files && held.memory <= bounds.memory;
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Cut connections without a reason in the log. */
function unexplained({ cuts }: SoakResult, lines: readonly AccessEntry[]): string[] {
  const byClient = new Map<string, AccessEntry[]>();
  for (const line of lines) byClient.set(line.client, [...(byClient.get(line.client) ?? []), line]);
  return cuts.flatMap(([listener, mode, addresses]) => {
    const of = addresses.flatMap((address) => byClient.get(address) ?? []);
    if (of.some(({ end, end_by }) => CUT_ENDS[end]?.includes(end_by))) return [];
    const ends = of.map((line) => JSON.stringify(line)).join();
    return [`${listener}, ${mode}: ${addresses[0]} was reset, and the log says ${ends || "nothing"}`];
  });
}

test.skipIf(peersMissing !== null)(
  `nothing is lost and nothing is left after ${SECONDS} s of everything at once (seed ${SEED})`,
  { timeout: (SECONDS + 180) * 1000 },
  async () => {
    console.log(`soak: ${SECONDS} s, LB_SOAK_SEED=${SEED}`);
    using ca = await Authority.make();
    using peers = new SoakPeers();
    const [one, two] = await Promise.all([ca.leaf("a.example"), ca.leaf("b.example")]);
    const plain = await Promise.all(["a", "b", "c"].map((name) => peers.backend(name, { proxy: false })));
    const proxied = await peers.backend("proxied", { proxy: true });
    const secure = await peers.backend("secure", { proxy: false, cert: [one.cert, one.key] });
    const names = ["plain", "adopted", "accepted", "proxy", "resent", "secured", "limited"] as const;
    const ports = await freePorts(names.length);
    const at = Object.fromEntries(names.map((name, i) => [name, ports[i]!]));
    const listen = (name: string, pool: string, more = ""): string =>
      `[listeners.${name}]\nbind = "127.0.0.1:${at[name]}"\npool = "${pool}"\n${more}`;
    const fromProxy = `proxy_protocol = "required"\ntrusted_proxies = ["127.0.0.0/8"]`;
    const config = (extra: string, backends: number): string =>
      [
        "workers = 2",
        listen("plain", "app"),
        listen("adopted", "app", `[listeners.adopted.tls]\n${certificates(one, two)}`),
        listen("accepted", "app", `[listeners.accepted.tls]\n${certificates(one)}`),
        listen("proxy", "app", fromProxy),
        listen("resent", "proxied", fromProxy),
        listen("secured", "secure"),
        listen("limited", "app", `max_connections_per_client = ${CLIENT_MAX}`),
        extra,
        `[pools.app]\nbackends = [${plain.slice(0, backends).map((port) => `"127.0.0.1:${port}"`)}]`,
        `health = { interval = "500ms", timeout = "400ms", fall = 1, rise = 1 }\non_down = "reset"`,
        `[pools.proxied]\nbackends = ["127.0.0.1:${proxied}"]\nsend_proxy = "v2"\nhealth.type = "off"`,
        `[pools.secure]\nbackends = ["127.0.0.1:${secure}"]\nhealth.type = "off"\ntls = { verify = false }`,
      ].join("\n");
    const kinds: { [name: string]: SoakListener["kind"] } = {
      adopted: "tls",
      accepted: "tls",
      proxy: "proxy",
      resent: "proxy",
      limited: "limited",
    };
    const listeners = names.map((name) => ({ name, port: at[name]!, kind: kinds[name] ?? ("plain" as const) }));
    await using lb = await startLb(config("", 3));
    const soak = new Soak(lb, peers, config);
    const seen: SoakResult = { counts: {}, wrong: [], cuts: [] };
    const run = async (ms: number): Promise<void> => {
      const { counts, wrong, cuts } = await soak.churn(listeners, ms);
      for (const [what, count] of Object.entries(counts)) seen.counts[what] = (seen.counts[what] ?? 0) + count;
      seen.wrong.push(...wrong);
      seen.cuts.push(...cuts);
      await lb.reload(`${config("", 3)}\n# ${soak.reloads}\n`);
    };

    await run(WARM_UP_MS);
    const before = await soak.atRest();
    await run(SECONDS * 1000 - WARM_UP_MS);
    const bounds = { files: before.files, memory: before.memory * MEMORY_FACTOR + MEMORY_SLACK_BYTES };
    const after = await soak.atRest(bounds);

    const counts = Object.entries(seen.counts).toSorted(([a], [b]) => a.localeCompare(b));
    console.log(
      [
        `soak: ${soak.reloads} reloads, ${soak.deaths} deaths, ${lb.accessLines().length} lines of the access log`,
        ...counts.map(([what, count]) => `  ${String(count).padStart(7)} ${what}`),
        `  descriptors ${before.files} → ${after.files}, memory ${megabytes(before.memory)} → ${megabytes(after.memory)}`,
      ].join("\n"),
    );
    expect(seen.wrong).toEqual([]);
    await eventually(
      "the log says why what was cut was cut",
      () => unexplained(seen, lb.accessLines()).length === 0,
      5000,
    ).catch(() => expect(unexplained(seen, lb.accessLines())).toEqual([]));
    const { connections, listeners: left, pools } = await lb.status();
    expect(connections.open).toBe(0);
    expect(left.map(({ name, open }) => [name, open])).toEqual(names.map((name) => [name, 0]));
    for (const { backends } of pools) expect(backends.map(({ open }) => open)).toEqual(backends.map(() => 0));
    // All places of the client are free again, and not one more.
    expect(await peers.held(at["limited"]!, LIMITED_FROM, CLIENT_MAX + 3)).toBe(CLIENT_MAX);
    expect(after.files).toBeLessThanOrEqual(bounds.files);
    expect(after.memory).toBeLessThanOrEqual(bounds.memory);
    expect((await lb.status()).access_log_lines_lost).toBe(0);
  },
);

function megabytes(bytes: number): string {
  return `${(bytes / 1e6).toFixed(1)} MB`;
}
