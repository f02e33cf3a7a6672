// Profiles a proxy under one kind of load: `bun bench/profile.ts CONTENDER LOAD [perf|strace]`.
import { join } from "node:path";
import { bareRelay, haproxy, haproxySplice, lb, nginx } from "./contenders.ts";
import { Load, withLoad, wrk } from "./load.ts";
import { placementOn } from "./machine.ts";
import { leavingNothingBehind, Process } from "./processes.ts";
import type { Bench } from "./scenario.ts";
import { Playground, type Running } from "./site.ts";

const seconds = 5;
const samplesPerSecond = 997;
const rowsMax = 40;

const contenders = [lb, haproxy, haproxySplice, nginx, bareRelay];
const usage = `bun bench/profile.ts CONTENDER LOAD [perf|strace]
  CONTENDER  ${contenders.map(({ name }) => `"${name}"`).join(", ")}
  LOAD       requests, connections, bulk, bulk50, tls-requests, tls-bulk, tls-bulk50`;

const [name, kind, tool = "perf"] = process.argv.slice(2);
const tls = kind?.startsWith("tls-") ?? false;
const known = contenders.find((candidate) => candidate.name === name);
const contender = known && { ...known, ...(tls && { tls: "ecdsa" as const }) };
if (contender === undefined || kind === undefined || !["perf", "strace"].includes(tool)) fail(usage);

const playground = new Playground(placementOn(true));
const options = { rounds: 1, warmSeconds: 1, seconds, only: [], pinned: true, against: "", kept: false };
const bench: Bench = { options, playground };

await leavingNothingBehind(
  5,
  async () => {
    await playground.startBackend();
    const proxy = await playground.start(contender);
    await underLoad(proxy, () => (tool === "perf" ? perf(proxy) : strace(proxy)));
  },
  () => playground.remove(),
);

/** Profiles a proxy during the load, which lasts longer than the profile. */
async function underLoad(proxy: Running, look: () => Promise<void>): Promise<void> {
  const load = kind!.replace("tls-", "");
  if (load === "bulk" || load === "bulk50") {
    const task = { port: proxy.port, streams: load === "bulk" ? 1 : 50, tls, warmSeconds: 1, seconds: seconds + 2 };
    await withLoad(new Load(bench, "bulk", task), async (bulk) => {
      await Promise.all([bulk.step(), look()]);
    });
  } else if (load === "requests" || load === "connections") {
    const task = { connections: 64, close: load === "connections", tls, seconds: seconds + 2 };
    await wrk(bench, proxy, { ...task, seconds: 1 });
    await Promise.all([wrk(bench, proxy, task), look()]);
  } else {
    fail(usage);
  }
}

async function perf(proxy: Running): Promise<void> {
  const file = join(playground.folder, "perf.data");
  const pids = proxy.pids().join(",");
  // Hardware counters are missing in most virtual machines; the CPU clock is not.
  const sampling = ["-e", "cpu-clock", "-F", String(samplesPerSecond), "--call-graph", "fp"];
  await told(["perf", "record", "-q", ...sampling, "-p", pids, "-o", file, "--", "sleep", String(seconds)]);
  const report = ["perf", "report", "-q", "--stdio", "-i", file, "-g", "none"];
  const byPlace = await told([...report, "--no-children", "--sort", "comm,dso"]);
  const byCall = await told([...report, "--children", "--sort", "symbol"]);
  const bySymbol = await told([...report, "--no-children", "--sort", "dso,symbol"]);
  show("By thread and program", byPlace);
  show(
    "By system call: with all beneath, and itself",
    byCall.filter((line) => /__\w+_sys_/.test(line)),
  );
  show("By function", bySymbol);
}

async function strace(proxy: Running): Promise<void> {
  const file = join(playground.folder, "strace.txt");
  const tool = new Process({
    command: ["strace", "-c", "-f", "-o", file, ...proxy.pids().flatMap((pid) => ["-p", String(pid)])],
    cpus: undefined,
  });
  await Bun.sleep(seconds * 1000);
  tool.interrupt();
  await tool.ended();
  console.log(await Bun.file(file).text());
}

async function told(command: string[]): Promise<string[]> {
  const text = await new Process({ command, cpus: undefined }).output();
  return text.split("\n").filter((line) => line.trim() !== "" && !line.startsWith("#"));
}

function show(title: string, lines: string[]): void {
  console.log(`${title}\n${lines.slice(0, rowsMax).join("\n")}\n`);
}

function fail(why: string): never {
  console.error(why);
  process.exit(2);
}
