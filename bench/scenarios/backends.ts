// The cost of many backends for new connections. Each proxy is one process with a listener for one backend and others for a thousand, which
// get a few connections in turn: two processes of the same program differ by more than what is measured here. With a thousand backends, all
// that belongs to a backend has left the CPU's caches when its turn comes, in the kernel too. `direct`, a client that connects to the same
// backends without a proxy and with cold caches, shows what the kernel alone costs more.
import { linkSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { socketName } from "../backend.ts";
import { direct, haproxy, lb, type Contender, type Site } from "../contenders.ts";
import { atOnce, connectionsPerTurn, costsInTurns, type Entrant } from "../in-turns.ts";
import { Load } from "../load.ts";
import type { Bench, Metric, Readings, Scenario } from "../scenario.ts";
import { spreadOf } from "../statistics.ts";

const many = 1000;
const turns = { warm: 150, measured: 200 };
/** Maximum ratio of the cost with many backends to that with one. */
const wanted = 1.03;

interface Variant {
  key: string;
  title: string;
  /** The address of its listener. */
  host: string;
  count: number;
  algorithm: "round_robin" | "least_connections";
}

const one: Variant = { key: "one", title: "1 backend", host: "127.0.0.1", count: 1, algorithm: "round_robin" };
const compared: Variant[] = [
  { key: "many", title: "1,000 backends", host: "127.0.0.2", count: many, algorithm: "round_robin" },
  {
    key: "least",
    title: "1,000 backends and least_connections",
    host: "127.0.0.3",
    count: many,
    algorithm: "least_connections",
  },
];
const variants = [one, ...compared];

const linksFolder = "links";
/** By the contender's name: another build of lb is not lb. */
const readingsOf = new Map<string, Readings[]>();

export const backends: Scenario = {
  name: "backends",
  about:
    `CPU per new connection with ${many} backends and with 1, in ${turns.measured} turns of ${connectionsPerTurn} connections each, in ` +
    "alternation. The backends are names (hard links) of one unix socket: a thousand TCP addresses cost the kernel several times as " +
    "much more than one. A connection to it costs two thirds of one by TCP, so ratios are larger here. `direct` is a client without " +
    "a proxy.",
  contenders: [lb, haproxy, direct],
  comparesDirect: true,
  // Other processes affect both sides of each ratio.
  ignoresOthers: true,
  metrics: [
    { key: "one", title: "CPU per connection with 1 backend", unit: "µs", better: "lower" },
    ...compared.flatMap(({ key, title }): Metric[] => [
      {
        key,
        title: `CPU per connection with ${title} against 1`,
        unit: "ratio",
        better: "lower",
        wanted,
        isRatio: true,
      },
      { key: moreKey(key), title: `the difference of the two, ${title}`, unit: "µs", better: "neither" },
    ]),
  ],
  prepare({ playground: { folder } }) {
    mkdirSync(join(folder, linksFolder));
    for (let i = 0; i < many; i++) linkSync(join(folder, socketName), linkTo(folder, i));
    return Promise.resolve();
  },
  async measure(bench, _proxy, contender) {
    const readings = await (contender.brand === "direct" ? measureDirect(bench) : measureProxy(bench, contender));
    readingsOf.set(contender.name, [...(readingsOf.get(contender.name) ?? []), readings]);
    return readings;
  },
  remarks: () => compared.flatMap(ownPart),
};

async function measureProxy(bench: Bench, contender: Contender): Promise<Readings> {
  const configure = contender.brand === "lb" ? lbConfig : haproxyConfig;
  const setUp: Contender["setUp"] = (site) => {
    const { files, command } = contender.setUp!(site);
    const [name, text] = Object.entries(files)[0]!;
    return { files: { [name]: configure(text, site, bench.playground.folder) }, command };
  };
  const proxy = await bench.playground.start({ ...contender, name: `${contender.name} backends`, setUp });
  const entrants: Entrant[] = [];
  try {
    for (const { key, host } of variants) {
      const task = { port: proxy.port, host, exchanges: connectionsPerTurn, atOnce, close: true };
      const load = new Load(bench, "exchange", task);
      entrants.push({ key, load, cpuNanoseconds: () => proxy.cpuNanoseconds() });
      await load.ready();
    }
    return readingsFrom(await costsInTurns(entrants, turns));
  } finally {
    for (const { load } of entrants) await load.stop();
    await proxy.stop();
  }
}

/** The load itself, on the proxies' CPU. It has no algorithm, so there is one kind of a thousand. */
async function measureDirect(bench: Bench): Promise<Readings> {
  const { folder, placement } = bench.playground;
  const paths = [1, many].map((count) => Array.from({ length: count }, (_, i) => linkTo(folder, i)));
  const task = { port: 0, paths, exchanges: connectionsPerTurn, atOnce, close: true };
  const load = new Load(bench, "exchange", task, placement.proxy);
  const entrants = ["one", "many"].map((key, i) => ({
    key,
    load,
    step: `${i}`,
    cpuNanoseconds: () => load.cpuNanoseconds(),
  }));
  try {
    await load.ready();
    const readings = readingsFrom(await costsInTurns(entrants, turns));
    // The rest includes what it does to the caches.
    return { [moreKey("many")]: readings[moreKey("many")]! };
  } finally {
    await load.stop();
  }
}

function readingsFrom(costOf: (key: string) => number): Readings {
  const readings: Readings = { one: costOf("one") / 1000 };
  for (const { key } of compared) {
    if (Number.isNaN(costOf(key))) continue;
    readings[key] = costOf(key) / costOf("one");
    readings[moreKey(key)] = (costOf(key) - costOf("one")) / 1000;
  }
  return readings;
}

/** What lb's own work for many backends costs: what it pays more than with one, less what the kernel costs a client more. */
function ownPart({ key, title }: Variant): string[] {
  const cost = medianOf(lb.name, "one");
  const more = medianOf(lb.name, moreKey(key));
  const byHaproxy = medianOf(haproxy.name, moreKey(key));
  const byKernel = medianOf(direct.name, moreKey("many"));
  if (cost === undefined || more === undefined || byKernel === undefined) return [];
  const own = more - byKernel;
  return [
    `backends: with ${title}, a connection costs lb ${more.toFixed(2)} µs more than with 1, ` +
      `${byHaproxy === undefined ? "" : `HAProxy ${byHaproxy.toFixed(2)} µs, `}a client without a proxy ${byKernel.toFixed(2)} µs. ` +
      `The client's is the kernel's part; the rest of lb's, ${own.toFixed(2)} µs, is ${((100 * own) / cost).toFixed(1)} % of a ` +
      "connection. At most 3 % is wanted.",
  ];
}

function medianOf(name: string, key: string): number | undefined {
  return spreadOf((readingsOf.get(name) ?? []).flatMap((readings) => readings[key] ?? []))?.median;
}

function moreKey(key: string): string {
  return `${key} more`;
}

function lbConfig(toml: string, { port }: Site, folder: string): string {
  const general = toml.slice(0, toml.indexOf("[listeners"));
  const parts = variants.map(({ key, host, count, algorithm }) => {
    const addresses = Array.from({ length: count }, (_, i) => `unix:${linkTo(folder, i)}`);
    return `
[listeners.${key}]
bind = "${host}:${port}"
pool = "${key}"
backlog = 4096
keepalive = "0s"
[listeners.${key}.timeouts]
idle = "10m"
[pools.${key}]
backends = ${JSON.stringify(addresses)}
balance = "${algorithm}"
connect_timeout = "3s"
health = { type = "off" }
`;
  });
  return `${general}${parts.join("")}`;
}

function haproxyConfig(config: string, { port }: Site, folder: string): string {
  const general = config.slice(0, config.indexOf("listen"));
  const parts = variants.map(({ key, host, count, algorithm }) => {
    const servers = Array.from({ length: count }, (_, i) => `  server s${i} unix@${linkTo(folder, i)}`);
    return `
listen ${key}
  bind ${host}:${port} backlog 4096
  balance ${algorithm === "round_robin" ? "roundrobin" : "leastconn"}
${servers.join("\n")}
`;
  });
  return `${general}${parts.join("")}`;
}

function linkTo(folder: string, i: number): string {
  return join(folder, linksFolder, `${i}.sock`);
}
