// lb beside haproxy and nginx stream, each on one thread, in alternation: `npm run bench`. See README.md.
import { join } from "node:path";
import { describeMachine, placementOn } from "./machine.ts";
import { otherBuild, type Contender } from "./contenders.ts";
import { parseOptions, type Options } from "./options.ts";
import { findBrands, missingTools } from "./prepare.ts";
import { leavingNothingBehind } from "./processes.ts";
import { reportOf, type Run } from "./report.ts";
import { runRounds } from "./rounds.ts";
import type { Bench } from "./scenario.ts";
import { scenarios } from "./scenarios/index.ts";
import { Playground } from "./site.ts";

const deadlineMinutes = 45;
const resultsPath = join(import.meta.dir, "RESULTS.md");

const options = askedFor();
const missing = missingTools();
if (missing.length > 0)
  fail(`not installed: ${missing.join(", ")} (Debian: nginx libnginx-mod-stream wrk strace openssl)`);

const brands = findBrands();
const playground = new Playground(placementOn(options.pinned));
const bench: Bench = { options, playground };
const run: Run = { circumstances: circumstances(), outcomes: [] };
const startedAt = Date.now();

await leavingNothingBehind(
  deadlineMinutes,
  async () => {
    await playground.startBackend();
    for (const scenario of scenarios.filter(({ name }) => options.only.length === 0 || options.only.includes(name))) {
      run.outcomes.push(await runRounds(scenario, contendersOf(scenario.contenders), bench));
    }
  },
  () => playground.remove(),
);

run.circumstances.push(["Took", `${((Date.now() - startedAt) / 60_000).toFixed(1)} minutes`]);
const report = reportOf(run);
console.log(report);
if (options.kept && brands.has("lb")) {
  await Bun.write(resultsPath, `# Results\n\nWritten by \`npm run bench\`.\n\n${report}`);
  console.error(`bench: written to ${resultsPath}`);
}
process.exit(run.outcomes.some(({ failures }) => failures.length > 0) ? 1 : 0);

function contendersOf(all: Contender[]): Contender[] {
  const { against } = options;
  if (against === "") return all.filter(({ brand }) => brands.has(brand));
  return all.filter(({ brand }) => brand === "lb").flatMap((lb) => [lb, otherBuild(lb, against)]);
}

function askedFor(): Options {
  const names = scenarios.map(({ name }) => name);
  const options = parseOptions(process.argv.slice(2), names);
  return typeof options === "string" ? fail(options) : options;
}

function circumstances(): [string, string][] {
  const { proxy, load } = playground.placement;
  const placement =
    proxy === undefined || load === undefined
      ? "left to the kernel"
      : `the proxy on processor ${proxy.join(", ")}; backend and load on ${load.join(", ")}`;
  return [
    ["Date", new Date().toISOString().slice(0, 10)],
    ...describeMachine(),
    ["lb", brands.get("lb") ?? "left out"],
    ...(options.against === "" ? [] : [["Other build", options.against] as [string, string]]),
    ["Bun", Bun.version],
    ["HAProxy", brands.get("haproxy") ?? "left out"],
    ["nginx (proxy and backend)", brands.get("nginx") ?? "left out"],
    ["Each proxy", "one thread, TCP mode, the same timeouts; no log, no health checks, no TCP keepalive"],
    ["Placement", placement],
    ["Rounds", `${options.rounds}, of ${options.seconds} s each after ${options.warmSeconds} s to warm up`],
  ];
}

function fail(why: string): never {
  console.error(why);
  process.exit(2);
}
