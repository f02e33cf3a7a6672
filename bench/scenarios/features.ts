// The cost of features for new connections that do not use them: lb with each feature beside lb without, all running at once, a few
// connections through each in turn, repeatedly. CPU time is compared.
import { backendHosts } from "../backend.ts";
import { lb, type Contender } from "../contenders.ts";
import { atOnce, connectionsPerTurn, costsInTurns, turns, type Entrant } from "../in-turns.ts";
import { Load } from "../load.ts";
import type { Bench, Readings, Scenario } from "../scenario.ts";
import type { Running } from "../site.ts";

/** Maximum ratio to the cost without the feature. */
const wanted = 1.03;

interface Variant {
  key: string;
  title: string;
  /** The contender to compare with; "" = none. */
  to: string;
  listener?: string;
  pool?: string;
}

const none = { to: "none" };
const variants: Variant[] = [
  { key: "none", title: "nothing", to: "" },
  { key: "again", title: "nothing again, as a check", ...none },
  { key: "rate", title: "a rate limit", ...none, listener: `rate_limit = { rate = "1000000/s", burst = 1000000 }` },
  { key: "cap", title: "a cap per client", ...none, listener: "max_connections_per_client = 5000" },
  {
    key: "bandwidth",
    title: "a bandwidth limit per client",
    ...none,
    listener: `bandwidth = { upload = "1GB/s", download = "1GB/s", per = "client" }`,
  },
  { key: "deny", title: "a deny list of 100,000", ...none, listener: `deny = ${denied(100_000)}` },
  { key: "hash", title: "source_hash", ...none, pool: `balance = "source_hash"` },
  { key: "latency", title: "least_latency", ...none, pool: `balance = "least_latency"` },
  { key: "queue", title: "a queue that is not used", ...none, pool: `queue = { size = 1000 }` },
];
const compared = variants.filter(({ to }) => to !== "");

const remarks: string[] = [];

export const features: Scenario = {
  name: "features",
  about:
    `CPU per new connection with a feature, divided by that without; ${turns} turns of ${connectionsPerTurn} connections for each, ` +
    "in alternation.",
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
  async measure(bench, _proxy, contender) {
    const entrants: Started[] = [];
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

interface Started extends Entrant {
  proxy: Running;
}

interface Circumstances {
  bench: Bench;
  contender: Contender;
}

async function enter(entrants: Started[], variant: Variant, { bench, contender }: Circumstances): Promise<void> {
  const set = (toml: string, addresses: string[]): string =>
    toml
      .replace(/^backends = .*$/m, `backends = ${JSON.stringify(addresses)}\n${variant.pool ?? ""}`)
      .replace(/^backlog = .*$/m, `$&\n${variant.listener ?? ""}`);
  const setUp: Contender["setUp"] = (site) => {
    const { files, command } = contender.setUp!(site);
    const addresses = backendHosts.map((host) => `${host}:${site.backendPort}`);
    return {
      files: Object.fromEntries(Object.entries(files).map(([name, text]) => [name, set(text, addresses)])),
      command,
    };
  };
  try {
    const proxy = await bench.playground.start({ ...contender, name: `${contender.name} ${variant.key}`, setUp });
    const task = { port: proxy.port, exchanges: connectionsPerTurn, atOnce, close: true };
    const load = new Load(bench, "exchange", task);
    entrants.push({ key: variant.key, load, proxy, cpuNanoseconds: () => proxy.cpuNanoseconds() });
    await load.ready();
  } catch (error) {
    remarks.push(`features: ${variant.title} was left out: ${(error as Error).message.split("\n", 1)[0]}`);
  }
}

async function compare(entrants: Entrant[]): Promise<Readings> {
  const costOf = await costsInTurns(entrants);
  const readings: Readings = {};
  for (const { key, to } of compared) {
    const ratio = costOf(key) / costOf(to);
    if (!Number.isNaN(ratio)) readings[key] = ratio;
  }
  return readings;
}

/** A list that does not contain the clients. */
function denied(count: number): string {
  return JSON.stringify(Array.from({ length: count }, (_, i) => `11.${i >> 15}.${(i >> 7) & 255}.${2 * (i & 127)}`));
}
