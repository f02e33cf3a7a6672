// Runs a scenario round by round, its contenders in alternation, each in a fresh process.
import { cpus } from "node:os";
import type { Contender } from "./contenders.ts";
import { ownNanoseconds } from "./processes.ts";
import { machineBusyNanoseconds } from "./procstat.ts";
import type { Bench, Readings, Scenario } from "./scenario.ts";
import { rotated } from "./statistics.ts";

export interface Outcome {
  scenario: Scenario;
  contenders: Contender[];
  /** By contender's name: one entry a round, undefined where the measurement failed. */
  readings: Map<string, (Readings | undefined)[]>;
  failures: string[];
  /** Measurements that other processes disturbed at every attempt. */
  disturbed: number;
  measurements: number;
}

/** With more of the machine than this used by others, a measurement counts as disturbed and is made again. */
export const foreignShareMax = 0.05;
const attemptsMax = 3;
/** What a run may spend on measuring again: a machine that is never quiet must not hold it up for ever. */
let againSecondsLeft = 120;
/** The machine's idle time is counted in steps of 10 ms: too coarse to judge what is shorter than this. */
const judgedSecondsMin = 1;

export async function runRounds(scenario: Scenario, contenders: Contender[], bench: Bench): Promise<Outcome> {
  const readings = new Map(contenders.map(({ name }) => [name, [] as (Readings | undefined)[]]));
  const outcome: Outcome = { scenario, contenders, readings, failures: [], disturbed: 0, measurements: 0 };
  try {
    await scenario.prepare?.(bench, contenders);
  } catch (error) {
    outcome.failures.push(`${scenario.name}: ${(error as Error).message}`);
    return outcome;
  }
  for (let round = 0; round < bench.options.rounds; round++) {
    for (const contender of rotated(contenders, round)) {
      console.error(`${scenario.name}, round ${round + 1} of ${bench.options.rounds}: ${contender.name}`);
      const result = await measureInPeace(scenario, contender, bench);
      readings.get(contender.name)?.push(result.readings);
      outcome.measurements++;
      if (result.isDisturbed) outcome.disturbed++;
      if (result.failure !== undefined) {
        outcome.failures.push(`${scenario.name}, ${contender.name}, round ${round + 1}: ${result.failure}`);
        console.error(`  failed: ${result.failure}`);
      }
    }
  }
  return outcome;
}

/** Measures again when others disturb it; what a measurement itself reads plays no part in that. */
async function measureInPeace(scenario: Scenario, contender: Contender, bench: Bench) {
  let result = await measureOnce(scenario, contender, bench);
  for (let attempt = 1; result.isDisturbed && attempt < attemptsMax && againSecondsLeft > 0; attempt++) {
    console.error(`  again: others took ${(result.foreignShare * 100).toFixed(0)} % of the machine`);
    result = await measureOnce(scenario, contender, bench);
    againSecondsLeft -= result.elapsedSeconds;
  }
  return result;
}

async function measureOnce(scenario: Scenario, contender: Contender, bench: Bench) {
  const before = { own: ownNanoseconds(), busy: machineBusyNanoseconds(), at: Bun.nanoseconds() };
  let readings: Readings | undefined;
  let failure: string | undefined;
  try {
    const proxy = await bench.playground.start(contender);
    try {
      readings = await scenario.measure(bench, proxy, contender);
    } finally {
      await proxy.stop();
    }
  } catch (error) {
    failure = (error as Error).message;
  }
  const foreign = machineBusyNanoseconds() - before.busy - (ownNanoseconds() - before.own);
  const elapsedSeconds = (Bun.nanoseconds() - before.at) / 1e9;
  const foreignShare = foreign / 1e9 / (elapsedSeconds * cpus().length);
  const canBeDisturbed = scenario.ignoresOthers !== true && elapsedSeconds > judgedSecondsMin;
  const isDisturbed = canBeDisturbed && foreignShare > foreignShareMax;
  return { readings, failure, foreignShare, isDisturbed, elapsedSeconds };
}
