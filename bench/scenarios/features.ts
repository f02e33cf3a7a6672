// The cost of features for new connections that do not use them: lb with each feature beside lb without, all running at once, a few
// connections through each in turn, repeatedly. CPU time is compared.
import { linkSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { backendHosts, socketName } from "../backend.ts";
import { lb, type Contender } from "../contenders.ts";
import { Load } from "../load.ts";
import type { Bench, Readings, Scenario } from "../scenario.ts";
import type { Running } from "../site.ts";
import { quantile } from "../statistics.ts";

/** In each turn every contender gets some connections, so that a disturbance of the machine affects all of them. */
const turns = 60;
/** Until the runtime has optimized the code of a connection. */
const warmTurns = 400;
const connectionsPerTurn = 96;
const atOnce = 16;
/** A disturbed turn costs more, so the cheaper turns show the true cost: this quantile of them. */
const undisturbed = 0.2;
/** Maximum ratio to the cost without the feature. */
const wanted = 1.03;

interface Variant {
  key: string;
  title: string;
  /** The contender to compare with; "" = none. */
  to: string;
  backends: number;
  /** The backends are names (hard links) of one unix socket. */
  isUnix?: true;
  listener?: string;
  pool?: string;
}

const none = { to: "none", backends: 10 };
const variants: Variant[] = [
  { key: "none", title: "nothing", to: "", backends: 10 },
  { key: "again", title: "nothing again, as a check", ...none },
  { key: "rate", title: "a rate limit", ...none, listener: `rate_limit = { rate = "1000000/s", burst = 1000000 }` },
  { key: "cap", title: "a cap per client", ...none, listener: "max_connections_per_client = 5000" },
  { key: "deny", title: "a deny list of 100,000", ...none, listener: `deny = ${denied(100_000)}` },
  { key: "hash", title: "source_hash", ...none, pool: `balance = "source_hash"` },
  { key: "latency", title: "least_latency", ...none, pool: `balance = "least_latency"` },
  { key: "queue", title: "a queue that is not used", ...none, pool: `queue = { size = 1000 }` },
  { key: "one", title: "1 backend", to: "", backends: 1, isUnix: true },
  { key: "thousand", title: "1,000 backends against 1", to: "one", backends: 1000, isUnix: true },
  {
    key: "least",
    title: "1,000 backends and least_connections against 1",
    to: "one",
    backends: 1000,
    isUnix: true,
    pool: `balance = "least_connections"`,
  },
];
const compared = variants.filter(({ to }) => to !== "");

const backendsMax = 1000;
const linksFolder = "links";
const remarks: string[] = [];

export const features: Scenario = {
  name: "features",
  about:
    `CPU per new connection with a feature, divided by that without; ${turns} turns of ${connectionsPerTurn} connections for each, ` +
    "in alternation. A thousand backends are names (hard links) of one unix socket: a thousand TCP addresses cost the kernel more " +
    "than one, with any load balancer. A connection to it costs two thirds of one by TCP, so ratios are larger there.",
  contenders: [lb],
  // Other processes affect both sides of each ratio.
  ignoresOthers: true,
  metrics: compared.map(({ key, title }) => ({
    key,
    title: `CPU per connection with ${title}`,
    unit: "ratio",
    better: "lower",
    wanted,
    isRatio: true,
  })),
  prepare({ playground: { folder } }) {
    mkdirSync(join(folder, linksFolder));
    for (let i = 0; i < backendsMax; i++) linkSync(join(folder, socketName), linkTo(folder, i));
    return Promise.resolve();
  },
  async measure(bench, _proxy, contender) {
    const entrants: Entrant[] = [];
    try {
      for (const variant of variants) await enter(entrants, variant, { bench, contender });
      return await compare(entrants);
    } finally {
      for (const { load, proxy } of entrants) {
        await load.stop();
        await proxy.stop();
      }
    }
  },
  remarks: () => remarks,
};

interface Entrant {
  key: string;
  proxy: Running;
  load: Load;
  /** CPU nanoseconds per connection, by turn. */
  costs: number[];
}

interface Circumstances {
  bench: Bench;
  contender: Contender;
}

async function enter(entrants: Entrant[], variant: Variant, { bench, contender }: Circumstances): Promise<void> {
  const set = (toml: string, addresses: string[]): string =>
    toml
      .replace(/^backends = .*$/m, `backends = ${JSON.stringify(addresses)}\n${variant.pool ?? ""}`)
      .replace(/^backlog = .*$/m, `$&\n${variant.listener ?? ""}`);
  const setUp: Contender["setUp"] = (site) => {
    const { files, command } = contender.setUp!(site);
    const addresses = addressesOf(variant, bench.playground.folder, site.backendPort);
    return {
      files: Object.fromEntries(Object.entries(files).map(([name, text]) => [name, set(text, addresses)])),
      command,
    };
  };
  try {
    const proxy = await bench.playground.start({ ...contender, name: `${contender.name} ${variant.key}`, setUp });
    const task = { port: proxy.port, exchanges: connectionsPerTurn, atOnce, close: true };
    const load = new Load(bench, "exchange", task);
    entrants.push({ key: variant.key, proxy, load, costs: [] });
    await load.ready();
  } catch (error) {
    remarks.push(`features: ${variant.title} was left out: ${(error as Error).message.split("\n", 1)[0]}`);
  }
}

async function compare(entrants: Entrant[]): Promise<Readings> {
  for (let turn = 0; turn < warmTurns + turns; turn++) {
    for (const entrant of shuffled(entrants)) {
      const before = entrant.proxy.cpuNanoseconds();
      const { exchanges } = await entrant.load.step<{ exchanges: number }>();
      if (turn >= warmTurns) entrant.costs.push((entrant.proxy.cpuNanoseconds() - before) / exchanges);
    }
  }
  const costOf = (key: string): number => {
    const costs = entrants.find((entrant) => entrant.key === key)?.costs.toSorted((a, b) => a - b) ?? [];
    return costs.length === 0 ? NaN : quantile(costs, undisturbed);
  };
  const readings: Readings = {};
  for (const { key, to } of compared) {
    const ratio = costOf(key) / costOf(to);
    if (!Number.isNaN(ratio)) readings[key] = ratio;
  }
  return readings;
}

/** So that no contender always follows the same one. */
function shuffled<T>(items: readonly T[]): T[] {
  return items
    .map((item) => ({ item, at: Math.random() }))
    .toSorted((a, b) => a.at - b.at)
    .map(({ item }) => item);
}

function addressesOf({ backends, isUnix }: Variant, folder: string, port: number): string[] {
  if (isUnix === true) return Array.from({ length: backends }, (_, i) => `unix:${linkTo(folder, i)}`);
  return backendHosts.slice(0, backends).map((host) => `${host}:${port}`);
}

function linkTo(folder: string, i: number): string {
  return join(folder, linksFolder, `${i}.sock`);
}

/** A list that does not contain the clients. */
function denied(count: number): string {
  return JSON.stringify(Array.from({ length: count }, (_, i) => `11.${i >> 15}.${(i >> 7) & 255}.${2 * (i & 127)}`));
}
