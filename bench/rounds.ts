// Runs a scenario round by round, its contenders in alternation, each in a new process.
import { cpus } from "node:os";
import type { Contender } from "./contenders.ts";
import { ownNanoseconds } from "./processes.ts";
import { machineBusyNanoseconds } from "./procstat.ts";
import type { Bench, Readings, Scenario } from "./scenario.ts";
import { rotated } from "./statistics.ts";

export interface Outcome {
  scenario: Scenario;
  contenders: Contender[];
  /** By contender's name: one entry per round, undefined if the measurement failed. */
  readings: Map<string, (Readings | undefined)[]>;
  failures: string[];
  /** Number of measurements that other processes disturbed at every attempt. */
  disturbed: number;
  measurements: number;
}

/** If other processes use more of the machine than this, a measurement counts as disturbed and is repeated. */
export const foreignShareMax = 0.05;
const attemptsMax = 3;
/** Time limit for repeated measurements in a run, so that a machine that is never quiet does not block it. */
let againSecondsLeft = 120;
/** The machine's idle time is counted in steps of 10 ms, which is too coarse for shorter measurements. */
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

/** Repeats a measurement that others disturb; its readings do not influence that. */
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
