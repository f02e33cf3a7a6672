// Bytes in one direction, on one stream or many: the cost of copying.
import { direct, haproxy, haproxySplice, haproxySpliceAuto, lb, nginx } from "../contenders.ts";
import type { Contender } from "../contenders.ts";
import { Load, withLoad } from "../load.ts";
import { cpuWhile } from "../procstat.ts";
import type { Scenario } from "../scenario.ts";

const contenders = [lb, haproxy, nginx, haproxySpliceAuto, haproxySplice, direct];
export const bulk = bulkOf({ name: "bulk", streams: 1, contenders, wanted: 1.1 });
export const bulk50 = bulkOf({ name: "bulk50", streams: 50, contenders, wanted: 1.1 });

export interface Bulk {
  name: string;
  streams: number;
  contenders: Contender[];
  /** The ratio of the rates that lb should reach. */
  wanted: number;
  tls?: boolean;
}

export function bulkOf({ name, streams, contenders, wanted, tls = false }: Bulk): Scenario {
  const title = (streams === 1 ? "one bulk stream" : `${streams} bulk streams`) + (tls ? " over TLS" : "");
  const where = streams === 1 ? "on one connection" : `on ${streams} connections at once`;
  return {
    name,
    about: tls
      ? `A large file read ${where} over TLS, again and again; what comes is counted, not decrypted.`
      : `A large file read ${where}, again and again.`,
    contenders,
    metrics: [
      { key: "rate", title, unit: "GB/s", better: "higher", wanted },
      { key: "cpu", title: `CPU per GB, ${title}`, unit: "CPU s", better: "lower" },
      { key: "busy", title: `${title}: proxy's CPU in use`, unit: "%", better: "neither" },
    ],
    async measure(bench, proxy) {
      const { warmSeconds, seconds } = bench.options;
      const load = new Load(bench, "bulk", { port: proxy.port, streams, tls, warmSeconds: warmSeconds / 2, seconds });
      return await withLoad(load, async () => {
        const read = () => load.step<{ bytes: number; seconds: number }>();
        const { result, cpuNanoseconds, busyShare } = await cpuWhile(proxy, read);
        const gigabytes = result.bytes / 1e9;
        return { rate: gigabytes / result.seconds, cpu: cpuNanoseconds / 1e9 / gigabytes, busy: busyShare * 100 };
      });
    },
  };
}
