// Makes tables from the readings of a run: how lb compares, what each contender reached, and on which machine.
import { otherBuildName, type Brand, type Contender } from "./contenders.ts";
import { foreignShareMax, type Outcome } from "./rounds.ts";
import type { Metric } from "./scenario.ts";
import { interval95, pairedRatios, spreadOf, type Spread } from "./statistics.ts";

export interface Run {
  /** Date, machine, versions, settings: names and values. */
  circumstances: [string, string][];
  outcomes: Outcome[];
}

/** The whole report, as Markdown that is also readable in a terminal. */
export function reportOf({ circumstances, outcomes }: Run): string {
  const failures = outcomes.flatMap((outcome) => outcome.failures);
  const builds = outcomes.some(({ contenders }) => contenders.some(({ name }) => name === otherBuildName));
  const parts = [
    ...(builds ? comparedBuilds(outcomes) : comparedBrands(outcomes)),
    "## What each reached",
    "Median of the rounds, and the least and the greatest. `direct` is the backend without a proxy: the floor of the " +
      "latencies, and the most that this load can measure. `bare relay` has nothing but the sockets of lb's runtime: the least that " +
      "lb can cost.",
    values(outcomes),
    "## How it was measured",
    table([["", ""], ...circumstances]),
    list(outcomes.map(({ scenario }) => `\`${scenario.name}\`: ${scenario.about}`)),
    list([...outcomes.flatMap(({ scenario }) => scenario.remarks?.() ?? []), disturbance(outcomes)]),
    ...(failures.length === 0 ? [] : ["## What failed", list(failures)]),
  ];
  return `${parts.filter((part) => part !== "").join("\n\n")}\n`;
}

function comparedBrands(outcomes: Outcome[]): string[] {
  return [
    "## How lb compares",
    "A ratio is lb's value divided by the other's, taken in each round; shown are the median of the rounds and, in " +
      "parentheses, the least and the greatest. Where higher is better, more than 1 speaks for lb; where lower is better, " +
      "less than 1 does.",
    comparison(outcomes),
    ...choices(outcomes),
  ];
}

/** Maximum slowdown at which a build counts as no slower. */
const toleratedLoss = 0.01;

function comparedBuilds(outcomes: Outcome[]): string[] {
  const rows = outcomes.flatMap((outcome) => {
    const [ours, theirs] = [outcome.contenders.find(({ name }) => name !== otherBuildName), otherOf(outcome)];
    return comparedMetrics(outcome).map((metric) => {
      const [now, before] = [readingsOf(outcome, ours, metric), readingsOf(outcome, theirs, metric)];
      const interval = interval95(pairedRatios(now, before));
      const range = interval && `${interval.mean.toFixed(3)} (${interval.low.toFixed(3)}–${interval.high.toFixed(3)})`;
      const higher = metric.better === "higher";
      const holds = interval && (higher ? interval.high >= 1 - toleratedLoss : interval.low <= 1 + toleratedLoss);
      const verdict = holds === undefined ? "" : holds ? "holds" : "WORSE";
      return [metric.title, metric.unit, metric.better, median(now), median(before), range ?? "–", verdict];
    });
  });
  return [
    "## How this build compares with the other",
    "A ratio is this build's value divided by the other's, taken in each round; shown are the geometric mean and its 95 % " +
      `confidence interval. It holds where the interval reaches what is at most ${toleratedLoss * 100} % worse.`,
    table([["what", "unit", "better", "this build", "other build", "this/other", ""], ...rows]),
  ];
}

function otherOf(outcome: Outcome): Contender | undefined {
  return outcome.contenders.find(({ name }) => name === otherBuildName);
}

function comparison(outcomes: Outcome[]): string {
  const head = ["what", "unit", "better", "lb", "haproxy", "nginx", "lb/haproxy", "wanted", "", "lb/nginx"];
  return table([head, ...outcomes.flatMap((outcome) => [...rowsOf(outcome), ...rowsOfVariants(outcome)])]);
}

function rowsOf(outcome: Outcome): string[][] {
  return comparedMetrics(outcome).map((metric) => {
    const ours = readingsOf(outcome, bestOf(outcome, "lb"), metric);
    const haproxy = readingsOf(outcome, bestOf(outcome, "haproxy"), metric);
    const nginx = readingsOf(outcome, bestOf(outcome, "nginx"), metric);
    const toHaproxy = spreadOf(pairedRatios(ours, haproxy));
    const judged = metric.isRatio === true ? spreadOf(ours.flatMap((value) => value ?? [])) : toHaproxy;
    const verdict = [wanted(metric), verdictOn(metric, judged)];
    const medians = [ours, haproxy, nginx].map(median);
    const toNginx = spreadOf(pairedRatios(ours, nginx));
    return [metric.title, metric.unit, metric.better, ...medians, ratio(toHaproxy), ...verdict, ratio(toNginx)];
  });
}

