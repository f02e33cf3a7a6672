// The cost of turning an accepted socket into TLS instead of accepting on a TLS listener: both ways in the same small relay, under the
// loads of the TLS scenarios. `bun bench/tls-adoption.ts [--quick] [--rounds N] [--only NAME]`
import { join } from "node:path";
import type { Contender } from "./contenders.ts";
import { placementOn } from "./machine.ts";
import { parseOptions } from "./options.ts";
import { leavingNothingBehind } from "./processes.ts";
import { figure, ratio, table } from "./report.ts";
import { runRounds, type Outcome } from "./rounds.ts";
import { tlsBulk } from "./scenarios/tls-bulk.ts";
import { tlsHandshakes } from "./scenarios/tls-handshakes.ts";
import { tlsRequests } from "./scenarios/tls-requests.ts";
import { tlsResumed } from "./scenarios/tls-resumed.ts";
import { Playground } from "./site.ts";
import { pairedRatios, spreadOf } from "./statistics.ts";

const listener = relay("listener", "a TLS listener of Bun's");
const ways = [
  relay("adopted", "lb's way: the ClientHello is read and given to upgradeTLS"),
  relay("at once", "upgradeTLS as soon as a socket is accepted, without a look at the ClientHello"),
];
const contenders = [listener, ...ways];

const scenarios = [tlsHandshakes, tlsResumed, tlsRequests, tlsBulk];
const options = parseOptions(
  process.argv.slice(2),
  scenarios.map(({ name }) => name),
);
if (typeof options === "string") {
  console.error(options);
  process.exit(2);
}
const playground = new Playground(placementOn(options.pinned));
const outcomes: Outcome[] = [];

await leavingNothingBehind(
  30,
  async () => {
    await playground.startBackend();
    for (const scenario of scenarios.filter(({ name }) => options.only.length === 0 || options.only.includes(name)))
      outcomes.push(await runRounds(scenario, contenders, { options, playground }));
  },
  () => playground.remove(),
);

for (const { name, about = "" } of contenders) console.log(`${name}: ${about}`);
const head = ["what", "unit", ...contenders.map(({ name }) => name), ...ways.map(({ name }) => `${name}/listener`)];
console.log(table([head, ...outcomes.flatMap(rowsOf)]));
const disturbed = outcomes.reduce((sum, outcome) => sum + outcome.disturbed, 0);
const measurements = outcomes.reduce((sum, outcome) => sum + outcome.measurements, 0);
console.log(`${options.rounds} rounds; others disturbed ${disturbed} of ${measurements} measurements.`);
process.exit(outcomes.some(({ failures }) => failures.length > 0) ? 1 : 0);

function relay(way: string, about: string): Contender {
  return {
    name: way,
    brand: "lb",
    about,
    tls: "ecdsa",
    setUp: ({ port, backendPort, certificate }) => ({
      files: {},
      command: [process.execPath, join(import.meta.dir, "tls-relay.ts"), way, `${port}`, `${backendPort}`, certificate],
    }),
  };
}

/** Medians of the ways, and the ratios within the rounds: median, minimum and maximum. */
function rowsOf({ scenario, readings }: Outcome): string[][] {
  return scenario.metrics.map(({ key, title, unit }) => {
    const of = ({ name }: Contender) => readings.get(name)?.map((round) => round?.[key]) ?? [];
    const medians = contenders.map((way) => spreadOf(of(way).flatMap((value) => value ?? []))?.median);
    const ratios = ways.map((way) => ratio(spreadOf(pairedRatios(of(way), of(listener)))));
    return [title, unit, ...medians.map((value) => (value === undefined ? "–" : figure(value))), ...ratios];
  });
}
