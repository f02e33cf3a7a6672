// The contract of a scenario: what it compares, and how it measures one contender once.
import type { Contender } from "./contenders.ts";
import type { Options } from "./options.ts";
import type { Playground, Running } from "./site.ts";

export interface Metric {
  /** Key of its readings. */
  key: string;
  title: string;
  unit: string;
  /** Which way is better; "neither" for what only explains the others. */
  better: "higher" | "lower" | "neither";
  /** What lb's ratio to haproxy should reach (higher is better) or stay below (lower is better). */
  wanted?: number;
  /** It is a ratio of lb to itself already, so `wanted` is what the value itself should reach or stay below. */
  isRatio?: true;
}

export type Readings = Record<string, number>;

export interface Scenario {
  /** One word, for --only. */
  name: string;
  /** How it is measured, in a sentence or two for the report. */
  about: string;
  contenders: Contender[];
  metrics: Metric[];
  /** Whether it reads counts and sizes, which other processes on the machine do not change. */
  ignoresOthers?: true;
  /** Runs once before the rounds, with those contenders that can run here. */
  prepare?(bench: Bench, contenders: Contender[]): Promise<void>;
  measure(bench: Bench, proxy: Running, contender: Contender): Promise<Readings>;
  /** What is worth telling after the rounds, in whole lines. */
  remarks?(): string[];
}

export interface Bench {
  options: Options;
  playground: Playground;
}
