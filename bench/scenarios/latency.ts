// The latency of a small request at a rate that every contender handles easily, as a client sees it.
import { direct, haproxy, lb, nginx } from "../contenders.ts";
import { Load, withLoad, wrk } from "../load.ts";
import type { Scenario } from "../scenario.ts";

const connections = 64;
/**
 * As a share of the slowest contender's rate under wrk. A contender that answers requests as they come, and not in the batches of a
 * saturated loop, is at about half of its capacity then, and so is the generator.
 */
const shareOfMost = 0.25;
let perSecond = 0;

export const latency: Scenario = {
  name: "latency",
  comparesDirect: true,
  about:
    `Open loop over ${connections} connections: requests go out at a fixed rate, a quarter of what the slowest proxy ` +
    "did under wrk, and each latency counts from the moment at which the request was due.",
  contenders: [lb, haproxy, nginx, direct],
  metrics: [
    { key: "p50", title: "latency, median", unit: "µs", better: "lower" },
    { key: "p99", title: "latency, 99 %", unit: "µs", better: "lower" },
    { key: "p999", title: "latency, 99.9 %", unit: "µs", better: "lower", wanted: 1.2 },
    { key: "late", title: "requests sent 1 ms late or more", unit: "%", better: "neither" },
  ],
  async prepare(bench, contenders) {
    const most: number[] = [];
    for (const contender of contenders.filter(({ brand }) => brand !== "direct")) {
      const proxy = await bench.playground.start(contender);
      try {
        await wrk(bench, proxy, { connections, seconds: 1, close: false });
        most.push((await wrk(bench, proxy, { connections, seconds: 2, close: false })).perSecond);
      } finally {
        await proxy.stop();
      }
    }
    perSecond = Math.max(1000, Math.floor((Math.min(...most) * shareOfMost) / 1000) * 1000);
  },
  async measure(bench, proxy) {
    const { warmSeconds } = bench.options;
    const seconds = bench.options.seconds * 2; // enough for the 99.9th percentile
    const load = new Load(bench, "latency", { port: proxy.port, connections, perSecond, warmSeconds, seconds });
    return await withLoad(load, async () => {
      const result = await load.step<{ p50: number; p99: number; p999: number; late: number; requests: number }>();
      return { p50: result.p50, p99: result.p99, p999: result.p999, late: (result.late / result.requests) * 100 };
    });
  },
  remarks: () => [`latency: ${perSecond} requests/s`],
};
