// Shared by requests and connections: the maximum throughput under wrk, with the proxy's CPU time.
import type { Contender } from "../contenders.ts";
import { wrk } from "../load.ts";
import { cpuWhile } from "../procstat.ts";
import type { Scenario } from "../scenario.ts";

export interface Throughput {
  name: string;
  about: string;
  contenders: Contender[];
  task: { connections: number; close: boolean; tls?: boolean };
  titles: { rate: string; cpu: string };
  unit: string;
  /** The ratio of the rates that lb should reach. */
  wanted?: number;
  /** Minimum seconds of load before the measurement. */
  warmSecondsMin?: number;
}

export function throughput(throughput: Throughput): Scenario {
  const { name, about, contenders, task, titles, unit, wanted = 0.95, warmSecondsMin = 0 } = throughput;
  return {
    name,
    about,
    contenders,
    metrics: [
      { key: "rate", title: titles.rate, unit, better: "higher", wanted },
      { key: "cpu", title: titles.cpu, unit: "CPU s", better: "lower" },
      { key: "busy", title: `${titles.rate}: proxy's CPU in use`, unit: "%", better: "neither" },
    ],
    async measure(bench, proxy) {
      const { seconds } = bench.options;
      const warmSeconds = Math.max(bench.options.warmSeconds, warmSecondsMin);
      await wrk(bench, proxy, { ...task, seconds: warmSeconds });
      const { result, cpuNanoseconds, busyShare } = await cpuWhile(proxy, () =>
        wrk(bench, proxy, { ...task, seconds }),
      );
      return {
        rate: result.perSecond,
        cpu: (cpuNanoseconds / 1e9 / result.requests) * 1e6,
        busy: busyShare * 100,
      };
    },
  };
}
