// The contract of a scenario: what it compares, and how it measures one contender once.
import type { Contender } from "./contenders.ts";
import type { Options } from "./options.ts";
import type { Playground, Running } from "./site.ts";

export interface Metric {
  /** Key of its readings. */
  key: string;
  title: string;
  unit: string;
  /** Which direction is better; "neither" for a metric that only explains the others. */
  better: "higher" | "lower" | "neither";
  /** The ratio to haproxy that lb should reach (higher is better) or not exceed (lower is better). */
  wanted?: number;
  /** The metric is already a ratio of lb to itself, so `wanted` applies to the value. */
  isRatio?: true;
}

export type Readings = Record<string, number>;

export interface Scenario {
  /** One word, for --only. */
  name: string;
  /** How it is measured, in one or two sentences for the report. */
  about: string;
  contenders: Contender[];
  metrics: Metric[];
  /** Whether it reads counts and sizes, which other processes on the machine do not change. */
  ignoresOthers?: true;
  /** `direct` has a value of its own for every metric, not only for rates. */
  comparesDirect?: true;
  /** Runs once before the rounds, with the contenders that can run here. */
  prepare?(bench: Bench, contenders: Contender[]): Promise<void>;
  measure(bench: Bench, proxy: Running, contender: Contender): Promise<Readings>;
  /** Remarks after the rounds, in whole lines. */
  remarks?(): string[];
}

export interface Bench {
  options: Options;
  playground: Playground;
}
