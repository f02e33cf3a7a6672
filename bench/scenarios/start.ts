// The time from start until a proxy serves.
import { haproxy, lb, nginx } from "../contenders.ts";
import type { Scenario } from "../scenario.ts";

export const start: Scenario = {
  name: "start",
  about: "From the spawn of the process to the first answer through it, asked for every quarter of a millisecond.",
  contenders: [lb, haproxy, nginx],
  metrics: [{ key: "ms", title: "start to first answer", unit: "ms", better: "lower" }],
  measure: (_bench, proxy) => Promise.resolve({ ms: proxy.startMs }),
};