/** The haproxy variants that do not represent it. */
function rowsOfVariants(outcome: Outcome): string[][] {
  const best = bestOf(outcome, "haproxy");
  const others = outcome.contenders.filter((contender) => contender.brand === "haproxy" && contender !== best);
  return others.flatMap((contender) =>
    comparedMetrics(outcome).map((metric) => {
      const ours = readingsOf(outcome, bestOf(outcome, "lb"), metric);
      const theirs = readingsOf(outcome, contender, metric);
      const what = `${metric.title} (${contender.name})`;
      const medians = [median(ours), median(theirs)];
      return [
        what,
        metric.unit,
        metric.better,
        ...medians,
        "",
        ratio(spreadOf(pairedRatios(ours, theirs))),
        "",
        "",
        "",
      ];
    }),
  );
}

function comparedMetrics({ scenario }: Outcome): Metric[] {
  return scenario.metrics.filter(({ better }) => better !== "neither");
}

function values(outcomes: Outcome[]): string {
  const rows = outcomes.flatMap(({ scenario, readings }) =>
    scenario.metrics.flatMap((metric) =>
      [...readings].flatMap(([contender, rounds]) => {
        const spread = spreadOf(rounds.flatMap((round) => round?.[metric.key] ?? []));
        const isKnown = contender !== "direct" || metric.key === "rate" || scenario.comparesDirect === true;
        if (spread === undefined || !isKnown) return [];
        const range = `${figure(spread.min)}–${figure(spread.max)}`;
        return [[metric.title, metric.unit, contender, figure(spread.median), range]];
      }),
    ),
  );
  return table([["what", "unit", "contender", "median", "min–max"], ...rows]);
}

/** Says which of several haproxy variants represents it. */
function choices(outcomes: Outcome[]): string[] {
  return outcomes.flatMap((outcome) => {
    const variants = outcome.contenders.filter(({ brand }) => brand === "haproxy");
    const best = bestOf(outcome, "haproxy");
    if (variants.length < 2 || best === undefined) return [];
    const others = variants.filter((variant) => variant !== best).map(({ name }) => name);
    const what = `In \`${outcome.scenario.name}\``;
    return [`${what} "haproxy" is ${best.about ?? "haproxy without splice"}, which beat ${others.join(" and ")}.`];
  });
}

/** The contender that represents a brand: of several variants the best one by the scenario's first metric. */
function bestOf(outcome: Outcome, brand: Brand): Contender | undefined {
  const [metric] = outcome.scenario.metrics;
  const score = (name: string) => {
    const spread = spreadOf((outcome.readings.get(name) ?? []).flatMap((round) => round?.[metric?.key ?? ""] ?? []));
    if (spread === undefined) return -Infinity;
    return metric?.better === "lower" ? -spread.median : spread.median;
  };
  return outcome.contenders
    .filter((contender) => contender.brand === brand)
    .toSorted((a, b) => score(b.name) - score(a.name))[0];
}

function readingsOf(outcome: Outcome, contender: Contender | undefined, { key }: Metric): (number | undefined)[] {
  return outcome.readings.get(contender?.name ?? "")?.map((round) => round?.[key]) ?? [];
}

function verdictOn({ wanted, better }: Metric, spread: Spread | undefined): string {
  if (wanted === undefined || spread === undefined) return "";
  return (better === "higher" ? spread.median >= wanted : spread.median <= wanted) ? "met" : "MISSED";
}

function wanted({ wanted, better }: Metric): string {
  if (wanted === undefined) return "";
  return `${better === "higher" ? "≥" : "≤"} ${wanted}`;
}

function disturbance(outcomes: Outcome[]): string {
  const total = outcomes.reduce((sum, { measurements }) => sum + measurements, 0);
  const disturbed = outcomes.filter((outcome) => outcome.disturbed > 0);
  if (disturbed.length === 0) return `Quiet: nothing else took more than ${foreignShareMax * 100} % of the machine.`;
  const where = disturbed.map(
    ({ scenario, disturbed, measurements }) => `${scenario.name} ${disturbed} of ${measurements}`,
  );
  return (
    `Disturbed: other processes took more than ${foreignShareMax * 100} % of the machine during some of the ` +
    `${total} measurements that stand here (${where.join(", ")}).`
  );
}

function median(readings: (number | undefined)[]): string {
  const spread = spreadOf(readings.flatMap((value) => value ?? []));
  return spread === undefined ? "–" : figure(spread.median);
}

export function ratio(spread: Spread | undefined): string {
  if (spread === undefined) return "–";
  const [middle, min, max] = [spread.median, spread.min, spread.max].map((value) => value.toFixed(2));
  return `${middle} (${min}–${max})`;
}

/** Three significant digits. */
export function figure(value: number): string {
  if (Math.abs(value) >= 1000) return Number(value.toPrecision(3)).toLocaleString("en-US");
  const decimals = Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2;
  return value.toFixed(decimals);
}

function list(items: string[]): string {
  return items.map((item) => `- ${item}`).join("\n");
}

/** A Markdown table with its columns aligned; the first row is the head. */
export function table([head = [], ...rows]: string[][]): string {
  const widths = head.map((_, column) => Math.max(3, ...[head, ...rows].map((row) => (row[column] ?? "").length)));
  const line = (cells: string[]) => `| ${cells.map((cell, i) => cell.padEnd(widths[i] ?? 0)).join(" | ")} |`;
  return [line(head), line(widths.map((width) => "-".repeat(width))), ...rows.map(line)].join("\n");
}
